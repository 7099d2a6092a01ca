"""The query function's findings: what is likely wrong with a catalogue."""

from __future__ import annotations

from chalice.app import Blueprint

from chalicelib.api import endpoint
from lookalike import wiring
from lookalike.http.message import HttpRequest
from lookalike.http.requests import read_findings

blueprint = Blueprint(__name__)


@endpoint(blueprint, "GET", "/findings")
def findings(request: HttpRequest) -> object:
    """How many findings there are of each kind, or a page of one kind."""
    asked = read_findings(request)
    found = wiring.services().findings
    if asked.kind is None:
        return found.summary(asked.catalogue)
    return found.page(asked.catalogue, asked.kind, asked.limit, asked.cursor)
