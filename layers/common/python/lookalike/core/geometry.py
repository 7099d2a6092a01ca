"""Which pixels of a photo the network sees, and which of them each cell of its map stands for.

Pure arithmetic on upright photos. A cell stands for an equal rectangle of the centre square that
`lookalike.core.encoder.preprocess` keeps; its receptive field is wider.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lookalike.core.encoders import EncoderRecord

Float64 = npt.NDArray[np.float64]


def seen_square(width: int, height: int, record: EncoderRecord) -> tuple[float, float, float]:
    """(left, top, side) in pixels of the square of an upright photo that an encoder sees."""
    side = min(width, height) * record.input_size / record.resize_side
    return (width - side) / 2, (height - side) / 2, side


def coverage(
    box: tuple[float, float, float, float],
    square: tuple[float, float, float],
    grid: tuple[int, int],
) -> Float64:
    """How much of each cell a box covers.

    Parameters
    ----------
    box
        x, y, width, height in pixels of the upright photo.
    square
        What `seen_square` gives for that photo.
    grid
        (h, w) of the feature map.

    Returns
    -------
    Float64
        (h, w), from 0 to 1; all zero for a box outside the square.
    """
    x, y, width, height = box
    left, top, side = square
    rows = _overlap(y - top, height, side, grid[0])
    columns = _overlap(x - left, width, side, grid[1])
    return rows[:, None] * columns[None, :]


def _overlap(start: float, length: float, side: float, cells: int) -> Float64:
    """The share of each of ``cells`` equal parts of [0, side] inside [start, start + length]."""
    edges = np.linspace(0.0, side, cells + 1)
    inside = np.minimum(edges[1:], start + length) - np.maximum(edges[:-1], start)
    return np.clip(inside * cells / side, 0.0, 1.0)
