"""Stores with a search log, and whoever writes and counts it."""

from __future__ import annotations

import functools
import itertools
from dataclasses import asdict

from lookalike.adapters.memory import memory_stores_of
from lookalike.core.search_hours import hour_of, number_at, start_of
from lookalike.core.types import Generation, Lineage
from lookalike.services.analytics import Analytics
from lookalike.services.clusters import Clusters
from lookalike.services.counted_writes import CountedWrites
from lookalike.services.jobs import JobLedger
from lookalike.services.rollup import SearchRollup
from search_log.brute_force import differences, figures
from search_log.simulated import RETENTION_S, SHOPS, START, searches


class Moved:
    """A clock that is moved by hand."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class World:
    """Stores with a search log, and whoever writes and counts it."""

    def __init__(self, now: float = START) -> None:
        self.clock = Moved(now)
        self.stores = memory_stores_of(self.clock)
        for shop in SHOPS:
            self.stores.lineages.put(Lineage(shop.name, Generation(shop.name, "toy", "toy")))
        self.ids = map("{:026d}".format, itertools.count(1))
        self.writes = CountedWrites(self.stores, RETENTION_S, self.clock)
        self.analytics = Analytics(self.stores, self.clock)

    def rollup(self, stores=None) -> SearchRollup:
        stores = stores or self.stores
        return SearchRollup(
            stores,
            JobLedger(stores, self.clock, lambda: next(self.ids)),
            Clusters(stores, 0.5, self.clock, None),
            RETENTION_S,
            self.clock,
        )

    def run(self, stores=None, **options):
        return self.rollup(stores).run(self.clock.now + 800, **options)

    def settle(self) -> None:
        """Let everything that was written be counted for good."""
        self.clock.now += 300
        assert self.run().finished
        assert self.stores.rollups.touched() == []

    def write(self, searched) -> None:
        for record, feedback in searched:
            self.clock.now = max(self.clock.now, record.at)
            self.writes.write(record)
            for entry in feedback:
                self.writes.write_feedback(entry)

    def content(self):
        """All aggregates, without when they were made."""
        found = {}
        for shop, period in itertools.product(SHOPS, ("hour", "day", "week")):
            for item in self.stores.rollups.range(shop.name, period, 0, 10**6):
                found[shop.name, period, item.number] = asdict(item.tally)
        return found


@functools.cache
def log(number: int = 400, days: float = 2.0, seed: int = 0):
    return list(searches(number, days, seed))


def within(searched, name: str, since: float, until: float):
    return [
        item
        for item in searched
        if item[0].catalogue == name
        and since <= start_of("hour", hour_of(item[0].query_id)) < until
    ]


def check(world: World, searched) -> None:
    """Every hour, day and week of every catalogue is what brute force says."""
    for shop, period in itertools.product(SHOPS, ("hour", "day", "week")):
        numbers = {
            number_at(period, start_of("hour", hour_of(record.query_id)))
            for record, _ in searched
            if record.catalogue == shop.name
        }
        series = world.analytics.series(shop.name, period, 0, 2**32)
        assert [number_at(period, item.start) for item in series] == sorted(numbers)
        for item in series:
            expected = figures(within(searched, shop.name, item.start, item.end))
            assert differences(item, expected) == {}
