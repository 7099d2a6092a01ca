"""The HTTP API without a framework: requests in, problem documents out, and its own description."""
