"""Deletion and insertion: curves by hand, against pooling one by one, and what chance is."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.core.explanation import Cells, explain
from lookalike.core.faithfulness import (
    SMOOTHNESS,
    auc,
    cell_trust,
    centre_blob,
    descending_order,
    is_better_than_chance,
    prefixes,
    random_maps,
)
from lookalike.core.head import Head
from lookalike.core.pooling import pool


def fitted(channels: int, dim: int) -> Head:
    rng = np.random.default_rng(0)
    components = np.linalg.qr(rng.normal(size=(channels, dim)))[0].T.astype(np.float32)
    return Head(channels, dim, (rng.random(channels) * 0.3).astype(np.float32), components)


def random_cells(seed: int, side: int = 4, channels: int = 12) -> Cells:
    rng = np.random.default_rng(seed)
    maps = np.maximum(rng.normal(0.2, 1, (channels, side, side)), 0).astype(np.float32)
    weights = rng.random((side, side)).astype(np.float32)
    return Cells(maps, weights / weights.sum())


def embedding(cells: Cells, head: Head) -> np.ndarray:
    return head.project(pool(cells.maps[None], cells.weights[None]))[0]


def test_auc_by_hand():
    assert auc([1, 0]) == 0.5
    assert auc([1, 1, 0]) == 0.75
    assert auc([[0, 1, 1], [0, 0, 0]]).tolist() == [0.75, 0]
    assert auc([0.4]) == 0.4


def test_orders():
    assert descending_order([[0.1, 0.9], [0.9, 0.5]]).tolist() == [1, 2, 3, 0]
    assert descending_order(np.zeros((2, 3))).tolist() == [0, 1, 2, 3, 4, 5]


def test_random_maps_are_smooth_and_repeat():
    maps = random_maps((9, 7), 60, seed=3)

    assert maps.shape == (60, 9, 7)
    assert (maps[1::2] == -maps[::2]).all()
    assert (maps == random_maps((9, 7), 60, seed=3)).all()
    assert (maps != random_maps((9, 7), 60, seed=4)).any()
    assert len(random_maps((1, 1), 5, seed=3)) == 5
    # Blurred by a Gaussian of deviation s, cells at a distance d are correlated by exp(-d²/4s²).
    beside = (maps * np.roll(maps, 1, axis=1)).mean() / (maps**2).mean()
    np.testing.assert_allclose(beside, np.exp(-1 / (4 * SMOOTHNESS**2)), atol=0.08)


def test_the_centre_comes_first():
    blob = centre_blob((3, 5))

    assert blob[1, 2] == blob.max() == 1
    assert descending_order(blob)[0] == 7
    np.testing.assert_allclose(blob, blob[::-1, ::-1])
    assert blob[0, 0] == blob.min()


def test_prefixes():
    order = np.array([2, 0, 3, 1])

    assert prefixes(order, 2).tolist() == [
        [False, False, False, False],
        [True, False, True, False],
        [True, True, True, True],
    ]
    assert prefixes(order, 4).sum(axis=1).tolist() == [0, 1, 2, 3, 4]
    assert prefixes(np.arange(10), 3).sum(axis=1).tolist() == [0, 3, 7, 10]


def test_three_cells_by_hand():
    """Cells at 0°, 60° and 90° from the target: the mean direction of what remains, by hand."""
    root = np.sqrt(3) / 2
    maps = np.array([[[1, 0.5, 0]], [[0, root, 1]]], dtype=np.float32)
    cells = Cells(maps, np.full((1, 3), 1 / 3, np.float32))
    target = np.array([1, 0], dtype=np.float32)

    got = cell_trust(cells, target, Head.identity(2), [[3, 2, 1]])

    whole = 1.5 / np.hypot(1.5, root + 1)
    warm = np.cos(np.radians(30))  # of the first two
    cold = np.cos(np.radians(75))  # of the last two
    assert got.deletion_auc == pytest.approx((whole / 2 + cold + 0 / 2) / 2, abs=1e-6)
    assert got.insertion_auc == pytest.approx((1 / 2 + warm + whole / 2) / 2, abs=1e-6)
    centre_deletion = (whole / 2 + cold_after_centre() + 0 / 2) / 2
    assert got.centre_deletion == pytest.approx(centre_deletion, abs=1e-6)


def cold_after_centre() -> float:
    """Without the middle cell, 0° and 90° remain; then, row by row, 0° goes."""
    return float(np.cos(np.radians(45)))


@pytest.mark.parametrize("head", [Head.identity(12), fitted(12, 5)], ids=["identity", "fitted"])
@given(seed=st.integers(0, 10**6), coefficient=st.sampled_from([1.0, -0.5]))
def test_curves_are_those_of_pooling_what_remains(head: Head, seed: int, coefficient: float):
    cells = replace(random_cells(seed, 3), coefficient=coefficient)
    target = embedding(random_cells(seed + 1, 3), head)
    heat = np.random.default_rng(seed).random((3, 3))

    got = cell_trust(cells, target, head, heat)

    order = descending_order(heat)
    curves: dict[str, list[float]] = {"deletion": [], "insertion": []}
    for taken in prefixes(order, 9):
        for name, kept in (("deletion", ~taken), ("insertion", taken)):
            if kept.any():
                weights = cells.weights * kept.reshape(3, 3)
                left = replace(cells, weights=weights / weights.sum())
                curves[name].append(coefficient * float(embedding(left, head) @ target))
    assert got.deletion_auc == pytest.approx(float(auc(curves["deletion"])), abs=2e-4)
    assert got.insertion_auc == pytest.approx(float(auc(curves["insertion"])), abs=2e-4)


def test_a_map_that_points_at_the_match_is_better_than_chance():
    """A square of the query has what the whole result has; the rest has nothing of it."""
    weights = np.full((9, 9), 1 / 81, dtype=np.float32)
    for seed in range(5):
        rng = np.random.default_rng(seed)
        noise = rng.random((2, 12, 9, 9)).astype(np.float32)
        match = np.arange(12)[:, None, None] >= 6
        place = np.zeros((9, 9), dtype=bool)
        place[1:5, 3:8] = True
        query = Cells(noise[0] * np.where(place, match, ~match), weights)
        result = Cells(noise[1] * match, weights)
        head = Head.identity(12)
        got = explain([query], result, head)
        target = embedding(result, head)

        right = cell_trust(query, target, head, got.query[0].gradcam)
        wrong = cell_trust(query, target, head, -got.query[0].gradcam)

        assert right.better_than_chance
        assert right.deletion_auc < right.chance_deletion
        assert right.insertion_auc > right.chance_insertion
        assert wrong.better_than_chance is False
        assert wrong.chance_deletion == right.chance_deletion


def test_few_random_maps_are_better_than_chance():
    head = Head.identity(12)
    query = random_cells(1)
    target = embedding(random_cells(2), head)
    rng = np.random.default_rng(5)

    lucky = [
        cell_trust(query, target, head, rng.random((4, 4)), seed=trial).better_than_chance
        for trial in range(200)
    ]

    assert 0.005 < np.mean(lucky) < 0.12


def test_better_than_chance_is_above_nearly_all_random_maps():
    insertion, deletion = np.linspace(0, 1, 101), np.zeros(101)

    assert is_better_than_chance(0.0, 0.96, deletion, insertion)
    assert is_better_than_chance(0.0, 0.94, deletion, insertion) is False


def test_where_chance_is_often_at_its_best_nothing_can_be_said():
    often = np.repeat([0.0, 1.0], [50, 50])

    assert is_better_than_chance(0.0, 1.0, np.zeros(100), often) is None
    assert is_better_than_chance(0.0, 0.0, np.zeros(100), often) is None
    assert is_better_than_chance(0.5, 0.5, np.zeros(3), np.zeros(3)) is None


def test_seeds_repeat():
    head = Head.identity(12)
    query, target = random_cells(1), embedding(random_cells(2), head)
    heat = np.arange(16).reshape(4, 4)

    assert cell_trust(query, target, head, heat, 3) == cell_trust(query, target, head, heat, 3)
    assert cell_trust(query, target, head, heat, 3) != cell_trust(query, target, head, heat, 4)


@pytest.mark.parametrize("head", [Head.identity(12), fitted(12, 5)], ids=["identity", "fitted"])
def test_of_degenerate_images_it_cannot_be_said(head: Head):
    usual = random_cells(1)
    target = embedding(usual, head)
    alike = np.repeat(usual.maps[:, :1, :1], 16, axis=2).reshape(12, 4, 4)
    for odd in (
        replace(usual, maps=np.zeros_like(usual.maps)),
        replace(usual, maps=alike),
        Cells(usual.maps[:, :1, :1], np.ones((1, 1), np.float32)),
    ):
        heat = np.arange(odd.weights.size).reshape(odd.weights.shape)
        got = cell_trust(odd, target, head, heat)
        assert got.better_than_chance is None
        assert np.isfinite([got.deletion_auc, got.insertion_auc, got.chance_deletion]).all()


def test_of_a_map_that_is_the_same_everywhere_it_cannot_be_said():
    head = Head.identity(12)
    query, target = random_cells(1), embedding(random_cells(2), head)
    chosen = np.zeros((4, 4), dtype=np.float32)
    chosen[1:3, 1:3] = 0.25
    outside = np.where(chosen > 0, 0.5, np.random.default_rng(0).random((4, 4)))

    assert cell_trust(query, target, head, np.zeros((4, 4))).better_than_chance is None
    part = replace(query, weights=chosen)
    assert cell_trust(part, target, head, outside).better_than_chance is None


def test_only_cells_that_were_looked_at_are_deleted():
    head = Head.identity(12)
    query, target = random_cells(1), embedding(random_cells(2), head)
    weights = query.weights.copy()
    weights[:, 2:] = 0
    chosen = Cells(query.maps, weights / weights.sum())
    narrow = Cells(query.maps[:, :, :2].copy(), chosen.weights[:, :2].copy())
    heat = np.random.default_rng(0).random((4, 4))

    whole = cell_trust(chosen, target, head, heat)
    alone = cell_trust(narrow, target, head, heat[:, :2])

    assert whole.deletion_auc == pytest.approx(alone.deletion_auc, abs=1e-6)
    assert whole.insertion_auc == pytest.approx(alone.insertion_auc, abs=1e-6)


def test_it_is_quick():
    head = fitted(1280, 256)
    query = random_cells(1, 9, 1280)
    target = embedding(random_cells(2, 9, 1280), head)
    heat = np.random.default_rng(0).random((9, 9))
    times = []
    for _ in range(5):
        start = time.process_time()
        cell_trust(query, target, head, heat)
        times.append(time.process_time() - start)

    assert min(times) < 0.1  # 4 ms where it was measured
