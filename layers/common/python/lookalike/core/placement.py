"""Finds a product its place among products that are on the map already.

Owns exact neighbours without an index (the map's function has no FAISS) and the weighted medoid;
knows nothing of how the others came to lie where they do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lookalike.core.head import Head

NEIGHBOURS = 10
"""Of which the weighted medoid is taken."""

_SIMILARITY_SCALE = 0.1  # a neighbour this much less alike counts 1/e as much
_BESIDE = 0.35  # of the usual distance between two points
_ITSELF = 0.998  # cosine, after float16: the same photo of the same product
_SIMILARITIES_AT_ONCE = 2**22  # 16 MB of them: larger ones leave the processor's cache
_STRIDES = 16

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]


def nearest(
    queries: Float32, among: Float32, count: int, *, same: bool = False
) -> tuple[Int64, Float32]:
    """The most similar rows, by an exact search in blocks.

    Parameters
    ----------
    queries
        (n, dim) float32, L2-normalised.
    among
        (m, dim) float32, L2-normalised.
    count
        How many for each query; at most m, or m − 1 with ``same``.
    same
        ``queries`` are ``among``: a row is not its own neighbour.

    Returns
    -------
    (n, count) rows of ``among``, the most similar first, and their cosines.
    """
    width = -(-len(among) // _STRIDES)
    padded = np.zeros((width * _STRIDES, among.shape[1]), dtype=np.float32)
    padded[: len(among)] = among
    rows = np.empty((len(queries), count), dtype=np.int64)
    cosines = np.empty((len(queries), count), dtype=np.float32)
    at_once = max(1, _SIMILARITIES_AT_ONCE // len(padded))
    for start in range(0, len(queries), at_once):
        block = queries[start : start + at_once] @ padded.T
        block[:, len(among) :] = -np.inf
        numbers = np.arange(len(block))
        if same:
            block[numbers, start + numbers] = -np.inf
        end = start + len(block)
        rows[start:end], cosines[start:end] = _best(block, count, width)
    return rows, cosines


def _best(block: Float32, count: int, width: int) -> tuple[Int64, Float32]:
    """The largest ``count`` of each row of (n, width · _STRIDES).

    Columns that are ``width`` apart are one group. The best ``count`` columns are in the ``count``
    groups with the largest maxima, so that few are to be partitioned.
    """
    if count < width:
        maxima = block.reshape(len(block), _STRIDES, width).max(axis=1)
        groups = np.argpartition(-maxima, count - 1, axis=1)[:, :count]
        offsets = np.arange(0, width * _STRIDES, width)
        columns = (groups[:, :, None] + offsets).reshape(len(block), -1)
    else:
        columns = np.broadcast_to(np.arange(block.shape[1]), block.shape)
    candidates = np.take_along_axis(block, columns, axis=1)
    if count < candidates.shape[1]:
        chosen = np.argpartition(-candidates, count - 1, axis=1)[:, :count]
    else:
        chosen = np.broadcast_to(np.arange(candidates.shape[1]), candidates.shape)
    cosines = np.take_along_axis(candidates, chosen, axis=1)
    order = np.argsort(-cosines, axis=1, kind="stable")
    chosen = np.take_along_axis(chosen, order, axis=1)
    return (
        np.take_along_axis(columns, chosen, axis=1),
        np.take_along_axis(cosines, order, axis=1),
    )


def weighted_medoid(positions: Float64, cosines: Float32) -> Int64:
    """Which of each row's neighbours is the least far from all of them, weighted by likeness.

    A mean would lie between two groups that a product resembles, where nothing is like it.

    Parameters
    ----------
    positions
        (n, k, 2) where each row's neighbours lie.
    cosines
        (n, k) how similar each neighbour is, the most similar first.

    Returns
    -------
    (n,) number of the neighbour.
    """
    weights = np.exp((cosines - cosines[:, :1]) / _SIMILARITY_SCALE)
    distances = np.linalg.norm(positions[:, :, None] - positions[:, None], axis=-1)
    return np.asarray((distances * weights[:, None]).sum(axis=-1).argmin(axis=1), dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Anchors:
    """Products that were laid out, among which others are placed.

    ``hashes`` (m,) uint64 name them. ``basis`` turns indexed embeddings into what is compared, and
    ``coordinates`` (m, basis.dim_out) are theirs, L2-normalised float32. ``positions`` (m, 2) say
    where they lie.
    """

    hashes: Hashes
    basis: Head
    coordinates: Float32
    positions: Float64

    def place(self, hashes: Hashes, embeddings: Float32) -> tuple[Float64, Mask]:
        """Where products belong, and whether each had to be placed.

        Parameters
        ----------
        hashes
            (n,) uint64, which name the products. An anchor that looks as it did stays where it is.
        embeddings
            (n, dim) float32, L2-normalised, of the space that ``basis`` was fitted in.
        """
        coordinates = self.basis.project(embeddings)
        own = self._own(hashes)
        likeness = (coordinates * self.coordinates[own]).sum(axis=1)
        placed = (self.hashes[own] != hashes) | (likeness < _ITSELF)
        positions = self.positions[own]
        if placed.any():
            among = min(NEIGHBOURS, len(self.hashes))
            rows, cosines = nearest(coordinates[placed], self.coordinates, among)
            chosen = weighted_medoid(self.positions[rows], cosines)
            medoids = rows[np.arange(len(rows)), chosen]
            positions[placed] = self.positions[medoids] + self._beside(hashes[placed])
        return positions, np.asarray(placed)

    def _own(self, hashes: Hashes) -> Int64:
        """(n,) the anchor of each product; any one for a product that is none."""
        order = np.argsort(self.hashes)
        places = np.searchsorted(self.hashes, hashes, sorter=order)
        return np.asarray(order[np.minimum(places, len(order) - 1)], dtype=np.int64)

    def _beside(self, hashes: Hashes) -> Float64:
        """(n, 2) a small step that is a product's own, so that none covers another."""
        reach = _BESIDE * radius(self.positions) * np.sqrt(np.pi / len(self.positions))
        # Not of the highest bits: by those it is drawn who is laid out and who is placed.
        angles = (hashes & np.uint64(2**32 - 1)).astype(np.float64) * (2 * np.pi / 2**32)
        shares = ((hashes >> np.uint64(32)) & np.uint64(2**24 - 1)).astype(np.float64) / 2**24
        lengths = np.sqrt(shares) * reach
        return np.asarray(np.stack([np.cos(angles), np.sin(angles)], axis=1) * lengths[:, None])


def radius(positions: Float64) -> float:
    """How large a map is: the root mean square of the distances (n, 2) from their centre."""
    centred = positions - positions.mean(axis=0)
    return float(np.sqrt((centred**2).sum(axis=1).mean()))
