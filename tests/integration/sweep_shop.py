"""A shop to sweep, and what may happen to its index."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lookalike.core.keys import segment_key
from lookalike.core.ports import Ids, Stores
from lookalike.core.types import Delivered, Run, Shard
from lookalike.services.search_request import QueryInput, SearchRequest
from lookalike.services.sweep import Sweep, SweepReport
from lookalike.settings import Settings
from lookalike.wiring import Services, build_services

FOREVER = float("inf")
SPACE = "efficientnet-lite0-border-v1"


@dataclass
class Shop:
    """A catalogue on stores in memory with toy encoders; its queue is worked off when asked."""

    stores: Stores
    build: Callable[[Stores], Services]
    clock: Any
    backlogs: list[int] = field(default_factory=list)

    @functools.cached_property
    def services(self) -> Services:
        return self.build(self.stores)

    def put(self, *keys: str, photo: Callable[..., bytes], first: int = 0) -> None:
        for number, key in enumerate(keys, first):
            self.stores.images.put_object(key, photo(number, size=(24, 32)), "image/jpeg")

    def work_off(self) -> list[str]:
        """Deliver every message in the queue once; gives their keys."""
        bodies, self.stores.queue.bodies = self.stores.queue.bodies, []
        services, keys = self.services, []
        for body in map(json.loads, bodies):
            found = [Delivered(k, write_again=body.get("write_again", False)) for k in body["keys"]]
            assert services.delivery.deliver(found) == {}
            keys += body["keys"]
        return keys

    def pause(self, seconds: float) -> None:
        self.backlogs.append(self.stores.queue.backlog())
        self.work_off()
        self.clock.now += seconds

    def sweep(
        self,
        deadline: float = FOREVER,
        mode: str = "",
        backlog: int = 1000,
        stores: Stores | None = None,
        **options: bool,
    ) -> SweepReport:
        pool = self.services.sweep._pool
        made = Sweep(stores or self.stores, pool, self.clock, 86_400, backlog, self.pause)
        return made.run(deadline, mode, **options)

    def found(self, photo: bytes) -> list[str]:
        request = SearchRequest("shop", (QueryInput(image=photo),), k=100)
        return [item.product_id for item in self.services.query.search(request).results]


def shops(
    fresh_stores: Callable[[], Stores],
    clock: Any,
    toy_encoder_of: Callable[[str], Any],
    ids: Ids,
    folder: Path,
) -> Callable[[], Shop]:
    """Makes shops of the fixtures of these names."""
    settings = Settings(
        encoder="efficientnet-lite0", refresh_s=0, settle_s=0, cache_dir=str(folder)
    )

    def build(stores: Stores) -> Services:
        return build_services(settings, stores, ids, clock, toy_encoder_of)

    return lambda: Shop(fresh_stores(), build, clock)


def segment_of(shop: Shop, key: str) -> str:
    (product,) = shop.stores.products.get_many([("shop", key[5:-4])]).values()
    return segment_key("shop", product.views[key].segment)


def lose_segment(shop: Shop, key: str) -> None:
    shop.stores.index.delete(segment_of(shop, key))


def alter_segment(shop: Shop, key: str) -> None:
    name = segment_of(shop, key)
    body = bytearray(shop.stores.index.get(name, 10**6)[1])
    body[len(body) // 2] ^= 1
    shop.stores.index.put_object(name, bytes(body))


def lose_entry(shop: Shop, key: str) -> None:
    entries, _ = shop.stores.registry.read(f"shop/{SPACE}")
    name = segment_of(shop, key)
    shop.stores.registry.remove([e for e in entries if segment_key("shop", e.digest) == name])


def compact(shop: Shop) -> None:
    shop.clock.now += 1000
    settings = replace(shop.services.settings, merge_segments=2, base_rows=2, flat_rows=10)
    made = build_services(settings, shop.stores, lambda: "", shop.clock, None)
    report = made.compaction.run(FOREVER)
    assert report.finished and not report.unreadable


def merge(shop: Shop) -> Run:
    compact(shop)
    _, manifest = shop.stores.registry.read(f"shop/{SPACE}")
    (shard,) = manifest.shards
    assert shard.base
    return shard.covered[0]


def lose_run(shop: Shop, key: str) -> None:
    shop.stores.index.delete(segment_key("shop", merge(shop).digest))


def forget_run(shop: Shop, key: str) -> None:
    merge(shop)
    _, manifest = shop.stores.registry.read(f"shop/{SPACE}")
    shop.stores.registry.put_manifest(replace(manifest, shards=(Shard(),)))
