"""Use cases that are stopped at every call to the cloud, and what must hold in the end."""
