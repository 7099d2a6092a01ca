"""Lamps, cushions and house plants."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from data.sample.colours import COLOURS as C
from data.sample.kinds.design import Design, ceramic, fabric, metal, painted, timber
from data.sample.material import (
    Material,
    Pattern,
    Sample,
    bands,
    checked,
    dotted,
    linear,
    marbled,
    mix,
    plain,
    speckled,
    stripes,
)
from data.sample.mesh import (
    Part,
    moved,
    revolve,
    rotation,
    rounded,
    smooth,
    surface,
    tube,
)
from data.sample.texture import Floats, step


def lamp(
    base: Material,
    shade: str,
    profile: Sequence[tuple[float, float]] | None,
    *,
    top: float = 0.26,
    low: float = 0.38,
    tripod: bool = False,
) -> list[Part]:
    """A table lamp that is switched on."""
    cloth = Material(plain(C[shade], 0.04), gloss=0.05, glow=0.32, sheen=0.2)
    parts: list[Part] = []
    if tripod:
        for k in range(3):
            angle = 2 * np.pi * k / 3 + 0.5
            foot = (0.32 * np.cos(angle), 0.32 * np.sin(angle), 0.0)
            parts.append(tube(smooth([foot, (0, 0, 0.72)], 12), np.linspace(0.022, 0.03, 12), base))
    elif profile is not None:
        outline = smooth(profile, 44)
        parts.append(
            revolve(
                np.concatenate([[[0.002, 0.0], [float(outline[0, 0]) * 0.96, 0.0]], outline]), base
            )
        )
    parts.append(revolve([(0.018, 0.6), (0.018, 0.7), (0.018, 0.85)], metal("gold"), count=16))
    wall = smooth([(low, 0.68), ((low + top) / 2, 0.87), (top, 1.06)], 24)
    parts.append(revolve(wall, cloth, count=80, two_sided=True))
    trim = Material(plain(C[shade]), gloss=0.05, glow=0.08)
    angles = np.linspace(0, 2 * np.pi, 60)
    for radius, z in ((low, 0.68), (top, 1.06)):
        parts.append(
            tube(
                np.stack([radius * np.cos(angles), radius * np.sin(angles), z + 0 * angles], -1),
                0.009,
                trim,
                count=8,
            )
        )
    return parts


def cushion(
    cover: Material,
    piping: Material | None = None,
    *,
    width: float = 0.5,
    height: float = 0.5,
    plump: float = 0.17,
) -> list[Part]:
    """A scatter cushion that leans back a little."""
    s, t = np.meshgrid(np.linspace(-1, 1, 56), np.linspace(-1, 1, 56))
    x = s * width * (1 - 0.07 * (1 - t**2))
    z = t * height * (1 - 0.07 * (1 - s**2))
    swell = np.clip((1 - s**4) * (1 - t**4), 0, 1) ** 0.55
    crease = 0.006 * np.sin(9 * s + 5 * t) * (np.abs(s * t)) + 0.008 * np.cos(11 * (s - t)) * (
        s**2 * t**2
    )
    front = np.stack([x, -plump * swell + crease, z], -1)
    behind = np.stack([x, plump * swell, z], -1)
    parts = [surface(front, cover, flip=True), surface(behind, cover)]
    if piping is not None:
        edge = np.concatenate([front[0], front[1:, -1], front[-1, -2::-1], front[-2::-1, 0]])
        parts.append(tube(edge, 0.014, piping, count=8))
    return moved(parts, rotation("x", -14))


def plant(pot: Material, leaf: Material, style: str, *, pot_height: float = 0.34) -> list[Part]:
    """A house plant in its pot."""
    outline = rounded(
        [
            (0, 0.01),
            (0.2, 0),
            (0.25, pot_height),
            (0.235, pot_height + 0.01),
            (0.225, pot_height - 0.04),
            (0.002, pot_height - 0.05),
        ],
        0.03,
    )
    soil = Material(speckled("#3a2a20", "#110c09", 0.6), gloss=0.02, bump=("fine", 1.0, 0.4))
    bed = pot_height - 0.04
    parts = [
        revolve(outline, pot),
        revolve([(0.228, bed), (0.12, bed + 0.015), (0.002, bed + 0.02)], soil),
    ]
    rng = np.random.default_rng(len(style))
    count, length, width, droop, rise = {
        "snake": (13, 0.85, 0.055, 0.05, 86.0),
        "monstera": (15, 0.3, 0.19, 0.5, 48.0),
        "fern": (34, 0.62, 0.045, 0.95, 62.0),
        "aloe": (22, 0.5, 0.05, 0.1, 55.0),
        "rubber": (16, 0.36, 0.11, 0.35, 40.0),
        "palm": (16, 0.8, 0.07, 0.7, 68.0),
    }[style]
    for k in range(count):
        turn = k * 137.5 + rng.uniform(-12, 12)
        tilt = (
            rise
            + rng.uniform(-14, 10)
            - (18 * k / count if style in {"fern", "aloe", "palm"} else 0)
        )
        size = length * rng.uniform(0.75, 1.1)
        base = np.array([0.0, 0.0, bed])
        if style in {"monstera", "rubber"}:
            lift = rng.uniform(0.18, 0.62) if style == "monstera" else 0.12 + 0.62 * k / count
            reach = rng.uniform(0.06, 0.3) if style == "monstera" else 0.03
            away = np.array([np.cos(np.radians(turn)), np.sin(np.radians(turn)), 0.0])
            tip = base + away * reach + np.array([0.0, 0.0, lift])
            bend = (base + tip) / 2 + np.array([0.0, 0.0, 0.04])
            stalk = smooth([base.tolist(), bend.tolist(), tip.tolist()], 8)
            parts.append(tube(stalk, 0.009, leaf, count=6))
            base = tip
        elif style == "snake":
            base = (
                base
                + np.array([0.11 * np.cos(k * 2.4), 0.11 * np.sin(k * 2.4), 0]) * (k / count) ** 0.5
            )
        parts.append(_leaf(leaf, base, turn, tilt, size, width * size / length, droop))
    return parts


def _leaf(
    material: Material,
    base: npt.NDArray[np.float64],
    turn: float,
    tilt: float,
    length: float,
    width: float,
    droop: float,
) -> Part:
    t = np.linspace(0, 1, 16)[:, None]
    s = np.linspace(-1, 1, 7)[None, :]
    half = width * np.sin(np.pi * np.clip(t, 0.02, 0.985) ** 0.75) ** 0.9
    angle = np.radians(tilt) - droop * t * 1.6
    step_along = np.diff(np.concatenate([[[0.0]], t]), axis=0) * length
    out = np.cumsum(np.cos(angle) * step_along, axis=0)
    up = np.cumsum(np.sin(angle) * step_along, axis=0)
    fold = 0.25 * half * np.abs(s)
    x = out - fold * np.sin(angle)
    z = up + fold * np.cos(angle)
    y = half * s
    grid = np.stack(np.broadcast_arrays(x, y, z), -1)
    return surface(grid, material, two_sided=True).transformed(rotation("z", turn), base.tolist())


def _foliage(colour: str, vein: str, *, edged: bool = False) -> Material:
    """Leaves with a pale midrib, or a pale margin when ``edged``."""
    base, pale = linear(colour), linear(vein)

    def pattern(s: Sample) -> Floats:
        middle = np.abs(s.u - 0.5) * 2
        rib = step(0.72, 0.1, middle) if edged else 1 - step(0.09, 0.08, middle)
        side = 0.5 + 0.5 * np.sin(s.v * 60 + middle * 9)
        return mix(base, pale, np.clip(rib + 0.16 * side, 0, 1) * 0.75)

    return Material(pattern, gloss=0.45, sheen=0.1)


def _wave(first: str, second: str) -> Pattern:
    a, b = linear(C[first]), linear(C[second])

    def pattern(s: Sample) -> Floats:
        arch = np.hypot((s.u * 4) % 1 - 0.5, (s.v * 5) % 1) * 7
        return mix(a, b, step(0.5, 0.2, np.abs(arch % 1 - 0.5) * 2))

    return pattern


def _lamps() -> list[Design]:
    gourd = [(0.13, 0.0), (0.25, 0.16), (0.24, 0.32), (0.1, 0.48), (0.04, 0.62)]
    column = [(0.17, 0.0), (0.17, 0.03), (0.035, 0.06), (0.03, 0.35), (0.03, 0.62)]
    ball = [(0.1, 0.0), (0.27, 0.17), (0.27, 0.31), (0.09, 0.46), (0.04, 0.6)]
    ginger = [(0.16, 0.0), (0.2, 0.2), (0.24, 0.4), (0.16, 0.52), (0.05, 0.58)]
    return [
        Design(
            "Gourd table lamp, navy",
            "navy",
            "ceramic",
            79.0,
            partial(lamp, ceramic("navy", 0.85), "cream", gourd),
        ),
        Design(
            "Column table lamp, brass",
            "gold",
            "brass",
            95.0,
            partial(lamp, metal("gold", 0.85), "white", column, top=0.3, low=0.34),
        ),
        Design(
            "Tripod lamp, oak",
            "oak",
            "wood",
            88.0,
            partial(lamp, timber("oak"), "sand", None, tripod=True),
        ),
        Design(
            "Globe lamp, terracotta",
            "terracotta",
            "ceramic",
            69.0,
            partial(lamp, ceramic("terracotta", 0.2), "cream", ball, top=0.18, low=0.4),
        ),
        Design(
            "Marble lamp, white",
            "white",
            "marble",
            129.0,
            partial(
                lamp,
                Material(marbled("#ececea", "#777b80"), gloss=0.7),
                "charcoal",
                ginger,
                top=0.28,
                low=0.36,
            ),
        ),
        Design(
            "Reading lamp, forest green",
            "forest",
            "steel",
            72.0,
            partial(lamp, painted("forest", 0.6), "forest", column, top=0.14, low=0.36),
        ),
    ]


def _cushions() -> list[Design]:
    return [
        Design(
            "Linen cushion, sand",
            "sand",
            "linen",
            29.0,
            partial(cushion, fabric("sand", 300, 0.4), fabric("cream")),
        ),
        Design(
            "Velvet cushion, emerald",
            "forest",
            "velvet",
            34.0,
            partial(cushion, Material(plain("#1f6b4a", 0.12), gloss=0.1, sheen=1.2)),
        ),
        Design(
            "Striped cushion, navy and white",
            "navy",
            "cotton",
            27.0,
            partial(cushion, fabric(stripes(plain(C["white"]), plain(C["navy"]), "x", 0.17)), None),
        ),
        Design(
            "Gingham cushion, red",
            "red",
            "cotton",
            25.0,
            partial(cushion, fabric(checked(plain(C["white"]), C["red"], (9, 9), soft=True))),
        ),
        Design(
            "Scallop cushion, mustard",
            "mustard",
            "cotton",
            31.0,
            partial(cushion, fabric(_wave("mustard", "cream")), fabric("mustard")),
        ),
        Design(
            "Spotted lumbar cushion, pink",
            "pink",
            "wool",
            33.0,
            partial(
                cushion,
                fabric(dotted(plain(C["pink"]), C["burgundy"], (12, 7), 0.2)),
                width=0.66,
                height=0.36,
            ),
        ),
    ]


def _plants() -> list[Design]:
    pale = bands(plain(C["white"]), [(-1, 0.12, C["natural"])])
    return [
        Design(
            "Snake plant in white pot",
            "white",
            "ceramic",
            35.0,
            partial(plant, ceramic("white"), _foliage("#3f6b3c", "#c9cf7a", edged=True), "snake"),
        ),
        Design(
            "Monstera in terracotta pot",
            "terracotta",
            "earthenware",
            42.0,
            partial(plant, ceramic("terracotta", 0.1), _foliage("#2d6b34", "#6fae62"), "monstera"),
        ),
        Design(
            "Fern in blue pot",
            "blue",
            "ceramic",
            28.0,
            partial(plant, ceramic("blue", 0.85), _foliage("#5e9a3f", "#8dc266"), "fern"),
        ),
        Design(
            "Aloe in concrete pot",
            "grey",
            "concrete",
            24.0,
            partial(
                plant,
                Material(speckled("#a5a6a4", "#6c6d6b", 1.2), gloss=0.05),
                _foliage("#6f9a7a", "#a9c6a4"),
                "aloe",
                pot_height=0.28,
            ),
        ),
        Design(
            "Rubber plant in black pot",
            "black",
            "ceramic",
            39.0,
            partial(plant, ceramic("black", 0.5), _foliage("#23452c", "#7d3a34"), "rubber"),
        ),
        Design(
            "Parlour palm in dipped pot",
            "natural",
            "ceramic",
            45.0,
            partial(plant, ceramic(pale, 0.4), _foliage("#3f8143", "#76b05c"), "palm"),
        ),
    ]


def designs() -> dict[str, list[Design]]:
    """The designs of this shelf by kind."""
    return {"lamp": _lamps(), "cushion": _cushions(), "plant": _plants()}
