"""How the parts of an index become one answer. Bases are stood in for by exact rows."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.core.base import Base
from lookalike.core.base_build import BaseRows, build_base
from lookalike.core.errors import CorruptFile, Vanished
from lookalike.core.filters import parse_filter
from lookalike.core.head import Head, with_shards
from lookalike.core.index import FreshRows
from lookalike.core.probing import ROWS_PER_RESULT
from lookalike.core.search_index import SearchIndex, ShardIndex
from lookalike.core.segment import Segment, quantize

DIM = 6
EVEN = parse_filter({"even": True})


def unit_rows(seed: int, count: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def holding(vectors: np.ndarray, numbers) -> FreshRows:
    """These rows of ``vectors``."""
    rows = FreshRows("e", Head.identity(DIM))
    numbers = list(numbers)
    if numbers:
        segment = Segment(
            "e",
            *quantize(vectors[numbers]),
            tuple(f"k{number:04d}" for number in numbers),
            tuple(f"{number:016x}" for number in numbers),
            tuple({"even": number % 2 == 0} for number in numbers),
        )
        rows.add("s", segment)
    return rows


class ExactBase:
    """Stands in for a base of one list: searches exactly, or fails."""

    def __init__(self, inside: FreshRows, centroid=None, error: Exception | None = None) -> None:
        self.inside = inside
        self.centroid = np.zeros(DIM, np.float32) if centroid is None else centroid
        self.error = error
        self.searches = 0

    @property
    def rows(self) -> int:
        return len(self.inside)

    @property
    def list_rows(self):
        return np.asarray([self.rows])

    def nearness(self, query):
        return np.asarray([self.centroid @ query])

    def passing(self, filter):
        self.fail()
        return np.asarray([sum(map(filter.matches, self.inside._attributes))])

    def has(self, lists) -> bool:
        return True

    def search(self, query, limit, lists, filter=None):
        self.searches += 1
        self.fail()
        return self.inside.search(query, limit, filter=filter) if len(lists) else []

    def fail(self) -> None:
        if self.error is not None:
            raise self.error

    def embedding(self, key, version):
        if self.error is not None:
            raise self.error
        return self.inside.embedding(key, version)


def keys(candidates) -> list[str]:
    return [item.key for item in candidates]


@given(
    seed=st.integers(0, 50),
    places=st.lists(st.sets(st.integers(0, 6), min_size=1), min_size=1, max_size=40),
    limit=st.integers(1, 50),
    filtered=st.booleans(),
    exact=st.booleans(),
)
def test_rows_anywhere_and_twice_answer_as_brute_force(seed, places, limit, filtered, exact):
    """Places 0 to 5 are base and fresh rows of three shards, place 6 the appended rows."""
    vectors = unit_rows(seed, len(places))
    parts = [
        holding(vectors, (row for row, where in enumerate(places) if place in where))
        for place in range(7)
    ]
    shards = [ShardIndex(ExactBase(parts[i]), parts[i + 1]) for i in (0, 2, 4)]
    head = replace(Head.identity(DIM), centroids=unit_rows(seed + 1, 3))
    index = SearchIndex(head, shards, parts[6])
    brute = holding(vectors, range(len(places)))
    query = unit_rows(seed + 2, 1)[0]
    condition = EVEN if filtered else None
    wanted = brute.search(query, limit, filter=condition)
    # Every list is read, by being asked to or because √3 × 2 of 3 are.
    nprobe = 1 if exact else 2
    found = index.search(query, limit, nprobe=nprobe, filter=condition, exact=exact)
    assert found == wanted
    assert len(index) == sum(map(len, parts))
    for row in range(len(places)):
        name = (f"k{row:04d}", f"{row:016x}")
        assert index.embedding(*name) == pytest.approx(brute.embedding(*name))
    assert index.embedding("k0000", "f" * 16) is None


def routed(vectors, sizes, appended=()) -> tuple[SearchIndex, list[ExactBase]]:
    """One shard on each axis, holding so many rows, and what was appended."""
    bounds = np.cumsum([0, *sizes])
    bases = [
        ExactBase(holding(vectors, range(start, end)), centroid)
        for centroid, (start, end) in zip(np.eye(DIM), itertools.pairwise(bounds), strict=False)
    ]
    head = replace(Head.identity(DIM), centroids=np.eye(DIM, dtype=np.float32)[: len(sizes)])
    shards = [ShardIndex(base, holding(vectors, ())) for base in bases]
    return SearchIndex(head, shards, holding(vectors, appended)), bases


def test_the_nearest_lists_of_all_shards_are_read():
    index, bases = routed(unit_rows(0, 150), (50, 50, 50))
    query = np.asarray([0.1, 0.9, 0.4, 0, 0, 0], dtype=np.float32)
    assert sorted(keys(index.search(query, 1, nprobe=1)))[0] >= "k0050"
    assert [base.searches for base in bases] == [0, 1, 1]  # √3 rounded up
    index.search(query, 1, nprobe=2)
    assert [base.searches for base in bases] == [1, 2, 2]
    index.search(query, 1, nprobe=1, exact=True)
    assert [base.searches for base in bases] == [2, 3, 3]


def test_too_few_rows_in_the_nearest_lists_lead_to_further_ones():
    index, bases = routed(unit_rows(0, 150), (50, 50, 50))
    query = np.asarray([0.1, 0.9, 0.4, 0, 0, 0], dtype=np.float32)
    assert len(index.search(query, 100 // ROWS_PER_RESULT, nprobe=1)) == 100 // ROWS_PER_RESULT
    assert [base.searches for base in bases] == [0, 1, 1]
    index.search(query, 100 // ROWS_PER_RESULT + 1, nprobe=1)
    assert [base.searches for base in bases] == [1, 2, 2]
    assert len(index.search(query, 150, nprobe=1)) == 150
    assert len(index.search(query, 75, nprobe=1, filter=EVEN)) == 75


def test_before_rows_are_routed_every_shard_is_searched():
    vectors = unit_rows(0, 20)
    shards = [ShardIndex(None, holding(vectors, range(i, 20, 2))) for i in range(2)]
    index = SearchIndex(Head.identity(DIM), shards, holding(vectors, ()))
    assert index.search(vectors[7], 3) == holding(vectors, range(20)).search(vectors[7], 3)


def test_rows_that_tie_across_parts_come_in_order_of_key():
    vectors = np.repeat(unit_rows(0, 1), 9, axis=0)
    base = ExactBase(holding(vectors, (1, 4, 7)))
    shard = ShardIndex(base, holding(vectors, (0, 3, 6)))
    index = SearchIndex(Head.identity(DIM), [shard], holding(vectors, (2, 5, 8)))
    for limit in range(1, 10):
        assert keys(index.search(vectors[0], limit)) == [f"k{i:04d}" for i in range(limit)]


def test_a_row_that_one_part_has_many_times_is_no_reason_to_stop():
    vectors = unit_rows(0, 10)
    appended = holding(vectors, range(10))
    for number in range(20):
        appended.take(renamed(holding(vectors, [3]), str(number)), str(number))
    index = SearchIndex(Head.identity(DIM), [ShardIndex(None, holding(vectors, ()))], appended)
    for limit in (1, 2, 9, 10, 11):
        found = index.search(vectors[3], limit)
        assert found == holding(vectors, range(10)).search(vectors[3], limit)


def renamed(rows: FreshRows, digest: str) -> FreshRows:
    rows._ranges = {digest: rows._ranges["s"]}
    return rows


def test_of_two_scores_of_one_row_the_better_counts():
    """A base has it in fewer bits than the segment that it came from."""
    vectors = unit_rows(0, 4)
    near, far = holding(vectors, (0, 1)), holding(vectors, (2, 3))
    far._keys, far._versions = near._keys, near._versions
    for parts in ((near, far), (far, near)):
        shard = ShardIndex(ExactBase(parts[0]), parts[1])
        index = SearchIndex(Head.identity(DIM), [shard], holding(vectors, ()))
        best = [
            max(float(vectors[0] @ vectors[i]), float(vectors[0] @ vectors[i + 2])) for i in (0, 1)
        ]
        found = {item.key: item.score for item in index.search(vectors[0], 5)}
        assert found == pytest.approx({"k0000": best[0], "k0001": best[1]}, abs=0.02)


@pytest.mark.parametrize("error", [Vanished("gone"), CorruptFile("altered")])
def test_a_base_that_cannot_be_read_is_raised_or_left_out(error):
    vectors = unit_rows(0, 30)
    index, bases = routed(vectors, (10, 10), appended=range(20, 30))
    bases[0].error = error
    with pytest.raises(type(error)):
        index.search(vectors[0], 30)
    missing = []
    found = index.search(vectors[0], 30, missing=missing)
    assert sorted(keys(found)) == [f"k{i:04d}" for i in range(10, 30)]
    assert missing == [error]

    with pytest.raises(type(error)):
        index.embedding("k0001", f"{1:016x}")
    missing.clear()
    assert index.embedding("k0001", f"{1:016x}", missing) is None
    assert missing == [error]
    assert index.embedding("k0015", f"{15:016x}") is not None
    assert index.embedding("k0025", f"{25:016x}") is not None


def test_an_empty_index_finds_nothing():
    rows = holding(unit_rows(0, 1), ())
    index = SearchIndex(Head.identity(DIM), [ShardIndex(None, rows)], rows)
    assert index.search(unit_rows(1, 1)[0], 5) == []
    assert len(index) == 0


class Bytes:
    """A file that is here."""

    def __init__(self, data: bytes) -> None:
        self.memory = np.frombuffer(data, dtype=np.uint8)
        self.size = len(data)

    def ensure(self, ranges):
        return self.memory

    def refuse(self) -> None: ...


@pytest.fixture(scope="module")
def clustered() -> tuple[np.ndarray, SearchIndex]:
    """6,000 rows around 60 centres in nine shards of many lists; rows have tags from 0 to 99."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(60, 24))
    vectors = centres[rng.integers(60, size=6_000)] + 0.7 * rng.normal(size=(6_000, 24))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    head = with_shards(Head.identity(24), vectors, 9, seed=0)
    shards, routes = [], head.route(vectors)
    for shard in range(9):
        numbers = np.flatnonzero(routes == shard).tolist()
        rows = BaseRows(
            [f"k{number:04d}" for number in numbers],
            [f"{number:016x}" for number in numbers],
            vectors[numbers],
            [{"tag": number % 100} for number in numbers],
        )
        file = build_base(rows, encoder="e", head="", flat_rows=10)
        base = Base(Bytes(file.data), file.digest, file.head_bytes)
        shards.append(ShardIndex(base, FreshRows("e", head)))
    return vectors, SearchIndex(head, shards, FreshRows("e", head))


@pytest.mark.parametrize("tags", [100, 50, 5, 1])
def test_many_shards_and_filters_cost_no_recall(clustered, tags):
    vectors, index = clustered
    lists = sum(len(shard.base.list_rows) for shard in index.shards)
    nprobe = 10
    assert 3 * nprobe * 5 < lists  # √9 times nprobe, five times as many under a filter
    condition = None if tags == 100 else parse_filter({"tag": {"lt": tags}})
    passing = np.flatnonzero(np.arange(len(vectors)) % 100 < tags)
    hits = 0
    for query in vectors[::100]:
        nearest = passing[np.argsort(-(vectors[passing] @ query), kind="stable")[:10]]
        found = index.search(query, 10, nprobe=nprobe, filter=condition)
        hits += len({f"k{number:04d}" for number in nearest} & set(keys(found)))
    assert hits / (10 * len(vectors[::100])) > 0.98
