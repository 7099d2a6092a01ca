from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.core import index as index_module
from lookalike.core.errors import CorruptFile
from lookalike.core.filters import parse_filter
from lookalike.core.head import Head, fit_head
from lookalike.core.index import FreshRows
from lookalike.core.segment import Row, decode_segment, encode_segment

DIM = 6
EVEN = parse_filter({"even": True})


def segment(vectors: np.ndarray, first: int, encoder: str = "e"):
    rows = [
        Row(f"k{first + i:04d}", f"{first + i:016x}", vector, {"even": (first + i) % 2 == 0})
        for i, vector in enumerate(vectors)
    ]
    return decode_segment(encode_segment(encoder, rows), "s")


def unit_rows(seed: int, count: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fresh(cells: np.ndarray | None = None) -> FreshRows:
    return FreshRows("e", Head.identity(DIM), cells)


@pytest.fixture
def small(monkeypatch):
    """Files rows, seals attributes and widens a search at sizes that a test can have."""
    sizes = {"FILED_ROWS": 8, "WAITING_ROWS": 3, "_SEALED_ROWS": 6, "ROWS_PER_RESULT": 1}
    for name, value in sizes.items():
        monkeypatch.setattr(index_module, name, value)


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=8),
    st.integers(0, 99),
    st.integers(1, 60),
    st.booleans(),
)
def test_any_cut_into_segments_answers_as_brute_force(sizes, seed, limit, filtered):
    vectors = unit_rows(seed, sum(sizes))
    rows, start = fresh(), 0
    for number, size in enumerate(sizes):
        rows.add(str(number), segment(vectors[start : start + size], start))
        start += size
    query = unit_rows(seed + 1000, 1)[0]
    stored = np.stack([rows.embedding(f"k{i:04d}", f"{i:016x}") for i in range(len(vectors))])
    scores = stored @ query
    wanted = [
        i for i in np.lexsort((np.arange(len(scores)), -scores)) if i % 2 == 0 or not filtered
    ]
    found = rows.search(query, limit, filter=EVEN if filtered else None)
    assert [item.score for item in found] == pytest.approx(scores[wanted[:limit]], abs=1e-6)
    if len(set(np.round(scores, 5))) == len(scores):
        assert [item.key for item in found] == [f"k{i:04d}" for i in wanted[:limit]]


def test_filed_rows_are_found_whatever_was_filed_when(small):
    vectors, cells = unit_rows(1, 90), unit_rows(2, 5)
    rows = fresh(cells)
    for start in range(0, 90, 3):
        rows.add(str(start), segment(vectors[start : start + 3], start))
        if start < 81:
            rows.file(20)
    assert 0 < rows._filed.rows < 90
    exact = fresh()
    exact.add("all", segment(vectors, 0))
    for query in unit_rows(3, 20):
        for limit in (1, 7, 90):
            for condition in (None, EVEN):
                wanted = exact.search(query, limit, filter=condition)
                options = {"filter": condition, "nprobe": len(cells)}
                assert rows.search(query, limit, **options) == wanted
                assert rows.search(query, limit, filter=condition, exact=True) == wanted
                # With one cell a search may miss rows, but never a row less than were asked for.
                near = rows.search(query, limit, nprobe=1, filter=condition)
                assert len(near) == len(wanted)


def test_a_search_reads_the_nearest_cells_only(small):
    cells = np.eye(DIM, dtype=np.float32)
    rows = fresh(cells)
    rows.add("a", segment(np.repeat(cells, 4, axis=0), 0))
    rows.file()
    query = np.asarray([0.9, 0.4, 0.1, 0, 0, 0], dtype=np.float32)
    assert {item.key for item in rows.search(query, 9, nprobe=1)} >= {f"k{i:04d}" for i in range(8)}
    assert sorted(rows._near(24, query, 2, 2, rows._filed)) == list(range(8))
    assert sorted(rows._near(24, query, 5, 1, rows._filed)) == list(range(8))
    nearest = rows.search(query, 2, nprobe=2, filter=EVEN)
    assert nearest == rows.search(query, 2, exact=True, filter=EVEN)


@pytest.mark.parametrize("limit", [1, 3, 8, 40])
def test_ties_among_filed_rows_come_in_order_of_key(small, limit):
    """More rows are equal than are read again in full."""
    cells = np.eye(DIM, dtype=np.float32)
    rows = fresh(cells)
    for start in range(36, -4, -4):
        rows.add(str(start), segment(np.repeat(cells[:1], 4, axis=0), start))
    rows.add("other", segment(np.repeat(cells[1:2], 4, axis=0), 40))
    rows.file()
    assert rows._filed.rows == 44
    found = rows.search(cells[0], limit, nprobe=1)
    assert [item.key for item in found] == [f"k{i:04d}" for i in range(limit)]


def test_a_filter_is_asked_of_new_rows_too(small):
    vectors = unit_rows(4, 40)
    rows, chosen = fresh(), {0, 1, 7, 8, 9, 14, 21, 22, 30, 38}
    condition = parse_filter({"n": {"in": sorted(chosen)}})
    for start in range(0, 40, 4):
        few = [Row(f"k{i:04d}", f"{i:016x}", vectors[i], {"n": i}) for i in range(start, start + 4)]
        rows.add(str(start), decode_segment(encode_segment("e", few), "s"))
        found = rows.search(vectors[0], 100, filter=condition)
        assert {int(item.key[1:]) for item in found} == {i for i in chosen if i < start + 4}
    assert len(rows._blocks) > 1


def test_filters_on_true_and_on_one_are_not_taken_for_each_other():
    rows = fresh()
    for number, value in enumerate((True, 1)):
        row = Row(f"k{number}", "0" * 16, unit_rows(number, 1)[0], {"new": value})
        rows.add(str(number), decode_segment(encode_segment("e", [row]), "s"))
    for number, value in enumerate((True, 1)):
        found = rows.search(unit_rows(9, 1)[0], 5, filter=parse_filter({"new": value}))
        assert [item.key for item in found] == [f"k{number}"]


def test_only_so_many_filters_are_remembered(monkeypatch):
    monkeypatch.setattr(index_module, "_MASKS", 2)
    rows = fresh()
    rows.add("a", segment(unit_rows(0, 4), 0))
    for number in range(5):
        rows.search(unit_rows(1, 1)[0], 1, filter=parse_filter({"n": number}))
    assert len(rows._masks) == 2


def test_a_segment_counts_once():
    rows, few = fresh(), segment(unit_rows(0, 3), 0)
    rows.add("a", few)
    rows.add("a", few)
    assert len(rows) == 3


def test_rows_can_be_taken_over_without_their_file():
    vectors = unit_rows(0, 6)
    first, second = fresh(), fresh()
    first.add("a", segment(vectors[:4], 0))
    first.add("b", segment(vectors[4:], 4))
    assert second.take(first, "b")
    assert not second.take(first, "c")
    assert len(second) == 2
    query = vectors[5]
    assert second.search(query, 9) == [x for x in first.search(query, 9) if x.key >= "k0004"]
    assert [item.key for item in second.search(query, 9, filter=EVEN)] == ["k0004"]
    assert first.may_become(["a", "b", "c"], None)
    assert not first.may_become(["a"], None)
    assert not first.may_become(["a", "b"], unit_rows(1, 3))


def test_another_encoder_is_refused():
    with pytest.raises(CorruptFile, match="other"):
        fresh().add("a", segment(unit_rows(0, 2), 0, "other"))


def test_rows_go_through_the_head():
    vectors = unit_rows(5, 50)
    head = fit_head(vectors, 3)
    rows = FreshRows("e", head)
    few = segment(vectors[:5], 0)
    rows.add("a", few)
    assert rows.embedding("k0002", f"{2:016x}") == pytest.approx(
        head.project(few.embeddings())[2], abs=1e-6
    )
    assert rows.search(head.project(vectors[3:4])[0], 1)[0].key == "k0003"


@pytest.mark.parametrize("limit", [1, 2, 4, 7])
@pytest.mark.parametrize("filtered", [False, True])
def test_ties_come_in_order_of_key_wherever_the_cut_is(limit, filtered):
    vectors = np.repeat(unit_rows(3, 1), 10, axis=0)
    rows = fresh()
    for start in (8, 2, 4, 0, 6):
        rows.add(str(start), segment(vectors[start : start + 2], start))
    found = rows.search(vectors[0], limit, filter=EVEN if filtered else None)
    wanted = range(0, 10, 2 if filtered else 1)
    assert [item.key for item in found] == [f"k{i:04d}" for i in wanted][:limit]


def test_a_floor_leaves_out_what_is_below():
    rows = fresh()
    rows.add("a", segment(unit_rows(0, 20), 0))
    query = unit_rows(1, 1)[0]
    found = rows.search(query, 20)
    assert rows.search(query, 20, floor=found[7].score) == found[:8]


def test_no_rows_find_nothing():
    assert fresh().search(unit_rows(0, 1)[0], 10) == []
    assert fresh().search(unit_rows(0, 1)[0], 10, filter=EVEN) == []


def test_a_search_beside_appends_sees_whole_rows(small):
    """What a reader finds has the key, the version and the score of one row, at any moment."""
    vectors, cells = unit_rows(7, 3_000), unit_rows(8, 4)
    rows, errors, ended = fresh(cells), [], threading.Event()
    whole = fresh()
    whole.add("all", segment(vectors, 0))
    score_of = {item.key: item.score for item in whole.search(vectors[0], 3_000)}

    def read() -> None:
        seen = 0
        while not ended.is_set() or not seen:
            found = rows.search(vectors[0], 40, filter=EVEN if seen % 2 else None)
            seen += 1
            for item in found:
                if (
                    int(item.key[1:]) != int(item.version, 16)
                    or abs(score_of[item.key] - item.score) > 1e-6
                ):
                    errors.append(item)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for start in range(0, 3_000, 10):
        rows.add(str(start), segment(vectors[start : start + 10], start))
        rows.file(256)
    ended.set()
    for reader in readers:
        reader.join()
    assert errors == []
    assert len(rows) == 3_000
