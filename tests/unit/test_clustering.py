from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.core.clustering import (
    Clustered,
    assign,
    choose_clusters,
    cluster,
    match_clusters,
    resized,
    seeded,
    spherical_kmeans,
    sums_by_label,
)


def groups(count: int, per_group: int, dim: int = 24, noise: float = 0.3, seed: int = 0):
    """Rows around well separated centres, group by group, and their groups."""
    rng = np.random.default_rng(seed)
    centres = normalized(rng.normal(size=(count, dim)))
    away = normalized(rng.normal(size=(count * per_group, dim)))
    rows = normalized(np.repeat(centres, per_group, axis=0) + noise * away)
    return rows, np.repeat(np.arange(count), per_group)


def normalized(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def same_groups(labels: np.ndarray, groups: np.ndarray) -> bool:
    pairs = set(zip(labels.tolist(), groups.tolist(), strict=True))
    return len(pairs) == len(set(labels.tolist())) == len(set(groups.tolist()))


def test_groups_are_found():
    rows, truth = groups(12, 40)
    found = cluster(rows, 12, seed=0, starts=3)
    assert same_groups(found.labels, truth)
    assert np.allclose(np.linalg.norm(found.centroids, axis=1), 1, atol=1e-6)
    for number in range(12):
        mean = rows[found.labels == number].mean(axis=0)
        assert np.allclose(found.centroids[number], mean / np.linalg.norm(mean), atol=1e-5)


def test_rounds_never_lose_what_was_gained():
    rows = normalized(np.random.default_rng(1).normal(size=(600, 8)))
    start = seeded(rows, 9, 3)
    objectives = [float(assign(start, rows)[1].mean())]
    fitted = Clustered(start, *assign(start, rows))
    for tolerance in (0.1, 0.01, 1e-3, 1e-5):
        fitted = spherical_kmeans(rows, fitted.centroids, tolerance)
        objectives.append(fitted.objective)
    assert objectives == sorted(objectives) and objectives[-1] > objectives[0] + 0.02
    again = spherical_kmeans(rows, fitted.centroids)
    assert (again.labels == fitted.labels).mean() > 0.99, "it stays where it has come to"


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 12), st.integers(1, 8), st.integers(0, 9))
def test_assignment_and_sums_are_those_of_brute_force(count, clusters, dim, seed):
    rng = np.random.default_rng(seed)
    rows = normalized(rng.normal(size=(count, dim)))
    centroids = normalized(rng.normal(size=(clusters, dim)))
    labels, similarity = assign(centroids, rows)
    cosines = rows @ centroids.T
    assert np.allclose(similarity, cosines.max(axis=1), atol=1e-6)
    assert np.allclose(cosines[np.arange(count), labels], cosines.max(axis=1), atol=1e-6)
    expected = [rows[labels == number].sum(axis=0) for number in range(clusters)]
    assert np.allclose(sums_by_label(rows, labels, clusters), expected, atol=1e-4)


def test_long_tables_are_summed_piece_by_piece():
    rows = normalized(np.random.default_rng(0).normal(size=(20_000, 3)))
    labels = np.arange(20_000) % 7
    expected = [rows[labels == number].sum(axis=0, dtype=np.float64) for number in range(7)]
    assert np.allclose(sums_by_label(rows, labels, 7), expected, atol=1e-3)


def test_an_empty_cluster_finds_something_to_do():
    rows, truth = groups(3, 20)
    start = np.stack([rows[0], rows[20], -rows.mean(axis=0)])
    found = spherical_kmeans(rows, normalized(start))
    assert same_groups(found.labels, truth)


def test_rows_that_are_alike_make_fewer_clusters():
    rows = np.repeat(normalized(np.random.default_rng(0).normal(size=(2, 6))), 30, axis=0)
    assert len(cluster(rows, 5, 0).centroids) == 2
    assert choose_clusters(np.repeat(rows[:1], 50, axis=0), 0) == 1


def test_more_clusters_split_the_widest_and_leave_the_others():
    rows, truth = groups(6, 30)
    merged = np.minimum(truth, 4)  # the last two are one
    sums = sums_by_label(rows, merged, 5)
    there = Clustered(normalized(sums), *assign(normalized(sums), rows))
    start = resized(rows, there, 6, 0)
    assert (start[:4] == there.centroids[:4]).all() and len(start) == 6
    assert same_groups(spherical_kmeans(rows, start).labels, truth)


def test_fewer_clusters_join_the_smallest_and_leave_the_others():
    rows, _ = groups(4, 30)
    rows = np.concatenate([rows, rows[:3]])
    labels = np.concatenate([np.repeat(np.arange(4), 30), [4, 4, 4]])
    centroids = normalized(sums_by_label(rows, labels, 5))
    start = resized(rows, Clustered(centroids, labels, np.ones(len(rows), np.float32)), 4, 0)
    assert len(start) == 4 and (start[1:] == centroids[1:4]).all()
    assert float(start[0] @ centroids[0]) > 0.99


@pytest.mark.parametrize(("count", "noise"), [(3, 0.3), (5, 1.0), (8, 0.3), (16, 0.6)])
def test_as_many_clusters_are_chosen_as_there_are(count: int, noise: float):
    rows, _ = groups(count, 300 // count * 4, noise=noise)
    assert choose_clusters(rows, 0) == count


def test_few_rows_are_few_clusters():
    rows, _ = groups(2, 5)
    assert choose_clusters(rows, 0) == 1
    assert choose_clusters(rows[:1], 0) == 1


def test_clusters_are_matched_by_what_they_share():
    before = np.array([0] * 10 + [1] * 10 + [2] * 10 + [-1] * 5)
    # New 0 is most of old 1, new 1 all of old 0, new 2 and 3 halve old 2.
    after = np.array([1] * 10 + [0] * 8 + [1] * 2 + [2] * 6 + [3] * 4 + [3] * 5)
    assert match_clusters(before, after, 4) == [1, 0, 2, None]


def test_nobody_is_matched_twice_nor_for_little():
    before = np.array([0] * 9 + [1] * 9)
    after = np.array([0] * 3 + [1] * 3 + [2] * 3 + [2] * 9)
    assert match_clusters(before, after, 3) == [0, None, 1]
    assert match_clusters(np.full(4, -1), np.zeros(4, np.int64), 1) == [None]
    scattered = np.repeat(np.arange(4), 4)
    assert match_clusters(scattered, np.tile(np.arange(4), 4), 4) == [None] * 4
