"""The query function's clusters: which groups a catalogue's products fall into, and their names."""

from __future__ import annotations

from chalice.app import Blueprint

from chalicelib.api import endpoint
from lookalike import wiring
from lookalike.http.message import HttpRequest
from lookalike.http.requests import read_clusters, read_rename

blueprint = Blueprint(__name__)


@endpoint(blueprint, "GET", "/clusters")
def clusters(request: HttpRequest) -> object:
    """All clusters of a catalogue, the largest first."""
    return wiring.services().clusters.list(read_clusters(request))


@endpoint(blueprint, "PATCH", "/clusters/{cluster_id}")
def rename(request: HttpRequest) -> object:
    """Give a cluster a name, or take it back."""
    return wiring.services().clusters.rename(*read_rename(request))
