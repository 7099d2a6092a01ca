"""The roll-up against brute force, with late entries, slices that die, two runners, and expiry."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest

from lookalike.adapters.failing import FAULTS, Crash, FailingStores
from lookalike.adapters.memory_analytics import MemorySearchLog
from lookalike.core.errors import Retry
from lookalike.core.search_hours import DAY_S, HOUR_S, end_of, hour_of
from lookalike.core.shown import product_hash, read_shown
from lookalike.services import rollup as rollup_module
from lookalike.services.counted_writes import CountedWrites
from search_log.brute_force import clusters, products
from search_log.counted import Moved, World, check, log, within
from search_log.simulated import RETENTION_S, SHOPS, START, ulid


@pytest.fixture
def world() -> World:
    return World()


def test_aggregates_are_what_brute_force_says(world):
    searched = log(1_500, 9.0)
    world.write(searched)
    world.settle()
    check(world, searched)
    for shop in SHOPS:
        since, until = START + 1.3 * DAY_S, START + 8.6 * DAY_S
        mine = within(searched, shop.name, since, until)
        overview = world.analytics.overview(shop.name, since, until, top=10_000)
        assert overview.figures.searches == len(mine)
        found = {
            name: [(item.product_id, item.count) for item in items]
            for name, items in overview.products.items()
        }
        assert found == products(mine) and set(overview.too_low_by.values()) == {0}
        assert {item.cluster: item.searches for item in overview.clusters} == clusters(mine)
        scores = sorted((r.results[0][2], r.query_id) for r, _ in mine if r.results)[:10]
        assert [(item.top_score, item.query_id) for item in overview.weakest] == scores


def test_who_was_shown_is_kept(world):
    searched = log()
    world.write(searched)
    world.settle()
    for shop in SHOPS:
        artifact = world.stores.artifacts.current(shop.name)["shown"]
        shown = read_shown(world.stores.index.get(artifact.key, 10**6)[1])
        mine = within(searched, shop.name, 0, 2**32)
        names = {name for record, _ in mine for name, _, _ in record.results}
        assert shown.tolist() == sorted(map(product_hash, names))
        assert artifact.products == len(names)
        assert artifact.summary["searches"] == len(mine)
        assert artifact.summary["since"] == min(record.at for record, _ in mine)


def test_entries_in_any_order_and_however_late_are_counted_once(world):
    searched = log()
    writes = [(record.at, "search", record) for record, _ in searched]
    writes += [(entry.at, "feedback", entry) for _, entries in searched for entry in entries]
    rng = random.Random(3)
    late = [(at + rng.random() * 10 * HOUR_S, kind, item) for at, kind, item in writes]
    for moment, kind, item in sorted(late, key=lambda item: item[0]):
        while world.clock.now + 1_800 < moment:
            world.clock.now += 1_800
            world.run()
        world.clock.now = max(world.clock.now, moment)
        if kind == "search":
            world.writes.write(item)
        else:
            world.writes.write_feedback(item)
            world.writes.write_feedback(item)  # said twice
    world.settle()
    check(world, searched)
    before = world.content()
    world.clock.now += 60
    assert world.run(now=True).finished
    assert world.content() == before


def test_new_searches_are_counted_in_the_minute(world):
    searched = log()[:5]
    world.write(searched)
    world.clock.now += 20
    report = world.run()
    assert sum(item.summary["searches"] for item in report.catalogues) == 5
    world.clock.now += 10
    report = world.run()  # nothing has come since
    assert sum(item.summary["searches"] for item in report.catalogues) == 0
    assert [item.finished for item in report.catalogues] == [True] * len(SHOPS)
    assert world.stores.jobs.get("shoes", "rollup").finished_at == world.clock.now - 10


def test_a_writer_that_dies_before_or_after_its_write_loses_nothing(world):
    searched = log()[:40]
    for record, feedback in searched:
        world.clock.now = max(world.clock.now + 31, record.at)
        for at in (1, 2):
            failing = FailingStores(world.stores, at, effective=True)
            writes = CountedWrites(failing.stores, RETENTION_S, world.clock)
            with pytest.raises(Crash):
                writes.write(record)
            if at == 1:
                world.run()
        for entry in feedback:
            world.writes.write_feedback(entry)
    world.settle()
    check(world, searched)


def test_a_touch_that_fails_is_made_up_for_behind_the_write(world):
    searched = [(record, []) for record, _ in log()[:30]]
    refused = next(fault for fault in FAULTS if fault.name == "refused")
    for record, _ in searched:
        world.clock.now = max(world.clock.now + 31, record.at)
        failing = FailingStores.with_fault(world.stores, 1, refused)
        CountedWrites(failing.stores, RETENTION_S, world.clock).write(record)
        assert failing.names == ["rollups.touch", "log.write", "rollups.touch"]
    world.settle()
    check(world, searched)


def test_a_write_that_was_frozen_for_hours_is_counted(world):
    (record, _), *_ = log()
    world.clock.now = record.at
    frozen = world.writes._touching(hour_of(record.query_id))
    with frozen:
        for _ in range(10):
            world.clock.now += 600
            world.run()
        assert world.stores.rollups.touched() == []
        world.stores.log.write(record)
    world.settle()
    check(world, [(record, [])])


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_whatever_call_fails_the_next_run_ends_right(world, fault):
    searched = log()[:6]
    expected = World()
    expected.write(searched)
    expected.settle()
    for at in itertools.count(1):
        world = World()
        world.write(searched)
        world.clock.now += 300
        failing = FailingStores.with_fault(world.stores, at, fault)
        with_end = True
        try:
            world.run(failing.stores)
        except (Crash, Retry):
            with_end = False
        world.clock.now += 60
        world.settle()
        assert world.content() == expected.content(), (fault.name, at)
        jobs = [world.stores.jobs.get(shop.name, "rollup") for shop in SHOPS]
        assert not any(job.phase for job in jobs if job is not None), (fault.name, at)
        if with_end and failing.calls < at:
            break
    assert at > 20


def test_a_slice_that_dies_goes_on_from_its_last_save(world, monkeypatch):
    monkeypatch.setattr("lookalike.services.rollup_hours.PAGE", 7)
    monkeypatch.setattr(rollup_module, "SAVE_EVERY_S", 3.0)
    searched = [item for item in log(900, 0.08)]
    world.write(searched)
    world.clock.now += 300

    class Ageing(Moved):
        looks = 0

        def __call__(self) -> float:
            self.looks += 1
            self.now += 0.5
            return self.now

    world.clock = Ageing(world.clock.now)
    reads = []
    page = MemorySearchLog.page
    monkeypatch.setattr(
        MemorySearchLog, "page", lambda self, *args: reads.append(args) or page(self, *args)
    )
    slices = 0
    for deadline in itertools.cycle((4.0, 9.0)):
        report = world.rollup().run(world.clock.now + deadline)
        slices += 1
        if report.finished:
            break
    assert slices > 10
    repeated = len(reads) / len(set(reads))
    assert repeated < 1.5  # a slice that ends saves where it is
    assert not list(world.stores.index.list("work/"))
    world.settle()
    check(world, searched)


def test_of_two_runners_none_undoes_what_the_other_has_counted():
    """One stops at each of its calls while another counts more; then it goes on."""
    searched = log()[:6]
    late = log(seed=8)[:1]
    late = [(replace(late[0][0], query_id=searched[0][0].query_id[:-1] + "Z"), [])]
    for at in itertools.count(1):
        world = World()
        world.write(searched)
        world.clock.now += 300

        class Between(FailingStores):
            def call(self, method, *args, world=world, at=at, **kwargs):
                if self.calls + 1 == at:
                    world.write(late)
                    world.settle()  # and so nobody will count it again
                return super().call(method, *args, **kwargs)

        slow = Between(world.stores)
        world.run(slow.stores)
        if slow.calls < at:
            break
        world.clock.now += 60
        world.settle()
        check(world, [*searched, *late])
    assert at > 20


def test_entries_leave_and_what_was_counted_of_them_stays(world):
    searched = log(60, 0.5)
    world.write(searched)
    world.settle()
    before = world.content()
    first, _ = next(item for item in searched if item[1])
    world.clock.now = end_of("hour", hour_of(first.query_id)) + RETENTION_S
    assert world.stores.log.get(first.query_id, world.clock.now) is None
    world.stores.rollups.touch(hour_of(first.query_id), world.clock.now)  # as if it had changed
    world.run(now=True)
    assert world.content() == before and world.stores.rollups.touched() == []
    world.clock.now += 4 * DAY_S
    world.run()
    assert world.content() == before
    assert sum(map(len, world.stores.log._shards.values())) == 0
    assert sum(map(len, world.stores.feedback._shards.values())) == 0


def test_what_has_not_expired_is_not_deleted(world):
    old, new = log(30, 0.2), log(30, 0.2, seed=5)
    shift = 93 * DAY_S
    world.write(old)
    world.settle()
    world.clock.now = START + shift
    rng = random.Random(1)
    kept = [
        replace(record, query_id=ulid(record.at + shift, rng), at=record.at + shift)
        for record, _ in new
    ]
    for record in kept:
        world.clock.now = max(world.clock.now, record.at)
        world.writes.write(record)
    world.settle()
    assert sum(map(len, world.stores.log._shards.values())) == len(kept)


def test_a_list_of_shown_products_that_cannot_be_read_is_made_again(world):
    searched = log()
    world.write(searched[:300])
    world.settle()
    before = world.stores.artifacts.current("shoes")["shown"]
    world.stores.index.delete(before.key)
    world.write(searched[300:])
    world.settle()
    artifact = world.stores.artifacts.current("shoes")["shown"]
    shown = read_shown(world.stores.index.get(artifact.key, 10**6)[1])
    mine = within(searched, "shoes", 0, 2**32)
    names = {name for record, _ in mine for name, _, _ in record.results}
    assert np.array_equal(shown, np.array(sorted(map(product_hash, names)), dtype=np.uint64))
