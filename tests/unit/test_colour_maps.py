"""Colour tables: uniform steps, lightness that only rises, told apart with any colour vision."""

from __future__ import annotations

import numpy as np
import pytest

from lookalike.core.colour_maps import DIVERGING, SEQUENTIAL

# Severity 1.0 of G. Machado, M. Oliveira and L. Fernandes, IEEE TVCG 15 (2009), on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}


def linear(table: np.ndarray) -> np.ndarray:
    values = table / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def oklab(rgb: np.ndarray) -> np.ndarray:
    """Björn Ottosson's OKLab of linear sRGB."""
    cones = rgb @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    return np.cbrt(cones) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )


def cielab(rgb: np.ndarray) -> np.ndarray:
    from_linear = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    xyz = rgb @ from_linear.T / from_linear.sum(axis=1)
    roots = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = roots.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def steps(colours: np.ndarray, every: int) -> np.ndarray:
    """ΔE between entries so many apart, relative to their mean."""
    sizes = np.linalg.norm(np.diff(colours[::every], axis=0), axis=1)
    return np.asarray(sizes / sizes.mean())


@pytest.mark.parametrize("vision", VISION)
def test_stronger_is_lighter_for_everybody(vision):
    seen = np.clip(linear(SEQUENTIAL) @ VISION[vision].T, 0, 1)
    lightness = oklab(seen)[:, 0]
    # Entries are bytes: neighbours may be a rounding apart, those four apart are not.
    assert (np.diff(lightness[::4]) > 0).all()
    assert lightness[-1] - lightness[0] > 0.5


def test_steps_of_the_sequential_map_look_equal():
    sizes = steps(oklab(linear(SEQUENTIAL)), 16)
    assert sizes.min() > 0.85 and sizes.max() < 1.15


def test_the_arms_of_the_diverging_map_are_equally_light_and_even():
    colours = cielab(linear(DIVERGING))
    below, above = colours[128:0:-1], colours[128:]
    assert np.abs(below[:, 0] - above[:, 0]).max() < 1
    assert (np.diff(above[::8, 0]) < 0).all() and (np.diff(below[::8, 0]) < 0).all()
    for arm in (below, above):
        sizes = steps(arm, 16)
        assert sizes.min() > 0.93 and sizes.max() < 1.07
    # The start has no colour, so that it takes no side.
    assert np.hypot(*colours[128, 1:]) < 1


@pytest.mark.parametrize("vision", VISION)
def test_signs_are_told_apart_by_everybody(vision):
    seen = cielab(np.clip(linear(DIVERGING) @ VISION[vision].T, 0, 1))
    for strength, least in ((32, 10), (64, 20), (127, 40)):
        assert np.linalg.norm(seen[128 - strength] - seen[128 + strength]) > least
