"""A catalogue of real photos in memory, for the benchmarks that need one.

A folder of photos has a ``manifest.csv`` with the columns file, split, product_id and category.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ulid import ULID

from lookalike.adapters.memory import memory_stores_of
from lookalike.settings import Settings
from lookalike.wiring import Services, build_services

CATALOGUE = "shop"
FOREVER = float("inf")

Row = dict[str, str]


@dataclass(frozen=True)
class Upload:
    """A file with the metadata of its product."""

    name: str
    body: bytes
    category: str

    @property
    def key(self) -> str:
        return f"{CATALOGUE}/{self.name}"


class Clock:
    """The time, which can be moved on."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


def read_manifest(folder: Path) -> list[Row]:
    with (folder / "manifest.csv").open(newline="") as lines:
        return list(csv.DictReader(lines))


def upload_of(row: Row, folder: Path, category: str = "") -> Upload:
    path = folder / row["file"]
    return Upload(path.name, path.read_bytes(), category or row["category"])


def put(services: Services, uploads: Iterable[Upload]) -> None:
    keys = []
    for item in uploads:
        keys.append(item.key)
        services.stores.images.put_object(  # type: ignore[attr-defined]
            item.key, item.body, "image/jpeg", {"category": item.category}
        )
    services.ingest.reconcile(keys)


def take_away(services: Services, uploads: Iterable[Upload]) -> None:
    keys = [item.key for item in uploads]
    for key in keys:
        services.stores.images.delete(key)
    services.ingest.reconcile(keys)


def stocked(uploads: Iterable[Upload], clock: Clock) -> Services:
    """A catalogue with a fitted head, as it comes to be by itself."""
    stores = memory_stores_of(clock)
    services = build_services(Settings(refresh_s=0.5), stores, lambda: str(ULID()), clock)
    put(services, uploads)
    first = stores.lineages.get(CATALOGUE)
    services.reindex.begin(CATALOGUE)
    while stores.lineages.get(CATALOGUE) == first or not _has_head(services):
        clock.ahead_s += 200
        services.reindex.run(FOREVER, CATALOGUE)
    return services


def _has_head(services: Services) -> bool:
    lineage = services.stores.lineages.get(CATALOGUE)
    assert lineage is not None
    return bool(services.stores.registry.read(lineage.current.scope)[1].head)
