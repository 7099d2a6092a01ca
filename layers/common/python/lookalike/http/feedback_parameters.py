"""The shape of requests that say what a shopper did with a result."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from lookalike.core.feedback import Event
from lookalike.core.keys import MAX_NAME_BYTES
from lookalike.http.message import HttpRequest
from lookalike.http.parameters import NoParameters
from lookalike.http.requests import read_body
from lookalike.http.validation import query_parameters
from lookalike.services.feedback import FeedbackRequest
from lookalike.services.search_request import MAX_K


class FeedbackBody(Struct, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /feedback`."""

    query_id: Annotated[
        str, Meta(max_length=100, description="Of the answer that showed the product.")
    ]
    product_id: Annotated[
        str, Meta(max_length=MAX_NAME_BYTES, description="The result that this is about.")
    ]
    event: Annotated[
        Event,
        Meta(
            description="`click`: it was opened; `buy`: it was bought; `bad`: it is not what was "
            "looked for."
        ),
    ]
    rank: Annotated[int, Meta(ge=1, le=MAX_K, description="The result's `rank` in the answer.")]


def read_feedback(request: HttpRequest) -> FeedbackRequest:
    """Read ``POST /feedback``.

    Raises
    ------
    MalformedBody
        The body is no JSON object.
    UnsupportedMedia
        It says that it is something else.
    InvalidRequest
        A field is missing or has a value that is not allowed.
    """
    query_parameters(request.query, NoParameters)
    body = read_body(request, FeedbackBody)
    return FeedbackRequest(body.query_id, body.product_id, body.event, body.rank)
