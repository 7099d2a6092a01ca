"""What shoppers did with results: the events there are, what they are worth, and where they apply.

An event is about one product in the answer to one search. Saying it again changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from lookalike.core.types import SearchRecord

Event = Literal["click", "buy", "bad"]
GAINS: dict[Event, int] = {"click": 1, "buy": 3, "bad": 0}
"""How relevant an event says that a result is, for nDCG; ``bad`` is a shopper's “not like that”."""


@dataclass(frozen=True, slots=True)
class FeedbackEntry:
    """One event as it is kept, as long as the search that it is about. Times are epoch seconds.

    ``rank`` counts from 1.
    """

    query_id: str
    product_id: str
    event: Event
    rank: int
    catalogue: str
    at: float
    expires_at: float


def was_shown(record: SearchRecord, product_id: str, rank: int) -> bool:
    """Whether a search showed a product at a rank, which counts from 1."""
    return 1 <= rank <= len(record.results) and record.results[rank - 1][0] == product_id


def gains_of(entries: Iterable[FeedbackEntry]) -> dict[str, int]:
    """What a search's feedback says of each product: the most that any event is worth."""
    gains: dict[str, int] = {}
    for entry in entries:
        gains[entry.product_id] = max(gains.get(entry.product_id, 0), GAINS[entry.event])
    return gains
