"""The index bucket and the registry in a folder, and a bucket at the end of a slow wire."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from index.wire import SlowWire

from lookalike.adapters.memory import MemoryRegistry
from lookalike.core.errors import too_large
from lookalike.core.types import ObjectInfo, SegmentEntry


class FolderObjectStore:
    """A bucket whose objects are files; a write is a new file and a rename.

    Parameters
    ----------
    folder
        Where.
    synced
        Whether file and folder are fsynced before a write returns.
    """

    def __init__(self, folder: Path, synced: bool = False) -> None:
        self._folder = folder
        self._synced = synced

    def head(self, key: str) -> ObjectInfo | None:
        path = self._folder / key
        if not path.exists():
            return None
        status = path.stat()
        return ObjectInfo(key, f"{status.st_mtime_ns:x}", status.st_size, status.st_mtime)

    def get(self, key: str, max_bytes: int) -> tuple[ObjectInfo, bytes] | None:
        info = self.head(key)
        if info is None:
            return None
        if info.size_bytes > max_bytes:
            raise too_large(info.size_bytes, max_bytes)
        return info, (self._folder / key).read_bytes()

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        try:
            with (self._folder / key).open("rb") as file:
                file.seek(start)
                return file.read(length)
        except FileNotFoundError:
            return None

    def put(self, key: str, body: bytes, content_type: str, *, if_absent: bool = False) -> None:
        path = f"{self._folder}/{key}"
        if not (if_absent and os.access(path, os.F_OK)):
            write_file(path, body, self._synced)

    def delete(self, key: str) -> None:
        (self._folder / key).unlink(missing_ok=True)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        folder = self._folder / prefix
        for path in sorted(item for item in folder.rglob("*") if item.is_file()):
            info = self.head(str(path.relative_to(self._folder)))
            if info is not None:
                yield info


class FolderRegistry(MemoryRegistry):
    """The registry, each append a file of its own."""

    def __init__(self, folder: Path, synced: bool = False) -> None:
        super().__init__()
        self._folder = folder
        self._synced = synced

    def add(self, entry: SegmentEntry) -> None:
        name = f"{entry.scope}/{int(entry.committed_at * 1e6):016x}-{entry.digest}"
        write_file(f"{self._folder}/{name}", msgspec.json.encode(entry), self._synced)
        super().add(entry)


class RemoteObjectStore:
    """A bucket whose GETs go over a slow wire."""

    def __init__(self, store: FolderObjectStore, wire: SlowWire) -> None:
        self._store = store
        self._wire = wire

    def get(self, key: str, max_bytes: int) -> tuple[ObjectInfo, bytes] | None:
        begun = time.perf_counter()
        found = self._store.get(key, max_bytes)
        self._wire.carry(len(found[1]) if found else 0, begun)
        return found

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        begun = time.perf_counter()
        data = self._store.get_range(key, start, length)
        self._wire.carry(len(data or b""), begun)
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def write_file(path: str, body: bytes, synced: bool) -> None:
    """Write a file that is there whole or not at all; with ``synced`` also after a power cut."""
    written = f"{path}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    try:
        file = os.open(written, flags, 0o644)
    except FileNotFoundError:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        file = os.open(written, flags, 0o644)
    try:
        left = memoryview(body)
        while left:
            left = left[os.write(file, left) :]
        if synced:
            os.fsync(file)
    finally:
        os.close(file)
    Path(written).replace(path)
    if synced:
        folder = os.open(Path(path).parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
