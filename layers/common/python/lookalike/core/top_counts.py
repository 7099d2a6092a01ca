"""Counts of the most frequent names, in bounded memory, mergeable.

As long as no more names come than are kept, counts are exact. When some are dropped, the largest
count among them is added to ``error``: each count may be too low by that at most, and no name that
came more often is missing. Sums of such summaries keep that promise (as Agarwal et al., Mergeable
Summaries, PODS 2012, show of Misra and Gries's, whose survivors would lose that much as well).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

BUFFER = 200_000
"""Names that are counted before some are dropped: while an hour is being read."""
KEPT = 2_000
"""Names that are stored of a period."""
KEPT_BYTES = 40_000
"""Bytes of text of the names that are stored of a period: an item of a table has 400 kB."""


@dataclass(slots=True)
class TopCounts:
    """Counts by name. ``error`` is 0 as long as they are exact."""

    counts: dict[str, int] = field(default_factory=dict)
    error: int = 0

    def add(self, names: Iterable[str]) -> None:
        """Count each name once more."""
        counts = self.counts
        for name in names:
            counts[name] = counts.get(name, 0) + 1
        if len(counts) > BUFFER:
            self._keep(BUFFER // 2)

    def merge(self, other: TopCounts) -> None:
        """Count everything that another has counted."""
        for name, count in other.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        self.error += other.error
        if len(self.counts) > BUFFER:
            self._keep(BUFFER // 2)

    def trimmed(self) -> TopCounts:
        """As few names as a table's item can hold, in falling order of their counts."""
        ranked = self.most(len(self.counts))
        size = kept = 0
        for name, _ in ranked[:KEPT]:
            size += len(name.encode())
            if size > KEPT_BYTES:
                break
            kept += 1
        dropped = ranked[kept][1] if kept < len(ranked) else 0
        return TopCounts(dict(ranked[:kept]), self.error + dropped)

    def most(self, limit: int) -> list[tuple[str, int]]:
        """The names that came most often, each with its count; ties in order of name."""
        ranked = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return ranked[:limit]

    def _keep(self, limit: int) -> None:
        """Drop the names that came least often until ``limit`` are left."""
        if len(self.counts) <= limit:
            return
        ranked = self.most(len(self.counts))
        self.error += ranked[limit][1]
        self.counts = dict(ranked[:limit])
