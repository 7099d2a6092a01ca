"""The query function's uploads: a presigned form for images that are too large for a request."""

from __future__ import annotations

from chalice.app import Blueprint

from chalicelib.api import endpoint
from lookalike import wiring
from lookalike.http.message import HttpRequest, json_answer
from lookalike.http.parameters import NoParameters
from lookalike.http.validation import query_parameters

blueprint = Blueprint(__name__)


@endpoint(blueprint, "POST", "/uploads")
def create_upload(request: HttpRequest) -> object:
    """A presigned form that admits one query image."""
    query_parameters(request.query, NoParameters)
    return json_answer(wiring.services().uploads.create(request.caller), status=201)
