"""Every port without a network.

For tests, for trying things, for one process. Nothing survives it.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from lookalike.adapters.memory_analytics import MemoryFeedback, MemoryRollups, MemorySearchLog
from lookalike.adapters.memory_revisions import put_unchanged
from lookalike.adapters.memory_work import MemoryArtifacts, MemoryClusterNames, MemoryJobs
from lookalike.core.access import ApiKey
from lookalike.core.errors import Conflict, too_large
from lookalike.core.keys import catalogue_of
from lookalike.core.ports import Clock, Stores
from lookalike.core.types import (
    Counts,
    Failure,
    Lineage,
    Manifest,
    ObjectInfo,
    Product,
    SegmentEntry,
)


class MemoryObjectStore:
    """A bucket in a dict. ETags are MD5 as S3's are; ``put_object`` stands in for any S3 client."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._objects: dict[str, tuple[ObjectInfo, bytes]] = {}
        self._lock = threading.Lock()

    def put_object(
        self,
        key: str,
        body: bytes,
        content_type: str = "",
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        """Write as a client of the bucket would, with user metadata."""
        with self._lock:
            self._store(key, body, content_type, metadata or {})

    def _store(
        self, key: str, body: bytes, content_type: str, metadata: Mapping[str, str]
    ) -> ObjectInfo:
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        info = ObjectInfo(key, etag, len(body), self._clock(), content_type, dict(metadata))
        self._objects[key] = (info, body)
        return info

    def head(self, key: str) -> ObjectInfo | None:
        """See `lookalike.core.ports.ObjectStore`."""
        found = self._objects.get(key)
        return found[0] if found else None

    def get(self, key: str, max_bytes: int) -> tuple[ObjectInfo, bytes] | None:
        """See `lookalike.core.ports.ObjectStore`."""
        found = self._objects.get(key)
        if found and found[0].size_bytes > max_bytes:
            raise too_large(found[0].size_bytes, max_bytes)
        return found

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        """See `lookalike.core.ports.ObjectStore`."""
        found = self._objects.get(key)
        return found[1][start : start + length] if found else None

    def put(self, key: str, body: bytes, content_type: str, *, if_absent: bool = False) -> None:
        """See `lookalike.core.ports.ObjectStore`."""
        if not (if_absent and key in self._objects):
            self.put_object(key, body, content_type)

    def delete(self, key: str) -> None:
        """See `lookalike.core.ports.ObjectStore`."""
        with self._lock:
            self._objects.pop(key, None)

    def replace(self, key: str, body: bytes, content_type: str, etag: str | None) -> str:
        """See `lookalike.core.ports.ObjectStore`."""
        with self._lock:
            found = self.head(key)
            if (found.etag if found else None) != etag:
                raise Conflict(f"{key} was changed meanwhile")
            return self._store(key, body, content_type, {}).etag

    def list(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """See `lookalike.core.ports.ObjectStore`."""
        for key in sorted(self._objects, key=str.encode):
            behind = key.encode() > after.encode()
            if key.startswith(prefix) and behind and (found := self._objects.get(key)):
                yield replace(found[0], metadata={})

    def url(self, key: str, expires_s: int) -> str:
        """See `lookalike.core.ports.ObjectStore`."""
        return f"memory:///{key}?expires={expires_s}"

    def upload_form(self, key: str, max_bytes: int, expires_s: int) -> tuple[str, dict[str, str]]:
        """See `lookalike.core.ports.ObjectStore`."""
        return "memory:///", {"key": key, "max_bytes": str(max_bytes)}


class MemoryProducts:
    """Product records in a dict."""

    def __init__(self) -> None:
        self._products: dict[tuple[str, str], Product] = {}
        self._lock = threading.Lock()

    def get_many(self, ids: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Product]:
        """See `lookalike.core.ports.ProductTable`."""
        return {item: self._products[item] for item in ids if item in self._products}

    def put(self, product: Product) -> Product:
        """See `lookalike.core.ports.ProductTable`."""
        with self._lock:
            id_ = (product.catalogue, product.product_id)
            return put_unchanged(self._products, id_, product)

    def delete(self, product: Product) -> None:
        """See `lookalike.core.ports.ProductTable`."""
        with self._lock:
            stored = self._products.get((product.catalogue, product.product_id))
            if (stored.revision if stored else None) != product.revision:
                raise Conflict(f"product {product.product_id} was changed meanwhile")
            del self._products[product.catalogue, product.product_id]

    def page(self, catalogue: str, limit: int, after: str = "") -> tuple[list[Product], str | None]:
        """See `lookalike.core.ports.ProductTable`."""
        ids = sorted(
            (product_id for owner, product_id in self._products if owner == catalogue),
            key=str.encode,
        )
        chosen = [item for item in ids if item.encode() > after.encode()]
        page = [self._products[catalogue, item] for item in chosen[:limit]]
        return page, page[-1].product_id if len(chosen) > limit else None


class MemoryFailures:
    """Failure records in a dict."""

    def __init__(self) -> None:
        self._failures: dict[str, Failure] = {}

    def get_many(self, keys: Iterable[str]) -> dict[str, Failure]:
        """See `lookalike.core.ports.FailureTable`."""
        return {key: self._failures[key] for key in keys if key in self._failures}

    def put(self, failure: Failure) -> bool:
        """See `lookalike.core.ports.FailureTable`."""
        is_new = failure.key not in self._failures
        self._failures[failure.key] = failure
        return is_new

    def delete(self, key: str) -> bool:
        """See `lookalike.core.ports.FailureTable`."""
        return self._failures.pop(key, None) is not None

    def page(self, catalogue: str, limit: int, after: str = "") -> tuple[list[Failure], str | None]:
        """See `lookalike.core.ports.FailureTable`."""
        keys = sorted(
            (key for key in self._failures if catalogue_of(key) == catalogue), key=str.encode
        )
        chosen = [key for key in keys if key.encode() > after.encode()]
        page = [self._failures[key] for key in chosen[:limit]]
        return page, page[-1].key if len(chosen) > limit else None


class MemoryRegistry:
    """Appended segments and manifests in dicts."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, float, str], SegmentEntry] = {}
        self._manifests: dict[str, Manifest] = {}
        self._lock = threading.Lock()

    def add(self, entry: SegmentEntry) -> None:
        """See `lookalike.core.ports.Registry`."""
        with self._lock:
            self._entries[entry.scope, entry.committed_at, entry.digest] = entry

    def read(self, scope: str, since: float = 0.0) -> tuple[list[SegmentEntry], Manifest]:
        """See `lookalike.core.ports.Registry`."""
        with self._lock:
            known = sorted(key for key in self._entries if key[0] == scope and key[1] >= since)
            entries = [self._entries[key] for key in known]
            return entries, self._manifests.get(scope, Manifest(scope))

    def put_manifest(self, manifest: Manifest) -> Manifest:
        """See `lookalike.core.ports.Registry`."""
        with self._lock:
            return put_unchanged(self._manifests, manifest.scope, manifest)

    def remove(self, entries: Iterable[SegmentEntry]) -> None:
        """See `lookalike.core.ports.Registry`."""
        with self._lock:
            for entry in entries:
                self._entries.pop((entry.scope, entry.committed_at, entry.digest), None)

    def drop(self, scope: str) -> None:
        """See `lookalike.core.ports.Registry`."""
        with self._lock:
            for key in [key for key in self._entries if key[0] == scope]:
                del self._entries[key]
            self._manifests.pop(scope, None)


class MemoryLineages:
    """Each catalogue's generations in a dict."""

    def __init__(self) -> None:
        self._lineages: dict[str, Lineage] = {}
        self._lock = threading.Lock()

    def get(self, catalogue: str) -> Lineage | None:
        """See `lookalike.core.ports.LineageTable`."""
        return self._lineages.get(catalogue)

    def put(self, lineage: Lineage) -> Lineage:
        """See `lookalike.core.ports.LineageTable`."""
        with self._lock:
            return put_unchanged(self._lineages, lineage.catalogue, lineage)

    def all(self) -> list[Lineage]:
        """See `lookalike.core.ports.LineageTable`."""
        return [self._lineages[name] for name in sorted(self._lineages)]


class MemoryCounts:
    """Counts in a dict."""

    def __init__(self) -> None:
        self._counts: dict[str, Counts] = {}
        self._lock = threading.Lock()

    def all(self) -> dict[str, Counts]:
        """See `lookalike.core.ports.CountTable`."""
        return dict(self._counts)

    def add(self, catalogue: str, change: Counts) -> None:
        """See `lookalike.core.ports.CountTable`."""
        with self._lock:
            self._counts[catalogue] = self._counts.get(catalogue, Counts()) + change

    def set(self, catalogue: str, counts: Counts) -> None:
        """See `lookalike.core.ports.CountTable`."""
        self._counts[catalogue] = counts


class MemoryApiKeys:
    """API keys and their counts in dicts."""

    def __init__(self) -> None:
        self._keys: dict[str, ApiKey] = {}
        self._used: Counter[tuple[str, int]] = Counter()
        self._lock = threading.Lock()

    def get(self, key_id: str) -> ApiKey | None:
        """See `lookalike.core.ports.ApiKeyTable`."""
        return self._keys.get(key_id)

    def put(self, key: ApiKey) -> None:
        """See `lookalike.core.ports.ApiKeyTable`."""
        self._keys[key.key_id] = key

    def all(self) -> list[ApiKey]:
        """See `lookalike.core.ports.ApiKeyTable`."""
        return [self._keys[key_id] for key_id in sorted(self._keys)]

    def count(self, key_id: str, minute: int) -> int:
        """See `lookalike.core.ports.ApiKeyTable`."""
        with self._lock:
            self._used[key_id, minute] += 1
            return self._used[key_id, minute]


class MemoryQueue:
    """The ingest queue as a list of message bodies."""

    def __init__(self) -> None:
        self.bodies: list[str] = []

    def send_keys(self, keys: Sequence[str], *, write_again: bool = False) -> None:
        """See `lookalike.core.ports.Queue`."""
        flag = {"write_again": True} if write_again else {}
        self.bodies.append(json.dumps({"keys": list(keys), **flag}))

    def backlog(self) -> int:
        """See `lookalike.core.ports.Queue`."""
        return sum(len(json.loads(body)["keys"]) for body in self.bodies)  # a message a key


def memory_stores_of(clock: Clock) -> Stores:
    """A set of empty stores; ``clock`` gives their objects' times, in epoch seconds."""
    return Stores(
        images=MemoryObjectStore(clock),
        index=MemoryObjectStore(clock),
        products=MemoryProducts(),
        failures=MemoryFailures(),
        registry=MemoryRegistry(),
        lineages=MemoryLineages(),
        counts=MemoryCounts(),
        log=MemorySearchLog(),
        queue=MemoryQueue(),
        api_keys=MemoryApiKeys(),
        artifacts=MemoryArtifacts(),
        jobs=MemoryJobs(),
        cluster_names=MemoryClusterNames(),
        feedback=MemoryFeedback(),
        rollups=MemoryRollups(),
    )
