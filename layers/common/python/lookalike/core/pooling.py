"""Pooling: how the cells of a feature map become one embedding, g = Σ_x w(x)·A(x) with Σ w = 1.

Pure numpy, vectorised over the batch. Refuses nothing: a map without contrast gets uniform weights.
Tight crops are pooled like any other image (docs/decisions/0012-tight-crops.md says why).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]
Weighting = Callable[[Array], Array]

# A cell that looks exactly like the border still counts a little, so that Σ w is never zero.
FLOOR = np.float32(0.001)
TINY = np.float32(1e-12)

UNSURE_CONTRAST = 0.35
"""Border contrast below which border saliency does not tell product from background."""


def uniform(maps: Array) -> Array:
    """Weights of the plain average (global average pooling): w(x) = 1/HW.

    Parameters
    ----------
    maps
        (n, C, h, w) float32 feature maps.

    Returns
    -------
    Array
        (n, h, w) float32, each summing to 1.
    """
    count, _, height, width = maps.shape
    return np.full((count, height, width), 1.0 / (height * width), dtype=np.float32)


def border_saliency(maps: Array) -> Array:
    """Weights that favour what does not look like the image's border.

    w(x) ∝ s(x) + 0.001, where s is d(x) = 1 − cos(A(x), b) min–max scaled over the cells and b is
    the mean of the outermost ring of cells. Products stand in the middle; what touches the edges
    is mostly background.

    Parameters
    ----------
    maps
        (n, C, h, w) float32 feature maps.

    Returns
    -------
    Array
        (n, h, w) float32, each summing to 1; uniform where all cells are equally far from b.
    """
    count, channels, height, width = maps.shape
    cells = np.ascontiguousarray(maps, dtype=np.float32).reshape(count, channels, height * width)
    border = cells[:, :, _border_cells(height, width)].mean(axis=2)
    dots = np.matmul(border[:, None, :], cells)[:, 0, :]
    lengths = np.sqrt(np.einsum("ncp,ncp->np", cells, cells))
    border_length = np.sqrt(np.einsum("nc,nc->n", border, border))
    cosines = dots / np.maximum(lengths * border_length[:, None], TINY)
    distance = 1.0 - cosines
    low = distance.min(axis=1, keepdims=True)
    span = distance.max(axis=1, keepdims=True) - low
    # Below float32's rounding of a cosine the differences are noise, not contrast.
    flat = span < 1e-6
    weights = np.where(flat, 1.0, (distance - low) / np.where(flat, 1.0, span) + FLOOR)
    weights /= weights.sum(axis=1, keepdims=True)
    return weights.reshape(count, height, width).astype(np.float32, copy=False)


def border_contrast(maps: Array) -> Array:
    """How unlike its middle an image's border is: 1 − cos(mean of the ring, mean of what it rings).

    Border saliency always finds about half of the cells salient, also where the product fills the
    image and touches all edges. This says whether it has something to go by: below
    `UNSURE_CONTRAST` it has not (docs/explanations.md has the measurement).

    Parameters
    ----------
    maps
        (n, C, h, w) float32 feature maps.

    Returns
    -------
    Array
        (n,) float32, from 0 to 1 for maps without negative values; 0 where there is nothing inside
        the ring, or nothing at all in either.
    """
    count, channels, height, width = maps.shape
    cells = maps.reshape(count, channels, height * width)
    ring = _border_cells(height, width)
    if len(ring) == height * width:
        return np.zeros(count, dtype=np.float32)
    border = cells[:, :, ring].sum(axis=2)
    middle = cells.sum(axis=2) - border
    dots = np.einsum("nc,nc->n", border, middle)
    lengths = np.linalg.norm(border, axis=1) * np.linalg.norm(middle, axis=1)
    contrast: Array = np.where(lengths > TINY, 1.0 - dots / np.maximum(lengths, TINY), 0.0)
    return contrast.astype(np.float32, copy=False)


def _border_cells(height: int, width: int) -> npt.NDArray[np.intp]:
    ring = np.ones((height, width), dtype=bool)
    ring[1:-1, 1:-1] = False
    return np.flatnonzero(ring)


def pool(maps: Array, weights: Array) -> Array:
    """Embeddings: normalize(Σ_x w(x)·A(x)).

    Parameters
    ----------
    maps
        (n, C, h, w) float32 feature maps.
    weights
        (n, h, w) float32, each summing to 1.

    Returns
    -------
    Array
        (n, C) float32, L2-normalised; zero for a map that is zero everywhere.
    """
    count, channels, height, width = maps.shape
    cells = maps.reshape(count, channels, height * width)
    pooled = np.matmul(cells, weights.reshape(count, height * width, 1))[:, :, 0]
    lengths = np.sqrt(np.einsum("nc,nc->n", pooled, pooled))
    embeddings: Array = pooled / np.maximum(lengths, TINY)[:, None]
    return embeddings


POOLINGS: Mapping[str, Weighting] = MappingProxyType({"border": border_saliency, "gap": uniform})
