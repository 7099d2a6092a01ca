"""Scheduled work on the catalogue as its functions do it, and what must hold of what it makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np

from crash_points.promises import check_answer, products
from crash_points.world import CATALOGUE, FOREVER, GRACE_S, Inline, World
from lookalike.core.feedback import Event
from lookalike.core.jobs import Artifact
from lookalike.core.search_hours import SHARDS, number_at, start_of
from lookalike.core.types import SearchRecord
from lookalike.services.clusters import Clusters
from lookalike.services.feedback import FeedbackRequest
from lookalike.services.jobs import WorkReport
from lookalike.services.map_reader import MapReader
from lookalike.wiring import Services
from lookalike.wiring_project import build_project

JOBS = ("recluster", "calibrate", "project", "health", "rollup")
WORK = {"clusters": 3, "map_method": "pca", "quiet_s": 0.0}
"""Settings under which work on two dozen products is all there is of it, and soon done."""
_TURNS = 12


@contextmanager
def small_slices() -> Iterator[None]:
    """Work that saves after every block, and blocks so small that there are some."""
    with (
        mock.patch("lookalike.wiring_project.ThreadPoolExecutor", Inline),
        mock.patch("lookalike.services.live_embeddings.BLOCK_ROWS", 9),
        mock.patch("lookalike.services.jobs.SAVE_EVERY_S", 0.0),
        mock.patch("lookalike.services.rollup.SAVE_EVERY_S", 0.0),
    ):
        yield


def service(world: World, system: Services, job: str) -> Any:
    """What does a job; the map's has a wiring of its own."""
    if job == "project":
        return build_project(system.settings, system.stores, world.new_id, world.clock)
    return getattr(system, job)


def do(
    world: World, system: Services, job: str, *, now: bool = False, deadline: float = FOREVER
) -> WorkReport:
    """One slice of a job."""
    report: WorkReport = service(world, system, job).run(deadline, CATALOGUE, now=now)
    return report


def tend(world: World, jobs: tuple[str, ...] = JOBS) -> None:
    """Minutes go by in which these jobs are done by new processes, until there is nothing to do."""
    for _ in range(_TURNS):
        before = _state(world)
        world.wait(61)
        reports = [do(world, world.system(**WORK), job) for job in jobs]
        if all(report.finished for report in reports) and _state(world) == before:
            return
    raise AssertionError(f"there is always something to do: {reports}")


def _state(world: World) -> tuple[Any, ...]:
    """What there is, how far work is, and which hours are still to be counted."""
    jobs = [job.run for job in world.stores.jobs.all(CATALOGUE)]
    return artifacts(world), jobs, world.stores.rollups.touched()


def artifacts(world: World) -> dict[str, Artifact]:
    return world.stores.artifacts.current(CATALOGUE)


def live(world: World) -> set[str]:
    return {product.product_id for product in products(world) if product.views}


def _named(world: World) -> set[str]:
    return {key for made in artifacts(world).values() for key in (made.key, made.arrivals_key)}


# What must hold.


def check_work(world: World, kinds: tuple[str, ...], *jobs: str) -> None:
    """Everything that was made is right, stays so, and leaves nothing lying about."""
    check_made(world, kinds)
    world.wait(GRACE_S + 3600)
    world.system(**WORK).compaction.run(FOREVER, CATALOGUE)
    named = _named(world)  # what is current stays until the next time, too
    for job in jobs:
        for _ in range(_TURNS):
            if do(world, world.system(**WORK), job, now=True).finished:
                break
    check_made(world, kinds)
    named |= _named(world)
    there = {
        info.key for folder in ("derived/", "work/") for info in world.stores.index.list(folder)
    }
    assert not there - named, f"never collected: {there - named}"


def check_made(world: World, kinds: tuple[str, ...]) -> None:
    for job in world.stores.jobs.all(CATALOGUE):
        assert not job.phase and not job.error, f"{job.name}: {job}"
    for kind in kinds:
        assert kind in artifacts(world) or kind == "figures", f"there are no {kind}"
        _CHECKS[kind](world)


def check_readable(world: World) -> None:
    """Whoever reads now finds all that is current."""
    for made in artifacts(world).values():
        for key in filter(None, (made.key, made.arrivals_key)):
            assert world.stores.index.head(key), f"{key} is current and not there"


def check_clusters(world: World) -> None:
    """Each live product is in exactly one cluster; who is nearest to a cluster is in it."""
    clusters = Clusters(world.stores, 0.0, world.clock, Inline())
    listed = clusters.list(CATALOGUE).clusters
    members = {info.cluster_id: members_of(clusters, info.cluster_id) for info in listed}
    count = Counter(item for ids in members.values() for item in ids)
    now = live(world)
    assert {item: count[item] for item in now} == dict.fromkeys(now, 1)
    for info in listed:
        strangers = set(info.representatives) & now - set(members[info.cluster_id])
        assert not strangers, f"{strangers} stand for {info.cluster_id}, and are not in it"


def members_of(clusters: Clusters, cluster_id: str) -> list[str]:
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        page, after = clusters.members(CATALOGUE, cluster_id, 7, after)
        found += page
    return found


def check_map(world: World) -> None:
    """Each live product is on the map once, by a view that it has."""
    reader = MapReader(world.stores)
    map_ = reader.read(CATALOGUE)
    assert map_ is not None
    details = [reader.details(map_, number) for number in range(len(map_))]
    count = Counter(item.product_id for item in details)
    now = live(world)
    assert {item: count[item] for item in now} == dict.fromkeys(now, 1)
    assert np.isfinite(map_.points.x).all() and np.isfinite(map_.points.y).all()
    records = {product.product_id: product for product in products(world)}
    for item in details:
        assert item.product_id not in now or any(
            view.thumbnail == item.thumbnail for view in records[item.product_id].views.values()
        ), f"{item.product_id} is shown by a photo that is gone"


def check_figures(world: World) -> None:
    """Hours, days and weeks come to what the log and the feedback on it say, entry by entry."""
    for period in ("hour", "day", "week"):
        wanted = counted(world, period)
        found = {
            rollup.number: rollup.tally
            for rollup in world.stores.rollups.range(CATALOGUE, period, 0, 10**6)
        }
        figures = {
            number: (item.searches, item.clicks, item.buys) for number, item in found.items()
        }
        assert figures == wanted, f"{period}s come to {figures}, not {wanted}"


def counted(world: World, period: Any) -> dict[int, tuple[int, int, int]]:
    """(searches, clicks, purchases) by period, from everything that was ever written."""
    figures: dict[int, list[int]] = {}
    for hour in range(int(world.begun // 3600) - 1, int(world.clock.now // 3600) + 1):
        number = number_at(period, start_of("hour", hour))
        for shard in range(SHARDS):
            searches, more = world.stores.log.page(hour, shard, "", 1000, world.clock.now)
            events, _ = world.stores.feedback.page(hour, shard, "", 1000, world.clock.now)
            assert more is None
            if searches:
                figure = figures.setdefault(number, [0, 0, 0])
                figure[0] += len(searches)
                figure[1] += sum(item.event == "click" for item in events)
                figure[2] += sum(item.event == "buy" for item in events)
    return {number: (a, b, c) for number, (a, b, c) in figures.items()}


_CHECKS: dict[str, Callable[[World], None]] = {
    "clusters": check_clusters,
    "map": check_map,
    "figures": check_figures,
    "calibration": lambda world: None,
    "findings": lambda world: None,
    "shown": lambda world: None,
}


# Searches and what came of them.


@dataclass(frozen=True)
class Shopper:
    """Searches and clicks through the services."""

    world: World
    system: Services

    def search(self, seed: int) -> SearchRecord | None:
        """What the log has of it: nothing if the log could not be written to."""
        query_id = check_answer(self.world, self.system, seed)
        return self.world.stores.log.get(query_id, self.world.clock())

    def react(self, record: SearchRecord | None, event: Event, rank: int) -> None:
        if record is None:
            return
        product_id = record.results[rank - 1][0]
        self.system.feedback.record(FeedbackRequest(record.query_id, product_id, event, rank))
