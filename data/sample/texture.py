"""Tileable noise and the sampling of it: the grain of every procedural material."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Floats = npt.NDArray[np.floating[Any]]
SIDE = 512


@lru_cache(maxsize=32)
def noise(power: float = 1.6, seed: int = 1, stretch: float = 1.0) -> Floats:
    """Fractal noise (512, 512) that tiles, mean 0 and deviation 1; amplitude falls as f**-power.

    ``stretch`` > 1 draws it out along u, as wood grain is.
    """
    return _filtered(seed, lambda f: np.maximum(f, 1.0) ** -power, stretch)


@lru_cache(maxsize=32)
def cells(frequency: float, seed: int = 2) -> Floats:
    """Band-limited noise (512, 512): blobs of 512/frequency texels, as on leather."""
    width = frequency * 0.25
    return _filtered(seed, lambda f: np.exp(-(((f - frequency) / width) ** 2)), 1.0)


def _filtered(seed: int, gain: Callable[[Floats], Floats], stretch: float) -> Floats:
    white = np.random.default_rng(seed).standard_normal((SIDE, SIDE)).astype(np.float32)
    f = np.fft.fftfreq(SIDE, 1 / SIDE)
    radius = np.hypot(f[:, None], f[None, :] * stretch)
    spectrum = np.fft.fft2(white) * gain(radius)
    spectrum[0, 0] = 0
    image = np.fft.ifft2(spectrum).real
    return np.asarray(image / image.std(), np.float32)


def nearest(texture: Floats, u: Floats, v: Floats) -> Floats:
    """Texture values at (u, v), where 1 is one repeat."""
    column = (u * SIDE).astype(np.int32) & (SIDE - 1)
    row = (v * SIDE).astype(np.int32) & (SIDE - 1)
    return texture.ravel()[row * SIDE + column]


def bilinear(texture: Floats, u: Floats, v: Floats) -> Floats:
    """Texture values at (u, v), blended between the four texels around."""
    x, y = u * SIDE, v * SIDE
    fx, fy = np.floor(x), np.floor(y)
    column, row = fx.astype(np.int32), fy.astype(np.int32)
    x, y = x - fx, y - fy
    left, right = column & (SIDE - 1), (column + 1) & (SIDE - 1)
    top, bottom = (row & (SIDE - 1)) * SIDE, ((row + 1) & (SIDE - 1)) * SIDE
    flat = texture.ravel()
    upper = flat[top + left] * (1 - x) + flat[top + right] * x
    lower = flat[bottom + left] * (1 - x) + flat[bottom + right] * x
    blend: Floats = upper * (1 - y) + lower * y
    return blend


def step(edge: float, width: float, value: Floats) -> Floats:
    """Smoothstep from 0 below ``edge`` - width/2 to 1 above ``edge`` + width/2."""
    t = np.clip((value - edge) / max(width, 1e-6) + 0.5, 0, 1)
    smooth: Floats = t * t * (3 - 2 * t)
    return smooth


def blurred(image: Floats, sigma: float) -> Floats:
    """A Gaussian blur of a map (h, w) of 0..1, in 8 bits."""
    picture = Image.fromarray((image * 255).astype(np.uint8), "L")
    soft = picture.filter(ImageFilter.GaussianBlur(sigma))
    return np.asarray(soft, np.float32) * np.float32(1 / 255)


def enlarged(image: Floats, side: int) -> Floats:
    """A map (h, w) resized smoothly to (side, side)."""
    picture = Image.fromarray(np.ascontiguousarray(image, np.float32), "F")
    return np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC), np.float32)
