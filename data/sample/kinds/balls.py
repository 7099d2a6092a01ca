"""Balls."""

from __future__ import annotations

from functools import partial

import numpy as np

from data.sample.colours import COLOURS as C
from data.sample.kinds.design import Design
from data.sample.material import Material, Pattern, Sample, linear, mix
from data.sample.mesh import (
    Part,
    rotation,
    sphere,
)
from data.sample.texture import Floats, step

GOLDEN = (1 + 5**0.5) / 2


def _centred(s: Sample) -> tuple[Floats, Floats, Floats]:
    """The position on a ball of radius 0.5, as a direction."""
    x, y, z = s.x, s.y, s.z
    size = 1 / np.maximum(np.sqrt(x**2 + y**2 + z**2), 1e-6)
    return x * size, y * size, z * size


def basketball(skin: str, line: str) -> Pattern:
    """Two great circles and two bows."""
    base, dark = linear(C[skin]), linear(C[line])

    def pattern(s: Sample) -> Floats:
        x, y, z = _centred(s)
        tilted = 0.8 * x + 0.6 * y
        bow = np.abs(np.abs(0.8 * y - 0.6 * x) - 0.36 - 0.38 * z**2)
        gap = np.minimum(np.minimum(np.abs(z), np.abs(tilted)), bow)
        return mix(dark, base, step(0.024, 0.012, gap))

    return pattern


def football(light: str, dark: str) -> Pattern:
    """Twelve dark pentagons and the seams of twenty hexagons."""
    base, patch = linear(C[light]), linear(C[dark])
    corners = np.array(
        [p for a in (-1, 1) for b in (-GOLDEN, GOLDEN) for p in ((0, a, b), (a, b, 0), (b, 0, a))]
    )
    corners = corners / np.linalg.norm(corners[0])
    turn = rotation("x", 17) @ rotation("y", 23)

    def pattern(s: Sample) -> Floats:
        place = np.stack(_centred(s))
        near = np.sort((corners @ turn) @ place, axis=0)[::-1]
        pentagon = step(0.935, 0.012, near[0] + 0.02 * (near[1] - near[2]))
        seam = 1 - step(0.012, 0.012, np.abs(near[0] - near[1]))
        return mix(mix(base, patch, pentagon), patch, seam * (1 - pentagon) * 0.8).astype(
            np.float32
        )

    return pattern


def beach(colours: list[str]) -> Pattern:
    """Six coloured gores with white caps."""
    table = np.concatenate([linear(C[name]) for name in colours], axis=1)
    white = linear(C["white"])

    def pattern(s: Sample) -> Floats:
        x, y, z = _centred(s)
        up, side = 0.8 * z - 0.6 * y, 0.6 * z + 0.8 * y
        gore = np.floor((np.arctan2(side, x) / (2 * np.pi) + 0.5) * len(colours)).astype(int)
        return mix(table[:, gore % len(colours)], white, step(0.93, 0.01, np.abs(up)))

    return pattern


def tennis() -> Pattern:
    """A felt ball's curved seam."""
    base, white = linear("#c9dc3a"), linear("#f4f4ec")

    def pattern(s: Sample) -> Floats:
        x, y, z = _centred(s)
        curve = np.abs(x * y * 1.9 + z * (0.9 - 0.5 * z**2) * 0.62)
        return mix(white, base, step(0.05, 0.02, curve))

    return pattern


def volley(first: str, second: str, third: str) -> Pattern:
    """Swirled panels in three colours."""
    a, b, c = (linear(C[name]) for name in (first, second, third))

    def pattern(s: Sample) -> Floats:
        x, y, z = _centred(s)
        swirl = np.arctan2(z, x) + 1.1 * y
        part = (swirl / (2 * np.pi) * 9) % 3
        out = mix(mix(a, b, step(1, 0.05, part)), c, step(2, 0.05, part))
        seam = np.abs(swirl / (2 * np.pi) * 9 % 1 - 0.5) * 2
        return out * (1 - 0.3 * step(0.95, 0.05, seam))

    return pattern


def ball(skin: Material) -> list[Part]:
    """A ball of radius 0.5 around the origin."""
    return [sphere(0.5, skin, count=96)]


def _balls() -> list[Design]:
    pebbled = ("leather", 1.4, 0.12)
    return [
        Design(
            "Basketball, orange",
            "orange",
            "rubber",
            29.0,
            partial(ball, Material(basketball("orange", "black"), gloss=0.25, bump=pebbled)),
        ),
        Design(
            "Football, black and white",
            "white",
            "leather",
            35.0,
            partial(ball, Material(football("white", "black"), gloss=0.5)),
        ),
        Design(
            "Beach ball, six colours",
            "red",
            "vinyl",
            9.0,
            partial(
                ball,
                Material(beach(["red", "white", "blue", "white", "yellow", "white"]), gloss=0.85),
            ),
        ),
        Design(
            "Tennis ball",
            "yellow",
            "felt",
            4.0,
            partial(ball, Material(tennis(), gloss=0.0, bump=("fine", 0.8, 0.35), sheen=0.6)),
        ),
        Design(
            "Volleyball, blue and yellow",
            "blue",
            "leather",
            32.0,
            partial(ball, Material(volley("blue", "yellow", "white"), gloss=0.3)),
        ),
        Design(
            "Street basketball, blue and pink",
            "pink",
            "rubber",
            27.0,
            partial(ball, Material(basketball("pink", "indigo"), gloss=0.3, bump=pebbled)),
        ),
    ]


def designs() -> dict[str, list[Design]]:
    """The designs of this shelf by kind."""
    return {"ball": _balls()}
