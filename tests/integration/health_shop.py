"""A shop whose photos are drawn, with embeddings of named groups, that is checked in memory."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from crash_points.world import Inline
from lookalike.core.images import Decoded, thumbnail_webp
from lookalike.core.keys import product_of, thumbnail_key
from lookalike.core.ports import Stores
from lookalike.core.segment import Row
from lookalike.core.types import Counts, Generation, Lineage, Product, View, row_version
from lookalike.services.append import append_rows
from lookalike.services.findings import FindingInfo, Findings
from lookalike.services.health import HealthCheck, HealthPolicy
from lookalike.services.jobs import JobLedger
from lookalike.services.live_embeddings import LiveEmbeddings

CATALOGUE = "shop"
FOREVER = float("inf")
GENERATION = Generation(CATALOGUE, "g1", "space")
POLICY = HealthPolicy(
    renew_s=86_400, renew_share=0.1, quiet_s=20, pause_s=600, settle_s=90, grace_s=900
)


@functools.cache
def _drawn(seed: int, width: int, height: int) -> Image.Image:
    chance = np.random.default_rng([seed, 3])
    picture = Image.new("RGB", (width, height), tuple(chance.integers(90, 250, 3).tolist()))
    for size in (250, 160, 110, 80, 60, 60, 40, 40, 30, 30, 24, 24):
        x, y = chance.integers(0, width - 20), chance.integers(0, height - 20)
        patch = Image.new("RGB", (size, size), tuple(chance.integers(0, 256, 3).tolist()))
        picture.paste(patch, (int(x), int(y)))
    return picture


def drawn(seed: int, width: int = 400, height: int = 500) -> Image.Image:
    """A picture of its own: coloured patches of several sizes."""
    return _drawn(seed, width, height).copy()


@functools.cache
def _thumbnail(pixels: bytes, size: tuple[int, int]) -> bytes:
    image = Image.frombytes("RGB", size, pixels)
    return thumbnail_webp(Decoded(image, *size, "JPEG"))


def point(group: int, number: int, dim: int = 16) -> np.ndarray:
    """An embedding near its group's centre."""
    centre = np.random.default_rng([group, 1]).normal(size=dim)
    noise = np.random.default_rng([group, number, 7]).normal(size=dim)
    found = centre / np.linalg.norm(centre) + 0.3 * noise / np.linalg.norm(noise)
    return (found / np.linalg.norm(found)).astype(np.float32)


@dataclass(frozen=True)
class Photo:
    """One photo to be put: a picture, its embedding, its product's attributes."""

    key: str
    image: Image.Image
    embedding: np.ndarray
    attributes: dict[str, Any]


@dataclass
class HealthShop:
    """One catalogue on stores in memory, the service that checks it, and what it reads."""

    stores: Stores
    clock: Any
    ids: Callable[[], str]
    policy: HealthPolicy = POLICY
    generation: Generation = GENERATION

    def open(self) -> None:
        self.stores.lineages.put(Lineage(CATALOGUE, self.generation))

    def put(self, photos: list[Photo]) -> None:
        """Photos as if they had been uploaded now."""
        now = self.clock()
        rows, views = [], []
        for photo in photos:
            image = photo.image
            body = _thumbnail(image.tobytes(), image.size)
            etag = f"{hash(body)}"
            version = row_version(etag, photo.attributes)
            name = thumbnail_key(photo.key, etag, now)
            self.stores.index.put(name, body, "image/webp")
            rows.append(Row(photo.key, version, photo.embedding, photo.attributes))
            views.append((photo, etag, version, name))
        scopes = {"space": rows}
        digests = append_rows(
            self.stores.index, self.stores.registry, [self.generation], scopes, now
        )
        records: dict[tuple[str, str], Product] = {}
        for photo, etag, version, name in views:
            owner = product_of(photo.key)
            assert owner is not None
            if owner not in records:
                records |= self.stores.products.get_many([owner])
            before = records.get(owner) or Product(*owner, self.generation.generation)
            view = View(
                photo.key,
                etag,
                version,
                digests["space"],
                0,
                *photo.image.size,
                name,
                now,
                now,
                photo.attributes,
            )
            records[owner] = replace(before, views={**before.views, photo.key: view})
        for record in records.values():
            self.stores.products.put(record)
        self._count(sum(1 for record in records.values() if record.revision is None))

    def put_groups(self, counts: dict[str, int]) -> None:
        """So many products of each category, each with a photo of its own."""
        self.put(
            [
                Photo(
                    f"shop/{category}-{number}/front.jpg",
                    drawn(1000 * group + number),
                    point(group, number),
                    {"category": category, "title": f"A {category}"},
                )
                for group, (category, count) in enumerate(counts.items())
                for number in range(count)
            ]
        )

    def remove(self, product_id: str) -> None:
        """Delete a product."""
        owner = (CATALOGUE, product_id)
        self.stores.products.delete(self.stores.products.get_many([owner])[owner])
        self._count(-1)

    def service(self, stores: Stores | None = None, pool: Any = None) -> HealthCheck:
        stores, pool = stores or self.stores, pool or Inline()
        ledger = JobLedger(stores, self.clock, self.ids)
        live = LiveEmbeddings(stores, pool)
        return HealthCheck(stores, live, ledger, self.policy, pool, self.clock)

    def check(self, *, now: bool = False, wait_s: float = 1000) -> dict[str, Any]:
        """Let time pass, and run until nothing is left to do; gives the summary."""
        self.clock.now += wait_s
        for _ in range(200):
            report = self.service().run(FOREVER, now=now)
            now = False
            assert not report.postponed
            if report.finished:
                (done,) = report.catalogues
                return dict(done.summary)
        raise AssertionError("it never ends")

    def read(self) -> Findings:
        return Findings(self.stores, 60)

    def findings(self, kind: str, limit: int = 100) -> list[FindingInfo]:
        """Every finding of a kind, read by pages."""
        found: list[FindingInfo] = []
        cursor: str | None = ""
        while cursor is not None:
            page = self.read().page(CATALOGUE, kind, limit, cursor)
            found += page.findings
            cursor = page.cursor
        return found

    def groups(self) -> set[frozenset[str]]:
        """The products of each group of near-duplicates."""
        return {
            frozenset(product.product_id for product in item.products)
            for item in self.findings("near-duplicate")
        }

    def _count(self, change: int) -> None:
        self.stores.counts.add(CATALOGUE, Counts(products=change))
