"""What surfaces are made of: a pattern with gloss, grain and translucency, in linear RGB."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from data.sample.texture import Floats, bilinear, cells, nearest, noise, step


@dataclass(frozen=True)
class Sample:
    """Pixels to be coloured: uv and position in the product's own units, (n,) each."""

    u: Floats
    v: Floats
    x: Floats
    y: Floats
    z: Floats


Pattern = Callable[[Sample], Floats]
"""Gives linear RGB (3, n) for n pixels."""


@dataclass(frozen=True, eq=False)
class Material:
    """A pattern with how it answers light.

    ``gloss`` 0..1 is how sharp and strong reflections are, ``metal`` tints them with the pattern,
    ``bump`` is (texture, repeats a unit, strength), ``sheen`` brightens grazing angles as
    cloth does, ``glow`` adds the pattern as emitted light, ``alpha`` < 1 is see-through.
    """

    pattern: Pattern
    gloss: float = 0.2
    metal: bool = False
    bump: tuple[str, float, float] | None = None
    sheen: float = 0.0
    glow: float = 0.0
    alpha: float = 1.0


def linear(colour: str) -> Floats:
    """``"#rrggbb"`` in sRGB to linear RGB (3, 1)."""
    values = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float32) / 255
    curve = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return curve.astype(np.float32)[:, None]


def mix(a: Floats, b: Floats, t: Floats) -> Floats:
    """From ``a`` at t = 0 to ``b`` at t = 1; colours (3, 1) or (3, n), t (n,)."""
    blended: Floats = a + (b - a) * t
    return blended


def plain(colour: str, variation: float = 0.03) -> Pattern:
    """One colour, a little uneven."""
    base = linear(colour)
    grain = noise(1.4, 11)

    def pattern(s: Sample) -> Floats:
        return base * (
            1 + variation * nearest(grain, s.x * 0.31 + s.y * 0.17, s.z * 0.29 + s.y * 0.11)
        )

    return pattern


def speckled(colour: str, spots: str, amount: float = 1.6, scale: float = 1.0) -> Pattern:
    """Stoneware: a soft glaze with small dark spots; a lower ``amount`` gives more of them."""
    base, other = linear(colour), linear(spots)
    fine, soft = noise(0.35, 5), noise(1.7, 6)

    def pattern(s: Sample) -> Floats:
        dots = step(amount, 0.5, bilinear(fine, s.u * 1.1 * scale, s.z * 0.45 * scale))
        shade = 1 + 0.06 * bilinear(soft, s.u, s.z * 0.4)
        return mix(base, other, dots * 0.85) * shade

    return pattern


def stripes(
    first: Pattern, second: Pattern, axis: str, period: float, share: float = 0.5
) -> Pattern:
    """Bands of two patterns across ``axis`` (a field of `Sample`)."""

    def pattern(s: Sample) -> Floats:
        phase = np.abs((getattr(s, axis) / period) % 1.0 - 0.5) * 2
        return mix(first(s), second(s), step(share, 0.06, phase))

    return pattern


def bands(base: Pattern, edges: list[tuple[float, float, str]], axis: str = "z") -> Pattern:
    """A pattern with single bands of colour, each (from, to, colour) along ``axis``."""
    colours = [(low, high, linear(colour)) for low, high, colour in edges]

    def pattern(s: Sample) -> Floats:
        out = base(s)
        where = getattr(s, axis)
        for low, high, colour in colours:
            out = mix(out, colour, step(low, 0.01, where) * (1 - step(high, 0.01, where)))
        return out

    return pattern


def dotted(
    base: Pattern, colour: str, repeats: tuple[float, float], radius: float = 0.3
) -> Pattern:
    """Dots on a staggered grid, ``repeats`` a unit of u and v."""
    dot = linear(colour)

    def pattern(s: Sample) -> Floats:
        v = s.v * repeats[1]
        u = s.u * repeats[0] + 0.5 * (np.floor(v) % 2)
        reach = np.hypot(u % 1 - 0.5, v % 1 - 0.5)
        return mix(base(s), dot, 1 - step(radius, 0.08, reach))

    return pattern


def checked(
    base: Pattern, colour: str, repeats: tuple[float, float], soft: bool = False
) -> Pattern:
    """A chequerboard, or a gingham whose crossings are darker when ``soft``."""
    other = linear(colour)

    def pattern(s: Sample) -> Floats:
        a = step(0.5, 0.05, np.abs((s.u * repeats[0]) % 1 - 0.5) * 2)
        b = step(0.5, 0.05, np.abs((s.v * repeats[1]) % 1 - 0.5) * 2)
        t = (a + b) / 2 if soft else a + b - 2 * a * b
        return mix(base(s), other, t)

    return pattern


def wood(colour: str, dark: str, axis: str = "x", scale: float = 1.0) -> Pattern:
    """Grain that runs along ``axis``."""
    base, other = linear(colour), linear(dark)
    rings, fibre = noise(1.6, 21, 9.0), noise(0.7, 22, 24.0)

    def pattern(s: Sample) -> Floats:
        along = getattr(s, axis)
        across = {"x": s.y + 0.7 * s.z, "y": s.x + 0.7 * s.z, "z": s.x + 0.8 * s.y}[axis]
        wave = bilinear(rings, along * 0.12 * scale, across * 0.34 * scale)
        grain = 0.5 + 0.5 * np.sin(wave * 3.2 + across * 9 * scale)
        line = bilinear(fibre, along * 0.3 * scale, across * 0.8 * scale)
        return mix(base, other, np.clip(0.62 * grain + 0.16 * line, 0, 1))

    return pattern


def woven(base: Pattern, threads: float, depth: float = 0.3) -> Pattern:
    """A cloth: crossing threads darken the pattern between them, with uneven yarn."""
    yarn = noise(0.8, 31)

    def pattern(s: Sample) -> Floats:
        across, along = s.x + 0.35 * s.y, s.z + 0.9 * s.y
        thread = np.sin(across * threads) * np.sin(along * threads)
        uneven = bilinear(yarn, across * 0.6, along * 0.6)
        return base(s) * (1 - depth * (0.5 - 0.5 * thread) + 0.25 * depth * uneven)

    return pattern


def brushed(colour: str, axis: str = "z") -> Pattern:
    """Metal brushed along rings around ``axis``."""
    base = linear(colour)
    lines = noise(0.5, 41, 40.0)

    def pattern(s: Sample) -> Floats:
        return base * (1 + 0.04 * bilinear(lines, s.u * 0.2, getattr(s, axis) * 0.9))

    return pattern


def marbled(colour: str, vein: str) -> Pattern:
    """Stone with veins."""
    base, other = linear(colour), linear(vein)
    warp, detail = noise(1.8, 51), noise(1.2, 52)

    def pattern(s: Sample) -> Floats:
        w = bilinear(warp, s.x * 0.25 + s.z * 0.1, s.y * 0.25 + s.z * 0.21)
        line = np.abs(np.sin(3.0 * s.x + 2.2 * s.y + 2.0 * s.z + 1.9 * w))
        fog = bilinear(detail, s.x * 0.4 + s.z * 0.3, s.y * 0.4 + s.z * 0.2)
        return mix(base, other, np.clip((1 - line) ** 6 * 0.9 + 0.1 * fog, 0, 1))

    return pattern


def printed(
    image: Image.Image, box: tuple[float, float, float, float], base: Pattern, plane: str = "xz"
) -> Pattern:
    """A picture on the plane of two axes, within (left, bottom, right, top).

    ``base`` shows elsewhere and through the picture's alpha.
    """
    pixels = np.asarray(image.convert("RGBA"), np.float32) / 255
    height, width = pixels.shape[:2]
    flat = pixels.reshape(-1, 4).T
    ink = np.where(flat[:3] <= 0.04045, flat[:3] / 12.92, ((flat[:3] + 0.055) / 1.055) ** 2.4)
    cover = flat[3]

    def pattern(s: Sample) -> Floats:
        a = (getattr(s, plane[0]) - box[0]) / (box[2] - box[0])
        b = (box[3] - getattr(s, plane[1])) / (box[3] - box[1])
        column = np.clip((a * width).astype(np.int32), 0, width - 1)
        row = np.clip((b * height).astype(np.int32), 0, height - 1)
        index = row * width + column
        inside = (a > 0) & (a < 1) & (b > 0) & (b < 1)
        return mix(base(s), ink[:, index].astype(np.float32), cover[index] * inside)

    return pattern


def grain_vector(bump: tuple[str, float, float], s: Sample) -> tuple[Floats, Floats, Floats]:
    """A small vector (three arrays) to add to the normals so that the surface looks uneven."""
    name, scale, strength = bump
    texture = {
        "leather": cells(60.0, 61),
        "hammered": cells(26.0, 62),
        "cloth": noise(0.5, 63),
        "soft": noise(1.9, 64),
        "crumpled": noise(1.5, 66),
        "fine": noise(0.2, 65),
    }[name]
    a, b = (s.x + 0.45 * s.y) * scale, (s.z + 0.63 * s.y) * scale
    pick = bilinear if name in {"soft", "crumpled", "hammered"} else nearest
    return (
        strength * pick(texture, a, b),
        strength * pick(texture, a + 0.37, b + 0.11),
        strength * pick(texture, a + 0.71, b + 0.53),
    )
