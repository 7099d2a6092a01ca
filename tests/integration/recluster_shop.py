"""A shop whose photos are points: embeddings of named groups, without images or encoders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crash_points.world import Inline
from lookalike.core.keys import product_of
from lookalike.core.ports import Stores
from lookalike.core.segment import Row
from lookalike.core.types import (
    Attributes,
    Counts,
    Generation,
    Lineage,
    Product,
    View,
    row_version,
)
from lookalike.services.append import append_rows
from lookalike.services.clusters import Clusters
from lookalike.services.jobs import JobLedger
from lookalike.services.live_embeddings import LiveEmbeddings
from lookalike.services.recluster import Recluster, ReclusterPolicy

CATALOGUE = "shop"
DIM = 16
FOREVER = float("inf")
POLICY = ReclusterPolicy(
    renew_s=86_400,
    renew_share=0.1,
    quiet_s=20,
    pause_s=600,
    clusters=0,
    settle_s=90,
    grace_s=900,
)


def point(group: int, number: int, space: str = "a", dim: int = DIM) -> np.ndarray:
    """An embedding near its group's centre, in a space of its own."""
    centre = np.random.default_rng([group, ord(space)]).normal(size=dim)
    noise = np.random.default_rng([group, number, 7]).normal(size=dim)
    found = centre / np.linalg.norm(centre) + 0.15 * noise / np.linalg.norm(noise)
    return (found / np.linalg.norm(found)).astype(np.float32)


@dataclass
class Shop:
    """One catalogue on stores in memory, and the service that clusters it."""

    stores: Stores
    clock: Any
    ids: Callable[[], str]
    policy: ReclusterPolicy = POLICY
    space: str = "a"

    @property
    def generation(self) -> Generation:
        return Generation(CATALOGUE, f"{self.space}-g1", self.space)

    def open(self) -> None:
        known = self.stores.lineages.get(CATALOGUE)
        lineage = replace(known, current=self.generation) if known else None
        self.stores.lineages.put(lineage or Lineage(CATALOGUE, self.generation))

    def put(self, points: dict[str, tuple[int, int]], **attributes: Any) -> None:
        """Keys of photos with the group and the number of each one's point."""
        now = self.clock()
        wanted: dict[tuple[str, str], dict[str, str]] = {}
        rows = []
        for key, (group, number) in points.items():
            etag = f"{group}-{number}"
            version = row_version(etag, attributes)
            owner = product_of(key)
            assert owner is not None
            wanted.setdefault(owner, {})[key] = version
            rows.append(Row(key, version, point(group, number, self.space), attributes))
        digest = append_rows(
            self.stores.index, self.stores.registry, [self.generation], {self.space: rows}, now
        )[self.space]
        records = self.stores.products.get_many(wanted)
        for owner, versions in wanted.items():
            before = records.get(owner) or Product(*owner, self.generation.generation)
            views = dict(before.views)
            for key, version in versions.items():
                views[key] = View(
                    key, version, version, digest, 0, 1, 1, "", now, now, dict(attributes)
                )
            self.stores.products.put(replace(before, views=views))
        self._count()

    def put_group(self, group: int, count: int, first: int = 0, **attributes: Attributes) -> None:
        """So many products of one group."""
        names = {f"shop/g{group}-{n}.jpg": (group, n) for n in range(first, first + count)}
        self.put(names, **attributes)

    def remove(self, product_id: str, key: str = "") -> None:
        """Delete a product, or one of its views."""
        owner = (CATALOGUE, product_id)
        record = self.stores.products.get_many([owner])[owner]
        views = {name: view for name, view in record.views.items() if key and name != key}
        if views:
            self.stores.products.put(replace(record, views=views))
        else:
            self.stores.products.delete(record)
        self._count()

    def service(self, stores: Stores | None = None) -> Recluster:
        stores = stores or self.stores
        ledger = JobLedger(stores, self.clock, self.ids)
        live = LiveEmbeddings(stores, Inline())
        return Recluster(stores, live, ledger, self.policy, self.clock)

    def recluster(self, *, now: bool = False, wait_s: float = 1000) -> dict[str, Any]:
        """Let time pass, and run until nothing is left to do; gives the summary."""
        self.clock.now += wait_s
        for _ in range(100):
            report = self.service().run(FOREVER, now=now)
            now = False
            assert not report.postponed
            if report.finished:
                (done,) = report.catalogues
                return dict(done.summary)
        raise AssertionError("it never ends")

    def read(self) -> Clusters:
        return Clusters(self.stores, 0.0, self.clock, Inline())

    def members(self, limit: int = 1000) -> dict[str, list[str]]:
        """Every cluster's live products."""
        found = {}
        for info in self.read().list(CATALOGUE).clusters:
            ids: list[str] = []
            after: str | None = ""
            while after is not None:
                some, after = self.read().members(CATALOGUE, info.cluster_id, limit, after)
                assert len(some) <= limit and (some or after is None)
                ids += some
            assert ids == sorted(ids)
            live = self.stores.products.get_many((CATALOGUE, id_) for id_ in ids)
            found[info.cluster_id] = [id_ for id_ in ids if (CATALOGUE, id_) in live]
        return found

    def groups(self) -> dict[str, set[str]]:
        """The groups whose products are in each cluster."""
        return {name: {id_.split("-")[0] for id_ in ids} for name, ids in self.members().items()}

    def where(self) -> dict[str, str]:
        """Which cluster each live product is in; in one at most."""
        pairs = [(id_, name) for name, ids in self.members().items() for id_ in ids]
        assert len(pairs) == len(dict(pairs)), "a product is in two clusters"
        return dict(pairs)

    def live(self) -> set[str]:
        products, after = self.stores.products.page(CATALOGUE, 10**6)
        assert after is None
        return {product.product_id for product in products}

    def _count(self) -> None:
        self.stores.counts.set(CATALOGUE, Counts(products=len(self.live())))
