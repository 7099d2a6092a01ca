"""Rolls up a simulated log and compares it with brute force.

Run: python tests/benchmarks/bench_rollup.py

The tables are in memory, so what is measured is the roll-up's own CPU time; records are encoded and
decoded as DynamoDB's adapter does. ``--hour N`` counts one hour of N searches instead, and says
what memory that takes.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))

from lookalike.adapters.memory import memory_stores_of
from lookalike.adapters.memory_analytics import MemoryFeedback, MemorySearchLog
from lookalike.core.ports import Stores
from lookalike.core.search_hours import PERIODS, SHARDS, hour_of, number_at, shard_of, start_of
from lookalike.core.types import Generation, Lineage, SearchRecord
from lookalike.services.analytics import Analytics
from lookalike.services.clusters import Clusters
from lookalike.services.counted_writes import CountedWrites
from lookalike.services.jobs import JobLedger
from lookalike.services.rollup import SearchRollup
from search_log.brute_force import Searched, clusters, differences, figures, products
from search_log.simulated import RETENTION_S, SHOPS, START, Shop, searches


class Now:
    """The time that everything happens at, moved by hand, beside which real seconds pass."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now + time.monotonic() % 1e-3


class EncodedLog(MemorySearchLog):
    """Entries as JSON text, as they lie in the table."""

    def __init__(self) -> None:
        super().__init__()
        self._bodies: dict[tuple[int, int], dict[str, bytes]] = defaultdict(dict)

    def write(self, record: SearchRecord) -> None:
        """Keep one search."""
        place = hour_of(record.query_id), shard_of(record.query_id)
        self._bodies[place][record.query_id] = msgspec.json.encode(record)

    @functools.cache  # noqa: B019  # lives as long as the program
    def _names(self, hour: int, shard: int) -> list[str]:
        return sorted(self._bodies[hour, shard])

    def page(
        self, hour: int, shard: int, after: str, limit: int, now: float
    ) -> tuple[list[SearchRecord], str | None]:
        """Searches of an hour's shard."""
        names, bodies = self._names(hour, shard), self._bodies[hour, shard]
        first = 0
        if after:
            first = self._places(hour, shard)[after] + 1
        page = names[first : first + limit]
        found = [msgspec.json.decode(bodies[name], type=SearchRecord) for name in page]
        return found, page[-1] if first + limit < len(names) else None

    @functools.cache  # noqa: B019
    def _places(self, hour: int, shard: int) -> dict[str, int]:
        return {name: place for place, name in enumerate(self._names(hour, shard))}


class MadeUpHour(MemorySearchLog):
    """One hour of as many searches as one likes, none of which is held."""

    def __init__(self, number: int, shop: Shop) -> None:
        super().__init__()
        self._number = number // SHARDS
        self._shop = shop
        self._going: dict[int, Iterator[SearchRecord]] = {}
        self.seconds = 0.0
        """Time that drawing them took."""

    def page(
        self, hour: int, shard: int, after: str, limit: int, now: float
    ) -> tuple[list[SearchRecord], str | None]:
        """Searches of the hour's shard: 2,000 that repeat under new ids."""
        since = time.process_time()
        if not after:
            self._going[shard] = self._draw(hour, shard)
        page = list(itertools.islice(self._going[shard], limit))
        self.seconds += time.process_time() - since
        return page, page[-1].query_id if len(page) == limit else None

    def _draw(self, hour: int, shard: int) -> Iterator[SearchRecord]:
        drawn = [item for item, _ in searches(2_000, 0.04, shard, (self._shop,))]
        for number in range(self._number):
            record = drawn[number % len(drawn)]
            shift = number * 7919 % len(self._shop.ids)
            names = [self._shop.ids[(shift + i) % len(self._shop.ids)] for i in range(10)]
            results = tuple((name, "front", 0.7) for name in names)
            yield replace(record, query_id=f"{record.query_id[:16]}{number:010d}", results=results)


def world(number: int, log: MemorySearchLog, shops: tuple[Shop, ...]) -> tuple[Stores, Now]:
    """Stores with a log."""
    clock = Now(START)
    stores = replace(memory_stores_of(clock), log=log, feedback=MemoryFeedback())
    for shop in shops:
        stores.lineages.put(Lineage(shop.name, Generation(shop.name, "toy", "toy")))
    return stores, clock


def roll_up(stores: Stores, clock: Now) -> tuple[float, int]:
    """Seconds of CPU time, and hours that were counted."""
    ids = map("{:026d}".format, itertools.count(1))
    ledger = JobLedger(stores, clock, lambda: next(ids))
    clusters_ = Clusters(stores, 0.5, clock, None)  # type: ignore[arg-type]  # not searched with
    hours, since = len(stores.rollups.touched()), time.process_time()
    rollup = SearchRollup(stores, ledger, clusters_, RETENTION_S, clock)
    report = rollup.run(clock() + 1e6)
    took = time.process_time() - since
    assert report.finished and not stores.rollups.touched(), report
    return took, hours


def compare(stores: Stores, clock: Now, searched: list[Searched]) -> tuple[int, dict[str, Any]]:
    """How many periods agree with brute force, and what differs in those that do not."""
    analytics, agreed, differing = Analytics(stores, clock), 0, {}
    for period in PERIODS:
        groups: dict[tuple[str, int], list[Searched]] = defaultdict(list)
        for item in searched:
            start = start_of("hour", hour_of(item[0].query_id))
            groups[item[0].catalogue, number_at(period, start)].append(item)
        for (name, number), mine in groups.items():
            since, until = start_of(period, number), start_of(period, number + 1)
            (found,) = analytics.series(name, period, since, until)
            overview = analytics.overview(name, since, until, top=10_000)
            wrong: dict[str, Any] = differences(found, figures(mine))
            tops = {
                kind: [(item.product_id, item.count) for item in items]
                for kind, items in overview.products.items()
            }
            if tops != products(mine):
                wrong["products"] = True
            if {item.cluster: item.searches for item in overview.clusters} != clusters(mine):
                wrong["clusters"] = True
            if wrong:
                differing[f"{name} {period} {number}"] = wrong
            agreed += not wrong
    return agreed, differing


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--searches", type=int, default=200_000)
    parser.add_argument("--days", type=float, default=30.0)
    parser.add_argument("--hour", type=int, default=0, help="searches of one hour, instead")
    parser.add_argument("--products", type=int, default=200_000, help="shown in that hour")
    options = parser.parse_args()
    if options.hour:
        shop = Shop("big", options.products, 1.0)
        log = MadeUpHour(options.hour, shop)
        stores, clock = world(options.hour, log, (shop,))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        stores.rollups.touch(number_at("hour", START), START)
        clock.now += 3_600
        took, _ = roll_up(stores, clock)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        (found,) = stores.rollups.range("big", "hour", 0, 10**6)
        print(
            f"one hour of {found.tally.searches:,} searches showing {options.products:,} products:"
        )
        print(f"  {took - log.seconds:.1f} s of CPU, {(after - before) / 1024:.0f} MB more")
        print(f"  top products too low by at most {found.tally.shown.error}")
        return
    searched = list(searches(options.searches, options.days))
    stores, clock = world(options.searches, EncodedLog(), SHOPS)
    writes = CountedWrites(stores, RETENTION_S, clock)
    for record, feedback in searched:
        clock.now = max(clock.now, record.at)
        writes.write(record)
        for entry in feedback:
            writes.write_feedback(entry)
    clock.now += 300
    events = sum(len(feedback) for _, feedback in searched)
    took, hours = roll_up(stores, clock)
    print(f"{len(searched):,} searches and {events:,} events of {hours} hours, 3 catalogues")
    print(f"  rolled up in {took:.1f} s of CPU, {len(searched) / took:,.0f} searches a second")
    since = time.process_time()
    agreed, differing = compare(stores, clock, searched)
    print(f"  brute force took {time.process_time() - since:.1f} s")
    print(f"  {agreed} hours, days and weeks agree, {len(differing)} differ")
    for name, wrong in list(differing.items())[:10]:
        print("   ", name, wrong)


if __name__ == "__main__":
    main()
