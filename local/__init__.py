"""The local cloud, which plays AWS on one machine from the template, and the command."""
