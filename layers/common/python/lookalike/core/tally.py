"""What is counted of searches and of what shoppers did with them; tallies of any spans add up.

All sums are integers, so that a day is exactly the sum of its hours, in whatever order and however
often it is made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

from lookalike.core.feedback import FeedbackEntry, gains_of
from lookalike.core.sketch import Sketch
from lookalike.core.top_counts import TopCounts
from lookalike.core.types import SearchRecord

UNIT = 1_000_000_000
"""Sums of shares, such as reciprocal ranks, are in billionths."""
NDCG_AT = 10
SCORE_STEPS = 50
"""Buckets of best scores to a cosine of 1: steps of 0.02."""
MATCH_STEPS = 20
"""Buckets of the best results' probabilities: steps of 0.05."""
WEAKEST = 10
"""Searches that are named since nothing like them was found."""
MAX_NAMES = 2_000
"""Clusters, kinds and verdicts that are told apart; others count as ``OTHERS``."""
OTHERS = "…"


@dataclass(slots=True)
class ClusterTally:
    """Searches nearest to one cluster: how many, refused as no good match, followed by a click."""

    searches: int = 0
    refused: int = 0
    clicked: int = 0


@dataclass(slots=True)
class Tally:
    """Counts over a span of time.

    Of the searches ``empty`` found nothing, ``filtered`` had a filter, ``clicked`` and ``bought``
    were followed by such an event, ``chosen`` by either: those are what ``reciprocal_ranks`` (of
    the best ranked choice) and ``ndcg`` are sums over, in `UNIT`. ``clicks``, ``buys`` and ``bads``
    are events, ``click_ranks`` the sum of the clicks' ranks. ``took`` is in milliseconds.
    ``scores`` counts best scores and ``matches`` the best results' probabilities, by step.
    ``weakest`` are the searches with the lowest best scores: (score in `UNIT`, query id), lowest
    first. The first and last search's moments are epoch seconds, 0 when there is none.
    """

    searches: int = 0
    empty: int = 0
    filtered: int = 0
    clicked: int = 0
    bought: int = 0
    chosen: int = 0
    clicks: int = 0
    buys: int = 0
    bads: int = 0
    click_ranks: int = 0
    reciprocal_ranks: int = 0
    ndcg: int = 0
    first_at: float = 0.0
    last_at: float = 0.0
    kinds: dict[str, int] = field(default_factory=dict)
    verdicts: dict[str, int] = field(default_factory=dict)
    clusters: dict[str, ClusterTally] = field(default_factory=dict)
    scores: dict[int, int] = field(default_factory=dict)
    matches: dict[int, int] = field(default_factory=dict)
    took: Sketch = field(default_factory=Sketch)
    shown: TopCounts = field(default_factory=TopCounts)
    clicked_products: TopCounts = field(default_factory=TopCounts)
    bought_products: TopCounts = field(default_factory=TopCounts)
    bad_products: TopCounts = field(default_factory=TopCounts)
    weakest: list[tuple[int, str]] = field(default_factory=list)

    def observe(self, record: SearchRecord, feedback: Sequence[FeedbackEntry]) -> None:
        """Count one search and everything that was said of it."""
        self._span(record.at, record.at)
        self.searches += 1
        self.filtered += bool(record.filter)
        _count(self.kinds, record.kind)
        _count(self.verdicts, record.verdict)
        self.took.add(record.took_ms.get("total", 0.0))
        self.shown.add([result[0] for result in record.results])
        if record.results:
            score = record.results[0][2]
            _count_number(self.scores, math.floor(score * SCORE_STEPS))
            self._weak([(round(score * UNIT), record.query_id)])
        else:
            self.empty += 1
        if record.match is not None:
            step = min(math.floor(record.match * MATCH_STEPS), MATCH_STEPS - 1)
            _count_number(self.matches, step)
        is_clicked = any(entry.event == "click" for entry in feedback)
        if record.cluster:
            cluster = self._cluster(record.cluster)
            cluster.searches += 1
            cluster.refused += record.verdict == "no_good_match"
            cluster.clicked += is_clicked
        if feedback:
            self._observe_feedback(record, feedback, is_clicked)

    def _observe_feedback(
        self, record: SearchRecord, feedback: Sequence[FeedbackEntry], is_clicked: bool
    ) -> None:
        products = {
            event: [entry.product_id for entry in feedback if entry.event == event]
            for event in ("click", "buy", "bad")
        }
        self.clicked_products.add(products["click"])
        self.bought_products.add(products["buy"])
        self.bad_products.add(products["bad"])
        self.clicks += len(products["click"])
        self.buys += len(products["buy"])
        self.bads += len(products["bad"])
        self.click_ranks += sum(entry.rank for entry in feedback if entry.event == "click")
        self.clicked += is_clicked
        self.bought += bool(products["buy"])
        gains = gains_of(feedback)
        ranked = [gains.get(product_id, 0) for product_id, _, _ in record.results]
        best = next((rank for rank, gain in enumerate(ranked, 1) if gain), None)
        if best is not None:
            self.chosen += 1
            self.reciprocal_ranks += round(UNIT / best)
            self.ndcg += round(UNIT * ndcg_at(ranked, NDCG_AT))

    def merge(self, other: Tally) -> None:
        """Count everything that another tally has counted."""
        if not other.searches:
            return
        self._span(other.first_at, other.last_at)
        for name in _SUMS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("kinds", "verdicts"):
            for key, count in getattr(other, name).items():
                _count(getattr(self, name), key, count)
        for name in ("scores", "matches"):
            for step, count in getattr(other, name).items():
                _count_number(getattr(self, name), step, count)
        for key, theirs in other.clusters.items():
            ours = self._cluster(key)
            ours.searches += theirs.searches
            ours.refused += theirs.refused
            ours.clicked += theirs.clicked
        for name in ("took", "shown", "clicked_products", "bought_products", "bad_products"):
            getattr(self, name).merge(getattr(other, name))
        self._weak(other.weakest)

    def trim(self) -> Tally:
        """Make it what an item of a table can hold, with everything in one order; give it."""
        for name in ("kinds", "verdicts", "clusters", "scores", "matches"):
            setattr(self, name, dict(sorted(getattr(self, name).items())))
        self.took.buckets = dict(sorted(self.took.buckets.items()))
        for name in ("shown", "clicked_products", "bought_products", "bad_products"):
            setattr(self, name, getattr(self, name).trimmed())
        return self

    def _cluster(self, name: str) -> ClusterTally:
        is_room = name in self.clusters or len(self.clusters) < MAX_NAMES
        return self.clusters.setdefault(name if is_room else OTHERS, ClusterTally())

    def _span(self, first_at: float, last_at: float) -> None:
        self.first_at = min(self.first_at, first_at) if self.searches else first_at
        self.last_at = max(self.last_at, last_at)

    def _weak(self, searches: Sequence[tuple[int, str]]) -> None:
        weakest = self.weakest
        if len(weakest) == WEAKEST and min(searches, default=weakest[-1]) >= weakest[-1]:
            return
        self.weakest = sorted([*weakest, *searches])[:WEAKEST]


_SUMS = [item.name for item in fields(Tally) if item.type == "int"]


def ndcg_at(gains: Sequence[int], k: int) -> float:
    """Normalised discounted cumulative gain (Järvelin and Kekäläinen, 2002) of the first k results.

    DCG@k = Σ_{i≤k} gain_i / log₂(i + 1), divided by that of the gains in falling order.

    Parameters
    ----------
    gains
        What each result was worth, in rank order.
    k
        Cut-off, at least 1.

    Returns
    -------
    float
        In [0, 1]; 0 when no result was worth anything.
    """
    best = _discounted(sorted(gains, reverse=True)[:k])
    return _discounted(gains[:k]) / best if best else 0.0


def _discounted(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1) if gain)


def _count(counts: dict[str, int], name: str, times: int = 1) -> None:
    if name not in counts and len(counts) >= MAX_NAMES:
        name = OTHERS
    counts[name] = counts.get(name, 0) + times


def _count_number(counts: dict[int, int], number: int, times: int = 1) -> None:
    counts[number] = counts.get(number, 0) + times
