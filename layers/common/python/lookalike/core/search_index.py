"""One generation's index as a query sees it: head, shards, appended rows.

Owns which parts are searched and how their answers become one; each part knows how to search
itself. A snapshot: nothing in it is ever taken away or moved, and rows are only added.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import faiss
import numpy as np

from lookalike.core.base import Base
from lookalike.core.base_layout import Int64
from lookalike.core.errors import CorruptFile, LookalikeError, Vanished
from lookalike.core.filters import Filter
from lookalike.core.head import Head
from lookalike.core.index import Candidate, FreshRows, best_first
from lookalike.core.probing import lists_to_read
from lookalike.core.segment import Float32

_BASES_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class ShardIndex:
    """A shard's base, if it has one, and the rows that are not in it yet."""

    base: Base | None
    fresh: FreshRows

    def __len__(self) -> int:
        return (self.base.rows if self.base else 0) + len(self.fresh)


class SearchIndex:
    """The index of one generation.

    Parameters
    ----------
    head
        Turns raw embeddings into those that are indexed.
    shards
        As many as the head routes to.
    appended
        Rows of segments that compaction has not looked at yet, of any shard.
    threads
        Threads that search rows in no base; a base is scanned by one.
    """

    def __init__(
        self, head: Head, shards: Iterable[ShardIndex], appended: FreshRows, threads: int = 1
    ) -> None:
        self.head = head
        self.shards = tuple(shards)
        self.appended = appended
        self._threads = threads

    def __len__(self) -> int:
        return sum(map(len, self.shards)) + len(self.appended)

    @property
    def fresh(self) -> Iterator[FreshRows]:
        """Everything that is in no base: the appended rows, then those of each shard."""
        yield self.appended
        for shard in self.shards:
            yield shard.fresh

    def search(
        self,
        query: Float32,
        limit: int,
        *,
        nprobe: int = 1,
        filter: Filter | None = None,
        exact: bool = False,
        missing: list[LookalikeError] | None = None,
    ) -> list[Candidate]:
        """The rows nearest to a query, best first, ties by key, each (key, version) once.

        Parameters
        ----------
        query
            (dim,) float32, L2-normalised, in the head's output space.
        limit
            At most so many rows; fewer only when there are no more.
        nprobe
            Inverted lists of one shard that are read at least. Of several, the nearest lists of all
            are read, √shards times as many: so many more there would be of one that holds all rows.
        filter
            Only rows with attributes that pass.
        exact
            Compare with every row.
        missing
            Gets the errors of bases that cannot be read, whose rows are left out. Without it they
            are raised.

        Raises
        ------
        Vanished
            A base has left the bucket: the registry knows what has taken its place.
        CorruptFile
            A base is not what its checksums say.
        Unavailable
            The bucket cannot be reached.
        """
        # Of the calling thread alone: FAISS takes every core unless it is told.
        faiss.omp_set_num_threads(self._threads)
        query = np.ascontiguousarray(query, dtype=np.float32)
        size = limit
        while True:
            drawn = _Drawn(limit, size)
            for base, lists in self._lists(query, size, nprobe, filter, exact, drawn.lost):
                drawn.ask(partial(base.search, lists=lists), query, filter)
            for rows in self.fresh:
                fresh = partial(rows.search, nprobe=nprobe, exact=exact, floor=drawn.floor)
                drawn.ask(fresh, query, filter)
            if drawn.lost and missing is None:
                raise drawn.lost[0]
            # The same row may come from two parts, while a part has more to give.
            if len(drawn.found) >= limit or not drawn.more:
                break
            size *= 2
        if missing is not None:
            missing += drawn.lost
        return sorted(drawn.found.values(), key=best_first)[:limit]

    def embedding(
        self, key: str, version: str, missing: list[LookalikeError] | None = None
    ) -> Float32 | None:
        """The (dim,) embedding of one version of one view, if any part has it.

        ``missing`` and what is raised are as in `search`, when no part that can be read has it.
        """
        for rows in self.fresh:
            found = rows.embedding(key, version)
            if found is not None:
                return found
        lost: list[LookalikeError] = []
        for shard in self.shards:
            try:
                found = shard.base.embedding(key, version) if shard.base else None
            except (Vanished, CorruptFile) as error:
                lost.append(error)
                continue
            if found is not None:
                return found
        if lost and missing is None:
            raise lost[0]
        if missing is not None:
            missing += lost
        return None

    def _lists(
        self,
        query: Float32,
        size: int,
        nprobe: int,
        filter: Filter | None,
        exact: bool,
        lost: list[LookalikeError],
    ) -> list[tuple[Base, Int64]]:
        """The bases to search, each with its lists that are among the nearest of all."""
        bases: list[Base] = []
        passing: list[Int64] = []
        for shard in self.shards:
            if shard.base is None:
                continue
            try:
                passing.append(shard.base.passing(filter) if filter else shard.base.list_rows)
                bases.append(shard.base)
            except (Vanished, CorruptFile) as error:
                lost.append(error)
        if exact or not bases:
            return [(base, np.arange(len(base.list_rows))) for base in bases]
        chosen = lists_to_read(
            np.concatenate([base.nearness(query) for base in bases]),
            np.concatenate([base.list_rows for base in bases]),
            np.concatenate(passing) if filter else None,
            size,
            math.ceil(nprobe * math.sqrt(len(bases))),
        )
        ends = np.cumsum([len(base.list_rows) for base in bases])
        parts = [np.flatnonzero(part) for part in np.split(chosen, ends[:-1])]
        wanted = [(base, part) for base, part in zip(bases, parts, strict=True) if len(part)]
        far = [(base, part) for base, part in wanted if not base.has(part)]
        if len(far) > 1:
            # All at once rather than one base after the other. What fails will fail again when it
            # is searched, where errors are dealt with.
            with ThreadPoolExecutor(min(len(far), _BASES_AT_ONCE)) as threads:
                for base, part in far:
                    threads.submit(base.bring, part)
        return wanted


@dataclass(slots=True)
class _Drawn:
    """What the parts have answered; each is asked for ``size`` rows."""

    limit: int
    size: int
    found: dict[tuple[str, str], Candidate] = field(default_factory=dict)
    lost: list[LookalikeError] = field(default_factory=list)
    more: bool = False
    floor: float = -np.inf

    def ask(
        self, search: Callable[..., list[Candidate]], query: Float32, filter: Filter | None
    ) -> None:
        """Search a part and take in its rows."""
        try:
            rows = search(query, self.size, filter=filter)
        except (Vanished, CorruptFile) as error:
            self.lost.append(error)
            return
        for row in rows:
            name = (row.key, row.version)
            known = self.found.get(name)
            if known is None or known.score < row.score:
                self.found[name] = row
        if rows and len(rows) == self.size:
            self.more = True
            # No row below the last of these can be among the best.
            self.floor = max(self.floor, rows[-1].score)
