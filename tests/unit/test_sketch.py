from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lookalike.core.sketch import ALPHA, LARGEST, MAX_BUCKETS, SMALLEST, Sketch

VALUES = st.lists(st.floats(SMALLEST, LARGEST), min_size=1, max_size=60)


def sketch_of(values) -> Sketch:
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    return sketch


@given(VALUES, st.floats(0.001, 1))
def test_quantiles_are_within_one_percent(values, share):
    exact = np.quantile(values, share, method="inverted_cdf")
    found = sketch_of(values).quantile(share)
    # The quantile's rank itself may round to a neighbour.
    near = sorted(values)[max(math.ceil(share * len(values) - 1e-9) - 1, 0)]
    assert min(abs(found - exact) / exact, abs(found - near) / near) <= ALPHA * (1 + 1e-6)


@given(st.lists(VALUES, min_size=1, max_size=5), st.randoms())
def test_parts_in_any_order_make_the_whole(parts, rng):
    whole = sketch_of([value for part in parts for value in part])
    rng.shuffle(parts)
    merged = Sketch()
    for part in parts:
        merged.merge(sketch_of(part))
    assert merged == whole


def test_the_mean_is_exact_and_nothing_has_none():
    assert sketch_of([1.0, 2.0, 6.0]).mean == 3.0
    assert Sketch().mean is None and Sketch().quantile(0.5) is None


def test_whatever_comes_there_is_a_bounded_number_of_buckets():
    odd = [0.0, -5.0, float("nan"), float("inf"), 1e300, 1e-300]
    sketch = sketch_of([*odd, *np.geomspace(1e-6, 1e12, 20_000)])
    assert len(sketch.buckets) <= MAX_BUCKETS and sketch.count == 20_006
    assert sketch.quantile(1) <= LARGEST * (1 + ALPHA)
