"""Bases of the index bucket, opened by their heads, fetched as searches need them. Owns the copies.

A search waits only for the ranges that it reads. Once it has its answer, the rest of the file is
fetched in the background, checked, and kept in a folder under its name, where every process finds
it. The folder has a limit; what was opened least recently goes first. A base that does not fit is
never fetched whole.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
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


class BaseFiles:
    """Opens bases; one `Base` a key for as long as anybody holds it.

    Parameters
    ----------
    store
        The index bucket.
    folder
        Where whole copies are kept. Several processes may share it.
    limit_bytes
        Most bytes of the folder's copies together, and of what this process holds.
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
        self._opening: dict[str, threading.Lock] = {}
        self._uses = 0
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
        with self._state:
            turn = self._opening.setdefault(key, threading.Lock())
        with turn:
            base = self._bases.get(key)
            if base is None:
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

    def wait(self) -> None:
        """Return when nothing is left to fetch in the background."""
        with self._state:
            self._state.wait_for(lambda: not self._queued)

    def _fetched(self, file: RangedFile) -> None:
        """A search had to wait for the store: remember it, and fetch the rest behind its back."""
        with self._state:
            self._uses += 1
            file.last_used = self._uses
            known = self._files.get(file.key) is file
            wanted = known and file.key not in self._queued and self._fits(file)
            if wanted:
                self._queued.add(file.key)
                self._waiting.put(file.key)
                if self._worker is None:
                    self._worker = threading.Thread(
                        target=self._fetch_queued, name="base-files", daemon=True
                    )
                    self._worker.start()
        self._trim(file)

    def _fits(self, file: RangedFile) -> bool:
        """Whether a file may be held whole beside the others that are in use and whole."""
        others = [other for other in list(self._files.values()) if other is not file]
        whole = sum(other.size for other in others if other.whole or other.key in self._queued)
        return whole + file.size <= self._limit_bytes

    def _trim(self, file: RangedFile) -> None:
        """Hold no more than the limit: let go of the parts that were fetched least recently."""
        with self._state:
            files = sorted(self._files.values(), key=lambda other: other.last_used)
            held = sum(other.held_bytes for other in files)
            for other in files:
                if held <= self._limit_bytes:
                    return
                if other is not file and not other.whole:
                    held -= other.held_bytes
                    base = self._bases.get(other.key)
                    other.release()
                    if base is not None:
                        base.forget()

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
            if file.on_disk:
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

    def _make_room(self, file: RangedFile) -> None:
        """Remove the copies that were opened least recently until one more fits."""
        copies = []
        for path in self._folder.glob(f"*{file.path.suffix}"):
            with suppress(OSError):
                status = path.stat()
                copies.append((status.st_mtime, path, status.st_size))
        total = file.size + sum(size for _, path, size in copies if path != file.path)
        for _, path, size in sorted(copies):
            if total <= self._limit_bytes:
                return
            if path != file.path:
                logger.info("%s makes room for %s", path.name, file.path.name)
                path.unlink(missing_ok=True)
                total -= size
