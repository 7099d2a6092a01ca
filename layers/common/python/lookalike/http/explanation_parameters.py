"""The shapes of requests for explanations and their pictures."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from lookalike.core.errors import NotFound
from lookalike.core.overlay import HeatKind, PictureFormat
from lookalike.http.message import HttpRequest
from lookalike.http.parameters import NoParameters
from lookalike.http.validation import query_parameters
from lookalike.services.explanation_pictures import (
    PICTURE_SIDES,
    PictureOf,
    PictureRequest,
)

PICTURES: dict[str, tuple[PictureOf, PictureFormat]] = {
    "query.png": ("query", "png"),
    "query.webp": ("query", "webp"),
    "result.png": ("result", "png"),
    "result.webp": ("result", "webp"),
    "pair.png": ("pair", "png"),
    "pair.webp": ("pair", "webp"),
}
_SIDES = ", ".join(map(str, PICTURE_SIDES))


class PictureParameters(Struct, kw_only=True, forbid_unknown_fields=True):
    """Query parameters of `GET /explanations/{query_id}/{product_id}/{picture}`."""

    map: Annotated[
        HeatKind,
        Meta(
            description="`gradcam`: where the network looked; `contributions`: each cell's signed "
            "share of the score; `pulls`: what pulls the score up and down. `pair` shows the first."
        ),
    ] = "gradcam"
    part: (
        Annotated[
            int,
            Meta(
                ge=0,
                description="Which image of the query, as `inputs` numbers them; by default the "
                "one with the largest share of the score.",
            ),
        ]
        | None
    ) = None
    max_side: (
        Annotated[
            int,
            Meta(
                ge=PICTURE_SIDES[0],
                le=PICTURE_SIDES[-1],
                description="The longer side of `query` or `result` in pixels, at most, rounded "
                f"down to one of {_SIDES}; by default the photo's own.",
            ),
        ]
        | None
    ) = None


def read_explanation(request: HttpRequest) -> tuple[str, str]:
    """Read ``GET /explanations/{query_id}/{product_id}``: (query id, product id)."""
    query_parameters(request.query, NoParameters)
    return request.path_parameter("query_id"), request.path_parameter("product_id")


def read_picture(request: HttpRequest) -> tuple[str, str, PictureRequest]:
    """Read ``GET /explanations/{query_id}/{product_id}/{picture}``.

    Raises
    ------
    NotFound
        There is no such picture.
    InvalidRequest
        A parameter has a value that is not allowed.
    """
    name = request.path_parameter("picture")
    if name not in PICTURES:
        raise NotFound(
            f"There is no picture “{name[:60]}”; there are: {', '.join(PICTURES)}.",
            parameter="picture",
        )
    given = query_parameters(request.query, PictureParameters)
    wanted = PictureRequest(*PICTURES[name], given.map, given.part, given.max_side)
    return request.path_parameter("query_id"), request.path_parameter("product_id"), wanted
