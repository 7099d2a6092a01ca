"""Whether an explanation points at what the score depends on: deletion and insertion.

Petsiuk, Das and Saenko, "RISE: Randomized Input Sampling for Explanation of Black-box Models", BMVC
2018: delete cells (or pixels) in the order of a map and watch the score fall, or insert them and
watch it rise; the areas under the curves judge the map. Pure arithmetic; randomness is seeded.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lookalike.core.attribution import Cells, pool_cells
from lookalike.core.head import Head

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

RANDOM_MAPS = 64
BEATEN = 0.95
"""The part of the random maps that a map must beat to be better than chance."""
SMOOTHNESS = 1.2
"""Standard deviation, in cells, of the Gaussian that random maps are blurred with.

Photos are smooth, so a map of unrelated cells is no rival: any smooth map beats nearly all of them.
"""
_ROUNDING = 1e-6  # of areas under curves, as the cells' products are float32


@dataclass(frozen=True, slots=True)
class Trust:
    """Areas under the curves of a map's order, of random maps' (mean) and of a centre blob's.

    A good map has a low deletion and a high insertion AUC. ``better_than_chance`` says whether it
    does (see `is_better_than_chance`), and is null where that cannot be said: for a map that is the
    same everywhere, whose areas are those of the cells row by row, and for too few cells.
    """

    deletion_auc: float
    insertion_auc: float
    chance_deletion: float
    chance_insertion: float
    centre_deletion: float
    centre_insertion: float
    better_than_chance: bool | None


def auc(scores: npt.ArrayLike) -> Float64:
    """Area under curves (…, steps) by the trapezoid rule, the steps being spread over 0 to 1.

    A curve of one step has its score as area.
    """
    curves = np.asarray(scores, dtype=np.float64)
    if curves.shape[-1] == 1:
        return np.asarray(curves[..., 0])
    return np.asarray((curves[..., 1:] + curves[..., :-1]).mean(axis=-1) / 2)


def descending_order(heat: npt.ArrayLike) -> Indices:
    """(n,) flat indices of a map, the hottest first; equal ones row by row."""
    return np.argsort(-np.asarray(heat, dtype=np.float64), axis=None, kind="stable")


def random_maps(grid: tuple[int, int], count: int, seed: int) -> Float64:
    """(count, h, w) blurred noise, continued over the edges; each second map is minus the first."""
    smooth = _smooth_noise(grid, (count + 1) // 2, seed)
    return np.stack([smooth, -smooth], axis=1).reshape(-1, *grid)[:count]


def _smooth_noise(grid: tuple[int, int], count: int, seed: int) -> Float64:
    noise = np.random.default_rng(seed).normal(size=(count, *grid))
    rows, columns = (np.fft.fftfreq(size) for size in grid)
    squares = rows[:, None] ** 2 + columns[None, :] ** 2
    blur = np.exp(-2 * (np.pi * SMOOTHNESS) ** 2 * squares)
    return np.asarray(np.fft.ifft2(np.fft.fft2(noise) * blur).real)


def centre_blob(grid: tuple[int, int]) -> Float64:
    """(h, w) Gaussian around the middle: its standard deviation is a quarter of a side."""
    rows, columns = (((np.arange(size) + 0.5) / size - 0.5) / 0.25 for size in grid)
    return np.asarray(np.exp(-(rows[:, None] ** 2 + columns[None, :] ** 2) / 2))


def prefixes(order: Indices, steps: int) -> Bools:
    """What is deleted, or inserted, at each step.

    Parameters
    ----------
    order
        (n,) flat indices.
    steps
        Equal steps from nothing to everything.

    Returns
    -------
    Bools
        (steps + 1, n), True for what comes before round(k·n/steps) in the order.
    """
    rank = np.empty(len(order), dtype=np.intp)
    rank[order] = np.arange(len(order))
    taken = np.rint(np.arange(steps + 1) * len(order) / steps)
    return np.asarray(rank[None, :] < taken[:, None])


def is_better_than_chance(
    deletion: float, insertion: float, chance_deletion: Float64, chance_insertion: Float64
) -> bool | None:
    """Whether insertion minus deletion AUC is above that of `BEATEN` of the random maps.

    ``chance_deletion`` and ``chance_insertion`` are (maps,), of the same maps. None where chance
    comes to its best so often that no map can be above: of one cell, or of cells that are alike.
    """
    gaps = np.asarray(chance_insertion) - np.asarray(chance_deletion)
    to_beat = np.quantile(gaps, BEATEN) + _ROUNDING
    if insertion - deletion > to_beat:
        return True
    return False if gaps.max() > to_beat else None


def cell_trust(
    cells: Cells, other: Float32, head: Head, order_map: npt.ArrayLike, seed: int = 0
) -> Trust:
    """Deletion and insertion over the cells of a feature map, without the network.

    A cell that is deleted is left out of the pooling; the score is the cosine of what remains,
    times the image's coefficient, to ``other``. At least one cell always remains. Cells of weight 0
    are not part of it.

    Parameters
    ----------
    cells
        The image that is judged.
    other
        (dim,) float32, L2-normalised: the other image's embedding.
    head
        Of the generation that was searched.
    order_map
        (h, w), the map to judge.
    seed
        Of the random maps.
    """
    grid = cells.weights.shape
    looked_at = np.flatnonzero(cells.weights > 0)
    rivals = (centre_blob(grid), *_smooth_noise(grid, RANDOM_MAPS // 2, seed))
    heats = [np.asarray(heat).reshape(-1)[looked_at] for heat in (order_map, *rivals)]
    orders = [descending_order(heat) for heat in heats]
    # Deleting leaves, step by step, what the order inserts backwards; each order is beside its own.
    # So the maps of `random_maps` are all there: each second one is minus the first.
    judged = np.stack([[order, order[::-1]] for order in orders]).reshape(-1, len(looked_at))
    areas = auc(_Remains(cells, other, head, looked_at)(judged))
    insertion, deletion = areas, areas.reshape(-1, 2)[:, ::-1].reshape(-1)
    return Trust(
        float(deletion[0]),
        float(insertion[0]),
        float(deletion[4:].mean()),
        float(insertion[4:].mean()),
        float(deletion[2]),
        float(insertion[2]),
        is_better_than_chance(deletion[0], insertion[0], deletion[4:], insertion[4:])
        if np.ptp(heats[0]) > 0
        else None,
    )


class _Remains:
    """The score of the first 1, 2, … n cells of orders, from the cells' Gram matrices.

    With k the cells that remain, |Σ w·A|² and |W(g/|g| − m)|² are quadratic in k.
    """

    def __init__(self, cells: Cells, other: Float32, head: Head, looked_at: Indices) -> None:
        (image,) = pool_cells([cells], head)
        flat = image.cells if len(looked_at) == len(image.weights) else image.cells[:, looked_at]
        weighted = flat * image.weights[looked_at].astype(np.float32) * np.float32(image.per_length)
        self._lengths = weighted.T @ weighted
        target = other.astype(np.float64) * cells.coefficient
        projected, self._mean = weighted, None
        if head.mean is not None and head.components is not None:
            projected = head.components @ weighted
            self._mean = (head.components @ head.mean).astype(np.float64)
        self._spreads = projected.T @ projected if self._mean is not None else None
        self._along = projected.T.astype(np.float64) @ target
        self._mean_along = 0.0
        if self._mean is not None:
            self._across_mean = projected.T.astype(np.float64) @ self._mean
            self._mean_along = float(self._mean @ target)

    def __call__(self, orders: Indices) -> Float64:
        """Scores (orders, n) of the first 1, 2, … n cells of each order (orders, n)."""
        lengths = np.sqrt(_prefix_forms(self._lengths, orders))
        inverse = np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 1e-12)
        along = np.cumsum(self._along[orders], axis=1) * inverse - self._mean_along
        if self._mean is None or self._spreads is None:
            return np.asarray(along)
        squares = (
            _prefix_forms(self._spreads, orders) * inverse**2
            - 2 * np.cumsum(self._across_mean[orders], axis=1) * inverse
            + self._mean @ self._mean
        )
        spreads = np.sqrt(np.maximum(squares, 0.0))
        return np.asarray(np.divide(along, spreads, out=np.zeros_like(along), where=spreads > 1e-6))


def _prefix_forms(gram: Float32, orders: Indices) -> Float64:
    """kᵀ·Gram·k for k the first 1, 2, … n of each order: (orders, n) float64, none below 0."""
    permuted = gram[orders[:, :, None], orders[:, None, :]]
    steps = 2 * np.tril(permuted).sum(axis=2, dtype=np.float64)
    steps -= np.diagonal(permuted, axis1=1, axis2=2)
    return np.asarray(np.maximum(np.cumsum(steps, axis=1), 0.0))
