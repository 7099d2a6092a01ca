"""Parts of a picture: contiguous cells of a feature map that look alike, by Ward's method.

Pure arithmetic, deterministic. J. H. Ward, "Hierarchical grouping to optimize an objective
function", JASA 1963, merging only neighbours on the grid; distances by the Lance–Williams
recurrence.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]

MOST = 6
"""Regions of one picture; more are smaller than what a person has a name for."""


def regions(maps: Float32, chosen: Bools, most: int = MOST) -> tuple[Indices, ...]:
    """Divide the chosen cells of a feature map into contiguous regions.

    Parameters
    ----------
    maps
        (C, h, w) float32.
    chosen
        (h, w) bool: the cells to divide.
    most
        Regions to end with; more only where the chosen cells are not contiguous themselves.

    Returns
    -------
    tuple[Indices, ...]
        The flat indices of each region's cells, ascending; regions by their first cell.
    """
    cells = np.flatnonzero(chosen)
    if not len(cells):
        return ()
    columns = maps.reshape(len(maps), -1)[:, cells]
    lengths = np.sqrt(np.einsum("cx,cx->x", columns, columns, dtype=np.float64))
    cosines = (columns.T @ columns) / np.maximum(np.outer(lengths, lengths), 1e-30)
    merged = _ward(1.0 - cosines, _neighbours(cells, chosen.shape[1]), most)
    return tuple(cells[merged == label] for label in np.unique(merged))


def _neighbours(cells: Indices, width: int) -> Bools:
    """(n, n) bool: which two of these cells share an edge."""
    rows, columns = np.divmod(cells, width)
    steps = np.abs(rows[:, None] - rows) + np.abs(columns[:, None] - columns)
    return np.asarray(steps == 1)


def _ward(distances: Float64, neighbours: Bools, most: int) -> Indices:
    """(n,) labels: the lowest index of each cell's cluster.

    ``distances`` are squared Euclidean up to a factor.
    """
    count = len(distances)
    labels = np.arange(count)
    sizes = np.ones(count)
    distances = distances.copy()
    costs = np.where(neighbours, distances, np.inf)
    for _ in range(count - most):
        first, second = sorted(divmod(int(costs.argmin()), count))
        if not np.isfinite(costs[first, second]):
            break
        total = sizes + sizes[first] + sizes[second]
        distances[first] = distances[:, first] = (
            (sizes + sizes[first]) * distances[first]
            + (sizes + sizes[second]) * distances[second]
            - sizes * distances[first, second]
        ) / total
        sizes[first] += sizes[second]
        neighbours[first] |= neighbours[second]
        neighbours[:, first] |= neighbours[:, second]
        neighbours[first, first] = False
        neighbours[second] = neighbours[:, second] = False
        costs[second] = costs[:, second] = np.inf
        costs[first] = costs[:, first] = np.where(neighbours[first], distances[first], np.inf)
        labels[labels == second] = first
    return labels
