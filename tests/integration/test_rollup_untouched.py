"""What the roll-up makes of hours that could not be touched, of old readings, and of lost hours."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from lookalike.adapters.failing import FAULTS, FailingStores
from lookalike.adapters.memory_analytics import MemoryRollups
from lookalike.core.errors import Unavailable
from lookalike.core.search_hours import end_of, hour_of
from lookalike.services.counted_writes import CountedWrites
from lookalike.services.rollup_hours import HourCount
from lookalike.services.rollup_sums import RollupSums
from search_log.counted import World, check, log
from search_log.simulated import RETENTION_S


@pytest.fixture
def world() -> World:
    return World()


def failing_touches(world, record, fault="refused"):
    """A search that is written while its hour can be touched neither before nor behind it."""
    refused = next(item for item in FAULTS if item.name == fault)
    stores = world.stores

    def touch(hour, at):
        FailingStores.with_fault(stores, 1, refused).stores.rollups.touch(hour, at)

    rollups = SimpleNamespace(touch=touch)
    failing = SimpleNamespace(log=stores.log, feedback=stores.feedback, rollups=rollups)
    writes = CountedWrites(failing, RETENTION_S, world.clock)
    writes.write(record)  # it is kept, so that is no error
    assert stores.rollups.touched() == [] and stores.log.get(record.query_id, world.clock.now)
    rollups.touch = stores.rollups.touch
    return writes


def test_an_hour_that_could_not_be_touched_is_at_the_next_write(world):
    (first, _), (second, _) = log()[0], log()[-1]
    world.clock.now = first.at
    writes = failing_touches(world, first)
    world.clock.now = second.at
    writes.write(second)
    world.settle()
    check(world, [(first, []), (second, [])])


def test_an_hour_whose_writer_never_writes_again_is_looked_at_when_it_is_over(world):
    (record, _), *_ = log()
    world.clock.now = record.at
    world.run()
    failing_touches(world, record)
    world.run()
    assert world.content() == {}
    world.clock.now = end_of("hour", hour_of(record.query_id)) + 130
    world.run()
    assert world.stores.rollups.touched() == []
    check(world, [(record, [])])
    failing = FailingStores(world.stores)
    world.run(failing.stores)  # once
    assert "rollups.touch" not in failing.names


def test_feedback_whose_hour_cannot_be_touched_is_to_be_sent_again(world):
    record, entries = next(item for item in log() if item[1])
    world.clock.now = entries[0].at
    writes = failing_touches(world, record)
    writes._stores.rollups.touch = _unavailable
    with pytest.raises(Unavailable):
        writes.write_feedback(entries[0])
    writes._stores.rollups.touch = world.stores.rollups.touch
    assert not writes.write_feedback(replace(entries[0]))
    world.settle()
    check(world, [(record, entries[:1])])


def _unavailable(*_):
    raise Unavailable("throttled")


def test_an_older_reading_never_replaces_a_newer_one_that_said_the_same(world):
    records = [record for record, _ in log() if record.catalogue == "shoes"][:2]

    def counted(number):
        count = HourCount()
        for record in records[:number]:
            count.observe(record, [])
        return count

    sums = RollupSums(world.stores, world.rollup()._sums._clusters, world.clock)
    for number, begun_at in ((2, 10.0), (2, 200.0), (1, 20.0)):
        sums.put_hour(7, counted(number), begun_at)
    (stored,) = world.stores.rollups.range("shoes", "hour", 7, 7)
    assert (stored.tally.searches, stored.made_at) == (2, 200.0)


def test_who_was_shown_is_added_to_without_reading_all_weeks(world, monkeypatch):
    searched = log(300, 30.0)
    world.write(searched[:-20])
    world.settle()
    read = []
    range_ = MemoryRollups.range

    def reading(self, catalogue, period, first, last):
        read.extend([last - first + 1] if period == "week" else [])
        return range_(self, catalogue, period, first, last)

    monkeypatch.setattr(MemoryRollups, "range", reading)
    (shoes,) = [item for item in searched[-20:] if item[0].catalogue == "shoes"][-1:]
    world.write([shoes])
    world.clock.now += 20
    world.run()
    assert set(read) == {1}


def test_an_hour_that_is_lost_is_measured(world, caplog):
    record, _ = log()[0]
    world.write([(record, [])])
    world.clock.now += RETENTION_S
    world.run()
    (lost,) = [item for item in caplog.records if "not counted" in item.getMessage()]
    assert str(hour_of(record.query_id)) in lost.getMessage()
    # What handles the log may have made a metric of it.
    assert (vars(lost) | vars(lost).get("metrics", {}))["HoursNotCounted"] == 1
