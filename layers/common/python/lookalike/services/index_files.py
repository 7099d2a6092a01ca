"""Reads the files that an index is made of.

Owns what happens to a file that cannot be used: it is named in the log and left out, so its rows
are missing from answers, never wrong, and the others are not held up by it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TypeVar

from lookalike.core.base import Base
from lookalike.core.errors import CorruptFile, Vanished
from lookalike.core.head import Head
from lookalike.core.keys import base_key, head_key, segment_key
from lookalike.core.ports import ObjectStore
from lookalike.core.segment import Segment
from lookalike.core.types import BaseEntry, Generation, Manifest
from lookalike.services.base_files import BaseFiles
from lookalike.services.segments import read_head, read_segment

logger = logging.getLogger(__name__)

RETRY_S = 30.0
"""Seconds for which a file that could not be used is left alone."""
_OPENED_AT_ONCE = 8

T = TypeVar("T")


class IndexFiles:
    """The files of one generation, read for one refresh of its index.

    Parameters
    ----------
    store
        Bucket of segments and heads.
    bases
        Opens bases.
    pool
        Reads segments side by side.
    generation
        Whose files these are.
    refused
        Files that could not be used, and the epoch second of it; grows.
    at
        Now, in epoch seconds.
    """

    def __init__(
        self,
        store: ObjectStore,
        bases: BaseFiles,
        pool: Executor,
        generation: Generation,
        refused: dict[str, float],
        at: float,
    ) -> None:
        self._store = store
        self._bases = bases
        self._pool = pool
        self._generation = generation
        self._refused = refused
        self._at = at
        self._last_try = False
        self._reads: dict[str, Future[Segment]] = {}

    def try_once_more(self) -> None:
        """From now on a file that has left is one that cannot be used."""
        self._last_try = True
        self._reads = {
            digest: read
            for digest, read in self._reads.items()
            if not (read.done() and read.exception())
        }

    def usable(self, digest: str) -> bool:
        """Whether a segment is worth reading: it was not refused a moment ago."""
        return self._usable(segment_key(self._generation.catalogue, digest))

    def begin_segments(self, digests: Iterable[str]) -> None:
        """Start to read segments."""
        for digest in digests:
            if digest not in self._reads:
                self._reads[digest] = self._pool.submit(
                    read_segment, self._store, self._generation.catalogue, digest
                )

    def take_segment(self, digest: str, add: Callable[[str, Segment], None]) -> None:
        """Add a segment whose reading was begun, unless it cannot be used."""
        if digest not in self._reads:
            return

        def read() -> None:
            add(digest, self._reads[digest].result())

        self._use(segment_key(self._generation.catalogue, digest), read)

    def segment_dim(self) -> int | None:
        """Length of the embeddings in the first segment that can be read."""
        for read in self._reads.values():
            try:
                return int(read.result().codes.shape[1])
            except (Vanished, CorruptFile):
                continue
        return None

    def head(self, digest: str) -> Head:
        """A head of the generation's catalogue; nothing can be searched without it.

        Raises
        ------
        Vanished
            The bucket does not hold it.
        CorruptFile
            It is truncated or altered, or it was refused a moment ago.
        """
        name = head_key(self._generation.catalogue, digest)
        if not self._usable(name):
            raise CorruptFile(f"head {name} could not be used a moment ago")
        try:
            return read_head(self._store, self._generation.catalogue, digest)
        except (Vanished, CorruptFile) as error:
            if self._last_try or isinstance(error, CorruptFile):
                logger.exception("%s cannot be used", name)
                self._refused[name] = self._at
            raise

    def is_lost(self, base: Base) -> bool:
        """Whether a base that is open cannot be searched any more; then it is refused."""
        name = base_key(self._generation.catalogue, base.digest)
        if not self._bases.is_lost(name):
            return False
        logger.error("%s is altered or has left the bucket; it is left out", name)
        self._refused[name] = self._at
        return True

    def open_bases(self, entries: Iterable[BaseEntry], manifest: Manifest) -> dict[str, Base]:
        """Bases by digest, without those that cannot be used."""
        names = {entry: base_key(self._generation.catalogue, entry.digest) for entry in entries}
        entries = [entry for entry, name in names.items() if self._usable(name)]
        if not entries:
            return {}

        def opened(entry: BaseEntry) -> Base | None:
            return self._use(names[entry], lambda: self._opened(names[entry], entry, manifest))

        if len(entries) == 1:
            found = [opened(entries[0])]
        else:
            # Not in the common pool, whose threads fetch what these wait for.
            with ThreadPoolExecutor(min(len(entries), _OPENED_AT_ONCE)) as openers:
                found = list(openers.map(opened, entries))
        return {base.digest: base for base in found if base is not None}

    def _opened(self, name: str, entry: BaseEntry, manifest: Manifest) -> Base:
        base = self._bases.open(name, entry.size_bytes, entry.head_bytes)
        if (base.encoder, base.head) != (self._generation.encoder, manifest.head):
            raise CorruptFile(
                f"base {name} holds {base.encoder} embeddings under head “{base.head}”; "
                f"this index holds {self._generation.encoder} under “{manifest.head}”"
            )
        return base

    def _usable(self, name: str) -> bool:
        return self._at - self._refused.get(name, float("-inf")) >= RETRY_S

    def _use(self, name: str, read: Callable[[], T]) -> T | None:
        try:
            used = read()
        except (Vanished, CorruptFile) as error:
            if isinstance(error, Vanished) and not self._last_try:
                raise
            logger.exception("%s cannot be searched", name)
            self._refused[name] = self._at
            return None
        self._refused.pop(name, None)
        return used
