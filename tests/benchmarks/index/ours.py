"""Lookalike's index through the services that the functions run, with stores in memory or folders.

Embeddings are indexed as they are (identity head), so that every contender searches the same space.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec
from index.build_ours import CATALOGUE, SPACE, build_index, key_of, rows_of
from index.contender import Contender
from index.folder_store import FolderObjectStore, FolderRegistry, RemoteObjectStore
from index.vectors import Filter, Float32, K, Vectors
from index.wire import SlowWire, fetch_whole

from lookalike.adapters.memory import MemoryObjectStore, MemoryRegistry
from lookalike.core.filters import parse_filter
from lookalike.core.ports import ObjectStore, Registry
from lookalike.core.search_index import SearchIndex
from lookalike.core.types import Generation, Manifest
from lookalike.services.append import append_rows
from lookalike.services.base_files import BaseFiles
from lookalike.services.live_index import LiveIndex
from lookalike.settings import Settings

_CALLS_AT_ONCE = 16
_RANGES_AT_ONCE = 32


class Ours(Contender):
    """Append into stores in memory. Every query asks `LiveIndex` first, as the service does."""

    setting = "nprobe"
    has_background = True
    efforts = tuple(sorted({1, 4, 8, 16, 32, 64, Settings().nprobe}))

    def build(self) -> None:
        generation, manifest = build_index(self.vectors, FolderObjectStore(self._objects))
        (self.folder / "generation.json").write_bytes(msgspec.json.encode(generation))
        (self.folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))

    def __init__(self, folder: Path, vectors: Vectors) -> None:
        super().__init__(folder, vectors)
        self._cache = folder / "cache"

    def open(self) -> None:
        self._serve(FolderObjectStore(self._objects), self._registry_of(MemoryRegistry()))
        bases = [shard.base for shard in self._index().shards if shard.base]
        if all(len(base.centroids) == 1 for base in bases):
            self.efforts = (Settings().nprobe,)  # flat: there is nothing to choose

    def search(self, query: Float32, effort: int, condition: Filter | None = None) -> list[int]:
        wanted = None
        if condition:
            wanted = parse_filter({condition.attribute: {"lt": condition.bound}})
        found = self._index().search(query, K, nprobe=effort, filter=wanted)
        return [key_of(candidate.key) for candidate in found]

    def exact(self, query: Float32, condition: Filter) -> list[int] | None:
        wanted = parse_filter({condition.attribute: {"lt": condition.bound}})
        found = self._index().search(query, K, filter=wanted, exact=True)
        return [key_of(candidate.key) for candidate in found]

    def default_effort(self) -> int | None:
        return Settings().nprobe

    def prepare_append(self, scratch: Path) -> None:
        store, objects = MemoryObjectStore(time.time), FolderObjectStore(self._objects)
        for info in objects.list(""):
            store.put(info.key, (self._objects / info.key).read_bytes(), "")
        self._serve(store, self._registry_of(MemoryRegistry()))
        self._next = self.vectors.rows

    def append(self, embeddings: Float32, durable: bool = True) -> None:
        rows = {SPACE: rows_of(self._next, embeddings)}
        append_rows(self._store, self._registry, [self._generation], rows, time.time())
        self._next += len(embeddings)

    def after_appends(self) -> None:
        # Half a minute of refreshes: appended rows are filed a part at a time.
        for _ in range(round(30 / self._settings.refresh_s)):
            self._index(now=True)

    def size_bytes(self) -> dict[str, int]:
        def total(folder: str) -> int:
            files = (self._objects / folder).rglob("*.*")
            return sum(path.stat().st_size for path in files)

        return {"base": total("bases"), "raw segments": total("segments")}

    @contextmanager
    def opened_remote(self, scratch: Path, wire: SlowWire, background: bool) -> Iterator[bool]:
        self._cache = scratch
        store = RemoteObjectStore(FolderObjectStore(self._objects), wire)
        # A base is fetched in the background if a copy of it fits.
        smallest = min(path.stat().st_size for path in self._objects.rglob("*.base"))
        limit = None if background else smallest - 1
        # The registry's one read is no GET of the bucket and not delayed.
        self._serve(store, self._registry_of(MemoryRegistry()), limit)
        yield True

    def fetch(self, target: Path, wire: SlowWire) -> None:
        fetch_whole(self._objects / "bases" / CATALOGUE, target, wire)
        self._cache = target

    @property
    def _objects(self) -> Path:
        return self.folder / "objects"

    def _registry_of(self, registry: MemoryRegistry) -> MemoryRegistry:
        encoded = (self.folder / "manifest.json").read_bytes()
        registry.put_manifest(msgspec.json.decode(encoded, type=Manifest))
        return registry

    def _serve(
        self, store: ObjectStore, registry: Registry, cache_bytes: int | None = None
    ) -> None:
        self._settings = Settings()
        self._store, self._registry = store, registry
        encoded = (self.folder / "generation.json").read_bytes()
        self._generation = msgspec.json.decode(encoded, type=Generation)
        pool = ThreadPoolExecutor(_CALLS_AT_ONCE)
        fetchers = ThreadPoolExecutor(_RANGES_AT_ONCE)
        bases = BaseFiles(store, self._cache, cache_bytes or self._settings.cache_bytes, fetchers)
        self._live = LiveIndex(
            store,
            registry,
            bases,
            self._settings.refresh_s,
            self._settings.settle_s,
            pool,
            time.time,
            self._settings.index_threads,
        )

    def _index(self, now: bool = False) -> SearchIndex:
        return self._live.get(self._generation, now=now)


class OursInFolder(Ours):
    """Append into files: an object and a registry entry, each written beside and renamed."""

    synced = False

    def prepare_append(self, scratch: Path) -> None:
        shutil.copytree(self._objects, scratch / "objects", copy_function=os.link)
        registry = FolderRegistry(scratch / "registry", self.synced)
        store = FolderObjectStore(scratch / "objects", self.synced)
        self._serve(store, self._registry_of(registry))
        self._next = self.vectors.rows


class OursSynced(OursInFolder):
    """The same, and a power cut right behind an append loses nothing."""

    synced = True
