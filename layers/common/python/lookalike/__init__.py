"""Lookalike: visual product search that lives in a bucket."""

__version__ = "0.1.0"
