"""A shop whose photos are points, and the service that keeps its map."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from crash_points.world import Inline
from lookalike.core.ports import Stores
from lookalike.services.jobs import JobLedger
from lookalike.services.live_embeddings import LiveEmbeddings
from lookalike.services.map_reader import CatalogueMap, MapReader
from lookalike.services.project import Project
from lookalike.services.project_layout import MapPolicy
from recluster_shop import CATALOGUE, FOREVER, Shop

MAP_POLICY = MapPolicy(
    renew_s=86_400,
    renew_share=0.1,
    quiet_s=20,
    pause_s=600,
    map_method="tsne",
    map_rows=20_000,
    map_perplexity=10.0,
    settle_s=90,
    grace_s=900,
)


class ProjectShop(Shop):
    """Lays out what `Shop` holds."""

    map_policy: MapPolicy = MAP_POLICY

    def map_service(self, stores: Stores | None = None, **policy: Any) -> Project:
        stores = stores or self.stores
        ledger = JobLedger(stores, self.clock, self.ids)
        live = LiveEmbeddings(stores, Inline())
        return Project(stores, live, ledger, replace(self.map_policy, **policy), 1, self.clock)

    def project(self, *, now: bool = False, wait_s: float = 1000, **policy: Any) -> dict[str, Any]:
        """Let time pass, and run until nothing is left to do; gives the summary."""
        self.clock.now += wait_s
        for _ in range(100):
            report = self.map_service(**policy).run(FOREVER, now=now)
            now = False
            assert not report.postponed
            if report.finished:
                (done,) = report.catalogues
                return dict(done.summary)
        raise AssertionError("it never ends")

    def map(self) -> CatalogueMap:
        found = MapReader(self.stores).read(CATALOGUE)
        assert found is not None
        return found

    def on_map(self) -> dict[str, tuple[float, float]]:
        """Where each product is; on the map once."""
        found = self.map()
        reader = MapReader(self.stores)
        ids = [reader.details(found, number).product_id for number in range(len(found))]
        assert len(set(ids)) == len(ids), "a product is on the map twice"
        places = zip(found.points.x.tolist(), found.points.y.tolist(), strict=True)
        return dict(zip(ids, places, strict=True))


def groups_apart(places: dict[str, tuple[float, float]]) -> bool:
    """Whether the nearest other point of each is one of its own group."""
    ids = list(places)
    at = np.array([places[id_] for id_ in ids])
    distances = np.linalg.norm(at[:, None] - at, axis=-1)
    np.fill_diagonal(distances, np.inf)
    nearest = distances.argmin(axis=1)
    groups = [id_.split("-")[0] for id_ in ids]
    same = [groups[a] == groups[b] for a, b in enumerate(nearest.tolist())]
    return float(np.mean(same)) > 0.95
