"""The search log, feedback and aggregates: in memory, and in DynamoDB as moto plays it."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import boto3
import pytest

from crash_points.wire import moto_in_process
from lookalike.adapters.feedback import DynamoFeedback
from lookalike.adapters.memory_analytics import MemoryFeedback, MemoryRollups, MemorySearchLog
from lookalike.adapters.rollups import DynamoRollups
from lookalike.adapters.search_log import DynamoSearchLog
from lookalike.core.errors import Conflict
from lookalike.core.feedback import FeedbackEntry
from lookalike.core.rollups import Counted, Reading, Rollup, RollupState, TouchedHour
from lookalike.core.search_hours import PERIODS, SHARDS, hour_of
from lookalike.core.tally import Tally
from lookalike.core.types import Generation, Lineage, SearchRecord
from lookalike.services.clusters import Clusters
from lookalike.services.counted_writes import CountedWrites
from lookalike.services.jobs import JobLedger
from lookalike.services.rollup import SearchRollup
from search_log.simulated import START, searches, ulid

DAYS = 2
RETENTION_S = DAYS * 86_400
KEYS = {"searches": "query_id", "feedback": "entry", "rollups": "entry"}


@pytest.fixture(scope="module")
def moto():
    with moto_in_process(lambda: START):
        yield


@pytest.fixture
def tables(moto):
    """Names of tables of the test's own."""
    dynamodb, made = boto3.client("dynamodb", "us-east-1"), {}
    for number, (kind, sort) in enumerate(KEYS.items()):
        made[kind] = f"{kind}-{number}-of-a-test"
        partition = "scope" if kind == "rollups" else "bucket"
        dynamodb.create_table(
            TableName=made[kind],
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[
                {"AttributeName": partition, "KeyType": "HASH"},
                {"AttributeName": sort, "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[
                {"AttributeName": name, "AttributeType": "S"} for name in (partition, sort)
            ],
        )
    yield made
    for name in made.values():
        dynamodb.delete_table(TableName=name)


@pytest.fixture(params=["memory", "moto"])
def log(request):
    if request.param == "memory":
        return MemorySearchLog(DAYS)
    return DynamoSearchLog(request.getfixturevalue("tables")["searches"], DAYS)


@pytest.fixture(params=["memory", "moto"])
def feedback(request):
    if request.param == "memory":
        return MemoryFeedback()
    return DynamoFeedback(request.getfixturevalue("tables")["feedback"])


@pytest.fixture(params=["memory", "moto"])
def rollups(request):
    if request.param == "memory":
        return MemoryRollups()
    return DynamoRollups(request.getfixturevalue("tables")["rollups"])


def paged(table, hour: int, now: float, limit: int = 3, after: str = "") -> list:
    found = []
    for shard in range(SHARDS):
        go_on: str | None = after
        while go_on is not None:
            page, go_on = table.page(hour, shard, go_on, limit, now)
            assert len(page) <= limit
            found += page
    return found


def records(number: int = 20) -> list[SearchRecord]:
    return [record for record, _ in searches(number, 0.05)]


def test_an_hours_searches_are_read_in_pages_and_deleted(log):
    written = records()
    for record in written:
        log.write(record)
    hours = sorted({hour_of(record.query_id) for record in written})
    assert len(hours) > 1
    for hour in hours:
        mine = [record for record in written if hour_of(record.query_id) == hour]
        found = paged(log, hour, START)
        assert sorted(found, key=lambda item: item.query_id) == mine
    last = hours[-1]
    count = len(paged(log, last, START))
    assert count > 2
    assert log.delete(last, 2) == 2 and len(paged(log, last, START)) == count - 2
    assert log.delete(last, 100) == count - 2 and log.delete(last, 100) == 0
    assert paged(log, last, START) == [] and paged(log, hours[0], START)


def test_expired_searches_are_not_given_out(log):
    record = records(1)[0]
    log.write(record)
    end = int(record.at) + RETENTION_S
    assert log.get(record.query_id, end - 1) == record
    assert log.get(record.query_id, end) is None
    hour = hour_of(record.query_id)
    assert paged(log, hour, end - 1) == [record] and paged(log, hour, end) == []


def test_recent_searches_are_not_expired_ones(tables):
    for log in (MemorySearchLog(0), DynamoSearchLog(tables["searches"], 0)):
        record = records(1)[0]
        log.write(record)
        assert log.recent(5, record.at + 1) == []


def test_feedback_comes_in_order_of_searches_and_once(feedback):
    rng = random.Random(1)
    ids = sorted(ulid(START + 10, rng) for _ in range(12))
    entries = [
        FeedbackEntry(query_id, name, event, rank, "s", START, START + RETENTION_S)
        for query_id in ids
        for rank, name in enumerate(("p é#1", "#", "ü" * 127), 1)
        for event in ("click", "buy")
    ]
    for entry in random.Random(2).sample(entries, len(entries)):
        assert feedback.put(entry)
    changed = replace(entries[0], rank=7)
    assert not feedback.put(changed)  # the first stays
    found = paged(feedback, hour_of(ids[0]), START, limit=5)
    assert sorted(found, key=repr) == sorted(entries, key=repr)
    for shard in range(SHARDS):
        named = [item.query_id for item in feedback.page(hour_of(ids[0]), shard, "", 99, START)[0]]
        assert named == sorted(named)
        if named:
            later, _ = feedback.page(hour_of(ids[0]), shard, named[-1], 99, START)
            assert [item.query_id for item in later] == [named[-1]] * 6
    assert paged(feedback, hour_of(ids[0]), START + RETENTION_S) == []
    assert feedback.delete(hour_of(ids[0]), 1_000) == len(entries)
    assert paged(feedback, hour_of(ids[0]), START) == []


def tally() -> Tally:
    found = Tally()
    for record, entries in searches(30, 0.02):
        found.observe(record, entries)
    return found.trim()


def test_aggregates_are_replaced_by_who_knows_them(rollups):
    first = rollups.put(Rollup("a#b", "hour", 472_222, tally(), 1.5))
    assert first.revision is not None and first.tally == tally()
    with pytest.raises(Conflict):
        rollups.put(Rollup("a#b", "hour", 472_222, Tally(), 2.5))
    second = rollups.put(replace(first, made_at=3.5))
    with pytest.raises(Conflict):
        rollups.put(replace(first, tally=Tally()))
    other = rollups.put(Rollup("a#b", "hour", 472_300, Tally(), 1.0))
    rollups.put(Rollup("a", "hour", 472_230, Tally(), 1.0))
    rollups.put(Rollup("a#b", "day", 19_675, Tally(), 1.0))
    assert rollups.range("a#b", "hour", 0, 10**6) == [second, other]
    assert rollups.range("a#b", "hour", 472_223, 472_300) == [other]
    assert rollups.range("a#b", "hour", 472_223, 472_222) == []
    assert [item.number for item in rollups.range("a#b", "day", 19_675, 19_675)] == [19_675]
    assert rollups.range("a#b", "week", 0, 10**4) == []


def rolled_up(stores, searched) -> list[Rollup]:
    """All aggregates of a log, but for when they were made."""
    now, ids = [START], map("{:026d}".format, itertools.count(1))
    for name in {record.catalogue for record, _ in searched}:
        stores.lineages.put(Lineage(name, Generation(name, "toy", "toy")))

    def clock() -> float:
        return now[0]

    writes = CountedWrites(stores, RETENTION_S, clock)
    for record, said in searched:
        now[0] = max(now[0], record.at)
        writes.write(record)
        for entry in said:
            writes.write_feedback(replace(entry, expires_at=START + RETENTION_S))
    clusters = Clusters(stores, 0.5, clock, None)
    ledger = JobLedger(stores, clock, lambda: next(ids))
    rollup = SearchRollup(stores, ledger, clusters, RETENTION_S, clock)
    for _ in range(2):  # at once, and when it has settled
        now[0] += 300
        assert rollup.run(now[0] + 800).finished
    assert stores.rollups.touched() == []
    made = [
        replace(item, made_at=0.0, revision=None)
        for name in sorted({record.catalogue for record, _ in searched})
        for period in PERIODS
        for item in stores.rollups.range(name, period, 0, 10**6)
    ]
    now[0] += RETENTION_S + 4 * 86_400
    assert rollup.run(now[0] + 800).finished
    for hour in {hour_of(record.query_id) for record, _ in searched}:
        assert stores.log.delete(hour, 9) == stores.feedback.delete(hour, 9) == 0
    return made


def test_a_log_is_rolled_up_alike_and_purged(tables, fresh_stores):
    searched = list(searches(60, 0.1))
    dynamo = replace(
        fresh_stores(),
        log=DynamoSearchLog(tables["searches"], DAYS),
        feedback=DynamoFeedback(tables["feedback"]),
        rollups=DynamoRollups(tables["rollups"]),
    )
    memory = replace(fresh_stores(), log=MemorySearchLog(DAYS))
    made = rolled_up(dynamo, searched)
    assert len(made) >= 3 * 3 and made == rolled_up(memory, searched)


def test_sizes_of_clusters_a_day(rollups):
    rollups.put_sizes("s", 10, {"c1": 4})
    rollups.put_sizes("s", 11, {"c1": 4, "c2": 1})
    rollups.put_sizes("s", 11, {"c2": 2})
    rollups.put_sizes("t", 11, {})
    assert rollups.sizes("s", 0, 10**4) == {10: {"c1": 4}, 11: {"c2": 2}}
    assert rollups.sizes("s", 11, 11) == {11: {"c2": 2}}
    assert rollups.sizes("t", 11, 11) == {11: {}}


def test_hours_are_touched_until_they_are_settled(rollups):
    assert rollups.touched() == []
    rollups.touch(472_222, 1_700_000_000.125)
    rollups.touch(9, 5.5)
    rollups.touch(472_222, 1_600_000_000.0)  # an earlier time changes nothing
    first = TouchedHour(472_222, 1_700_000_000.125)
    assert rollups.touched() == [TouchedHour(9, 5.5), first]
    rollups.touch(472_222, 1_700_000_000.25)
    rollups.settle(first)  # it was written to since
    later = TouchedHour(472_222, 1_700_000_000.25)
    assert rollups.touched() == [TouchedHour(9, 5.5), later]
    rollups.settle(later)
    rollups.settle(later)
    assert rollups.touched() == [TouchedHour(9, 5.5)]


def test_a_state_of_many_hours_fits_into_an_item(rollups):
    counted = {470_000 + hour: Counted(1.7e9 + hour / 3, 1.7e9, 0.25) for hour in range(9_000)}
    state = RollupState(7, counted, looked_at=8)
    rollups.put_state(state)
    assert replace(rollups.state(), revision=None) == state


def test_the_state_is_written_by_one_of_two(rollups):
    assert rollups.state() is None
    state = RollupState(7, {472_222: Counted(1.5, 0.1 + 0.2, 3.0)}, Reading(8, 1.5, 2, "x", "k"))
    first = rollups.put_state(state)
    assert rollups.state() == first and replace(first, revision=None) == state
    with pytest.raises(Conflict):
        rollups.put_state(replace(state, purged=9))
    assert rollups.put_state(replace(first, purged=9)) == rollups.state()
