"""Carries out one step of a compaction plan. Each ends in one conditional write of the manifest.

Whoever loses that write has done nothing but leave files that nobody names.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

import numpy as np

from lookalike.core.base_build import BaseRows, build_base
from lookalike.core.base_layout import decode_head as decode_base_head
from lookalike.core.compaction import (
    RUN_ROWS,
    CompactionPolicy,
    Rebuild,
    absorbed,
    blocked_shard,
    is_due,
    swapped,
)
from lookalike.core.errors import CorruptFile
from lookalike.core.head import Head
from lookalike.core.keys import base_key
from lookalike.core.ports import Clock, Stores
from lookalike.core.segment import Float32, Segment
from lookalike.core.types import (
    Attributes,
    BaseEntry,
    Generation,
    Manifest,
    Run,
    SegmentEntry,
    Shard,
)
from lookalike.services.raw_rows import LiveRows, Mask, Numbers, RowReader, Rows, RunWriter, Seen

logger = logging.getLogger(__name__)

MAX_PROJECTED_BYTES = 800_000_000
"""Embeddings of one shard that a rebuild holds as float32; the functions' memory allows for it."""

_FILE_TYPE = "application/octet-stream"
_READ_AT_ONCE = 64
_REWRITE_SHARE = 0.1  # a run is written anew when more than so much of it is dead


@dataclass(slots=True)
class Outcome:
    """What the steps of one scope have done.

    ``blocked`` names files and shards that this call must leave alone, ``lost`` bases to replace.
    """

    merged_segments: int = 0
    merged_rows: int = 0
    bases: int = 0
    dropped_rows: int = 0
    deleted_objects: int = 0
    blocked: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)


class Steps:
    """The steps on one scope, under one revision of its manifest.

    Parameters
    ----------
    stores
        Where to read and write.
    generation
        The scope's.
    manifest
        As it was read; every step must be planned on it.
    head
        What the manifest names.
    policy
        Thresholds.
    pool
        Runs calls side by side.
    clock
        Epoch seconds.
    outcome
        Counts what is done.
    """

    def __init__(
        self,
        stores: Stores,
        generation: Generation,
        manifest: Manifest,
        head: Head | None,
        policy: CompactionPolicy,
        pool: Executor,
        clock: Clock,
        outcome: Outcome,
    ) -> None:
        self._stores = stores
        self._generation = generation
        self._manifest = manifest
        self._head = head
        self._policy = policy
        self._pool = pool
        self._clock = clock
        self._outcome = outcome
        self._reader = RowReader(stores, generation, manifest)

    def merge(self, entries: Sequence[SegmentEntry]) -> None:
        """Appended segments → one run a shard, along with small runs that lie there."""
        sources, read = self._read_all([(entry.digest, entry.committed_at) for entry in entries])
        merged = [entry for entry in entries if entry.digest in read]
        if not merged:
            return
        shards = self._distribute(sources, list(self._manifest.shards))
        self._swap(shards, merged)
        self._stores.registry.remove(merged)
        self._outcome.merged_segments += len(merged)
        self._outcome.merged_rows += sum(map(len, sources))

    def route(self, runs: Sequence[Run]) -> None:
        """Runs of the last shard, which the head does not know → the shards it routes to."""
        *shards, unrouted = self._manifest.shards
        sources, read = self._read_all([(run.digest, run.newest_at) for run in runs])
        left = tuple(run for run in unrouted.fresh if run.digest not in read)
        if read or not left:
            shards = self._distribute(sources, shards)
            self._swap([*shards, *([Shard(fresh=left)] if left else [])])

    def rebuild(self, step: Rebuild) -> None:
        """All rows of a shard that count → a base, and runs that hold them raw."""
        shard = self._manifest.shards[step.shard]
        if self._is_too_large(step.shard, shard):
            self._outcome.blocked.add(blocked_shard(step.shard))
            return
        lost = self._lost_key(shard)
        if lost:
            # No row is in it any more: those of runs that cannot be read just now come back later.
            shard = Shard(fresh=shard.runs)
        gathered = _Gathered(
            self._stores, self._generation, self._clock, self._policy.base_rows, _rows(shard.runs)
        )
        unreadable = self._gather(shard.fresh, gathered)
        fresh = _rows(run for run in shard.fresh if run not in unreadable)
        pointless = bool(unreadable) and not lost and not is_due(shard, fresh, self._policy)
        # Rows of a covered run that cannot be read are in the base, which must stay for them.
        if pointless or self._gather(shard.covered, gathered):
            self._note_unreadable()
            self._outcome.blocked.add(blocked_shard(step.shard))
            return
        self._note_unreadable()
        rebuilt = self._built(step, shard, gathered, unreadable)
        shards = list(self._manifest.shards)
        shards[step.shard] = rebuilt
        self._swap(shards)
        self._outcome.lost.discard(lost)
        self._outcome.bases += rebuilt.base is not None
        self._outcome.dropped_rows += gathered.dropped

    def _lost_key(self, shard: Shard) -> str:
        """The key of the shard's base if it is lost, else nothing."""
        key = base_key(self._generation.catalogue, shard.base.digest) if shard.base else ""
        return key if key in self._outcome.lost else ""

    def _gather(self, runs: Sequence[Run], gathered: _Gathered) -> tuple[Run, ...]:
        """Bring rows together, run by run; gives the runs that cannot be read."""
        live = LiveRows(self._stores, self._pool)
        settled_before = self._clock() - self._policy.settle_s
        unreadable = []
        for run in runs:
            segment = self._reader.read(run.digest)
            if segment is None:
                unreadable.append(run)
                continue
            is_settled = run.newest_at <= settled_before
            # The record of a row that is younger may yet be written.
            counts = live.mask(segment) if is_settled else np.ones(len(segment), np.bool_)
            gathered.add(run, segment, counts, is_settled, self._project(segment))
        return tuple(unreadable)

    def _built(
        self, step: Rebuild, shard: Shard, gathered: _Gathered, unreadable: tuple[Run, ...]
    ) -> Shard:
        runs = gathered.runs()
        if gathered.count < max(self._policy.base_rows, 1):
            return Shard(fresh=runs + unreadable)
        lists = None if step.retrain or shard.base is None else self._lists(shard.base)
        rows = gathered.base_rows()
        built_at = self._clock()
        built = build_base(
            rows,
            encoder=self._generation.encoder,
            head=self._manifest.head,
            flat_rows=self._policy.flat_rows,
            lists=lists,
            built_at=built_at,
            generation=self._generation.generation,
        )
        key = base_key(self._generation.catalogue, built.digest)
        self._stores.index.put(key, built.data, _FILE_TYPE)
        trained = len(rows.keys) if built.trained or not shard.base else shard.base.trained_rows
        entry = BaseEntry(
            built.digest,
            len(rows.keys),
            built.lists,
            len(built.data),
            built.head_bytes,
            trained,
            max(run.newest_at for run in runs),
            built_at,
        )
        return Shard(entry, covered=runs, fresh=unreadable)

    def _distribute(self, sources: Sequence[Rows], shards: list[Shard]) -> list[Shard]:
        """The shards with these rows in runs of theirs; rows that are there twice become one."""
        parts: dict[int, list[Rows]] = {}
        seen = Seen()
        for rows in sources:
            numbers = seen.new(rows.segment, np.ones(len(rows.segment), np.bool_))
            routed = self._route(rows.segment)[numbers]
            for shard in np.unique(routed).tolist():
                chosen = Rows(rows.segment, numbers[routed == shard], rows.committed_at)
                parts.setdefault(shard, []).append(chosen)
        for number, new in parts.items():
            writer = RunWriter(self._stores, self._generation, self._clock)
            small, read = self._read_all(
                [
                    (run.digest, run.newest_at)
                    for run in absorbed(shards[number], sum(map(len, new)))
                ]
            )
            for rows in new:
                writer.add(rows)
            for rows in small:
                kept = seen.new(rows.segment, np.ones(len(rows.segment), np.bool_))
                writer.add(replace(rows, numbers=kept))
            left = tuple(run for run in shards[number].fresh if run.digest not in read)
            shards[number] = replace(shards[number], fresh=left + writer.finish())
        return shards

    def _read_all(self, sources: Sequence[tuple[str, float]]) -> tuple[list[Rows], set[str]]:
        """What can be read of (digest, newest commit) pairs, and the digests of that."""
        found: list[Rows] = []
        read: set[str] = set()
        for start in range(0, len(sources), _READ_AT_ONCE):
            some = sources[start : start + _READ_AT_ONCE]
            segments = self._pool.map(self._reader.read, [digest for digest, _ in some])
            for (digest, at), segment in zip(some, segments, strict=True):
                if segment is not None:
                    found.append(Rows(segment, np.arange(len(segment)), at))
                    read.add(digest)
        self._note_unreadable()
        return found, read

    def _swap(self, shards: Sequence[Shard], merged: Sequence[SegmentEntry] = ()) -> None:
        self._stores.registry.put_manifest(
            swapped(self._manifest, self._clock(), shards=shards, merged=merged)
        )

    def _note_unreadable(self) -> None:
        self._outcome.blocked |= self._reader.unreadable

    def _project(self, segment: Segment) -> Float32:
        raw = segment.embeddings()
        return self._head.project(raw) if self._head else Head.identity(raw.shape[1]).project(raw)

    def _route(self, segment: Segment) -> Numbers:
        if self._head is None or self._head.shards == 1:
            return np.zeros(len(segment), dtype=np.int64)
        return self._head.route(self._project(segment))

    def _is_too_large(self, number: int, shard: Shard) -> bool:
        rows = _rows(shard.runs)
        # A raw row takes a byte a dimension and a little more.
        raw = sum(run.size_bytes for run in shard.runs) // max(rows, 1)
        dim = self._head.dim_out if self._head else raw
        if rows * dim * 4 <= MAX_PROJECTED_BYTES:
            return False
        logger.warning(
            "shard %d of %s has %d rows, more than a base is built of; it waits for a re-routing",
            number,
            self._generation.scope,
            rows,
        )
        return True

    def _lists(self, base: BaseEntry) -> Float32 | None:
        """The centroids of a base, to go on with; None when they cannot be read."""
        key = base_key(self._generation.catalogue, base.digest)
        data = self._stores.index.get_range(key, 0, base.head_bytes)
        if data is None:
            return None
        try:
            return decode_base_head(data, key).centroids
        except CorruptFile:
            logger.exception("%s cannot be read; its shard is trained anew", key)
            return None


class _Gathered:
    """The rows of a shard that count: projected, and raw in runs that are kept or written anew."""

    def __init__(
        self,
        stores: Stores,
        generation: Generation,
        clock: Clock,
        base_rows: int,
        most_rows: int,
    ) -> None:
        self.count = 0
        self.dropped = 0
        self._base_rows = base_rows
        self._most_rows = most_rows
        self._seen = Seen()
        self._embeddings: Float32 | None = None
        self._keys: list[str] = []
        self._versions: list[str] = []
        self._attributes: list[Attributes] = []
        # A base is seldom rebuilt: rows whose record may yet come would hide the others' death.
        self._writers = {
            is_settled: RunWriter(stores, generation, clock) for is_settled in (True, False)
        }
        self._kept: list[Run] = []
        self._holed: list[tuple[Run, bool, Rows]] = []

    def add(
        self, run: Run, segment: Segment, counts: Mask, is_settled: bool, projected: Float32
    ) -> None:
        """Take the rows of a run that count and were not there yet."""
        numbers = self._seen.new(segment, counts)
        lost = len(segment) - len(numbers)
        self.dropped += lost
        if self._embeddings is None:
            self._embeddings = np.empty((self._most_rows, projected.shape[1]), dtype=np.float32)
        self._embeddings[self.count : self.count + len(numbers)] = projected[numbers]
        self.count += len(numbers)
        for number in numbers.tolist():
            self._keys.append(segment.keys[number])
            self._versions.append(segment.versions[number])
            self._attributes.append(segment.attributes[number])
        rows = Rows(segment, numbers, run.newest_at)
        is_small = is_settled and len(segment) < RUN_ROWS // 2
        if is_small or lost > _REWRITE_SHARE * len(segment):
            self._writers[is_settled].add(rows)
        elif lost and self.count < self._base_rows:
            self._holed.append((run, is_settled, rows))
        else:
            self._kept.append(run)

    def runs(self) -> tuple[Run, ...]:
        """The runs that hold these rows raw.

        Beside a base they may hold a few rows more. Without one they are what is searched, and
        hold no other row: rows that do not count would call for the same rebuild again.
        """
        for run, is_settled, rows in self._holed:
            if self.count < self._base_rows:
                self._writers[is_settled].add(rows)
            else:
                self._kept.append(run)
        self._holed.clear()
        written = [run for writer in self._writers.values() for run in writer.finish()]
        return tuple(self._kept + written)

    def base_rows(self) -> BaseRows:
        """What a base is built of."""
        assert self._embeddings is not None
        return BaseRows(
            self._keys, self._versions, self._embeddings[: self.count], self._attributes
        )


def _rows(runs: Iterable[Run]) -> int:
    return sum(run.rows for run in runs)
