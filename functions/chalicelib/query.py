"""The query function's searches: parse a request, search, answer."""

from __future__ import annotations

from chalice.app import Blueprint

from chalicelib.api import endpoint
from lookalike import wiring
from lookalike.http.message import HttpRequest
from lookalike.http.requests import read_search, read_similar

blueprint = Blueprint(__name__)


@endpoint(blueprint, "POST", "/search")
def search(request: HttpRequest) -> object:
    """Search with images, stored products and uploads."""
    return wiring.services().query.search(read_search(request))


@endpoint(blueprint, "GET", "/products/{product_id}/similar")
def similar(request: HttpRequest) -> object:
    """Search with one stored product."""
    return wiring.services().query.search(read_similar(request))
