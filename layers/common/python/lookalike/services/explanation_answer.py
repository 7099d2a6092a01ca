"""What an explanation looks like in an answer: numbers cut to size, images one below the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from lookalike.core.encoders import parse_space
from lookalike.core.explanation import Explanation, Match, Side, share_of
from lookalike.core.faithfulness import Trust
from lookalike.core.geometry import seen_square
from lookalike.core.keys import parse_key
from lookalike.core.material import Box, QueryMaterial, QueryPart
from lookalike.core.types import View

Cell = tuple[int, int]

_CELL_DIGITS = 8
_SHARE_DIGITS = 6


@dataclass(frozen=True, slots=True)
class ExplanationSide:
    """One side of a match, by cells of ``grid`` (rows, columns).

    ``contributions`` are signed and add up to the score; ``gradcam`` goes from 0 to 1 in each
    image; ``pulls`` add up to 0 in each image and are below 0 where a cell pulls the score down.
    ``foreground_share`` is the share of the score that comes from ``foreground`` cells: below 0 or
    above 1 when others pull against it, null when there are none or the score is 0.
    """

    grid: Cell
    contributions: list[list[float]]
    gradcam: list[list[float]]
    pulls: list[list[float]]
    foreground: list[list[bool]]
    foreground_share: float | None


@dataclass(frozen=True, slots=True)
class ExplainedInput:
    """One image of the query, and its ``rows`` [from, to) in the grid of the query's side.

    ``input`` counts what was searched with: images, products, uploads, an earlier search; it is
    null for ``not_like``. ``coefficient`` is the image's weight in the query, below 0 for what it
    is not like, and ``share`` its share of the score. The grid lies on ``square``: left, top, width
    and height in fractions of the image, or of the crop that was searched.
    """

    part: int
    input: int | None
    kind: str
    product_id: str | None
    view: str | None
    rows: Cell
    square: Box
    coefficient: float
    share: float | None


@dataclass(frozen=True, slots=True)
class ExplanationMatch:
    """A region of the query ↔ a region of the product: ``contribution`` is its part of the score.

    Cells are (row, column) of each side's grid. Those listed are the strongest; all would add up
    to the score.
    """

    share: float | None
    contribution: float
    part: int
    query_cells: list[Cell]
    result_cells: list[Cell]


@dataclass(frozen=True, slots=True)
class ExplanationDifference:
    """A region that pulls the score down: ``side`` is ``query`` or ``result``."""

    side: str
    cells: list[Cell]
    pull: float


@dataclass(frozen=True, slots=True)
class ExplanationTrust:
    """Whether each side's Grad-CAM names the cells that matter better than chance does.

    ``query`` is of the image ``part``, the one with most of the score. The areas are under curves
    of the score as cells are left out (deletion: low is good) or put in (insertion: high is good)
    in the map's order, in random orders (chance) and from the centre outwards. All is null where
    it cannot be said: of the same photo, which has no map, and of very few cells.
    """

    better_than_chance: bool | None
    part: int
    query: Trust
    result: Trust


@dataclass(frozen=True, slots=True)
class ExplanationOverlays:
    """URLs of pictures (PNG; WebP under the same name with .webp)."""

    query: str
    result: str
    pair: str


@dataclass(frozen=True, slots=True)
class ExplanationAnswer:
    """Why a product matches a search, or does not.

    ``score`` is that of the product's photo as it is now; with ``changed_since`` that photo became
    searchable after the search. Times are epoch seconds. The result's grid lies on
    ``result_square`` of the photo: left, top, width and height in fractions.
    """

    query_id: str
    catalogue: str
    product_id: str
    view: str
    score: float
    encoder: str
    generation: str
    query: ExplanationSide
    result: ExplanationSide
    result_square: Box
    matches: list[ExplanationMatch]
    differs: list[ExplanationDifference]
    foreground_share: float | None
    background_share: float | None
    inputs: list[ExplainedInput]
    trust: ExplanationTrust
    changed_since: bool
    expires_at: float
    overlays: ExplanationOverlays


@dataclass(frozen=True, slots=True)
class Explained:
    """What is worth keeping of a pair: everything that takes feature maps to find out.

    ``key`` is the view's; ``query_trust`` is of the query's `main_part`.
    """

    key: str
    explanation: Explanation
    query_trust: Trust
    result_trust: Trust


def answer_of(
    explained: Explained, material: QueryMaterial, product_id: str, view: View, base_url: str
) -> ExplanationAnswer:
    """The answer; URLs in it begin with ``base_url``."""
    explanation = explained.explanation
    trusts = (explained.query_trust, explained.result_trust)
    here = f"{base_url}/explanations/{material.query_id}/{quote(product_id, safe='')}"
    return ExplanationAnswer(
        query_id=material.query_id,
        catalogue=material.catalogue,
        product_id=product_id,
        view=view.name,
        score=_rounded(explanation.score),
        encoder=material.encoder,
        generation=material.generation,
        query=_side(explanation.query, explanation.query_foreground_share),
        result=_side([explanation.result], explanation.result.foreground_share),
        result_square=_square(view.width, view.height, material.encoder),
        matches=[_match(match) for match in explanation.matches],
        differs=[
            ExplanationDifference(item.side, list(item.cells), _cell(item.pull))
            for item in explanation.differs
        ],
        foreground_share=_maybe(explanation.foreground_share),
        background_share=_maybe(explanation.background_share),
        inputs=_inputs(explanation, material),
        trust=ExplanationTrust(_together(trusts), main_part(explanation), *trusts),
        changed_since=view.searchable_at > material.created_at,
        expires_at=material.expires_at,
        overlays=ExplanationOverlays(*(f"{here}/{of}.png" for of in ("query", "result", "pair"))),
    )


def _side(parts: Sequence[Side], foreground_share: float | None) -> ExplanationSide:
    (rows, columns), count = parts[0].grid, len(parts)
    foreground = [list(map(bool, row)) for part in parts for row in part.foreground]
    return ExplanationSide(
        grid=(count * rows, columns),
        contributions=_stacked(part.contributions for part in parts),
        gradcam=_stacked(part.gradcam for part in parts),
        pulls=_stacked(part.pulls for part in parts),
        foreground=foreground,
        foreground_share=_maybe(foreground_share),
    )


def _together(trusts: Sequence[Trust]) -> bool | None:
    """Whether all maps are better than chance; None when that cannot be said of one."""
    said = [trust.better_than_chance for trust in trusts]
    if False in said:
        return False
    return None if None in said else True


def main_part(explanation: Explanation) -> int:
    """The image of the query with most of the score."""
    sums = [abs(float(side.contributions.sum())) for side in explanation.query]
    return sums.index(max(sums))


def _inputs(explanation: Explanation, material: QueryMaterial) -> list[ExplainedInput]:
    rows = explanation.query[0].grid[0]
    inputs = []
    for number, (part, side) in enumerate(zip(material.parts, explanation.query, strict=True)):
        named = parse_key(part.key) if part.key else None
        share = share_of(float(side.contributions.sum()), explanation.score)
        inputs.append(
            ExplainedInput(
                part=number,
                input=part.input if part.input >= 0 else None,
                kind=_kind(part),
                product_id=named.product_id if named else None,
                view=named.view if named else None,
                rows=(number * rows, (number + 1) * rows),
                square=_square(part.width, part.height, material.encoder),
                coefficient=_rounded(part.coefficient),
                share=_maybe(share),
            )
        )
    return inputs


def _kind(part: QueryPart) -> str:
    if part.input < 0:
        return "not_like"
    return "photo" if part.photo is not None else "product"


def _square(width: int, height: int, encoder: str) -> Box:
    record, _ = parse_space(encoder)
    left, top, side = seen_square(width, height, record)
    x, y = _rounded(left / width), _rounded(top / height)
    return x, y, _rounded(side / width), _rounded(side / height)


def _match(match: Match) -> ExplanationMatch:
    return ExplanationMatch(
        _maybe(match.share),
        _cell(match.contribution),
        match.query_part,
        list(match.query_cells),
        list(match.result_cells),
    )


def _stacked(grids: Iterable[npt.NDArray[np.float64]]) -> list[list[float]]:
    return [[_cell(value) for value in row] for grid in grids for row in grid.tolist()]


def _cell(value: float) -> float:
    """To so many digits that thousands of them still add up."""
    return round(value, _CELL_DIGITS)


def _rounded(value: float) -> float:
    return round(value, _SHARE_DIGITS)


def _maybe(value: float | None) -> float | None:
    return None if value is None else _rounded(value)
