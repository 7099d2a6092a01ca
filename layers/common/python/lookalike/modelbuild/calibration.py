"""Draws the images that int8 ranges are measured on, so that calibrating needs no data set.

Each is an object with a material, shading and a shadow before a background of natural statistics
(noise with a 1/f amplitude spectrum, Field 1987, https://doi.org/10.1364/JOSAA.4.002379). The same
seed draws the same images.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Array = npt.NDArray[Any]

SIDE = 320
SUPERSAMPLING = 2


def calibration_images(count: int = 96, seed: int = 0) -> list[Image.Image]:
    """Draw ``count`` RGB images of 320 x 320 pixels."""
    rng = np.random.default_rng(seed)
    return [_scene(rng) for _ in range(count)]


def _scene(rng: np.random.Generator) -> Image.Image:
    canvas = _background(rng)
    for _ in range(int(rng.choice([1, 1, 1, 2, 4]))):
        mask = _silhouette(rng)
        shadow = _soft(mask, 10) * rng.uniform(0.1, 0.5)
        shadow = np.roll(shadow, tuple(int(n) for n in rng.integers(2, 14, 2)), axis=(0, 1))
        canvas = canvas * (1 - shadow[..., None])
        alpha = _soft(mask, 0.7)[..., None]
        canvas = canvas * (1 - alpha) + _material(rng, mask) * alpha
    exposure, contrast = rng.uniform(-30, 30), rng.uniform(0.8, 1.2)
    grain = rng.normal(0, rng.uniform(0, 5), canvas.shape)
    pixels = (canvas - 128) * contrast + 128 + exposure + grain
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(float(rng.choice([0, 0, 0.6, 1.2]))))


def _background(rng: np.random.Generator) -> Array:
    colour = rng.uniform(40, 255, 3) if rng.random() < 0.6 else np.full(3, rng.uniform(170, 255))
    canvas = np.broadcast_to(colour, (SIDE, SIDE, 3)) + _ramp(rng)[..., None] * rng.uniform(0, 50)
    strength = rng.choice([0, 6, 25, 50])
    tint = rng.uniform(0.5, 1.0, 3)
    background: Array = (
        canvas + _pink_noise(rng, rng.uniform(0.8, 1.6))[..., None] * strength * tint
    )
    return background


def _material(rng: np.random.Generator, mask: Array) -> Array:
    """Colour with a weave, stripes, checks or a print, lit from one side and rounded at the rim."""
    texture = _pink_noise(rng, rng.uniform(0.5, 1.5)) * rng.uniform(3, 30)
    kind = rng.integers(4)
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    angle, period = rng.uniform(0, np.pi), rng.uniform(5, 50)
    along = (rows * np.sin(angle) + columns * np.cos(angle)) / period
    across = (rows * np.cos(angle) - columns * np.sin(angle)) / period
    pattern = {
        0: np.zeros((SIDE, SIDE)),
        1: np.sign(np.sin(2 * np.pi * along)),
        2: np.sign(np.sin(2 * np.pi * along)) + np.sign(np.sin(2 * np.pi * across)),
        3: (_pink_noise(rng, 1.2) > 0.7).astype(float),
    }[int(kind)]
    base, second = rng.uniform(10, 245, 3), rng.uniform(-90, 90, 3)
    rim = _soft(mask, 18) - 0.5
    light = 1 + 0.35 * _ramp(rng) + rng.uniform(0, 0.6) * np.minimum(rim, 0.3)
    surface: Array = base + texture[..., None] + pattern[..., None] * second
    lit: Array = surface * light[..., None]
    return lit


def _silhouette(rng: np.random.Generator) -> Array:
    """A closed curve r(φ) with a few harmonics, or a polygon; 1 inside, 0 outside."""
    corners = int(rng.choice([4, 5, 6, 8, 90]))
    phi = np.linspace(0, 2 * np.pi, corners, endpoint=False) + rng.uniform(0, np.pi)
    radius = np.ones(corners)
    for harmonic in range(2, 6):
        radius += rng.normal(0, 0.18 / harmonic * 2) * np.cos(harmonic * phi + rng.uniform(0, 6))
    extent = SIDE * SUPERSAMPLING
    reach = rng.uniform(0.15, 0.42, 2) * extent
    centre = rng.uniform(0.38, 0.62, 2) * extent
    points = np.stack(
        [centre[0] + reach[0] * radius * np.cos(phi), centre[1] + reach[1] * radius * np.sin(phi)],
        axis=1,
    )
    mask = Image.new("L", (extent, extent))
    ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y in points], fill=255)
    return np.asarray(mask.reduce(SUPERSAMPLING), dtype=np.float64) / 255


def _pink_noise(rng: np.random.Generator, exponent: float) -> Array:
    """Noise of unit variance whose amplitude falls as 1/f^exponent."""
    frequency = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None, :])
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.normal(size=(SIDE, SIDE))) / frequency**exponent
    noise: Array = np.fft.irfft2(spectrum, s=(SIDE, SIDE))
    noise /= noise.std()
    return noise


def _ramp(rng: np.random.Generator) -> Array:
    """A linear gradient from -1 to 1 in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    axis = np.linspace(-1, 1, SIDE)
    ramp: Array = (axis[:, None] * np.sin(angle) + axis[None, :] * np.cos(angle)) / np.sqrt(2)
    return ramp


def _soft(mask: Array, radius: float) -> Array:
    blurred = Image.fromarray((mask * 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(radius)
    )
    return np.asarray(blurred, dtype=np.float64) / 255
