"""A generation's raw files as they are compared with records: whole, a few at a time."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor

import numpy as np
import numpy.typing as npt

from lookalike.core.base_layout import key_hash
from lookalike.core.compaction import live_entries, swapped
from lookalike.core.keys import segment_key
from lookalike.core.ports import Stores
from lookalike.core.types import Generation, Manifest, Run, SegmentEntry, Shard
from lookalike.services.raw_rows import RowReader

logger = logging.getLogger(__name__)

_FILES_AT_ONCE = 8
_BYTES_AT_ONCE = 64 * 2**20  # the functions' memory allows for it

Hashes = npt.NDArray[np.uint64]


class RawFiles:
    """The raw files that a generation's registry names now.

    Parameters
    ----------
    stores
        Where to read and write.
    generation
        Whose files these are.
    pool
        Reads files side by side.
    """

    def __init__(self, stores: Stores, generation: Generation, pool: Executor) -> None:
        self._stores = stores
        self._catalogue = generation.catalogue
        self._entries, self._manifest = stores.registry.read(generation.scope)
        self._reader = RowReader(stores, generation, self._manifest)
        self._pool = pool

    @property
    def unreadable(self) -> set[str]:
        """Keys of the files that were not what they should be."""
        return self._reader.unreadable

    def hashes(self) -> Iterator[Hashes]:
        """Hashes of the (key, version) of every row that can be read, some files at a time.

        Raises
        ------
        Conflict
            A file is gone because somebody else has swapped it out.
        """
        batch: list[str] = []
        size = 0
        for file in raw_files(self._manifest, self._entries):
            if batch and (len(batch) == _FILES_AT_ONCE or size + file.size_bytes > _BYTES_AT_ONCE):
                yield self._read(batch)
                batch, size = [], 0
            batch.append(file.digest)
            size += file.size_bytes
        if batch:
            yield self._read(batch)

    def let_go(self, unreadable: set[str], now: float) -> None:
        """Name these files no longer: whatever counts in them is missing then.

        Raises
        ------
        Conflict
            The registry has changed since it was read.
        """

        def readable(runs: tuple[Run, ...]) -> tuple[Run, ...]:
            return tuple(
                r for r in runs if segment_key(self._catalogue, r.digest) not in unreadable
            )

        shards = [
            Shard(shard.base, readable(shard.covered), readable(shard.fresh))
            for shard in self._manifest.shards
        ]
        merged = [e for e in self._entries if segment_key(self._catalogue, e.digest) in unreadable]
        names = ", ".join(sorted(unreadable))
        logger.warning("%s goes on without %s", self._manifest.scope, names)
        after = swapped(self._manifest, now, shards=shards, merged=merged)
        self._stores.registry.put_manifest(after)

    def _read(self, digests: Sequence[str]) -> Hashes:
        def rows(digest: str) -> Hashes:
            segment = self._reader.read(digest)
            return hashed(zip(segment.keys, segment.versions, strict=True) if segment else ())

        return np.concatenate(list(self._pool.map(rows, digests)))


def hashed(rows: Iterable[tuple[str, str]]) -> Hashes:
    """One hash for each (key, version)."""
    return np.fromiter((key_hash(*row) for row in rows), np.uint64)


def raw_files(manifest: Manifest, entries: Iterable[SegmentEntry]) -> list[Run | SegmentEntry]:
    """Every raw file of a scope once, in order of digest."""
    files: dict[str, Run | SegmentEntry] = {
        run.digest: run for shard in manifest.shards for run in shard.runs
    }
    files |= {entry.digest: entry for entry in live_entries(manifest, entries)}
    return [files[digest] for digest in sorted(files)]
