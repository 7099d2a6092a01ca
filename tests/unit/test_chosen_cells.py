from __future__ import annotations

import numpy as np
import pytest

from lookalike.core.chosen_cells import of_box, of_cells, restricted
from lookalike.core.encoders import encoder_record
from lookalike.core.errors import InvalidRequest
from lookalike.core.geometry import seen_square

RECORD = encoder_record("efficientnet-lite0")  # 7 x 7 cells
SIDE = RECORD.map_side


def test_cells_of_stacked_grids_belong_to_their_parts():
    chosen = of_cells([(0, 0), (1, 2), (5, 1)], 3, (2, 3))
    assert chosen[0].tolist() == [[1, 0, 0], [0, 0, 1]]
    assert chosen[1] is None
    assert chosen[2].tolist() == [[0, 0, 0], [0, 1, 0]]


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ([], "at least one"),
        ([(6, 0)], r"6 rows of 3 cells, \[0, 0\] to \[5, 2\]"),
        ([(0, 3)], r"\[0, 3\]"),
        ([(-1, 0)], r"\[-1, 0\]"),
        ([(10**30, 0)], "no cell"),
        ([(1, 1), (0, 0), (1, 1)], "more than once"),
    ],
)
def test_cells_that_cannot_be_chosen(cells, says):
    with pytest.raises(InvalidRequest, match=says) as caught:
        of_cells(cells, 3, (2, 3))
    assert caught.value.parameter == "cells"


def test_a_box_covers_cells_by_their_area():
    width, height = 400, 300
    left, top, side = seen_square(width, height, RECORD)
    cell = side / SIDE
    box = (left + cell, top, 1.5 * cell, 2 * cell)
    expected = np.zeros((SIDE, SIDE))
    expected[:2, 1], expected[:2, 2] = 1, 0.5
    assert np.allclose(of_box(box, width, height, RECORD), expected)
    fractions = (box[0] / width, box[1] / height, box[2] / width, box[3] / height)
    assert np.allclose(of_box(fractions, width, height, RECORD), expected)
    assert of_box((0, 0, 1, 1), width, height, RECORD).min() == 1


@pytest.mark.parametrize(
    "box", [(0, 0, 20, 300), (0, 0, 400, 2), (500, 0, 10, 10), (0, 0, 1e-9, 1e-9)]
)
def test_a_box_that_the_encoder_has_not_seen(box):
    with pytest.raises(InvalidRequest, match="square") as caught:
        of_box(box, 400, 300, RECORD)
    assert caught.value.parameter == "crop"


def test_weights_of_a_region_keep_their_proportions():
    weights = np.array([[0.5, 0.2], [0.3, 0]], dtype=np.float32)
    chosen = np.array([[1, 0.5], [0, 1]])
    assert np.allclose(restricted(weights, chosen), [[5 / 6, 1 / 6], [0, 0]])
    assert restricted(weights, chosen).dtype == np.float32
    only_zero = np.array([[0, 0], [0, 1.0]])
    assert restricted(weights, only_zero).tolist() == [[0, 0], [0, 1]]
    assert restricted(np.zeros((2, 2), np.float32), np.ones((2, 2))).tolist() == [[0.25] * 2] * 2
