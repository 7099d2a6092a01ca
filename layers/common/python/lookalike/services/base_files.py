"""Bases of the index bucket, opened by their heads, fetched as searches need them. Owns the copies.

A search waits only for the ranges that it reads. Once it has its answer, the rest of the file is
fetched in the background, checked, and kept in a folder under its name, where every process finds
it. Copies and parts have a limit together; what was used least recently goes first. A base that is
whole stays for as long as it is searched: one that does not fit beside those is searched by parts.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from queue import SimpleQueue
from weakref import WeakValueDictionary

from lookalike.core.base import Base
from lookalike.core.errors import CorruptFile, Retry
from lookalike.core.ports import ObjectStore
from lookalike.services.ranged_file import RangedFile, remove_left_over

logger = logging.getLogger(__name__)

BACKGROUND_BYTES = 4_000_000
"""Bytes of one GET in the background."""
BACKGROUND_GETS = 2
"""GETs in the background at a time; the pool's other threads are for searches."""
IDLE_S = 300.0
"""Seconds without a search after which a base that is whole makes room for others.

Sooner, bases that take turns and do not fit together would be fetched whole over and over.
"""
_OPENING_LOCKS = 64


class BaseFiles:
    """Opens bases; one `Base` a key for as long as anybody holds it.

    Parameters
    ----------
    store
        The index bucket.
    folder
        Where whole copies are kept. Several processes may share it.
    limit_bytes
        Most bytes of the folder's copies and of the parts that this process holds, together.
    pool
        Fetches ranges; 32 threads let a cold query have all its ranges at once. Callers of `open`
        and of the bases' methods must not run in it.
    """

    def __init__(self, store: ObjectStore, folder: Path, limit_bytes: int, pool: Executor) -> None:
        self._store = store
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._pool = pool
        self._bases: WeakValueDictionary[str, Base] = WeakValueDictionary()
        self._files: WeakValueDictionary[str, RangedFile] = WeakValueDictionary()
        self._opening = tuple(threading.Lock() for _ in range(_OPENING_LOCKS))
        self._waiting: SimpleQueue[str] = SimpleQueue()
        self._queued: set[str] = set()
        self._worker: threading.Thread | None = None
        self._state = threading.Condition()
        remove_left_over(folder)

    def open(self, key: str, size_bytes: int, head_bytes: int) -> Base:
        """The base of a bucket key such as ``bases/<catalogue>/<digest>.base``.

        Parameters
        ----------
        key, size_bytes
            The object.
        head_bytes
            Length of the head, which is all that is fetched now.

        Raises
        ------
        Vanished
            The bucket does not hold it.
        CorruptFile
            It is truncated, altered or another file.
        Unavailable
            The store cannot be reached right now.
        """
        with self._opening[hash(key) % _OPENING_LOCKS]:
            base = self._bases.get(key)
            if base is None or self.is_lost(key):
                file = RangedFile(
                    self._store,
                    key,
                    size_bytes,
                    self._folder / PurePosixPath(key).name,
                    self._limit_bytes,
                    self._pool,
                    self._fetched,
                )
                base = Base(file, key, head_bytes)
                with self._state:
                    self._bases[key], self._files[key] = base, file
            return base

    def is_lost(self, key: str) -> bool:
        """Whether an open base turned out not to be in the bucket any more, or to be altered."""
        file = self._files.get(key)
        return file is not None and file.lost

    def wait(self) -> None:
        """Return when nothing is left to fetch in the background."""
        with self._state:
            self._state.wait_for(lambda: not self._queued)

    def _fetched(self, file: RangedFile) -> None:
        """A search had to wait for the store: fetch the rest behind its back."""
        with self._state:
            known = self._files.get(file.key) is file
            if known and file.key not in self._queued and self._fits(file):
                self._queued.add(file.key)
                self._waiting.put(file.key)
                if self._worker is None:
                    self._worker = threading.Thread(
                        target=self._fetch_queued, name="base-files", daemon=True
                    )
                    self._worker.start()
            self._make_room(file)

    def _fits(self, file: RangedFile) -> bool:
        """Whether a file may be held whole beside the others that are, or will be, and are used."""
        staying = [
            other.size
            for other in list(self._files.values())
            if other is not file and (other.key in self._queued or _in_use(other))
        ]
        return sum(staying) + file.size <= self._limit_bytes

    def _make_room(self, file: RangedFile) -> None:
        """Let go of what was used least recently until the rest is within the limit.

        Copies that this process does not use go first; then bases that are idle or here in parts,
        last of all the file itself. What is being fetched whole counts as if it were.
        """
        with self._state:
            files = list({*self._files.values(), file})
            copies = self._copies(file.path.suffix)
            held = sum(size for _, size in copies.values())
            for other in files:
                if other.key in self._queued:
                    held += 0 if other.path in copies else other.size
                elif not (other.is_copy and other.path in copies):
                    held += other.held_bytes
            used = {file.path, *(other.path for other in files if other.is_copy)}
            for path in sorted(copies.keys() - used, key=copies.__getitem__):
                if held <= self._limit_bytes:
                    return
                logger.info("%s makes room for %s", path.name, file.path.name)
                path.unlink(missing_ok=True)
                held -= copies[path][1]
            for other in sorted(files, key=lambda other: (other is file, other.last_used)):
                if held <= self._limit_bytes:
                    return
                if other.key not in self._queued and not _in_use(other):
                    held -= other.held_bytes
                    other.release()
                    if (base := self._bases.get(other.key)) is not None:
                        base.forget()

    def _copies(self, suffix: str) -> dict[Path, tuple[float, int]]:
        """When each copy in the folder was used last, and its size."""
        copies = {}
        for path in self._folder.glob(f"*{suffix}"):
            with suppress(OSError):
                status = path.stat()
                copies[path] = (status.st_mtime, status.st_size)
        return copies

    def _fetch_queued(self) -> None:
        while True:
            key = self._waiting.get()
            file = self._files.get(key)
            try:
                if file is not None:
                    self._fetch_rest(file)
            except (OSError, Retry, CorruptFile) as error:
                logger.warning("%s is not kept whole: %s", key, error)
            except RuntimeError as error:  # the pool has been shut down
                logger.info("%s is not kept whole: %s", key, error)
            finally:
                # Held here it would outlive its last user until the next one is queued.
                del file
                with self._state:
                    self._queued.discard(key)
                    self._state.notify_all()

    def _fetch_rest(self, file: RangedFile) -> None:
        with self._turn(file) as mine:
            if not mine:
                return  # Another process fetches it; the next search finds its copy.
            self._make_room(file)
            running: deque[Future[None]] = deque()
            for start, end in file.pieces(BACKGROUND_BYTES):
                if len(running) == BACKGROUND_GETS:
                    running.popleft().result()
                if file.key not in self._bases:
                    return  # Nobody searches it any more.
                running.append(self._pool.submit(file.fetch, start, end))
            while running:
                running.popleft().result()
            base = self._bases.get(file.key)
            if base is not None:
                base.verify()
                file.keep()

    @contextmanager
    def _turn(self, file: RangedFile) -> Iterator[bool]:
        """Whether this process is the one that fetches the file into the folder."""
        path = file.path.with_suffix(".lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError:
            yield True  # There is no folder to share.
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            yield False
            return
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)
            os.close(descriptor)


def _in_use(file: RangedFile) -> bool:
    """Whether a file was given the room to stay whole, and is searched."""
    kept = file.is_copy or not file.on_disk
    return file.whole and kept and time.time() - file.last_used < IDLE_S
