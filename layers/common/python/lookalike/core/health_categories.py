"""The rule for products in a wrong category, and all rules together.

Categories that look alike have neighbours in each other, and that says nothing of their products.
So what a product's neighbours are is weighed by what those of its category usually are, and those
of every other category that it might be in: a naive Bayes classifier with as many observations as
there are neighbours, and the whole catalogue to learn from.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lookalike.core.health import (
    KINDS,
    Found,
    Rows,
    ShownProducts,
    comparable,
    low_quality,
    near_duplicates,
    never_shown,
    outliers,
    thin_categories,
)
from lookalike.core.neighbours import Neighbours
from lookalike.core.types import Scalar

MIN_EVIDENCE = 1.6
"""Mean logarithm, a neighbour, of how much likelier another category is (docs/health.md)."""

_MIN_VOTES = 5
_FOR_ITS_OWN = 0.4  # share of neighbours from which a category is not looked into
_SURE = 4.0


@dataclass(frozen=True, slots=True)
class _Votes:
    """Neighbours' categories: ``counts`` of ``categories`` from ``starts[p]`` on for product p."""

    own: npt.NDArray[np.int32]
    first: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    categories: list[int]
    counts: list[int]

    def of(self, product: int) -> list[tuple[int, int]]:
        start, end = int(self.starts[product]), int(self.starts[product + 1])
        return list(zip(self.categories[start:end], self.counts[start:end], strict=True))


class _Usual:
    """How likely a neighbour of one category is for a product of another."""

    def __init__(self, votes: _Votes, categories: int) -> None:
        self._counts: dict[tuple[int, int], float] = defaultdict(float)
        self._totals = [0.0] * categories
        for product, own in enumerate(votes.own.tolist()):
            if own >= 0:
                for category, count in votes.of(product):
                    self._counts[own, category] += count
                    self._totals[own] += count

    def log_odds(self, votes: list[tuple[int, int]], other: int, own: int) -> float:
        """How much likelier these votes are for ``other`` than for ``own``, as a logarithm."""
        return sum(count * (self._log(other, of) - self._log(own, of)) for of, count in votes)

    def _log(self, category: int, neighbour: int) -> float:
        count = self._counts.get((category, neighbour), 0.0)
        return math.log((count + 1) / (self._totals[category] + len(self._totals)))


def wrong_categories(rows: Rows, neighbours: Neighbours) -> list[Found]:
    """Products whose neighbours are those of another category rather than of their own."""
    votes = _votes(rows, neighbours)
    usual = _Usual(votes, len(rows.names))
    found = []
    for product, own in enumerate(votes.own.tolist()):
        cast = votes.of(product) if own >= 0 else []
        total = sum(count for _, count in cast)
        for_own = dict(cast).get(own, 0)
        others = [category for category, _ in cast if category != own]
        if total < _MIN_VOTES or for_own > _FOR_ITS_OWN * total or not others:
            continue
        odds = {other: usual.log_odds(cast, other, own) / total for other in others}
        likely = max(others, key=lambda other: odds[other])
        if odds[likely] >= MIN_EVIDENCE:
            for_likely = dict(cast)[likely]
            tally = _Tally(own, likely, for_own, for_likely, total, odds[likely])
            found.append(_misplaced(rows, int(votes.first[product]), tally))
    return found


@dataclass(frozen=True, slots=True)
class _Tally:
    """What the neighbours of one product say."""

    own: int
    likely: int
    for_own: int
    for_likely: int
    total: int
    odds: float


def _misplaced(rows: Rows, row: int, tally: _Tally) -> Found:
    name, likely = rows.names[tally.own], rows.names[tally.likely]
    reason = (
        f"It is in “{name}”, but looks like “{likely}”: of the {tally.total} photos most like it "
        f"{tally.for_likely} are there, and {tally.for_own or 'none'} in “{name}”."
    )
    evidence: dict[str, Scalar] = {
        "category": name,
        "likely": likely,
        "share": round(tally.for_likely / tally.total, 3),
        "share_of_own": round(tally.for_own / tally.total, 3),
        "neighbours": tally.total,
        "log_odds": round(tally.odds, 3),
    }
    weight = min(1.0, tally.odds / _SURE)
    return Found(KINDS[1], "looks-like-another", reason, weight, (row,), evidence, name)


def _votes(rows: Rows, neighbours: Neighbours) -> _Votes:
    line, other = comparable(rows, neighbours)
    votes = rows.categories[other] >= 0
    line, other = line[votes], other[votes]
    _, first, number = np.unique(rows.products, return_index=True, return_inverse=True)
    width = max(len(rows.names), 1)
    keys, counts = np.unique(
        number[line].astype(np.int64) * width + rows.categories[other], return_counts=True
    )
    starts = np.searchsorted(keys // width, np.arange(len(first) + 1))
    return _Votes(rows.categories[first], first, starts, (keys % width).tolist(), counts.tolist())


def all_findings(
    rows: Rows,
    neighbours: Neighbours,
    copies: npt.NDArray[np.void],
    shown: ShownProducts | None,
) -> dict[str, list[Found]]:
    """Every rule's findings by kind, the gravest first."""
    lonely = outliers(rows, neighbours)
    # What looks like nothing has neighbours all the same, and they say nothing of it.
    apart = {item.rows[0] for item in lonely}
    found: Sequence[list[Found]] = (
        near_duplicates(rows, copies),
        [item for item in wrong_categories(rows, neighbours) if item.rows[0] not in apart],
        lonely,
        low_quality(rows),
        never_shown(rows, shown),
        thin_categories(rows),
    )
    return {
        kind: sorted(items, key=lambda item: (-item.weight, item.rows, item.category))
        for kind, items in zip(KINDS, found, strict=True)
    }
