"""One immutable object of the bucket as a memory map that is filled range by range. Owns its bytes.

What has been fetched lies in a sparse file, or, where none can be written, in anonymous memory. The
map is only read: bytes go in with ``pwrite``, so that a full disk is an error of that call and not
the end of the process. Whole and checked, the file is kept under its name for other processes.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import tempfile
import threading
import time
import weakref
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path

import numpy as np

from lookalike.core.base_layout import UInt8
from lookalike.core.errors import CorruptFile, Vanished
from lookalike.core.ports import ObjectStore

logger = logging.getLogger(__name__)

PART_SUFFIX = ".part"
SMALLEST_GET = 256_000
"""Bytes below which a range is not split: at 90 MB/s they take a tenth of a GET's latency."""
GETS_AT_ONCE = 32
"""GETs into which one call's ranges are split at most, when they are long."""
TOUCH_S = 60.0
"""Seconds after which a copy that is still used is dated anew, for other processes to see."""


class Spans:
    """Which bytes are there: disjoint intervals, ascending."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.total = 0

    def add(self, start: int, end: int) -> None:
        """Bytes from start up to, not including, end are there."""
        first, last = bisect_left(self._ends, start), bisect_right(self._starts, end)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self.total -= sum(self._ends[first:last]) - sum(self._starts[first:last])
        self.total += end - start
        self._starts[first:last], self._ends[first:last] = [start], [end]

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """(start, end) of what is not there between start and end."""
        gaps = []
        for place in range(bisect_right(self._ends, start), len(self._starts)):
            if self._starts[place] >= end:
                break
            if self._starts[place] > start:
                gaps.append((start, self._starts[place]))
            start = self._ends[place]
        return [*gaps, (start, end)] if start < end else gaps


class _Buffer:
    """Where the bytes are. ``memory`` keeps the map alive for as long as anybody holds it."""

    def __init__(self, size: int, path: Path | None, *, whole: bool) -> None:
        self.path = path
        self.spans = Spans()
        self._file: int | None = None
        self._map: UInt8 | None = None
        if path is None:
            self._map = np.frombuffer(mmap.mmap(-1, size), dtype=np.uint8)
        elif whole:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                self.memory = _mapped(descriptor, size)
            finally:
                os.close(descriptor)
            self.spans.add(0, size)
        else:
            self._file = os.open(path, os.O_RDWR)
            # Takes back the disk's space once nobody holds this, or at the end of the process. The
            # lock goes with the process, however it ends: a part without one is left over.
            self._removal = weakref.finalize(self, _remove, self._file, path)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            os.ftruncate(self._file, size)
            self.memory = _mapped(self._file, size)
        if self._map is not None:
            self.memory = self._map.view()
            self.memory.flags.writeable = False

    def write(self, start: int, data: bytes) -> None:
        if self._map is not None:
            self._map[start : start + len(data)] = np.frombuffer(data, dtype=np.uint8)
        elif self._file is not None:
            left, at = memoryview(data), start
            while left:
                written = os.pwrite(self._file, left, at)
                left, at = left[written:], at + written
        self.spans.add(start, start + len(data))

    def drop(self) -> None:
        """Take the name away; the bytes stay for those who hold this or ``memory``."""
        if self.path is not None and self._file is not None:
            self.path.unlink(missing_ok=True)

    def keep(self, path: Path) -> None:
        """Give the file its name, which no other process sees before."""
        if self.path is not None and self._file is not None:
            self.path.replace(path)
            self.path = path
            self._removal.detach()
            os.close(self._file)
            self._file = None


class RangedFile:
    """A `lookalike.core.base.ByteSource` over an object of the bucket.

    Parameters
    ----------
    store, key, size
        The object.
    path
        Where the file is when some process has fetched all of it.
    limit_bytes
        Most bytes that are held; beyond them it begins anew.
    pool
        Fetches ranges. Its threads must not be those that wait for this.
    fetched
        Is called when a caller of `ensure` has had to wait for the store.
    """

    def __init__(
        self,
        store: ObjectStore,
        key: str,
        size: int,
        path: Path,
        limit_bytes: int,
        pool: Executor,
        fetched: Callable[[RangedFile], None],
    ) -> None:
        self.key = key
        self.size = size
        self.path = path
        self.last_used = 0.0
        self._store = store
        self._limit_bytes = limit_bytes
        self._pool = pool
        self._fetched = fetched
        self.on_disk = True
        self._buffer: _Buffer | None = None
        self._lock = threading.Lock()
        self._touched_at = 0.0
        self._gone = False
        self._refused = 0

    @property
    def held_bytes(self) -> int:
        """Bytes that are here now."""
        buffer = self._buffer
        return buffer.spans.total if buffer else 0

    @property
    def whole(self) -> bool:
        """Whether all bytes are here."""
        return self.held_bytes == self.size

    @property
    def is_copy(self) -> bool:
        """Whether the bytes here are those of the whole file at ``path``."""
        buffer = self._buffer
        return buffer is not None and buffer.path == self.path

    @property
    def lost(self) -> bool:
        """Whether the bucket does not hold the object any more, or holds an altered one."""
        return self._gone or self._refused > 1

    def ensure(self, ranges: Sequence[tuple[int, int]]) -> UInt8:
        """See `lookalike.core.base.ByteSource`."""
        buffer, gaps = self._gaps(ranges)
        if gaps:
            buffer = self._fill(buffer, ranges, gaps)
        self.last_used = time.time()
        if gaps:
            self._fetched(self)
        elif self.last_used - self._touched_at >= TOUCH_S and buffer.path == self.path:
            self._touched_at = self.last_used
            with suppress(OSError):
                os.utime(self.path)
        return buffer.memory

    def refuse(self) -> None:
        """See `lookalike.core.base.ByteSource`; a copy on disk goes too."""
        with self._lock:
            buffer, self._buffer = self._buffer, None
        if buffer is None:
            return
        buffer.drop()
        if buffer.path == self.path:
            logger.warning("the copy %s of %s is altered; it is removed", self.path, self.key)
            self.path.unlink(missing_ok=True)
        else:
            self._refused += 1

    def release(self) -> None:
        """Let go of all bytes and of the copy on disk; the next call of `ensure` begins anew."""
        with self._lock:
            buffer, self._buffer = self._buffer, None
            if buffer is not None:
                buffer.drop()
                if buffer.path == self.path:
                    self.path.unlink(missing_ok=True)

    def pieces(self, length: int) -> list[tuple[int, int]]:
        """(start, end) of everything that is missing, in pieces of at most ``length`` bytes."""
        _, gaps = self._gaps([(0, self.size)])
        return _split(gaps, length)

    def fetch(self, start: int, end: int) -> None:
        """Bring in one piece unless it came meanwhile; raises as `ensure` does."""
        buffer, gaps = self._gaps([(start, end - start)])
        for gap in gaps:
            self._write(buffer, gap, self._get(*gap))

    def keep(self) -> bool:
        """Give the whole file its name; whether it has one. The caller has checked the bytes."""
        with self._lock:
            buffer = self._buffer
            if buffer is None or buffer.spans.total < self.size or buffer.path is None:
                return False
            if buffer.path != self.path:
                buffer.keep(self.path)
            return True

    def _gaps(self, ranges: Iterable[tuple[int, int]]) -> tuple[_Buffer, list[tuple[int, int]]]:
        buffer = self._buffer
        if buffer is not None and buffer.spans.total == self.size:
            return buffer, []
        with self._lock:
            buffer = self._buffer = self._buffer or self._new_buffer()
            gaps = _missing(buffer.spans, ranges)
            if gaps and buffer.path != self.path and self.path.exists():
                # Another process has fetched it all meanwhile.
                kept = self._kept()
                if kept is not None:
                    buffer, gaps = kept, []
                    self._buffer = kept
            return buffer, gaps

    def _fill(
        self, buffer: _Buffer, ranges: Sequence[tuple[int, int]], gaps: list[tuple[int, int]]
    ) -> _Buffer:
        needed = sum(end - start for start, end in gaps)
        if buffer.spans.total and buffer.spans.total + needed > self._limit_bytes:
            with self._lock:
                buffer.drop()
                buffer = self._buffer = self._new_buffer()
            gaps = _missing(buffer.spans, ranges)
            needed = sum(end - start for start, end in gaps)
        pieces = _split(gaps, max(SMALLEST_GET, -(-needed // GETS_AT_ONCE)))
        waiting = [self._pool.submit(self._get, *piece) for piece in pieces]
        try:
            for piece, future in zip(pieces, waiting, strict=True):
                data = future.result()
                try:
                    self._write(buffer, piece, data)
                except OSError as error:
                    buffer = self._off_disk(buffer, error)
                    return self._fill(buffer, ranges, _missing(buffer.spans, ranges))
        finally:
            for future in waiting:
                future.cancel()
        return buffer

    def _off_disk(self, buffer: _Buffer, error: OSError) -> _Buffer:
        logger.warning("no copy of %s is kept on disk: %s", self.key, error)
        with self._lock:
            buffer.drop()
            self.on_disk = False
            self._buffer = _Buffer(self.size, None, whole=False)
            return self._buffer

    def _get(self, start: int, end: int) -> bytes:
        data = self._store.get_range(self.key, start, end - start)
        if data is None:
            self._gone = True
            raise Vanished(f"base {self.key} has left the bucket while it was in use")
        if len(data) != end - start:
            raise CorruptFile(
                f"base {self.key} is truncated: of {end - start} bytes from {start} "
                f"the bucket gives {len(data)}"
            )
        return data

    def _write(self, buffer: _Buffer, piece: tuple[int, int], data: bytes) -> None:
        with self._lock:
            # Bytes that have been checked are never written over.
            for start, end in buffer.spans.missing(*piece):
                buffer.write(start, data[start - piece[0] : end - piece[0]])

    def _new_buffer(self) -> _Buffer:
        kept = self._kept()
        if kept is not None:
            return kept
        if self.on_disk:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                descriptor, part = tempfile.mkstemp(
                    PART_SUFFIX, self.path.stem + ".", self.path.parent
                )
                os.close(descriptor)
                return _Buffer(self.size, Path(part), whole=False)
            except OSError as error:
                logger.warning("no copy of %s is kept on disk: %s", self.key, error)
                self.on_disk = False
        return _Buffer(self.size, None, whole=False)

    def _kept(self) -> _Buffer | None:
        """The file that some process has fetched whole."""
        try:
            if self.path.stat().st_size != self.size:
                return None
            os.utime(self.path)
            return _Buffer(self.size, self.path, whole=True)
        except OSError:
            return None


def remove_left_over(folder: Path) -> None:
    """Remove parts in a folder whose process has ended."""
    for part in folder.glob(f"*{PART_SUFFIX}"):
        try:
            descriptor = os.open(part, os.O_RDWR)
        except OSError:
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink(missing_ok=True)
        except OSError:
            continue
        finally:
            os.close(descriptor)


def _remove(descriptor: int, path: Path) -> None:
    path.unlink(missing_ok=True)
    os.close(descriptor)


def _mapped(descriptor: int, size: int) -> UInt8:
    return np.frombuffer(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ), dtype=np.uint8)


def _missing(spans: Spans, ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """What is not there of (start, length) ranges: ascending, neighbours joined."""
    gaps: list[tuple[int, int]] = []
    for start, length in sorted(ranges):
        for first, end in spans.missing(start, start + length):
            if gaps and first <= gaps[-1][1]:
                gaps[-1] = (gaps[-1][0], max(gaps[-1][1], end))
            else:
                gaps.append((first, end))
    return gaps


def _split(gaps: Iterable[tuple[int, int]], length: int) -> list[tuple[int, int]]:
    return [(at, min(at + length, end)) for start, end in gaps for at in range(start, end, length)]
