"""Why a result matched: which cells of each image made the score, exactly.

Puts the closed forms of `lookalike.core.attribution` together with regions that a person can name.
What the numbers mean, and why they add up, is in docs/explanations.md. Pure arithmetic; no network
runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from lookalike.core.attribution import (
    Attribution,
    Cells,
    Pooled,
    attribute,
    pool_cells,
    region_embeddings,
)
from lookalike.core.head import Head
from lookalike.core.pooling import UNSURE_CONTRAST, border_contrast, border_saliency
from lookalike.core.regions import Bools, Float32, Float64, Indices, regions

__all__ = [
    "Cells",
    "Difference",
    "Explanation",
    "Match",
    "Side",
    "explain",
    "foreground_cells",
    "share_of",
]

MOST_LISTED = 6
LEAST_SHARE = 0.03
"""What a match must have of the score, or a difference of all that pulls it down, to be listed."""

LEAST_SCORE = 1e-6
"""Nearer to zero than this a score has no shares."""

CellList = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Side:
    """What the cells of one image have to do with the score.

    Attributes
    ----------
    grid
        (h, w) of the feature map.
    contributions
        (h, w) float64, signed; with those of the query's other images they sum to the score, as
        do the result's alone.
    gradcam
        (h, w) float64, Grad-CAM from 0 to 1; all zero where the gradient is.
    pulls
        (h, w) float64: how the score moves when the cell weighs more; sums to 0.
    foreground
        (h, w) bool: the cells that were searched, if not all were, else see `foreground_cells`.
    foreground_share
        Contributions of the foreground as a part of the score; None when there is no foreground or
        the score is nearer to zero than `LEAST_SCORE`. Not clipped to 0..1.
    residual
        The image's part of the score that its feature map does not give, shared out over the cells.
    """

    grid: tuple[int, int]
    contributions: Float64
    gradcam: Float64
    pulls: Float64
    foreground: Bools
    foreground_share: float | None
    residual: float


@dataclass(frozen=True, slots=True)
class Match:
    """A part of the query that matches a part of the result.

    ``contribution`` is what their cells have of the score together, ``share`` the same as a part of
    it (None next to a score of zero). Cells are (row, column); rows of the query are counted
    through the grids of all its images, one below the other. ``query_part`` is the image's number.
    """

    share: float | None
    contribution: float
    query_part: int
    query_cells: CellList
    result_cells: CellList


@dataclass(frozen=True, slots=True)
class Difference:
    """A part of one side that pulls the score down; ``pull`` is below zero. Cells as in `Match`."""

    side: Literal["query", "result"]
    cells: CellList
    pull: float


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a query and a result have this score.

    Attributes
    ----------
    score
        The cosine that the search ranked by, q·r.
    query
        One side for each image of the query.
    result
        The result's side.
    matches, differs
        The strongest, strongest first.
    query_foreground_share
        What the foreground of all the query's images contributes; None as in `Side`.
    foreground_share, background_share
        Parts of the score that tie foreground to foreground, and background to background; None as
        in `Side`.
    """

    score: float
    query: tuple[Side, ...]
    result: Side
    matches: tuple[Match, ...]
    differs: tuple[Difference, ...]
    query_foreground_share: float | None
    foreground_share: float | None
    background_share: float | None


def explain(query: Sequence[Cells], result: Cells, head: Head) -> Explanation:
    """Explain the score of one result.

    Parameters
    ----------
    query
        The query's images, maps of one size; q = Σ_p c_p·e_p must have length 1.
    result
        The result's image; its coefficient is not looked at.
    head
        Of the generation that was searched.
    """
    images = (*query, result)
    pooled = pool_cells(images, head)
    score, attributions = attribute(pooled[:-1], pooled[-1], head)
    sides = tuple(
        _side(image, attribution, score)
        for image, attribution in zip(images, attributions, strict=True)
    )
    looked_at = [image.weights > 0 for image in images]
    found = [regions(image.maps, chosen) for image, chosen in zip(images, looked_at, strict=True)]
    links = _Links(pooled, sides, found, head)
    return Explanation(
        score,
        sides[:-1],
        sides[-1],
        tuple(links.matches(score)),
        tuple(_differences(sides, found)),
        _foreground_share(sides[:-1], score),
        *links.tied(score),
    )


def foreground_cells(maps: Float32) -> Bools:
    """The cells that stand out from the image's border.

    Parameters
    ----------
    maps
        (C, h, w) float32.

    Returns
    -------
    Bools
        (h, w), where border saliency weighs a cell more than the plain average does; none where
        the border is too much like the middle to tell (`border_contrast`).
    """
    if border_contrast(maps[None])[0] < UNSURE_CONTRAST:
        return np.zeros(maps.shape[1:], dtype=bool)
    weights = border_saliency(maps[None])[0]
    return np.asarray(weights * weights.size > 1 + 1e-6)


def _side(image: Cells, attribution: Attribution, score: float) -> Side:
    grid = (image.maps.shape[1], image.maps.shape[2])
    weights = image.weights.astype(np.float64)
    responses = attribution.responses.reshape(grid)
    contributions = attribution.contributions.reshape(grid)
    heat = np.where(weights > 0, np.maximum(responses, 0.0), 0.0)
    # Where only some cells were searched, somebody has said what is foreground.
    chosen = image.weights > 0
    foreground = foreground_cells(image.maps) if chosen.all() else chosen
    return Side(
        grid,
        contributions,
        heat / (heat.max() or 1.0),
        weights * responses,
        foreground,
        share_of(float(contributions[foreground].sum()), score) if foreground.any() else None,
        attribution.residual,
    )


def _foreground_share(sides: Sequence[Side], score: float) -> float | None:
    """The foreground's of several images together."""
    fronts = [side.contributions[side.foreground] for side in sides]
    if not any(map(len, fronts)):
        return None
    return share_of(sum(float(front.sum()) for front in fronts), score)


def share_of(part: float, score: float) -> float | None:
    """A part of the score as a share; None where there is next to nothing to have a share of."""
    return part / score if abs(score) >= LEAST_SCORE else None


class _Links:
    """The score between parts of the query and parts of the result: sums of the bilinear form.

    c·Σ_{x in R} Σ_{y in T} w(x)·w(y)·a_q(x)·a_r(y) is the product of what R and T have of their
    embeddings, so that no cell is tied to a cell one by one.
    """

    def __init__(
        self,
        pooled: Sequence[Pooled],
        sides: Sequence[Side],
        found: Sequence[Sequence[Indices]],
        head: Head,
    ) -> None:
        self._pooled, self._sides, self._found, self._head = pooled, sides, found, head

    def _shares(self, members: Sequence[Float64]) -> list[Float64]:
        """What each group has of its image's embedding, times the coefficient: the result's last.

        ``members`` are as in `region_embeddings`, for each image.
        """
        shares = [
            region_embeddings(image, rows, self._head)
            for image, rows in zip(self._pooled, members, strict=True)
        ]
        for image, rows in zip(self._pooled[:-1], shares[:-1], strict=True):
            rows *= image.coefficient
        return shares

    def matches(self, score: float) -> Iterator[Match]:
        """The strongest links, strongest first: at most `MOST_LISTED` of each image."""
        least = max(LEAST_SHARE * abs(score), 1e-12)
        result_groups = self._found[-1]
        *ours_of, theirs_of = self._shares(
            [_members(side, groups) for side, groups in zip(self._sides, self._found, strict=True)]
        )
        ranked = []
        for part, groups in enumerate(self._found[:-1]):
            links = ours_of[part] @ theirs_of.T
            for place in np.argsort(-links, axis=None, kind="stable")[:MOST_LISTED]:
                ours, theirs = divmod(int(place), len(result_groups))
                ranked.append(
                    (float(links[ours, theirs]), part, groups[ours], result_groups[theirs])
                )
        ranked.sort(key=lambda link: -link[0])
        for contribution, part, ours_cells, theirs_cells in ranked:
            if contribution >= least:
                yield Match(
                    share_of(contribution, score),
                    contribution,
                    part,
                    _places(ours_cells, self._sides[part].grid, part),
                    _places(theirs_cells, self._sides[-1].grid),
                )

    def tied(self, score: float) -> tuple[float | None, float | None]:
        """The shares that tie foreground to foreground, and background to background."""
        fronts = [side.foreground.reshape(-1) for side in self._sides]
        if not all(front.any() for front in fronts):
            return None, None
        *ours_of, theirs_of = self._shares(
            [np.stack([front, ~front]).astype(np.float64) for front in fronts]
        )
        front, back = (
            share_of(float(sum(ours[row] @ theirs_of[row] for ours in ours_of)), score)
            for row in (0, 1)
        )
        return front, back


def _members(side: Side, groups: Sequence[Indices]) -> Float64:
    """(regions, n) float64, 1 for members."""
    rows = np.zeros((len(groups), side.foreground.size))
    for row, cells in zip(rows, groups, strict=True):
        row[cells] = 1
    return rows


def _differences(sides: Sequence[Side], found: Sequence[Sequence[Indices]]) -> Iterator[Difference]:
    """The strongest of the regions' cells that pull down, strongest first."""
    ranked: list[Difference] = []
    down = 0.0
    for part, (side, groups) in enumerate(zip(sides, found, strict=True)):
        pulls = side.pulls.reshape(-1)
        down += float(pulls[pulls < 0].sum())
        last = part == len(sides) - 1
        for group in groups:
            cells = group[pulls[group] < 0]
            if len(cells):
                places = _places(cells, side.grid, 0 if last else part)
                name: Literal["query", "result"] = "result" if last else "query"
                ranked.append(Difference(name, places, float(pulls[cells].sum())))
    ranked.sort(key=lambda difference: difference.pull)
    for difference in ranked[:MOST_LISTED]:
        if difference.pull <= LEAST_SHARE * down:
            yield difference


def _places(cells: Indices, grid: tuple[int, int], part: int = 0) -> CellList:
    """(row, column) of flat indices, rows counted from the first of the stacked grids."""
    height, width = grid
    return tuple(
        (part * height + row, column)
        for row, column in (divmod(int(cell), width) for cell in cells)
    )
