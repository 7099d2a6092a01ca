from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.core.metrics import (
    average_precision_at_k,
    mean_average_precision_at_k,
    precision_at_k,
)

# rel = 1 0 1 0 0 1; R = 4. Worked by hand: P@1 = 1, P@3 = 2/3, P@6 = 3/6.
RANKED = [True, False, True, False, False, True]


def test_precision_counts_relevant_results_over_k() -> None:
    assert precision_at_k(RANKED, 1) == 1.0
    assert precision_at_k(RANKED, 2) == 0.5
    assert precision_at_k(RANKED, 6) == pytest.approx(3 / 6)


def test_precision_of_a_short_list_is_over_k() -> None:
    assert precision_at_k([True, True], 10) == pytest.approx(0.2)
    assert precision_at_k([], 10) == 0.0


def test_average_precision_by_hand() -> None:
    expected = (1 / 1 + 2 / 3 + 3 / 6) / 4
    assert average_precision_at_k(RANKED, 6, 4) == pytest.approx(expected)


def test_average_precision_is_normalised_by_the_smaller_of_k_and_r() -> None:
    # Only two can be in the first two, however many there are.
    assert average_precision_at_k([True, True], 2, 50) == 1.0
    assert average_precision_at_k([True, False], 2, 50) == pytest.approx(0.5)
    # Only one exists: a perfect list of ten holds it first.
    assert average_precision_at_k([True] + [False] * 9, 10, 1) == 1.0


def test_mean_average_precision_is_the_mean_over_queries() -> None:
    queries = [([True, False], 1), ([False, True], 1), ([False, False], 3)]
    assert mean_average_precision_at_k(queries, 2) == pytest.approx((1 + 0.5 + 0) / 3)


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 40), st.integers(0, 30))
def test_average_precision_matches_its_definition(ranked: list[bool], k: int, unseen: int) -> None:
    total = sum(ranked) + unseen
    if total == 0:
        return
    hits, terms = 0, 0.0
    for rank, hit in enumerate(ranked[:k], 1):
        hits += hit
        terms += hit * hits / rank
    value = average_precision_at_k(ranked, k, total)
    assert value == pytest.approx(terms / min(k, total))
    assert 0 <= value <= 1
    assert (value == 1.0) == (len(ranked) >= min(k, total) and all(ranked[: min(k, total)]))


@given(st.lists(st.booleans(), min_size=2, max_size=20), st.integers(1, 20), st.data())
def test_moving_a_hit_forward_never_lowers_average_precision(
    ranked: list[bool], k: int, data: st.DataObject
) -> None:
    if not any(ranked):
        return
    i = data.draw(st.integers(0, len(ranked) - 2))
    better = list(ranked)
    better[i], better[i + 1] = sorted((ranked[i], ranked[i + 1]), reverse=True)
    total = sum(ranked)
    assert average_precision_at_k(better, k, total) >= average_precision_at_k(ranked, k, total)


@pytest.mark.parametrize("k", [0, -1])
def test_k_below_one_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        precision_at_k(RANKED, k)


def test_judgements_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="of only 2"):
        average_precision_at_k(RANKED, 6, 2)
    with pytest.raises(ValueError, match="at least 1"):
        average_precision_at_k([False], 1, 0)
    with pytest.raises(ValueError, match="one dimension"):
        precision_at_k(np.zeros((2, 2), dtype=bool), 1)
    with pytest.raises(ValueError, match="no queries"):
        mean_average_precision_at_k([], 5)


def test_with_unknown_total_the_found_ones_are_the_divisor():
    # P@1 = 1 and P@3 = 2/3, two found.
    assert average_precision_at_k([True, False, True], 3, None) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision_at_k([False, False], 3, None) == 0
