"""How far a map can be trusted, and how far it moved since the one before."""

from __future__ import annotations

import numpy as np

from lookalike.core.placement import Float32, Float64, Int64, Mask, radius


def trustworthiness(
    coordinates: Float32, positions: Float64, rows: Int64, neighbours: int = 10
) -> float:
    """Whether what lies together is alike (Venna & Kaski 2001), judged at some of the points.

    Parameters
    ----------
    coordinates
        (n, dim) float32, L2-normalised.
    positions
        (n, 2) on the map.
    rows
        (r,) the points whose neighbours on the map are looked at.
    neighbours
        How many of each; at most n / 2.

    Returns
    -------
    1 when each point's neighbours on the map are its nearest ones; about 0.5 on a map without any
    order. With all rows it equals scikit-learn's.
    """
    count = len(positions)
    if count < 2 * neighbours + 2 or not len(rows):
        return 1.0
    penalty = 0
    for row in rows.tolist():
        cosines = coordinates @ coordinates[row]
        cosines[row] = np.inf
        distances = ((positions - positions[row]) ** 2).sum(axis=1)
        distances[row] = np.inf
        near = np.argpartition(distances, neighbours)[:neighbours]
        ranks = (cosines[None] > cosines[near, None]).sum(axis=1)
        penalty += int(np.maximum(ranks - neighbours, 0).sum())
    worst = len(rows) * neighbours * (2 * count - 3 * neighbours - 1) / 2
    return 1 - penalty / worst


def movement(positions: Float64, before: Float64, is_known: Mask) -> float:
    """How far points moved on average, as a share of the map's radius; 0 when none is known.

    Parameters
    ----------
    positions, before
        (n, 2) each, to the same scale.
    is_known
        (n,) which points there were before.
    """
    if not is_known.any():
        return 0.0
    steps = np.linalg.norm(positions[is_known] - before[is_known], axis=1)
    return float(steps.mean()) / max(radius(before[is_known]), 1e-12)
