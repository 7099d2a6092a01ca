"""Retrieval metrics over ranked relevance judgements. Pure numpy; knows nothing of searches.

Throughout, ``relevant`` is a one-dimensional boolean array: entry i says whether the result at
rank i + 1 is relevant. A list shorter than k counts as if padded with results that are not.

Sources: Manning, Raghavan, Schütze, *Introduction to Information Retrieval* (2008), chapter 8; the
truncated average precision is the one of Weyand et al., *Google Landmarks Dataset v2* (CVPR 2020).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "average_precision_at_k",
    "mean_average_precision_at_k",
    "precision_at_k",
]


def precision_at_k(relevant: ArrayLike, k: int) -> float:
    """The share of the first k results that are relevant: P@k = (1/k) Σ_{i≤k} rel(i).

    Parameters
    ----------
    relevant
        (n,) bool, in rank order.
    k
        Cut-off, at least 1. The divisor is k even when there are fewer results.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        ``k`` is less than 1, or ``relevant`` is not one-dimensional.
    """
    return float(_first(relevant, k).sum()) / k


def average_precision_at_k(relevant: ArrayLike, k: int, total_relevant: int | None) -> float:
    """Average precision of the first k results: AP@k = (1/min(k, R)) Σ_{i≤k} P@i · rel(i).

    It is 1 exactly when the first min(k, R) results are all relevant. With R unknown the divisor is
    the number of relevant results among the first k, and the value says only how early those that
    were found came (0 if none was): always at least the AP@k of a known R.

    Parameters
    ----------
    relevant
        (n,) bool, in rank order.
    k
        Cut-off, at least 1.
    total_relevant
        R, how many relevant items there are in the whole collection; None if unknown.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        ``k`` or R is less than 1, or there are more relevant results than R.
    """
    first = _first(relevant, k)
    if total_relevant is None:
        divisor = max(int(first.sum()), 1)
    else:
        _check_total(first, total_relevant)
        divisor = min(k, total_relevant)
    precision = np.cumsum(first) / np.arange(1, len(first) + 1)
    return float(precision[first].sum()) / divisor


def mean_average_precision_at_k(
    queries: Iterable[tuple[ArrayLike, int | None]],
    k: int,
) -> float:
    """Mean of AP@k over queries: mAP@k = (1/Q) Σ_q AP@k(q).

    Parameters
    ----------
    queries
        For each query its (n,) bool judgements in rank order and its R, as `average_precision_at_k`
        takes them.
    k
        Cut-off, at least 1.

    Returns
    -------
    float
        In [0, 1].

    Raises
    ------
    ValueError
        There is no query, or one is not allowed by `average_precision_at_k`.
    """
    values = [average_precision_at_k(relevant, k, total) for relevant, total in queries]
    if not values:
        raise ValueError("there are no queries to take the mean of")
    return float(np.mean(values))


def _first(relevant: ArrayLike, k: int) -> NDArray[np.bool_]:
    judged = np.asarray(relevant, dtype=np.bool_)
    if judged.ndim != 1:
        raise ValueError(f"relevant has shape {judged.shape}; it must have one dimension")
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    return judged[:k]


def _check_total(first: NDArray[np.bool_], total_relevant: int) -> None:
    if total_relevant < 1:
        raise ValueError(f"total_relevant is {total_relevant}; it must be at least 1")
    if first.sum() > total_relevant:
        raise ValueError(f"{first.sum()} results are relevant, of only {total_relevant}")
