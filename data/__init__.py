"""What a first run needs to have something to search: a sample catalogue that is drawn by code."""
