"""Search logs that are made up, and what they come to when everything is in memory at once."""
