"""The index in memory, kept up with the registry.

Owns when to look for new segments, and what to make of them. What is given out is a snapshot
(`SearchIndex`): a later one shares with it whatever did not change, and the one before stays whole
for those who still search it.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np

from lookalike.core.base import Base
from lookalike.core.compaction import live_entries
from lookalike.core.errors import CorruptFile, Vanished
from lookalike.core.head import Head
from lookalike.core.index import MAX_CELLS, FreshRows
from lookalike.core.ports import Clock, ObjectStore, Registry
from lookalike.core.search_index import SearchIndex, ShardIndex
from lookalike.core.segment import Float32
from lookalike.core.types import Generation, Manifest
from lookalike.services.base_files import BaseFiles
from lookalike.services.index_files import IndexFiles

MAX_CATALOGUES = 32
"""Catalogues in memory; the one that was asked for least recently leaves for the next."""
MAX_RAW_ROWS = 65_536
"""Rows of a base that cannot be read up to which they are searched as they are in its runs."""
MAX_FRESH_BYTES = 400_000_000
"""Memory of rows that are in no base, of all catalogues together; one alone may have more."""
FULL_READ_S = 60.0
"""Seconds after which a registry is read in full, though nothing says that it must be.

Entries have the times of their appenders' clocks: one that is behind may be looked for too late.
"""

_ROW_BYTES = 1_000  # of a row in memory beside its embedding: key, version, attributes


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the registry says is live; ``appended`` are digests in order of commit.

    All of it was as it says at ``read_at``; what is new was asked for at ``asked_at``.
    """

    generation: Generation
    manifest: Manifest
    appended: dict[str, None]
    asked_at: float
    read_at: float


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What is in memory of a catalogue, made of what was ``wanted`` except ``refused`` files."""

    wanted: _Wanted
    index: SearchIndex
    refused: dict[str, float] = field(default_factory=dict)

    @property
    def fresh_bytes(self) -> int:
        """Memory of the rows that are in no base, about."""
        row_bytes = 4 * self.index.head.dim_out + _ROW_BYTES
        return sum(map(len, self.index.fresh)) * row_bytes


class LiveIndex:
    """The index of each catalogue's generation, no older than ``refresh_s`` when it is given out.

    Parameters
    ----------
    store
        Bucket of segments and heads.
    registry
        Says what a generation is made of.
    bases
        Opens bases.
    refresh_s
        How long an index is used before the registry is asked again.
    settle_s
        How long an append may take: as much is looked back for segments.
    pool
        Reads files side by side.
    clock
        Epoch seconds.
    threads
        Threads that search rows in no base; a base is scanned by one.
    """

    def __init__(
        self,
        store: ObjectStore,
        registry: Registry,
        bases: BaseFiles,
        refresh_s: float,
        settle_s: float,
        pool: Executor,
        clock: Clock,
        threads: int = 1,
    ) -> None:
        self._store = store
        self._registry = registry
        self._bases = bases
        self._refresh_s = refresh_s
        self._settle_s = settle_s
        self._pool = pool
        self._clock = clock
        self._threads = threads
        # One generation a catalogue: a new one takes the place of the one before. Catalogues are
        # in order of use; one that leaves lets go of its bases.
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()
        # A request that ends early leaves its refresh running when the next one begins.
        self._refreshing = threading.Lock()

    def get(self, generation: Generation, *, now: bool = False) -> SearchIndex:
        """The index of a generation.

        With ``now`` the registry is asked, and read in full, whatever was known before.

        Raises
        ------
        Vanished
            The generation was dropped.
        Unavailable
            The registry or the bucket cannot be reached.
        """
        catalogue = generation.catalogue
        with self._refreshing:
            known = self._loaded.get(catalogue)
            if known is not None and known.wanted.generation != generation:
                known = None
            at = self._clock()
            # A clock that was put back is no reason to wait until it has caught up.
            if known is None or now or not 0 <= at - known.wanted.asked_at < self._refresh_s:
                known = self._loaded[catalogue] = self._refreshed(generation, known, at, now)
                self._make_room(catalogue)
            self._loaded.move_to_end(catalogue)
        return known.index

    def may_lack(self, generation: Generation, updated_at: float) -> bool:
        """Whether a record that was decided on then may name rows that are not known here yet."""
        known = self._loaded.get(generation.catalogue)
        return known is None or known.wanted.asked_at < updated_at + self._settle_s

    def _make_room(self, catalogue: str) -> None:
        """Let catalogues go that were asked for least recently, until the others are few enough."""
        fresh_bytes = sum(loaded.fresh_bytes for loaded in self._loaded.values())
        for other, loaded in list(self._loaded.items()):
            if len(self._loaded) <= MAX_CATALOGUES and fresh_bytes <= MAX_FRESH_BYTES:
                return
            if other != catalogue:
                del self._loaded[other]
                fresh_bytes -= loaded.fresh_bytes

    def _refreshed(
        self, generation: Generation, known: _Loaded | None, at: float, full: bool
    ) -> _Loaded:
        before = known.wanted if known is not None else None
        wanted = self._wanted(generation, None if full else before, at)
        if before is not None and before.manifest.revision and not wanted.manifest.revision:
            del self._loaded[generation.catalogue]
            raise Vanished(f"generation {generation.scope} was dropped")
        refused = dict(known.refused) if known is not None else {}
        files = IndexFiles(self._store, self._bases, self._pool, generation, refused, at)
        try:
            wanted, index = self._followed(wanted, known, files)
        except (Vanished, CorruptFile):
            # The new head cannot be used. Rows from before it are better than none.
            if known is None or not len(known.index):
                raise
            kept = replace(known.wanted, asked_at=at, read_at=float("-inf"))
            return _Loaded(kept, known.index, refused)
        for rows in index.fresh:
            rows.file()
        return _Loaded(wanted, index, refused)

    def _followed(
        self, wanted: _Wanted, known: _Loaded | None, files: IndexFiles
    ) -> tuple[_Wanted, SearchIndex]:
        """What is wanted, or what has taken its place meanwhile, and the index of it."""
        try:
            return wanted, self._index(wanted, known, files)
        except Vanished:
            # What has left was replaced, and by now the registry says with what.
            files.try_once_more()
            wanted = self._wanted(wanted.generation, None, wanted.asked_at)
            return wanted, self._index(wanted, known, files)

    def _wanted(self, generation: Generation, before: _Wanted | None, at: float) -> _Wanted:
        """Ask the registry, only for what is new since it was asked last if that is enough."""
        if before is not None and not 0 <= at - before.read_at < FULL_READ_S:
            before = None
        since = before.asked_at - self._settle_s if before is not None else 0.0
        entries, manifest = self._registry.read(generation.scope, since)
        if before is not None and before.manifest.revision != manifest.revision:
            before = None
            entries, manifest = self._registry.read(generation.scope)
        found = dict.fromkeys(entry.digest for entry in live_entries(manifest, entries))
        if before is None:
            return _Wanted(generation, manifest, found, at, at)
        return _Wanted(generation, manifest, before.appended | found, at, before.read_at)

    def _index(self, wanted: _Wanted, known: _Loaded | None, files: IndexFiles) -> SearchIndex:
        """What is wanted: of what is known as far as that goes, of files for the rest."""
        generation, manifest = wanted.generation, wanted.manifest
        # Of no use under another head, nor when it does not even know the length of a row.
        if known is not None and (
            known.wanted.manifest.head != manifest.head or not len(known.index)
        ):
            known = None
        shards = known.index.shards if known is not None else ()
        old_rows = list(known.index.fresh) if known is not None else []
        digests = [wanted.appended, *_fresh_digests(manifest)]
        new = [
            digest
            for digest in dict.fromkeys(chain.from_iterable(digests))
            if files.usable(digest) and not any(digest in rows for rows in old_rows)
        ]
        files.begin_segments(new)
        heading: Future[Head] | None = None
        if known is None and manifest.head:
            heading = self._pool.submit(files.head, manifest.head)
        entries = [shard.base for shard in manifest.shards]
        named = {entry.digest for entry in entries if entry}
        open_bases = [shard.base for shard in shards if shard.base and shard.base.digest in named]
        bases = {base.digest: base for base in open_bases if not files.is_lost(base)}
        opened = files.open_bases(
            [entry for entry in entries if entry and entry.digest not in bases], manifest
        )
        if known is None and heading is not None:
            head = heading.result()
        elif known is None:
            dims = (base.dim for base in opened.values())
            head = Head.identity(next(dims, None) or files.segment_dim() or 0)
        elif (
            known.wanted.manifest.revision == manifest.revision
            and not new
            and not opened
            and len(bases) == len(open_bases)
        ):
            return known.index
        else:
            head = known.index.head
        of_shards = [(bases | opened).get(entry.digest) if entry else None for entry in entries]
        for number, (shard, base) in enumerate(zip(manifest.shards, of_shards, strict=True)):
            if shard.base is not None and base is None and shard.base.rows <= MAX_RAW_ROWS:
                # Until compaction has made another base, its rows are searched raw.
                raw = [run.digest for run in shard.covered if files.usable(run.digest)]
                files.begin_segments(raw)
                digests[number + 1] |= dict.fromkeys(raw)
        cells = [_cells(of_shards), *(_cells([base]) for base in of_shards)]
        rows = []
        for position, (wanted_here, cells_here) in enumerate(zip(digests, cells, strict=True)):
            here = old_rows[position] if position < len(old_rows) else None
            if here is None or not here.may_become(wanted_here, cells_here):
                here = FreshRows(generation.encoder, head, cells_here)
            for digest in wanted_here:
                if digest not in here and not any(here.take(other, digest) for other in old_rows):
                    files.take_segment(digest, here.add)
            rows.append(here)
        return SearchIndex(head, map(ShardIndex, of_shards, rows[1:]), rows[0], self._threads)


def _fresh_digests(manifest: Manifest) -> list[dict[str, None]]:
    return [dict.fromkeys(run.digest for run in shard.fresh) for shard in manifest.shards]


def _cells(bases: Iterable[Base | None]) -> Float32 | None:
    """The centroids of the bases' lists, unless there are too few or too many to file rows by."""
    lists = [base.centroids for base in bases if base is not None and len(base.centroids) > 1]
    if not lists or sum(map(len, lists)) > MAX_CELLS:
        return None
    return np.ascontiguousarray(np.concatenate(lists), dtype=np.float32)
