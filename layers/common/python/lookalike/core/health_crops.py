"""Tells whether one photo is a part of another, or all of it: cropped, resized, mirrored, resaved.

Two steps. `CropSearch` slides a picture of 8 × 8 cells over every window of pictures of 16 × 16,
which costs next to nothing and lets look-alikes through; `match` looks for the exact place in
thumbnails and compares their fine structure there, which look-alikes do not share (docs/health.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from lookalike.core.image_quality import SIGNATURE_SIDE

MIN_COARSE = 0.85
"""Correlation of 8 × 8 cells from which a pair of thumbnails is looked at."""
MIN_MATCH = 0.75
"""Correlation of fine structure from which two photos show the same picture."""

_CELLS = 8
_SCALES = (1.0, 0.93, 0.865, 0.805, 0.75, 0.695, 0.645, 0.6)
_ASPECT_TOLERANCE = 0.08  # of the logarithm
_SIDE = 64
_BOX = 2
_FLAT = 2.0  # grey levels of deviation below which nothing correlates
_NEARBY = 4
_FAINT = 0.5  # grey levels of fine structure below which nothing correlates
_FINE_SCALES = np.linspace(0.92, 1.08, 9)

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Window:
    """Where in a picture another may be: fractions of its width and height.

    ``correlation`` is of coarse cells; ``mirrored`` whether the other is to be mirrored.
    """

    correlation: float
    left: float
    top: float
    width: float
    height: float
    mirrored: bool


class CropSearch:
    """Looks for pictures within pictures of 16 × 16 cells.

    Parameters
    ----------
    signatures
        (n, 16, 16) uint8.
    aspects
        (n,) width / height of the photos they were made of.
    """

    def __init__(self, signatures: UInt8, aspects: Float32) -> None:
        self._signatures = signatures
        self._aspects = aspects
        self._bins, self._scales, self._offsets = _windows()
        self._stacked = self._bins.reshape(-1, SIGNATURE_SIDE)
        self._stretch = np.log(self._scales[None, :] / self._scales[:, None])

    def find(self, whole: int, parts: npt.NDArray[np.int64]) -> list[Window | None]:
        """The best window of picture ``whole`` for each of ``parts``; None: no shape fits."""
        count = len(self._scales)
        picture = self._signatures[whole].astype(np.float32)
        windows = (self._stacked @ picture @ self._stacked.T).reshape(count, _CELLS, count, _CELLS)
        cells = _normalized(windows.transpose(0, 2, 1, 3).reshape(count * count, -1))
        small = self._signatures[parts].astype(np.float32)
        small = small.reshape(len(parts), _CELLS, 2, _CELLS, 2).mean(axis=(2, 4))
        templates = np.stack([small, small[:, :, ::-1]], axis=1).reshape(2 * len(parts), -1)
        scores = (_normalized(templates) @ cells.T).reshape(len(parts), 2, count, count)
        stretch = np.log(self._aspects[parts] / self._aspects[whole])
        fits = np.abs(self._stretch[None] - stretch[:, None, None]) < _ASPECT_TOLERANCE
        scores = np.where(fits[:, None], scores, -1.0)
        return [self._window(score) for score in scores]

    def _window(self, scores: Float32) -> Window | None:
        mirrored, row, column = np.unravel_index(int(scores.argmax()), scores.shape)
        best = float(scores[mirrored, row, column])
        if best <= -1.0:
            return None
        return Window(
            best,
            float(self._offsets[column]),
            float(self._offsets[row]),
            float(self._scales[column]),
            float(self._scales[row]),
            bool(mirrored),
        )


def match(whole: Image.Image, part: Image.Image, window: Window) -> float:
    """How well the fine structure of ``part`` correlates with ``whole`` about a window, 0 to 1.

    Parameters
    ----------
    whole, part
        Thumbnails, RGB.
    window
        Where `CropSearch` sees ``part`` in ``whole``.
    """
    detail = _detail(_resized(whole, _SIDE / max(whole.size)))
    height, width, _ = detail.shape
    if window.mirrored:
        part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    area = window.width * width * window.height * height
    fit = math.sqrt(area / (part.width * part.height))
    middle = (
        (window.top + window.height / 2) * height,
        (window.left + window.width / 2) * width,
    )
    best = 0.0
    for factor in _FINE_SCALES:
        template = _resized(part, fit * float(factor))[:height, :width]
        if min(template.shape[:2]) <= 4 * _BOX:
            continue
        # The edges' surroundings are not in the part, but are in the whole.
        inner = _detail(template)[_BOX:-_BOX, _BOX:-_BOX]
        best = max(best, _correlation(_around(detail, inner.shape, middle), inner))
    return best


def _around(detail: Float32, shape: tuple[int, ...], middle: tuple[float, float]) -> Float32:
    """The part of a picture in which a smaller one lies that has its middle about there."""
    spans = []
    for side, length, centre in zip(detail.shape[:2], shape[:2], middle, strict=True):
        start = round(centre - length / 2) - _NEARBY
        start = min(max(0, start), side - length)
        spans.append(slice(start, min(side, start + length + 2 * _NEARBY)))
    return detail[spans[0], spans[1]]


def _correlation(area: Float32, template: Float32) -> float:
    """The best cosine of a template with any place of an area, both of mean about zero."""
    height, width, channels = template.shape
    windows = np.lib.stride_tricks.sliding_window_view(area, (height, width, channels))[:, :, 0]
    length = float(np.linalg.norm(template))
    products = np.tensordot(windows, template, 3)
    lengths = np.sqrt(np.maximum(_box_sums((area * area).sum(axis=2), height, width), 0))
    flat = math.sqrt(template.size) * _FAINT
    return float((products / (np.maximum(lengths, flat) * max(length, flat))).max())


def _detail(picture: Float32) -> Float32:
    """A picture (h, w, 3) without what the surroundings of 5 × 5 pixels have in common."""
    size = 2 * _BOX + 1
    padded = np.pad(picture, ((_BOX, _BOX), (_BOX, _BOX), (0, 0)), mode="edge")
    return np.asarray(picture - _box_sums(padded, size, size) / size**2, dtype=np.float32)


def _box_sums(values: Float32, height: int, width: int) -> npt.NDArray[np.float64]:
    margins = ((1, 0), (1, 0)) + ((0, 0),) * (values.ndim - 2)
    table = np.pad(values, margins).cumsum(axis=0, dtype=np.float64).cumsum(axis=1)
    return np.asarray(
        table[height:, width:]
        - table[:-height, width:]
        - table[height:, :-width]
        + table[:-height, :-width]
    )


def _resized(image: Image.Image, scale: float) -> Float32:
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    kind = Image.Resampling.BOX if scale < 0.5 else Image.Resampling.BILINEAR
    return np.asarray(image.resize(size, kind), dtype=np.float32)


def _normalized(cells: Float32) -> Float32:
    centred = cells - cells.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(length, _CELLS * _FLAT), dtype=np.float32)


def _windows() -> tuple[Float32, Float32, Float32]:
    """Windows along one side: (m, 8, 16) weights of cells, and (m,) scales and offsets."""
    weights, scales, offsets = [], [], []
    cell = np.arange(SIGNATURE_SIDE)
    for scale in _SCALES:
        for offset in np.linspace(0, 1 - scale, round((1 - scale) * SIGNATURE_SIDE) + 1):
            edges = (offset + scale * np.arange(_CELLS + 1) / _CELLS) * SIGNATURE_SIDE
            overlap = np.minimum(edges[1:, None], cell + 1) - np.maximum(edges[:-1, None], cell)
            overlap = np.clip(overlap, 0, None)
            weights.append(overlap / overlap.sum(axis=1, keepdims=True))
            scales.append(scale)
            offsets.append(offset)
    kinds = (np.float32, np.float32, np.float32)
    columns = (np.stack(weights), np.asarray(scales), np.asarray(offsets))
    first, second, third = (c.astype(kind) for c, kind in zip(columns, kinds, strict=True))
    return first, second, third
