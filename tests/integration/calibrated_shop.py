"""A shop of photos in categories, whose scores can be calibrated and whose products grouped."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from crash_points.world import Inline
from lookalike.core.ports import Stores
from lookalike.services.calibrate import Calibrate, CalibratePolicy, JudgedSearch
from lookalike.services.jobs import JobLedger, WorkReport
from lookalike.services.live_embeddings import LiveEmbeddings
from lookalike.services.query import SearchResponse
from lookalike.services.recluster import Recluster, ReclusterPolicy
from lookalike.services.search_request import QueryInput, SearchRequest
from lookalike.wiring import Services

FOREVER = float("inf")
CATEGORIES = ("boots", "hats", "mugs", "vases")


def draw(category: int, number: int, spread: float = 60.0) -> bytes:
    """A small photo near its category's; categories overlap."""
    base = np.random.default_rng([category, 1]).uniform(60, 190, (6, 5, 3))
    noise = np.random.default_rng([category, number, 2]).normal(0, spread, (6, 5, 3))
    coarse = np.clip(base + noise, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((96, 128), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


def foreign(number: int) -> bytes:
    """A photo like none in the shop: fine stripes of one colour."""
    stripes = np.zeros((128, 96, 3), dtype=np.uint8)
    stripes[:: 2 + number % 3, :, number % 3] = 255
    buffer = io.BytesIO()
    Image.fromarray(stripes).save(buffer, "PNG")
    return buffer.getvalue()


@dataclass
class Hand:
    """A clock that is moved by hand."""

    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@dataclass
class Shop:
    """One catalogue, the services of a process, and its scheduled work."""

    stores: Stores
    make: Callable[[], Services]
    clock: Hand
    ids: Callable[[], str]
    policy: dict[str, Any] = field(
        default_factory=lambda: {
            "renew_s": 86_400,
            "renew_share": 0.1,
            "quiet_s": 20,
            "pause_s": 600,
            "grace_s": 900,
        }
    )
    judged: list[JudgedSearch] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.services = self.make()

    def upload(self, photos: dict[str, bytes], **metadata: str) -> None:
        for key, body in photos.items():
            self.stores.images.put_object(key, body, "image/png", metadata)
        assert self.services.ingest.reconcile(list(photos)) == {}

    def stock(
        self, each: int, categories: Iterable[int] = range(4), spread: float = 60.0, **metadata: str
    ) -> None:
        for category in categories:
            photos = {
                f"shop/{CATEGORIES[category]}-{number}.png": draw(category, number, spread)
                for number in range(each)
            }
            self.upload(photos, **({"category": CATEGORIES[category]} | metadata))

    def calibration(self, stores: Stores | None = None) -> Calibrate:
        stores = stores or self.stores
        return Calibrate(
            stores,
            LiveEmbeddings(stores, Inline()),
            self.make().query._live_index,
            JobLedger(stores, self.clock, self.ids),
            lambda catalogue, limit: self.judged[:limit],
            CalibratePolicy(nprobe=26, **self.policy),
            self.clock,
        )

    def calibrate(self, *, now: bool = False, wait_s: float = 1_000) -> WorkReport:
        self.clock.now += wait_s
        return self.calibration().run(FOREVER, now=now)

    def recluster(self, clusters: int) -> None:
        policy = ReclusterPolicy(clusters=clusters, settle_s=90, **self.policy)
        service = Recluster(
            self.stores,
            LiveEmbeddings(self.stores, Inline()),
            JobLedger(self.stores, self.clock, self.ids),
            policy,
            self.clock,
        )
        self.clock.now += 1_000
        while not service.run(FOREVER).finished:
            pass

    def search(self, photo: bytes, **options: Any) -> SearchResponse:
        request = SearchRequest("shop", (QueryInput(image=photo),), **options)
        return self.services.query.search(request)
