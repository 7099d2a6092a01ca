"""Parts of photos that are not encoded again: which cells, and how much each of them counts.

Pure arithmetic. The grids of a query's parts stand one below the other, as in its explanations.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lookalike.core.encoders import EncoderRecord
from lookalike.core.errors import InvalidRequest
from lookalike.core.geometry import Float64, coverage, seen_square
from lookalike.core.material import Box, Float32


def of_cells(
    cells: Sequence[tuple[int, int]], parts: int, grid: tuple[int, int]
) -> list[Float64 | None]:
    """For each part what is chosen of its grid: (h, w), 1 or 0; None where nothing is.

    Parameters
    ----------
    cells
        (row, column) in the stacked grid, (parts · h, w).
    parts
        How many grids are stacked.
    grid
        (h, w) of one.

    Raises
    ------
    InvalidRequest
        A cell is not in the grid or is named twice; none is named.
    """
    rows, columns = parts * grid[0], grid[1]
    if not cells:
        raise InvalidRequest("“cells” is empty; name at least one cell.", parameter="cells")
    chosen = np.zeros((rows, columns))
    for row, column in cells:
        if not (0 <= row < rows and 0 <= column < columns):
            raise InvalidRequest(
                f"There is no cell [{row}, {column}]: that search has {rows} rows of {columns} "
                f"cells, [0, 0] to [{rows - 1}, {columns - 1}].",
                parameter="cells",
            )
        if chosen[row, column]:
            raise InvalidRequest(
                f"The cell [{row}, {column}] is named more than once.", parameter="cells"
            )
        chosen[row, column] = 1
    return [part if part.any() else None for part in np.split(chosen, parts)]


def of_box(box: Box, width: int, height: int, record: EncoderRecord) -> Float64:
    """How much of each cell a box covers: (h, w), from 0 to 1.

    Parameters
    ----------
    box
        x, y, width, height in pixels of the upright photo, or fractions when all are at most 1.
    width, height
        Of that photo.
    record
        The encoder that has seen it.

    Raises
    ------
    InvalidRequest
        The box holds nothing that the encoder has seen.
    """
    unit_x, unit_y = (width, height) if max(box) <= 1 else (1, 1)
    pixels = (box[0] * unit_x, box[1] * unit_y, box[2] * unit_x, box[3] * unit_y)
    square = seen_square(width, height, record)
    chosen = coverage(pixels, square, (record.map_side, record.map_side))
    if not chosen.any():
        left, top, side = (round(value) for value in square)
        raise InvalidRequest(
            f"The crop {','.join(f'{value:g}' for value in box)} holds nothing that the encoder "
            f"has seen of that photo of {width} x {height} pixels, which is the square "
            f"{left},{top},{side},{side}; search with the photo itself and this crop.",
            parameter="crop",
        )
    return chosen


def restricted(weights: Float32, chosen: Float64) -> Float32:
    """Pooling weights of a region: those of the whole, times what is chosen of each cell.

    Parameters
    ----------
    weights
        (h, w) float32, that sum to 1.
    chosen
        (h, w), from 0 to 1, not all zero.

    Returns
    -------
    Float32
        (h, w), that sum to 1; by ``chosen`` alone where all weights are zero.
    """
    kept = weights * chosen
    if not kept.any():
        kept = chosen
    return np.asarray(kept / kept.sum(), dtype=np.float32)
