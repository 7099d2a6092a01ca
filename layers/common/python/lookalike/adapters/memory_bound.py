"""Bounds the memory that a block of code may add to this process, by the kernel's own limit."""

from __future__ import annotations

import mmap
import os
import resource
import sys
import threading

_LINUX = sys.platform == "linux"
_DATA_FIELD = 5
_RESERVE_BYTES = 4_000_000
_PRIVATE = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS


class MemoryBound:
    """A context in which it is a `MemoryError` to take more than so many bytes (on Linux alone).

    What counts are private writable pages (``RLIMIT_DATA``), used or only reserved. The limit is
    the process's: blocks that overlap, of whatever bound, have that of the first together.

    Parameters
    ----------
    max_bytes
        What may be added to what the process has when the block begins.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    def __enter__(self) -> None:
        if _LINUX:
            _limit.begin(self._max_bytes)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        if _LINUX:
            _limit.end()


class _Limit:
    """The process's limit, and how many blocks are within it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        self._reserve: mmap.mmap | None = None

    def begin(self, max_bytes: int) -> None:
        with self._lock:
            if self._inside == 0:
                self._set(max_bytes)
            self._inside += 1  # not if this failed: then there is no block to leave

    def end(self) -> None:
        # There may be no memory left, not even for the tuple of `*_` or for taking the lock.
        if self._reserve is not None:
            self._reserve.close()
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                resource.setrlimit(resource.RLIMIT_DATA, self._before)

    def _set(self, max_bytes: int) -> None:
        self._reserve = mmap.mmap(-1, _RESERVE_BYTES, flags=_PRIVATE)
        soft, hard = self._before = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = _data_pages() * resource.getpagesize() + max_bytes
        if soft == resource.RLIM_INFINITY or wanted < soft:
            resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


_limit = _Limit()


def _data_pages() -> int:
    """Private writable pages of this process, as the kernel counts them for the limit."""
    statm = os.open("/proc/self/statm", os.O_RDONLY)
    try:
        return int(os.read(statm, 256).split()[_DATA_FIELD])
    finally:
        os.close(statm)
