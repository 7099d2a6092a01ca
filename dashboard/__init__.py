"""The dashboard: search with a photo, and see what was searched for and what failed."""
