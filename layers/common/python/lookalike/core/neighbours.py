"""The nearest neighbours of every row of a set: exactly for a few rows, by inverted lists for many.

A row is compared with the rows of the lists nearest to its own list's centroid, a list at a time,
as one multiplication of matrices: near-linear, and several times as fast as asking an index for
each row. What is not compared is not found: `MANY_ROWS` says from when on. However alike rows are,
no step takes more than a list of `_MOST_A_LIST` rows and the lists searched for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import faiss
import numpy as np
import numpy.typing as npt

MANY_ROWS = 10_000
"""Rows beyond which lists are made; fewer are all compared with each other."""

ROUNDS = 8
"""Rounds of k-means."""

_ROWS_A_LIST = 400
_MOST_A_LIST = 4 * _ROWS_A_LIST
_LEAST_PROBES = 8
_SAMPLE_A_LIST = 40

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Neighbours:
    """``rows`` (n, k) int32, best first, -1 where there is none; ``cosines`` (n, k) float32."""

    rows: Int32
    cosines: Float32


@dataclass(frozen=True, slots=True)
class Lists:
    """Which rows are in which list, and which lists are searched for the rows of each.

    ``order`` (n,) has the rows list by list, those of list i from ``starts[i]`` to
    ``starts[i + 1]``; ``near`` (lists, probes) names the lists to search, each its own first. A
    centroid with many rows has several lists.
    """

    order: Int64
    starts: Int64
    near: Int64

    def __len__(self) -> int:
        return len(self.near)

    def members(self, number: int) -> Int64:
        """The rows of one list."""
        return self.order[self.starts[number] : self.starts[number + 1]]


def exact_neighbours(embeddings: Float32, k: int) -> Neighbours:
    """The k nearest other rows of every row, all rows compared with each other.

    Parameters
    ----------
    embeddings
        (n, dim) float32, L2-normalised.
    k
        How many.
    """
    rows = np.arange(len(embeddings))
    return _nearest(embeddings, rows, embeddings, rows, k)


def train_centroids(
    sample: Float32,
    rows: int,
    seed: int = 0,
    *,
    before: Float32 | None = None,
    rounds: int = ROUNDS,
) -> Float32:
    """Centroids (lists, dim) float32 for so many rows, by spherical k-means on some of them.

    Parameters
    ----------
    sample
        (n, dim) float32, L2-normalised; `sample_rows` says how many are enough.
    rows
        Rows that are to be divided.
    seed
        Of the k-means.
    before
        Centroids to go on from.
    rounds
        How many more.
    """
    lists = max(1, min(rows // _ROWS_A_LIST, len(sample)))
    kmeans = faiss.Kmeans(
        sample.shape[1],
        lists,
        niter=rounds,
        spherical=True,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=_SAMPLE_A_LIST,
    )
    kmeans.train(np.ascontiguousarray(sample), init_centroids=before)
    return np.asarray(kmeans.centroids, dtype=np.float32)


def sample_rows(rows: int) -> int:
    """How many rows `train_centroids` makes use of."""
    return min(rows, max(1, rows // _ROWS_A_LIST) * _SAMPLE_A_LIST)


def nearest_lists(embeddings: Float32, centroids: Float32) -> Int32:
    """The centroid (n,) int32 that each row is nearest to.

    Parameters
    ----------
    embeddings
        (n, dim) float32.
    centroids
        (lists, dim) float32.
    """
    return np.asarray(np.argmax(embeddings @ centroids.T, axis=1), dtype=np.int32)


def divide(nearest: Int32, centroids: Float32) -> Lists:
    """Put rows into lists and say which lists are near which.

    Rows that are all alike are nearest to one centroid: they are cut into lists of bounded size,
    each of which searches as many lists as any other.

    Parameters
    ----------
    nearest
        (n,) as `nearest_lists` gives them.
    centroids
        (centroids, dim) float32.
    """
    order = np.argsort(nearest, kind="stable")
    counts = np.bincount(nearest, minlength=len(centroids))
    pieces = np.maximum(1, -(-counts // _MOST_A_LIST))
    owner = np.repeat(np.arange(len(centroids)), pieces)
    first = np.cumsum(pieces) - pieces
    begin = (np.cumsum(counts) - counts)[owner]
    begin += (np.arange(len(owner)) - first[owner]) * counts[owner] // pieces[owner]
    starts = np.append(begin, len(nearest)).astype(np.int64)
    means = centroids[owner]
    cosines = means @ means.T
    np.fill_diagonal(cosines, np.inf)
    near = np.argsort(-cosines, axis=1, kind="stable")[:, : probes(len(owner))]
    return Lists(order, starts, near.astype(np.int64))


def probes(lists: int) -> int:
    """How many of so many lists are searched for each: docs/health.md has what that finds."""
    return min(lists, max(_LEAST_PROBES, round(math.sqrt(lists))))


def list_neighbours(
    lists: Lists, number: int, embeddings_of: Callable[[Int64], Float32], k: int
) -> tuple[Int64, Neighbours]:
    """The neighbours of one list's rows among the rows of the lists near it.

    Parameters
    ----------
    lists
        As `divide` gives them.
    number
        Which list.
    embeddings_of
        Gives the (n, dim) float32, L2-normalised embeddings of some rows.
    k
        How many neighbours.

    Returns
    -------
    tuple of array and Neighbours
        The list's rows, and the neighbours of each.
    """
    rows = lists.members(number)
    others = np.concatenate([lists.members(near) for near in lists.near[number].tolist()])
    return rows, _nearest(embeddings_of(rows), rows, embeddings_of(others), others, k)


def _nearest(queries: Float32, rows: Int64, base: Float32, others: Int64, k: int) -> Neighbours:
    """The k nearest of ``others`` to each of ``rows``, itself left out."""
    found = Neighbours(
        np.full((len(rows), k), -1, np.int32), np.full((len(rows), k), -1, np.float32)
    )
    if not len(rows) or not len(others):
        return found
    cosines, places = faiss.knn(
        np.ascontiguousarray(queries),
        np.ascontiguousarray(base),
        min(k + 1, len(others)),
        metric=faiss.METRIC_INNER_PRODUCT,
    )
    names = np.where(places >= 0, others[places], -1)
    is_other = (names != rows[:, None]) & (places >= 0)
    # Copies may push a row out of its own list of k + 1: then the last one is too many.
    keep = is_other & (np.cumsum(is_other, axis=1) <= k)
    column = np.cumsum(keep, axis=1)[keep] - 1
    line = np.nonzero(keep)[0]
    found.rows[line, column] = names[keep]
    found.cosines[line, column] = cosines[keep]
    return found
