"""What a search asks for, and the bounds on it."""

from __future__ import annotations

from dataclasses import dataclass

from lookalike.core.access import ANYBODY, Caller
from lookalike.core.errors import InvalidRequest
from lookalike.core.filters import Filter
from lookalike.core.material import Box

MAX_K = 100
MAX_INPUTS = 16
MAX_CELLS = 4_096
"""Cells of a region: more than 16 photos have with any encoder."""


@dataclass(frozen=True, slots=True)
class QueryInput:
    """One of image bytes, a stored product, a presigned upload, or an earlier search.

    ``crop`` is (x, y, width, height) of the upright image, in pixels, or in fractions when no
    number is over 1; of the photo that was searched when it is an earlier search's. ``cells`` are
    (row, column) of the grid that explanations of the search ``query_id`` have for its side.
    ``weight`` is this input's share among several; one of weight 0 is not searched with.
    """

    image: bytes | None = None
    product_id: str | None = None
    upload_key: str | None = None
    crop: Box | None = None
    weight: float = 1.0
    query_id: str | None = None
    cells: tuple[tuple[int, int], ...] | None = None


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What to look for and how much to answer.

    Products in ``not_like`` are left out of the results. ``exact`` compares with every row, as the
    reference for searches that do not. With ``explain`` what explanations need is kept for a while;
    their URLs begin with ``base_url``. Earlier searches and uploads must be the caller's.
    """

    catalogue: str
    inputs: tuple[QueryInput, ...]
    k: int = 10
    filter: Filter | None = None
    not_like: tuple[str, ...] = ()
    min_score: float | None = None
    exact: bool = False
    explain: bool = True
    base_url: str = ""
    caller: Caller = ANYBODY

    @property
    def kind(self) -> str:
        """What is searched with: ``image``, ``crop``, ``product``, ``region`` or ``mixed``.

        A whole search that is repeated is a ``repeat``.
        """
        kinds = {_kind(item) for item in self.inputs if item.weight}
        return kinds.pop() if len(kinds) == 1 else "mixed"


def _kind(item: QueryInput) -> str:
    part = item.cells is not None or item.crop is not None
    if item.query_id is not None:
        return "region" if part else "repeat"
    if item.product_id is not None:
        return "product"
    return "crop" if part else "image"


def check(request: SearchRequest) -> None:
    """Raise `InvalidRequest` naming the parameter that is out of bounds."""
    if not 1 <= request.k <= MAX_K:
        raise InvalidRequest(f"k is {request.k}; it must be 1 to {MAX_K}.", parameter="k")
    if not 1 <= len(request.inputs) <= MAX_INPUTS:
        raise InvalidRequest(
            f"A search takes 1 to {MAX_INPUTS} images, products, uploads or earlier searches; "
            f"this one has {len(request.inputs)}.",
            parameter="image",
        )
    weights = [item.weight for item in request.inputs]
    if any(not 0 <= weight <= 1e6 for weight in weights) or not any(weights):
        raise InvalidRequest("Weights must be 0 or more, not all 0.", parameter="weights")
    if len(request.not_like) > MAX_INPUTS:
        raise InvalidRequest(f"At most {MAX_INPUTS} products.", parameter="not_like")
    for item in request.inputs:
        if item.crop and item.product_id is not None:
            raise InvalidRequest("A stored product cannot be cropped.", parameter="crop")
        _check_cells(item)


def _check_cells(item: QueryInput) -> None:
    if item.cells is None:
        return
    if item.query_id is None:
        raise InvalidRequest(
            "“cells” are of an earlier search; name it by “query_id”.", parameter="cells"
        )
    if item.crop is not None:
        raise InvalidRequest(
            "“cells” and “crop” both say which part of the earlier search is meant; give one.",
            parameter="cells",
        )
