"""How the parts of an index become one answer. Bases are stood in for by exact rows."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.core.errors import CorruptFile, Vanished
from lookalike.core.filters import parse_filter
from lookalike.core.head import Head
from lookalike.core.index import FreshRows
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
    """Stands in for a base: searches exactly, or fails."""

    def __init__(self, inside: FreshRows, error: Exception | None = None) -> None:
        self.inside = inside
        self.error = error
        self.searches = 0

    @property
    def rows(self) -> int:
        return len(self.inside)

    def search(self, query, limit, *, nprobe, filter=None, exact=False):
        self.searches += 1
        if self.error is not None:
            raise self.error
        return self.inside.search(query, limit, filter=filter)

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
    # Every shard is probed, by being asked to or because there are too few rows without it.
    probes = 1 if exact else 3
    found = index.search(query, limit, probes=probes, filter=condition, exact=exact)
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
        ExactBase(holding(vectors, range(start, end))) for start, end in itertools.pairwise(bounds)
    ]
    head = replace(Head.identity(DIM), centroids=np.eye(DIM, dtype=np.float32)[: len(sizes)])
    shards = [ShardIndex(base, holding(vectors, ())) for base in bases]
    return SearchIndex(head, shards, holding(vectors, appended)), bases


def test_only_the_nearest_shards_are_searched():
    index, bases = routed(unit_rows(0, 30), (10, 10, 10))
    query = np.asarray([0.1, 0.9, 0.4, 0, 0, 0], dtype=np.float32)
    assert sorted(keys(index.search(query, 5, probes=1)))[0] >= "k0010"
    assert [base.searches for base in bases] == [0, 1, 0]
    index.search(query, 5, probes=2)
    assert [base.searches for base in bases] == [0, 2, 1]
    index.search(query, 5, probes=1, exact=True)
    assert [base.searches for base in bases] == [1, 3, 2]


def test_too_few_rows_in_the_nearest_shards_lead_to_further_ones():
    index, bases = routed(unit_rows(0, 30), (10, 4, 10), appended=range(24, 30))
    query = np.asarray([0.1, 0.9, 0.4, 0, 0, 0], dtype=np.float32)
    assert len(index.search(query, 10, probes=1)) == 10
    assert [base.searches for base in bases] == [0, 1, 0]  # what was appended made up for it
    assert len(index.search(query, 11, probes=1)) == 11
    assert [base.searches for base in bases] == [0, 2, 1]
    assert len(index.search(query, 9, probes=1, filter=EVEN)) == 9
    assert [base.searches for base in bases] == [0, 3, 2]


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
        index.search(vectors[0], 30, probes=2)
    missing = []
    found = index.search(vectors[0], 30, probes=2, missing=missing)
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
