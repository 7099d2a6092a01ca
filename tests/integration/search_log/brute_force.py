"""Figures of a span of the log worked out the plain way, from all its entries at once.

Shares nothing with the roll-up but the records: numpy's quantiles, floats, and the definitions.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from lookalike.core.feedback import FeedbackEntry
from lookalike.core.types import SearchRecord

Searched = tuple[SearchRecord, list[FeedbackEntry]]
QUANTILES = ("p50_ms", "p95_ms", "p99_ms")
GAIN = {"click": 1, "buy": 3, "bad": 0}


def figures(searched: Sequence[Searched]) -> dict[str, Any]:
    """Counts, shares and means of searches with the feedback on them."""
    clicks = [entry for _, feedback in searched for entry in feedback if entry.event == "click"]
    chosen = [list(_gains(*item)) for item in searched]
    chosen = [gains for gains in chosen if any(gains)]
    judged = [record for record, _ in searched if record.verdict]
    refused = sum(record.verdict == "no_good_match" for record in judged)
    took = np.array([record.took_ms["total"] for record, _ in searched])
    return {
        "searches": len(searched),
        "empty": sum(not record.results for record, _ in searched),
        "filtered": sum(bool(record.filter) for record, _ in searched),
        "kinds": dict(Counter(record.kind for record, _ in searched)),
        "verdicts": dict(Counter(record.verdict for record, _ in searched)),
        "no_good_match_share": refused / len(judged) if judged else None,
        "clicks": len(clicks),
        "buys": _events(searched, "buy"),
        "bads": _events(searched, "bad"),
        "click_through": _share(searched, "click"),
        "conversion": _share(searched, "buy"),
        "mean_click_position": float(np.mean([item.rank for item in clicks])) if clicks else None,
        "mrr": float(np.mean([_reciprocal(gains) for gains in chosen])) if chosen else None,
        "ndcg": float(np.mean([_ndcg(gains) for gains in chosen])) if chosen else None,
        "mean_ms": float(took.mean()),
        **{
            f"p{share}_ms": float(np.quantile(took, share / 100, method="inverted_cdf"))
            for share in (50, 95, 99)
        },
    }


def differences(found: Any, expected: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs: quantiles by more than 1 %, shares by more than their sums are rounded to."""
    return {
        name: (getattr(found, name), value)
        for name, value in expected.items()
        if not _is_near(getattr(found, name), value, 0.010001 if name in QUANTILES else 2e-6)
    }


def _is_near(found: Any, expected: Any, error: float) -> bool:
    if isinstance(expected, float) and isinstance(found, float):
        return math.isclose(found, expected, rel_tol=error)
    return bool(found == expected)


def products(searched: Sequence[Searched]) -> dict[str, list[tuple[str, int]]]:
    """How often each product was shown, clicked, bought and called bad, in falling order."""
    counts: dict[str, Counter[str]] = {
        "shown": Counter(name for record, _ in searched for name, _, _ in record.results)
    }
    for name, event in (("clicked", "click"), ("bought", "buy"), ("bad", "bad")):
        counts[name] = Counter(
            entry.product_id
            for _, feedback in searched
            for entry in feedback
            if entry.event == event
        )
    return {
        name: sorted(found.items(), key=lambda item: (-item[1], item[0]))
        for name, found in counts.items()
    }


def clusters(searched: Sequence[Searched]) -> dict[str, int]:
    """How many searches were nearest to each cluster."""
    return dict(Counter(record.cluster for record, _ in searched if record.cluster))


def _gains(record: SearchRecord, feedback: list[FeedbackEntry]) -> list[int]:
    return [
        max((GAIN[entry.event] for entry in feedback if entry.product_id == name), default=0)
        for name, _, _ in record.results
    ]


def _reciprocal(gains: Sequence[int]) -> float:
    return 1 / (1 + next(place for place, gain in enumerate(gains) if gain))


def _ndcg(gains: Sequence[int]) -> float:
    discounts = 1 / np.log2(np.arange(2, 12))
    ideal = sorted(gains, reverse=True)[:10]
    return float((gains[:10] * discounts[: len(gains[:10])]).sum()) / math.fsum(
        ideal * discounts[: len(ideal)]
    )


def _events(searched: Sequence[Searched], event: str) -> int:
    return sum(entry.event == event for _, feedback in searched for entry in feedback)


def _share(searched: Sequence[Searched], event: str) -> float:
    return sum(any(e.event == event for e in feedback) for _, feedback in searched) / len(searched)
