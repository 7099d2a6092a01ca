"""Counts one hour of the search log: its searches in order, each with the feedback on it.

Both tables are read a page at a time in the order of query ids, so that memory holds counts and
not entries. What was counted so far can be saved at any page, and gone on with.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np

from lookalike.core.feedback import FeedbackEntry
from lookalike.core.ports import Stores
from lookalike.core.search_hours import SHARDS
from lookalike.core.shown import ShownProducts, read_shown, write_shown
from lookalike.core.tally import Tally
from lookalike.core.types import SearchRecord

PAGE = 1_000


@dataclass(frozen=True, slots=True)
class _Saved:
    tally: Tally
    shown: bytes


class HourCount:
    """What an hour's searches amount to, a catalogue."""

    def __init__(self) -> None:
        self.tallies: dict[str, Tally] = {}
        self.shown: dict[str, ShownProducts] = {}

    def observe(self, record: SearchRecord, feedback: list[FeedbackEntry]) -> None:
        """Count one search and what was said of it."""
        tally = self.tallies.get(record.catalogue)
        if tally is None:
            tally = self.tallies[record.catalogue] = Tally()
            self.shown[record.catalogue] = ShownProducts()
        known = tally.shown.counts
        new = [result[0] for result in record.results if result[0] not in known]
        if new:
            self.shown[record.catalogue].add(new)
        tally.observe(record, feedback)

    def encode(self) -> bytes:
        """All of it, to be gone on with."""
        saved = {
            name: _Saved(tally, write_shown(self.shown[name].hashes()))
            for name, tally in self.tallies.items()
        }
        return zlib.compress(msgspec.json.encode(saved), 1)

    @classmethod
    def decode(cls, data: bytes) -> HourCount:
        """What `encode` wrote."""
        count = cls()
        saved = msgspec.json.decode(zlib.decompress(data), type=dict[str, _Saved])
        for name, item in saved.items():
            count.tallies[name] = item.tally
            count.shown[name] = ShownProducts(np.array(read_shown(item.shown)))
        return count


def read_hour(
    stores: Stores, hour: int, shard: int, after: str, now: float, count: HourCount
) -> Iterator[tuple[int, str]]:
    """Count an hour from a place in it on, a page at a time.

    Parameters
    ----------
    stores
        Where searches and feedback are.
    hour
        Its number.
    shard, after
        The place: everything of earlier shards is counted, and in this one up to that query id.
    now
        Epoch seconds.
    count
        What searches are counted in.

    Yields
    ------
    tuple
        The place up to which everything has been counted.
    """
    while shard < SHARDS:
        events = _Events(stores, hour, shard, after, now)
        go_on: str | None = after
        while go_on is not None:
            records, go_on = stores.log.page(hour, shard, go_on, PAGE, now)
            for record in records:
                count.observe(record, events.of(record.query_id))
            if go_on is not None:
                yield shard, go_on
        shard, after = shard + 1, ""
        yield shard, after


class _Events:
    """The feedback on searches of one shard, which are asked for in order."""

    def __init__(self, stores: Stores, hour: int, shard: int, after: str, now: float) -> None:
        self._entries = _entries(stores, hour, shard, after, now)
        self._next = next(self._entries, None)

    def of(self, query_id: str) -> list[FeedbackEntry]:
        found = []
        while self._next is not None and self._next.query_id <= query_id:
            if self._next.query_id == query_id:
                found.append(self._next)
            self._next = next(self._entries, None)
        return found


def _entries(
    stores: Stores, hour: int, shard: int, after: str, now: float
) -> Iterator[FeedbackEntry]:
    go_on: str | None = after
    while go_on is not None:
        entries, go_on = stores.feedback.page(hour, shard, go_on, PAGE, now)
        yield from entries
