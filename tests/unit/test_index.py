from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.core.errors import CorruptFile
from lookalike.core.index import ExactIndex
from lookalike.core.segment import Row, decode_segment, encode_segment

DIM = 6


def segment(vectors: np.ndarray, first: int, encoder: str = "e"):
    rows = [
        Row(f"k{first + i:04d}", f"{first + i:016x}", vector, {"even": (first + i) % 2 == 0})
        for i, vector in enumerate(vectors)
    ]
    return decode_segment(encode_segment(encoder, rows), "s")


def unit_rows(seed: int, count: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 99), st.integers(1, 60))
def test_any_cut_into_segments_answers_as_brute_force(sizes, seed, limit):
    vectors = unit_rows(seed, sum(sizes))
    index = ExactIndex("e", DIM)
    start = 0
    for number, size in enumerate(sizes):
        index.add(str(number), segment(vectors[start : start + size], start))
        start += size
    query = unit_rows(seed + 1000, 1)[0]
    stored = np.stack([index.embedding(f"k{i:04d}", f"{i:016x}") for i in range(len(vectors))])
    scores = stored @ query
    expected = sorted(range(len(vectors)), key=lambda i: (-scores[i], i))[:limit]
    found = index.search(query, limit)
    assert [item.score for item in found] == pytest.approx(scores[expected], abs=1e-6)
    if len(set(np.round(scores, 5))) == len(scores):
        assert [item.key for item in found] == [f"k{i:04d}" for i in expected]

    even = index.select(lambda attributes: bool(attributes["even"]))
    chosen = index.search(query, limit, even)
    wanted = [i for i in sorted(range(len(vectors)), key=lambda i: (-scores[i], i)) if i % 2 == 0]
    assert [item.score for item in chosen] == pytest.approx(scores[wanted[:limit]], abs=1e-6)


def test_a_segment_counts_once():
    index = ExactIndex("e", DIM)
    rows = segment(unit_rows(0, 3), 0)
    index.add("a", rows)
    index.add("a", rows)
    assert len(index) == 3


def test_another_encoder_is_refused():
    index = ExactIndex("e", DIM)
    with pytest.raises(CorruptFile, match="other"):
        index.add("a", segment(unit_rows(0, 2), 0, "other"))


def test_ties_come_in_order_of_key():
    vectors = np.repeat(unit_rows(3, 1), 5, axis=0)
    index = ExactIndex("e", DIM)
    index.add("b", segment(vectors[3:], 3))
    index.add("a", segment(vectors[:3], 0))
    found = [item.key for item in index.search(vectors[0], 5)]
    assert found == sorted(found)


def test_an_empty_index_finds_nothing():
    assert ExactIndex("e", DIM).search(unit_rows(0, 1)[0], 10) == []
