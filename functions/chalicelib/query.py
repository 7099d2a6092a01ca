"""The query function's searches: parse a request, search, answer."""

from __future__ import annotations

from chalice.app import Blueprint

from chalicelib.api import endpoint
from chalicelib.metrics import measure
from lookalike import wiring
from lookalike.http.message import HttpRequest
from lookalike.http.requests import read_search, read_similar
from lookalike.services.query import SearchResponse
from lookalike.services.search_request import SearchRequest

blueprint = Blueprint(__name__)


@endpoint(blueprint, "POST", "/search")
def search(request: HttpRequest) -> object:
    """Search with images, stored products and uploads."""
    return _searched(read_search(request))


@endpoint(blueprint, "GET", "/products/{product_id}/similar")
def similar(request: HttpRequest) -> object:
    """Search with one stored product."""
    return _searched(read_similar(request))


def _searched(request: SearchRequest) -> SearchResponse:
    response = wiring.services().query.search(request)
    took = response.took_ms
    stages = {
        "SearchDecode": took.get("decode"),
        "SearchEncode": took.get("encode"),
        "SearchIndex": took.get("search"),
        "SearchHydrate": took.get("hydrate"),
    }
    measured = {name: value for name, value in stages.items() if value is not None}
    measure("searched", {"SearchLatency": took["total"], **measured}, query_id=response.query_id)
    return response
