"""The index in memory, kept up with the registry.

Owns when to look for new segments, and reading them.
"""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Executor

from lookalike.core.errors import CorruptFile
from lookalike.core.index import ExactIndex
from lookalike.core.keys import segment_key
from lookalike.core.ports import Clock, ObjectStore, Registry
from lookalike.core.segment import Segment
from lookalike.core.types import Generation, SegmentEntry, registry_scope
from lookalike.services.segments import read_segment

logger = logging.getLogger(__name__)


class LiveIndex:
    """Indexes by registry scope, each no older than ``refresh_s`` seconds when it is given out.

    Parameters
    ----------
    store
        Bucket of the segments.
    registry
        Says which segments are live.
    refresh_s
        How long an index is used before the registry is asked again.
    pool
        Reads new segments side by side.
    clock
        Epoch seconds.
    """

    def __init__(
        self, store: ObjectStore, registry: Registry, refresh_s: float, pool: Executor, clock: Clock
    ) -> None:
        self._store = store
        self._registry = registry
        self._refresh_s = refresh_s
        self._pool = pool
        self._clock = clock
        self._indexes: dict[str, tuple[ExactIndex, float]] = {}
        # A request that ends early leaves its refresh running when the next one begins.
        self._refreshing = threading.Lock()

    def get(self, generation: Generation, *, now: bool = False) -> ExactIndex:
        """The index of a generation.

        With ``now`` the registry is asked whatever was known before.
        """
        scope = registry_scope(generation.catalogue, generation.generation)
        with self._refreshing:
            index, asked_at = self._indexes.get(
                scope, (ExactIndex(generation.encoder, generation.dim), float("-inf"))
            )
            at = self._clock()
            if now or at - asked_at >= self._refresh_s:
                self._load(index, scope)
                self._indexes[scope] = (index, at)
        return index

    def _load(self, index: ExactIndex, scope: str) -> None:
        def read(entry: SegmentEntry) -> Segment | None:
            return read_segment(self._store, segment_key(scope, entry.digest))

        new = [item for item in self._registry.live(scope) if item.digest not in index.segments]
        for entry, segment in zip(new, self._pool.map(read, new), strict=True):
            if segment is None:
                continue
            try:
                index.add(entry.digest, segment)
            except CorruptFile:
                logger.exception("a live segment cannot be searched")
