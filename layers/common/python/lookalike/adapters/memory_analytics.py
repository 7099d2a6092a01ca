"""The search log, feedback and aggregates without a network. Nothing survives it."""

from __future__ import annotations

import threading
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from typing import TypeVar

from lookalike.adapters.memory_revisions import put_unchanged
from lookalike.core.feedback import FeedbackEntry
from lookalike.core.rollups import Rollup, RollupState, TouchedHour
from lookalike.core.search_hours import Period, hour_of, shard_of
from lookalike.core.types import SearchRecord

_Entry = TypeVar("_Entry", SearchRecord, FeedbackEntry)


class MemorySearchLog:
    """The search log in dicts, one a partition."""

    def __init__(self, retention_days: int = 90) -> None:
        self._retention_s = retention_days * 86_400
        self._shards: dict[tuple[int, int], dict[str, SearchRecord]] = {}
        self._lock = threading.Lock()

    def write(self, record: SearchRecord) -> None:
        """See `lookalike.core.ports.SearchLog`."""
        with self._lock:
            self._shards.setdefault(_shard(record.query_id), {})[record.query_id] = record

    def get(self, query_id: str, now: float) -> SearchRecord | None:
        """See `lookalike.core.ports.SearchLog`."""
        try:
            record = self._shards.get(_shard(query_id), {}).get(query_id)
        except ValueError:
            return None
        return record if record is not None and self._is_live(record, now) else None

    def recent(self, limit: int, now: float) -> list[SearchRecord]:
        """See `lookalike.core.ports.SearchLog`."""
        with self._lock:
            records = [record for shard in self._shards.values() for record in shard.values()]
        newest = sorted(records, key=lambda item: item.query_id, reverse=True)
        live = [item for item in newest if item.at > now - 24 * 3600 and self._is_live(item, now)]
        return live[:limit]

    def page(
        self, hour: int, shard: int, after: str, limit: int, now: float
    ) -> tuple[list[SearchRecord], str | None]:
        """See `lookalike.core.ports.SearchLog`."""
        with self._lock:
            records, go_on = _page(self._shards.get((hour, shard), {}), after, limit)
        return [record for record in records if self._is_live(record, now)], go_on

    def delete(self, hour: int, limit: int) -> int:
        """See `lookalike.core.ports.SearchLog`."""
        with self._lock:
            return _delete(self._shards, hour, limit)

    def _is_live(self, record: SearchRecord, now: float) -> bool:
        return int(record.at) + self._retention_s > now


class MemoryFeedback:
    """Events in dicts, one a partition."""

    def __init__(self) -> None:
        self._shards: dict[tuple[int, int], dict[str, FeedbackEntry]] = {}
        self._lock = threading.Lock()

    def put(self, entry: FeedbackEntry) -> bool:
        """See `lookalike.core.ports.FeedbackTable`."""
        name = f"{entry.query_id}#{entry.event}#{entry.product_id}"
        with self._lock:
            shard = self._shards.setdefault(_shard(entry.query_id), {})
            return shard.setdefault(name, entry) is entry

    def page(
        self, hour: int, shard: int, after: str, limit: int, now: float
    ) -> tuple[list[FeedbackEntry], str | None]:
        """See `lookalike.core.ports.FeedbackTable`."""
        with self._lock:
            entries, go_on = _page(self._shards.get((hour, shard), {}), after, limit)
        return [entry for entry in entries if int(entry.expires_at) > now], go_on

    def delete(self, hour: int, limit: int) -> int:
        """See `lookalike.core.ports.FeedbackTable`."""
        with self._lock:
            return _delete(self._shards, hour, limit)


class MemoryRollups:
    """Aggregates in dicts."""

    def __init__(self) -> None:
        self._rollups: dict[tuple[str, Period], dict[int, Rollup]] = {}
        self._sizes: dict[tuple[str, int], dict[str, int]] = {}
        self._touched: dict[int, float] = {}
        self._state: dict[str, RollupState] = {}
        self._lock = threading.Lock()

    def range(self, catalogue: str, period: Period, first: int, last: int) -> list[Rollup]:
        """See `lookalike.core.ports.RollupTable`."""
        with self._lock:
            numbers = sorted(self._rollups.get((catalogue, period), {}))
            return [
                self._rollups[catalogue, period][number]
                for number in numbers[bisect_left(numbers, first) : bisect_right(numbers, last)]
            ]

    def put(self, rollup: Rollup) -> Rollup:
        """See `lookalike.core.ports.RollupTable`."""
        with self._lock:
            table = self._rollups.setdefault((rollup.catalogue, rollup.period), {})
            return put_unchanged(table, rollup.number, rollup)

    def sizes(self, catalogue: str, first: int, last: int) -> dict[int, dict[str, int]]:
        """See `lookalike.core.ports.RollupTable`."""
        with self._lock:
            known = sorted(self._sizes.items())
        return {
            day: dict(sizes)
            for (owner, day), sizes in known
            if owner == catalogue and first <= day <= last
        }

    def put_sizes(self, catalogue: str, day: int, sizes: Mapping[str, int]) -> None:
        """See `lookalike.core.ports.RollupTable`."""
        with self._lock:
            self._sizes[catalogue, day] = dict(sizes)

    def touch(self, hour: int, at: float) -> None:
        """See `lookalike.core.ports.RollupTable`."""
        with self._lock:
            self._touched[hour] = max(at, self._touched.get(hour, at))

    def touched(self) -> list[TouchedHour]:
        """See `lookalike.core.ports.RollupTable`."""
        with self._lock:
            return [TouchedHour(hour, at) for hour, at in sorted(self._touched.items())]

    def settle(self, touched: TouchedHour) -> None:
        """See `lookalike.core.ports.RollupTable`."""
        with self._lock:
            if self._touched.get(touched.hour) == touched.at:
                del self._touched[touched.hour]

    def state(self) -> RollupState | None:
        """See `lookalike.core.ports.RollupTable`."""
        return self._state.get("")

    def put_state(self, state: RollupState) -> RollupState:
        """See `lookalike.core.ports.RollupTable`."""
        with self._lock:
            return put_unchanged(self._state, "", state)


def _shard(query_id: str) -> tuple[int, int]:
    return hour_of(query_id), shard_of(query_id)


def _page(shard: Mapping[str, _Entry], after: str, limit: int) -> tuple[list[_Entry], str | None]:
    names = sorted(name for name in shard if name > after)
    page = names[:limit]
    return [shard[name] for name in page], page[-1] if len(names) > limit else None


def _delete(shards: dict[tuple[int, int], dict[str, _Entry]], hour: int, limit: int) -> int:
    names = [(key, name) for key in sorted(shards) if key[0] == hour for name in shards[key]]
    for key, name in names[:limit]:
        del shards[key][name]
    return len(names[:limit])
