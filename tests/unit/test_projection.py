"""Layouts: what starts them, that t-SNE can be interrupted, and that maps stay recognisable."""

from __future__ import annotations

import sys
import types
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.manifold import trustworthiness as sklearn_trustworthiness

from lookalike.core import projection
from lookalike.core.placement import nearest, radius
from lookalike.core.projection import (
    ADAPTING_ITERATIONS,
    COLD_ITERATIONS,
    WARM_ITERATIONS,
    Descent,
    MethodMissing,
    Start,
    affinities_of,
    aligned,
    descend,
    fit_basis,
    neighbour_graph,
    principal_plane,
    start_of,
    umap_layout,
)
from lookalike.core.projection_quality import movement, trustworthiness

PERPLEXITY = 10.0


@pytest.fixture(scope="module")
def coordinates() -> np.ndarray:
    """Four groups of 30, normalised."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 40))
    rows = np.repeat(centres, 30, axis=0) + 0.5 * rng.normal(size=(120, 40))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return fit_basis(rows).project(rows)


def cold(coordinates: np.ndarray) -> Start:
    rows = len(coordinates)
    return start_of(coordinates, np.zeros((rows, 2)), np.zeros(rows, dtype=bool))


def finished(coordinates: np.ndarray, start: Start, at_once: int) -> Descent:
    """To its end, in pieces, each of which begins with nothing but the state."""
    graph = neighbour_graph(coordinates, PERPLEXITY)
    descent = Descent.begin(start)
    while not descent.is_finished:
        descent = Descent(
            descent.positions.copy(),
            descent.update.copy(),
            descent.gains.copy(),
            descent.done,
            descent.iterations,
        )
        descend(affinities_of(graph, PERPLEXITY, 1), descent, at_once, 1)
    return descent


def test_the_graph_has_the_nearest_others(coordinates: np.ndarray):
    graph = neighbour_graph(coordinates, PERPLEXITY)
    assert graph.rows.shape == graph.distances.shape == (120, 30)
    assert not (graph.rows == np.arange(120)[:, None]).any()
    first = np.linalg.norm(coordinates - coordinates[graph.rows[:, 0]], axis=1)
    assert np.allclose(graph.distances[:, 0], first, atol=1e-3)
    assert neighbour_graph(coordinates[:4], PERPLEXITY).rows.shape == (4, 3)


def test_a_descent_in_pieces_is_the_one_in_one_go(
    coordinates: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(projection, "COLD_ITERATIONS", 300)
    whole = finished(coordinates, cold(coordinates), 10_000)
    pieces = finished(coordinates, cold(coordinates), 70)
    assert whole.done == pieces.done == 300
    # Rounding differs where a piece ends in early exaggeration; t-SNE enlarges it.
    assert np.allclose(whole.positions, pieces.positions, atol=1e-3 * radius(whole.positions))
    assert trustworthiness(coordinates, whole.positions, np.arange(120)) > 0.85


def test_from_before_groups_stay_where_they_are(coordinates: np.ndarray):
    before = finished(coordinates, cold(coordinates), 10_000).positions
    everybody = np.ones(120, dtype=bool)
    start = start_of(coordinates, before, everybody)
    assert start.is_warm and start.iterations == WARM_ITERATIONS
    known = aligned(before, before, everybody)
    after = aligned(finished(coordinates, start, 10_000).positions, known, everybody)
    assert movement(after, known, everybody) < 0.1


@pytest.mark.parametrize(
    ("known", "same_space", "iterations"),
    [(60, True, WARM_ITERATIONS), (60, False, ADAPTING_ITERATIONS), (59, True, COLD_ITERATIONS)],
)
def test_half_of_the_products_make_a_start(
    coordinates: np.ndarray, known: int, same_space: bool, iterations: int
):
    places = np.random.default_rng(0).normal(size=(120, 2))
    start = start_of(coordinates, places, np.arange(120) < known, same_space=same_space)
    assert start.iterations == iterations
    assert (start.positions == places).all() == (iterations != COLD_ITERATIONS)


def test_the_plane_has_the_most_variance(coordinates: np.ndarray):
    plane = principal_plane(coordinates)
    centred = coordinates - coordinates.mean(axis=0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    assert np.allclose(np.abs(plane), np.abs(centred @ axes[:2].T), atol=1e-4)
    assert np.allclose((plane**2).sum(axis=0), values[:2] ** 2, rtol=1e-3)
    assert np.isfinite(principal_plane(np.ones((3, 5), dtype=np.float32))).all()
    line = principal_plane(np.arange(6, dtype=np.float32).reshape(6, 1))
    assert np.allclose(np.diff(line[:, 0]), 1) and not line[:, 1].any()


@settings(max_examples=30)
@given(st.floats(0, 6.28), st.booleans(), st.floats(0.1, 50), st.integers(0, 5))
def test_a_map_that_was_turned_mirrored_or_enlarged_lies_as_before(
    angle: float, mirrored: bool, scale: float, seed: int
):
    rng = np.random.default_rng(seed)
    everybody = np.ones(20, dtype=bool)
    places = rng.normal(size=(20, 2))
    before = aligned(places, places, everybody)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    other = before @ turn * scale + rng.normal(size=2)
    if mirrored:
        other[:, 0] *= -1
    assert np.allclose(aligned(other, before, everybody), before, atol=1e-6)
    assert radius(aligned(other, before, ~everybody)) == pytest.approx(1)


def test_trustworthiness_is_that_of_scikit_learn(coordinates: np.ndarray):
    places = np.random.default_rng(1).normal(size=(120, 2))
    for at in (places, principal_plane(coordinates)):
        ours = trustworthiness(coordinates, at, np.arange(120), 7)
        theirs = sklearn_trustworthiness(coordinates, at, n_neighbors=7, metric="cosine")
        assert ours == pytest.approx(theirs, abs=1e-6)
    assert trustworthiness(coordinates[:5], places[:5], np.arange(5)) == 1


def test_movement_is_a_share_of_the_radius():
    before = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1], [9, 9]])
    is_known = np.arange(5) < 4
    assert movement(np.add(before, [0.5, 0]), before, is_known) == pytest.approx(0.5)
    assert movement(before * 2, before, ~is_known & False) == 0


def test_umap_is_given_the_start_and_is_named_when_it_is_missing(
    coordinates: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MethodMissing, match=r"lookalike\[umap\].*LOOKALIKE_MAP_METHOD"):
        umap_layout(coordinates, cold(coordinates), 15)
    asked = {}

    class Reducer:
        def __init__(self, **options):
            asked.update(options)

        def fit_transform(self, rows):
            asked["rows"] = rows
            return asked["init"]

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=Reducer))
    start = replace(cold(coordinates), iterations=WARM_ITERATIONS)
    found = umap_layout(coordinates, start, 15)
    assert found.shape == (120, 2) and np.abs(found).max() == pytest.approx(10)
    assert asked["n_neighbors"] == 15 and asked["n_epochs"] == 100
    assert asked["rows"] is coordinates


def test_neighbours_of_the_basis_are_those_of_the_embeddings():
    rng = np.random.default_rng(5)
    latent = rng.normal(size=(300, 20))
    rows = (latent @ rng.normal(size=(20, 128))).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    basis = fit_basis(rows)
    assert basis.dim_out == 20
    ours, _ = nearest(basis.project(rows), basis.project(rows), 5, same=True)
    centred = rows - rows.mean(axis=0)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    theirs, _ = nearest(centred, centred, 5, same=True)
    assert (ours == theirs).mean() > 0.99
