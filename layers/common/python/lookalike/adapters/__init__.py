"""Implementations of the ports: the only package that may import boto3."""
