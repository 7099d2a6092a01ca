"""Exact neighbours in blocks, the weighted medoid, and places that are a product's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.core import placement
from lookalike.core.head import Head
from lookalike.core.placement import Anchors, nearest, radius, weighted_medoid


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    rows = rng.normal(size=shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@settings(max_examples=50)
@given(
    st.integers(1, 300), st.integers(1, 40), st.integers(1, 40), st.booleans(), st.integers(0, 9)
)
def test_nearest_equals_brute_force(among: int, queries: int, count: int, same: bool, seed: int):
    rng = np.random.default_rng(seed)
    rows = unit(rng, among, 6)
    asked = rows if same else unit(rng, queries, 6)
    count = min(count, among - same)
    if count < 1:
        return
    found, cosines = nearest(asked, rows, count, same=same)
    every = (asked @ rows.T).astype(np.float64)
    if same:
        np.fill_diagonal(every, -np.inf)
    expected = -np.sort(-every, axis=1)[:, :count]
    assert np.allclose(cosines, expected, atol=1e-5)
    assert np.allclose(np.take_along_axis(every, found, axis=1), expected, atol=1e-5)
    assert all(len(set(row)) == count for row in found.tolist())


def test_nearest_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch):
    rows = unit(np.random.default_rng(1), 200, 8)
    whole, _ = nearest(rows, rows, 7, same=True)
    monkeypatch.setattr(placement, "_SIMILARITIES_AT_ONCE", 208 * 3)
    parts, _ = nearest(rows, rows, 7, same=True)
    assert (whole == parts).all()


def test_the_medoid_is_in_the_larger_group_and_never_between():
    # Three neighbours on the left, two on the right: the mean would lie in the void.
    at = np.array([[[-1.0, 0], [-1, 0.1], [-1, -0.1], [1, 0], [1, 0.1]]])
    alike = np.full((1, 5), 0.9, dtype=np.float32)
    assert weighted_medoid(at, alike).tolist() == [0]
    # Much more alike ones outweigh more of them.
    nearer = np.array([[0.1, 0.1, 0.1, 0.9, 0.89]], dtype=np.float32)
    order = [3, 4, 0, 1, 2]
    assert weighted_medoid(at[:, order], nearer[:, order]).tolist() == [0]


@pytest.fixture
def anchors() -> Anchors:
    rng = np.random.default_rng(2)
    return Anchors(
        rng.integers(0, 2**64, 50, dtype=np.uint64),
        Head.identity(8),
        unit(rng, 50, 8),
        rng.normal(size=(50, 2)),
    )


def test_an_anchor_stays_and_others_are_placed_beside_their_neighbours(anchors: Anchors):
    rng = np.random.default_rng(3)
    strangers = rng.integers(0, 2**64, 5, dtype=np.uint64)
    like = anchors.coordinates[:5] + 0.01 * unit(rng, 5, 8)
    positions, placed = anchors.place(
        np.concatenate([anchors.hashes[7:9], strangers]),
        np.concatenate([anchors.coordinates[7:9], like]),
    )
    assert placed.tolist() == [False] * 2 + [True] * 5
    assert (positions[:2] == anchors.positions[7:9]).all()
    step = placement._BESIDE * radius(anchors.positions) * np.sqrt(np.pi / 50)
    for number, position in enumerate(positions[2:]):
        distances = np.linalg.norm(anchors.positions - position, axis=1)
        rows, cosines = nearest(like[number : number + 1], anchors.coordinates, 10)
        chosen = rows[0, weighted_medoid(anchors.positions[rows], cosines)[0]]
        assert 0 < distances[chosen] <= step


def test_an_anchor_that_looks_otherwise_is_placed_anew(anchors: Anchors):
    positions, placed = anchors.place(anchors.hashes[:1], anchors.coordinates[20:21])
    assert placed.tolist() == [True] and not (positions[0] == anchors.positions[0]).all()


def test_products_that_look_the_same_do_not_cover_each_other(anchors: Anchors):
    # The highest of hashes, as they are when the lowest were laid out.
    strangers = np.arange(40, dtype=np.uint64) * np.uint64(2**50) + np.uint64(15 * 2**60)
    strangers += np.random.default_rng(4).integers(0, 2**49, 40, dtype=np.uint64)
    positions, _ = anchors.place(strangers, np.repeat(anchors.coordinates[:1], 40, axis=0))
    assert len({tuple(place) for place in positions.tolist()}) == 40
    around = positions - positions.mean(axis=0)
    quadrants = {(bool(x > 0), bool(y > 0)) for x, y in around.tolist()}
    assert len(quadrants) == 4, "they all lie to one side"
    again, _ = anchors.place(strangers, np.repeat(anchors.coordinates[:1], 40, axis=0))
    assert (positions == again).all()
