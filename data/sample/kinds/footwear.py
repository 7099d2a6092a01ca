"""Sneakers and boots."""

from __future__ import annotations

from functools import partial

import numpy as np

from data.sample.colours import COLOURS as C
from data.sample.kinds.design import Design, fabric, leather, rubber
from data.sample.material import (
    Material,
    Pattern,
    Sample,
    bands,
    linear,
    mix,
    plain,
)
from data.sample.mesh import (
    Part,
    loft,
    ring,
    smooth,
    tube,
)
from data.sample.texture import Floats, step


def _sole_ring(front: float, back: float, half: float, z: float, count: int = 72) -> Floats:
    """A foot-shaped outline from the toe (-x) to the heel, at height z."""
    angle = ring(count)
    c, s = np.cos(angle), np.sin(angle)
    x = (front + back) / 2 + (back - front) / 2 * np.sign(c) * np.abs(c) ** 0.85
    waist = 1 + 0.1 * np.cos(2 * angle) * (np.abs(s) > 0) - 0.1 * c
    y = half * np.sign(s) * np.abs(s) ** 0.85 * waist
    return np.stack([x, y, np.full_like(x, z)], -1).astype(np.float32)


def _laces(path: Floats, lace: Material) -> list[Part]:
    """Six rungs over the instep of a shoe's slices."""
    instep = path[(path[:, 1] > -0.3) & (path[:, 1] < path[-1, 1] + 0.02)]
    spread = np.linspace(-1, 1, 11)
    drop = 0.035 * spread**2
    parts = []
    for k in np.linspace(2, len(instep) - 3, 6).astype(int):
        z, x, _, half = instep[k]
        line = [x - 0.012 + drop * 1.6, 0.1 * spread, z + 0.02 - drop * (0.6 + half)]
        parts.append(tube(np.stack(line, -1), 0.016, lace, count=8))
    return parts


def shoe(
    upper: Material,
    sole: Material,
    lace: Material | None,
    rows: list[tuple[float, float, float, float]],
    *,
    heel: bool = False,
    cuff: Material | None = None,
) -> list[Part]:
    """A shoe from slices (height, toe x, heel x, half width) upwards; open at the top."""
    path = smooth(rows, 46)
    rings = [_sole_ring(front, back, half, z) for z, front, back, half in path]
    z, front, back, half = path[-1]
    parts = [loft(rings, upper)]
    well = [
        _sole_ring(front + d, back - d, half - d, z + dz)
        for d, dz in ((0, 0), (0.008, 0.012), (0.02, 0.008), (0.03, -0.02), (0.045, -0.3))
    ]
    parts.append(loft(well, cuff or upper))
    toe, end, wide = rows[0][1], rows[0][2], rows[0][3]
    low = rows[0][0]
    edge = [
        (0.03, 0.0),
        (0.0, 0.015),
        (-0.022, 0.03),
        (-0.024, low - 0.01),
        (-0.014, low + 0.012),
        (0.02, low + 0.018),
    ]
    if heel:
        edge = [
            (0.012, low - 0.05),
            (-0.018, low - 0.045),
            (-0.02, low - 0.005),
            (0.02, low + 0.006),
        ]
        block = [
            _sole_ring(end - 0.33, end - 0.005, wide * 0.82, h)
            for h in np.linspace(0, low - 0.04, 6)
        ]
        parts.extend(
            [
                loft(block, sole),
                loft(
                    [
                        _sole_ring(end - 0.33, end, wide * 0.8, 0.0),
                        _sole_ring(end - 0.17, end - 0.16, 0.01, 0.0),
                    ],
                    sole,
                ),
            ]
        )
    parts.append(loft([_sole_ring(toe + d, end - d, wide - d, h) for d, h in edge], sole))
    if lace is not None:
        parts.extend(_laces(path, lace))
    return parts


LOW_SHOE = [
    (0.11, -0.5, 0.5, 0.165),
    (0.155, -0.505, 0.51, 0.17),
    (0.2, -0.485, 0.5, 0.165),
    (0.235, -0.4, 0.485, 0.155),
    (0.275, -0.25, 0.475, 0.138),
    (0.33, -0.08, 0.475, 0.122),
    (0.39, 0.06, 0.48, 0.115),
    (0.44, 0.13, 0.5, 0.12),
]


HIGH_FOOT = [
    (0.12, -0.5, 0.5, 0.165),
    (0.17, -0.505, 0.51, 0.17),
    (0.22, -0.485, 0.5, 0.165),
    (0.27, -0.4, 0.485, 0.155),
    (0.33, -0.24, 0.475, 0.138),
    (0.42, -0.06, 0.465, 0.125),
]


HIGH_SHOE = [
    *HIGH_FOOT,
    (0.56, 0.04, 0.45, 0.122),
    (0.7, 0.07, 0.45, 0.13),
    (0.82, 0.06, 0.47, 0.14),
]


ANKLE_BOOT = [
    (0.15, -0.5, 0.48, 0.16),
    (0.21, -0.505, 0.49, 0.165),
    (0.27, -0.47, 0.48, 0.158),
    (0.33, -0.34, 0.465, 0.145),
    (0.42, -0.12, 0.45, 0.13),
    (0.55, 0.04, 0.44, 0.12),
    (0.75, 0.07, 0.44, 0.135),
    (0.98, 0.06, 0.46, 0.15),
]


TALL_BOOT = [
    *ANKLE_BOOT[:6],
    (0.8, 0.08, 0.43, 0.13),
    (1.1, 0.05, 0.46, 0.155),
    (1.5, 0.03, 0.48, 0.17),
]


def _panels(base: str, stripe: str, toe: str | None = None, heel: str | None = None) -> Pattern:
    """Sneaker panels: slanted side stripes, a toe cap and a heel tab."""
    ground, line = linear(C[base]), linear(C[stripe])

    def pattern(s: Sample) -> Floats:
        slant = s.x + 0.7 * s.z
        side = step(0.08, 0.01, np.abs(s.y)) * (1 - step(0.36, 0.02, s.z))
        t = (
            side
            * step(0.24, 0.012, slant)
            * (1 - step(0.5, 0.012, slant))
            * step(0.5, 0.05, np.abs((slant / 0.09) % 1 - 0.5) * 2)
        )
        out = mix(ground, line, t)
        if toe:
            out = mix(out, linear(C[toe]), 1 - step(-0.34 + 0.0, 0.01, s.x + 0.4 * s.y**2))
        if heel:
            out = mix(out, linear(C[heel]), step(0.4, 0.01, s.x))
        seam = np.minimum(np.abs(s.x + 0.33), np.abs(s.x - 0.39))
        return out * (1 - 0.35 * (1 - step(0.006, 0.006, seam)))

    return pattern


def _low_sneakers() -> list[Design]:
    canvas = partial(fabric, threads=420.0, depth=0.15)
    return [
        Design(
            "Court sneaker, white and green",
            "white",
            "leather",
            89.0,
            partial(
                shoe,
                Material(
                    _panels("white", "forest", heel="forest"),
                    gloss=0.4,
                    bump=("leather", 0.9, 0.03),
                ),
                rubber("white"),
                fabric("white"),
                LOW_SHOE,
            ),
        ),
        Design(
            "Running shoe, navy and orange",
            "navy",
            "mesh",
            110.0,
            partial(
                shoe,
                canvas(_panels("navy", "orange", heel="orange")),
                rubber("orange"),
                fabric("sky"),
                LOW_SHOE,
            ),
        ),
        Design(
            "Suede sneaker, grey with gum sole",
            "grey",
            "suede",
            95.0,
            partial(
                shoe,
                Material(_panels("grey", "white"), gloss=0.03, bump=("fine", 0.8, 0.1), sheen=0.5),
                rubber("camel"),
                fabric("cream"),
                LOW_SHOE,
            ),
        ),
        Design(
            "Retro sneaker, mustard and burgundy",
            "mustard",
            "nylon",
            99.0,
            partial(
                shoe,
                canvas(_panels("mustard", "burgundy", heel="burgundy")),
                rubber("cream"),
                fabric("burgundy"),
                LOW_SHOE,
            ),
        ),
    ]


def _high_tops() -> list[Design]:
    canvas = partial(fabric, threads=420.0, depth=0.15)
    return [
        Design(
            "High-top canvas sneaker, red",
            "red",
            "canvas",
            65.0,
            partial(
                shoe,
                canvas(_panels("red", "red", toe="white")),
                rubber("white"),
                fabric("white"),
                HIGH_SHOE,
            ),
        ),
        Design(
            "High-top canvas sneaker, black",
            "black",
            "canvas",
            65.0,
            partial(
                shoe,
                canvas(_panels("black", "black", toe="white")),
                rubber("white"),
                fabric("white"),
                HIGH_SHOE,
            ),
        ),
    ]


def _laced_boots() -> list[Design]:
    return [
        Design(
            "Desert boot, sand suede",
            "sand",
            "suede",
            129.0,
            partial(
                shoe,
                Material(plain(C["sand"], 0.08), gloss=0.02, bump=("fine", 0.8, 0.1), sheen=0.5),
                rubber("camel"),
                fabric("brown"),
                ANKLE_BOOT[:-1],
                heel=True,
            ),
        ),
        Design(
            "Lace-up boot, oxblood",
            "burgundy",
            "leather",
            169.0,
            partial(
                shoe,
                leather("burgundy", 0.65),
                rubber("black"),
                fabric("black"),
                ANKLE_BOOT,
                heel=True,
            ),
        ),
        Design(
            "Work boot, honey nubuck",
            "camel",
            "nubuck",
            159.0,
            partial(
                shoe,
                Material(plain(C["camel"], 0.06), gloss=0.08, bump=("fine", 0.8, 0.06), sheen=0.2),
                rubber("cream"),
                fabric("brown"),
                ANKLE_BOOT,
                cuff=leather("brown"),
            ),
        ),
    ]


def _pull_on_boots() -> list[Design]:
    elastic = fabric("black")
    return [
        Design(
            "Chelsea boot, black leather",
            "black",
            "leather",
            149.0,
            partial(
                shoe,
                leather("black", 0.7),
                rubber("black"),
                None,
                ANKLE_BOOT,
                heel=True,
                cuff=elastic,
            ),
        ),
        Design(
            "Tall riding boot, brown leather",
            "brown",
            "leather",
            239.0,
            partial(
                shoe,
                leather("brown", 0.7),
                rubber("black"),
                None,
                TALL_BOOT,
                heel=True,
                cuff=leather("tan"),
            ),
        ),
        Design(
            "Rain boot, yellow",
            "yellow",
            "rubber",
            59.0,
            partial(
                shoe,
                Material(bands(plain(C["yellow"], 0.01), [(1.18, 1.24, C["navy"])]), gloss=0.75),
                rubber("navy"),
                None,
                [*TALL_BOOT[:-1], (1.3, 0.04, 0.47, 0.165)],
            ),
        ),
    ]


def designs() -> dict[str, list[Design]]:
    """The designs of this shelf by kind."""
    return {
        "sneaker": [*_low_sneakers(), *_high_tops()],
        "boot": [*_laced_boots(), *_pull_on_boots()],
    }
