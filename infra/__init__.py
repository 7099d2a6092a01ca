"""Builds THE template that is deployed to AWS and read by the local cloud."""
