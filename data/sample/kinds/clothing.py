"""Hats and T-shirts."""

from __future__ import annotations

from functools import partial

import numpy as np
from PIL import Image, ImageDraw

from data.sample.colours import COLOURS as C
from data.sample.kinds.design import Design, fabric, jersey, leather
from data.sample.material import (
    Material,
    checked,
    plain,
    printed,
    stripes,
)
from data.sample.mesh import (
    Part,
    moved,
    revolve,
    rotation,
    smooth,
    sphere,
    surface,
    tube,
)


def hat(felt: Material, ribbon: Material | None, *, style: str = "fedora") -> list[Part]:
    """A fedora, a wide sun hat or a baseball cap."""
    if style == "cap":
        dome = smooth(
            [(0.345, 0.0), (0.35, 0.08), (0.325, 0.2), (0.22, 0.31), (0.08, 0.345), (0.002, 0.35)],
            34,
        )
        s, u = np.meshgrid(np.linspace(-1, 1, 36), np.linspace(0, 1, 18))
        angle = s * 0.98
        reach = 0.335 + u * 0.34 * np.cos(s * np.pi / 2) ** 0.6
        x, y = reach * np.sin(angle), -reach * np.cos(angle) * 1.1
        z = 0.03 - 0.03 * s**2 - 0.06 * u**1.5
        visor = np.stack([x, y, z], -1)
        parts = [
            revolve(dome, felt, squash=(1, 1.1), two_sided=True),
            surface(visor, ribbon or felt, two_sided=True),
            surface(visor - [0, 0, 0.012], ribbon or felt, flip=True, two_sided=True),
            sphere(0.025, ribbon or felt, at=(0, 0, 0.352), count=16),
        ]
        return moved(parts, rotation("x", 4))
    brim_width, crown = (0.42, 0.36) if style == "fedora" else (0.62, 0.3)
    line = [
        (0.26, 0.03),
        (0.265, 0.12),
        (0.25, 0.24),
        (0.2, crown - 0.02),
        (0.1, crown),
        (0.002, crown),
    ]
    head = smooth(line, 44)
    parts = [_pinched(revolve(head, felt, squash=(1, 1.2)), style)]
    brim = smooth([(0.25, 0.06), (0.275, 0.03), (0.36, 0.02), (brim_width, 0.035)], 18)
    under = brim[::-1] - [0, 0.012]
    skirt = np.concatenate([under, brim])
    parts.append(_waved(revolve(skirt[::-1], felt, squash=(1, 1.15), two_sided=True), style))
    if ribbon is not None:
        parts.append(
            revolve(
                [(0.268, 0.035), (0.272, 0.06), (0.272, 0.1), (0.262, 0.115)],
                ribbon,
                squash=(1, 1.2),
            )
        )
    return parts


def _pinched(part: Part, style: str) -> Part:
    grid = part.points.copy()
    if style == "fedora":
        x, y, z = grid[..., 0], grid[..., 1], grid[..., 2]
        high = np.clip((z - 0.2) / 0.16, 0, 1)
        grid[..., 2] -= 0.07 * high * np.exp(-((x / 0.07) ** 2))
        grid[..., 0] *= 1 - 0.3 * high * np.clip(-y / 0.3, 0, 1)
    return surface(grid, part.material, wrap=True)


def _waved(part: Part, style: str) -> Part:
    grid = part.points.copy()
    x, y = grid[..., 0], grid[..., 1]
    reach = np.clip((np.hypot(x, y) - 0.28) / 0.3, 0, 1)
    angle = np.arctan2(y, x)
    wave = 0.07 * np.cos(2 * angle) if style == "fedora" else 0.05 * np.sin(3 * angle) - 0.09
    grid[..., 2] += reach * wave
    return surface(grid, part.material, wrap=True, two_sided=True)


def tshirt(cloth: Material, collar: Material, *, long_sleeves: bool = False) -> list[Part]:
    """A T-shirt laid flat, seen from above."""
    s, t = np.meshgrid(np.linspace(-1, 1, 64), np.linspace(0, 1, 60))
    half = 0.355 + 0.012 * np.cos(np.pi * t) - 0.02 * np.clip((t - 0.62) / 0.2, 0, 1)
    x = s * half
    shoulder = 1.0 - 0.13 * np.clip((np.abs(x) - 0.1) / 0.24, 0, 1)
    drape = 0.5 + 0.5 * np.sin(4 * x + 2.2 * t) * np.cos(3.1 * t)
    folds = 0.011 * np.sin(9 * x + 4 * t + 2 * np.sin(5 * t)) + 0.007 * np.sin(17 * x - 8 * t)
    folds = (
        folds * drape + 0.007 * np.exp(-(((np.abs(x) - 0.2 - 0.35 * (t - 0.7)) / 0.03) ** 2)) * t
    )
    puff = np.clip(1 - s**6, 0, 1) ** 0.5 * np.clip(1 - (2 * t - 1) ** 10, 0, 1) ** 0.5
    parts = []
    for depth, dip in ((0.085, 0.13), (0.045, 0.035)):
        neck = dip * np.clip(1 - (x / 0.125) ** 2, 0, 1) ** 0.5
        height = 0.02 + depth * (0.3 + 0.7 * puff) + folds * puff
        grid = np.stack([x, t * (shoulder - neck), height], -1)
        parts.append(surface(grid, cloth, flip=True, two_sided=True))
    reach, end_y, wide = (0.66, 0.16, 0.07) if long_sleeves else (0.56, 0.62, 0.12)
    for side in (-1, 1):
        parts.extend(_sleeve(side, reach, end_y, wide, cloth))
    angle = np.linspace(0, 2 * np.pi, 72)
    front = np.sin(angle) < 0
    scoop = np.where(front, 0.13, 0.035) * np.sin(angle) * np.where(front, 1, -1)
    level = np.where(front, 0.1, 0.075) - 0.012 * np.abs(np.cos(angle)) ** 4
    rib = np.stack([0.126 * np.cos(angle), 0.992 + scoop, level], -1)
    return [*parts, tube(rib, 0.015, collar, count=10)]


def _sleeve(side: int, reach: float, end_y: float, wide: float, cloth: Material) -> list[Part]:
    """Two sheets from the armhole to the cuff."""
    across, along = np.meshgrid(np.linspace(-1, 1, 24), np.linspace(0, 1, 34))
    head, foot = np.array([0.3, 0.9]), np.array([0.31, 0.6])
    slope = np.array([reach - 0.3, end_y - 0.88])
    normal = np.array([-slope[1], slope[0]]) / np.linalg.norm(slope)
    cuff_high, cuff_low = (
        np.array([reach, end_y]) + normal * wide,
        np.array([reach, end_y]) - normal * wide,
    )
    bend = 0.025 * np.sin(np.pi * along)
    v = (across + 1) / 2
    parts = []
    for lift, height in ((1.0, 0.07), (0.0, 0.03)):
        places = []
        for axis in (0, 1):
            inner = foot[axis] + (head[axis] - foot[axis]) * v
            outer = cuff_low[axis] + (cuff_high[axis] - cuff_low[axis]) * v
            places.append(inner + (outer - inner) * along + bend * normal[axis])
        swell = np.clip(1 - across**4, 0, 1) ** 0.5
        fold = 0.008 * np.sin(14 * along + 3 * across) * swell * lift
        z = 0.02 + height * swell * (1 - 0.25 * along) + fold
        grid = np.stack([side * places[0], places[1], z], -1)
        parts.append(surface(grid, cloth, flip=side < 0, two_sided=True))
    return parts


def _straw(colour: str) -> Material:
    base = checked(plain(C[colour], 0.08), C["camel"], (90, 60))
    return Material(base, gloss=0.12, bump=("cloth", 0.8, 0.12))


def _motif(kind: str, ink: str) -> Image.Image:
    image = Image.new("RGBA", (300, 300), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    if kind == "sun":
        draw.ellipse((75, 75, 225, 225), fill=C[ink])
        for k in range(5):
            draw.rectangle((0, 160 + 14 * k, 300, 163 + 14 * k + 2 * k), fill=(0, 0, 0, 0))
    elif kind == "hills":
        draw.ellipse((180, 30, 250, 100), fill=C["yellow"])
        draw.polygon([(20, 260), (120, 80), (220, 260)], fill=C[ink])
        draw.polygon([(110, 260), (200, 130), (290, 260)], fill=C["teal"])
    else:
        draw.text((150, 150), kind, fill=C[ink], anchor="mm", font_size=110)
    return image


def _hats() -> list[Design]:
    def felt(colour: str) -> Material:
        return Material(plain(C[colour], 0.06), gloss=0.02, bump=("fine", 0.7, 0.12), sheen=0.5)

    return [
        Design(
            "Fedora, charcoal felt",
            "charcoal",
            "felt",
            69.0,
            partial(hat, felt("charcoal"), fabric("black")),
        ),
        Design(
            "Sun hat, natural straw",
            "natural",
            "straw",
            39.0,
            partial(hat, _straw("natural"), fabric("navy"), style="sun"),
        ),
        Design(
            "Baseball cap, navy",
            "navy",
            "cotton",
            25.0,
            partial(hat, fabric("navy"), None, style="cap"),
        ),
        Design(
            "Fedora, camel felt",
            "camel",
            "felt",
            72.0,
            partial(hat, felt("camel"), leather("brown")),
        ),
        Design(
            "Baseball cap, red and white",
            "red",
            "cotton",
            27.0,
            partial(hat, fabric("white"), fabric("red"), style="cap"),
        ),
        Design(
            "Wide-brim hat, olive",
            "olive",
            "felt",
            59.0,
            partial(hat, felt("olive"), leather("tan"), style="sun"),
        ),
    ]


def _tshirts() -> list[Design]:
    place = (-0.17, 0.4, 0.17, 0.74)
    sun = jersey(printed(_motif("sun", "orange"), place, plain(C["white"], 0.015), "xy"))
    hills = jersey(printed(_motif("hills", "forest"), place, plain(C["sand"], 0.015), "xy"))
    word = jersey(printed(_motif("ALTO", "white"), place, plain(C["black"], 0.015), "xy"))
    breton = jersey(stripes(plain(C["white"]), plain(C["navy"]), "y", 0.075, 0.35))
    return [
        Design(
            "Sunset print T-shirt, white",
            "white",
            "cotton",
            24.0,
            partial(tshirt, sun, jersey("white")),
        ),
        Design(
            "Plain T-shirt, forest green",
            "forest",
            "cotton",
            18.0,
            partial(tshirt, jersey("forest"), jersey("forest")),
        ),
        Design(
            "Breton long-sleeved top, navy stripes",
            "navy",
            "cotton",
            32.0,
            partial(tshirt, breton, jersey("white"), long_sleeves=True),
        ),
        Design(
            "Mountain print T-shirt, sand",
            "sand",
            "cotton",
            26.0,
            partial(tshirt, hills, jersey("brown")),
        ),
        Design(
            "Logo T-shirt, black", "black", "cotton", 22.0, partial(tshirt, word, jersey("black"))
        ),
        Design(
            "Long-sleeved top, burgundy",
            "burgundy",
            "cotton",
            30.0,
            partial(tshirt, jersey("burgundy"), jersey("burgundy"), long_sleeves=True),
        ),
    ]


def designs() -> dict[str, list[Design]]:
    """The designs of this shelf by kind."""
    return {"hat": _hats(), "t-shirt": _tshirts()}
