from __future__ import annotations

import numpy as np
import pytest

from lookalike.core import neighbours
from lookalike.core.neighbours import (
    divide,
    exact_neighbours,
    list_neighbours,
    nearest_lists,
    sample_rows,
    train_centroids,
)


@pytest.fixture
def embeddings() -> np.ndarray:
    chance = np.random.default_rng(2)
    centres = chance.normal(size=(30, 24))
    rows = centres[chance.integers(0, 30, 2000)] + 0.5 * chance.normal(size=(2000, 24))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def by_brute_force(embeddings: np.ndarray, k: int) -> np.ndarray:
    cosines = embeddings @ embeddings.T
    np.fill_diagonal(cosines, -2)
    return np.argsort(-cosines, axis=1)[:, :k]


def test_exact_neighbours_are_those_of_brute_force(embeddings: np.ndarray):
    found = exact_neighbours(embeddings, 10)
    assert (found.rows == by_brute_force(embeddings, 10)).mean() > 0.999
    assert (np.diff(found.cosines, axis=1) <= 0).all()
    assert (found.rows != np.arange(2000)[:, None]).all()


def test_fewer_rows_than_neighbours_leave_places_empty(embeddings: np.ndarray):
    assert exact_neighbours(embeddings[:3], 5).rows.tolist() == [
        [*row, -1, -1, -1] for row in by_brute_force(embeddings[:3], 2).tolist()
    ]


def test_copies_of_a_row_do_not_hide_that_it_is_left_out():
    same = np.tile(np.eye(1, 8, dtype=np.float32), (20, 1))
    found = exact_neighbours(same, 5).rows
    assert (found >= 0).all() and (found != np.arange(20)[:, None]).all()
    assert all(len(set(row)) == 5 for row in found.tolist())


def test_lists_find_nearly_all_and_every_row_once(
    embeddings: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(neighbours, "_ROWS_A_LIST", 60)
    sample = embeddings[: sample_rows(2000)]
    centroids = train_centroids(sample, 2000)
    assert centroids.shape == (33, 24)
    places = nearest_lists(embeddings, centroids)
    lists = divide(places, centroids)
    assert len(lists) == 33 and (lists.near[:, 0] == np.arange(33)).all()
    found = np.full((2000, 10), -1)
    seen = []
    for number in range(len(lists)):
        rows, near = list_neighbours(lists, number, lambda rows: embeddings[rows], 10)
        assert (places[rows] == number).all()
        seen += rows.tolist()
        found[rows] = near.rows
    assert sorted(seen) == list(range(2000))
    true = by_brute_force(embeddings, 10)
    shares = [len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), true.tolist(), strict=True)]
    assert np.mean(shares) > 0.95


def test_rows_that_are_all_alike_cost_no_more_than_others(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(neighbours, "_ROWS_A_LIST", 10)
    monkeypatch.setattr(neighbours, "_MOST_A_LIST", 40)
    same = np.tile(np.eye(1, 8, dtype=np.float32), (3000, 1))
    centroids = train_centroids(same[: sample_rows(3000)], 3000)
    lists = divide(nearest_lists(same, centroids), centroids)
    sizes = [len(lists.members(number)) for number in range(len(lists))]
    assert sum(sizes) == 3000 and max(sizes) <= 40
    assert sorted(lists.order.tolist()) == list(range(3000))
    asked = []

    def embeddings_of(rows: np.ndarray) -> np.ndarray:
        asked.append(len(rows))
        return same[rows]

    whole = [list_neighbours(lists, number, embeddings_of, 10) for number in range(len(lists))]
    assert max(asked) <= 40 * neighbours.probes(len(lists))
    assert all((found.rows >= 0).all() for rows, found in whole if len(rows))


def test_training_goes_on_from_round_to_round(embeddings: np.ndarray):
    whole = train_centroids(embeddings, 2000)
    after = None
    for _ in range(neighbours.ROUNDS):
        after = train_centroids(embeddings, 2000, before=after, rounds=1)
    assert after is not None and np.allclose(whole, after, atol=1e-5)


def test_more_lists_are_searched_where_there_are_more():
    assert [neighbours.probes(lists) for lists in (1, 8, 25, 250, 2500)] == [1, 8, 8, 16, 50]
