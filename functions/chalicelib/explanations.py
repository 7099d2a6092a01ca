"""The query function's explanations: why a product matched a search, as numbers and pictures."""

from __future__ import annotations

from chalice.app import Blueprint

from chalicelib.api import endpoint
from lookalike import wiring
from lookalike.http.explanation_parameters import read_explanation, read_picture
from lookalike.http.message import HttpAnswer, HttpRequest, json_answer

blueprint = Blueprint(__name__)


@endpoint(blueprint, "GET", "/explanations/{query_id}/{product_id}")
def explanation(request: HttpRequest) -> object:
    """Which parts of the query and of the product made the match."""
    query_id, product_id = read_explanation(request)
    explanations = wiring.services().explanations
    found = explanations.explanation(query_id, product_id, request.base_url, request.caller)
    return json_answer(found.answer, headers=_headers(found.hit))


@endpoint(blueprint, "GET", "/explanations/{query_id}/{product_id}/{picture}")
def picture(request: HttpRequest) -> object:
    """The same on the photos."""
    found = wiring.services().explanations.picture(*read_picture(request), request.caller)
    headers = _headers(found.hit)
    if found.body is None:
        return HttpAnswer(303, headers=headers | {"Location": found.url})
    return HttpAnswer(200, found.body, found.media_type, headers)


def _headers(hit: bool) -> dict[str, str]:
    # A photo that is replaced is explained anew, and its old explanation is not to be seen again.
    return {"X-Cache": "hit" if hit else "miss", "Cache-Control": "private, no-cache"}
