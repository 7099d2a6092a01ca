"""Teapots, drinking bottles and saucepans."""

from __future__ import annotations

from functools import partial

import numpy as np

from data.sample.colours import COLOURS as C
from data.sample.kinds.design import Design, ceramic, metal, painted, timber
from data.sample.material import (
    Material,
    Pattern,
    bands,
    dotted,
    plain,
)
from data.sample.mesh import Part, revolve, rounded, smooth, sphere, tube
from data.sample.texture import Floats


def bottle(
    body: Material,
    cap: Material,
    *,
    radius: float = 0.2,
    height: float = 0.86,
    shoulder: float = 0.13,
    loop: bool = False,
) -> list[Part]:
    """An insulated drinking bottle."""
    line = rounded(
        [
            (0, 0.01),
            (radius, 0),
            (radius, height - 0.1),
            (shoulder, height),
            (shoulder, height + 0.05),
        ],
        0.07,
    )
    base = height + 0.05
    lid = rounded(
        [
            (shoulder, base),
            (shoulder + 0.02, base + 0.005),
            (shoulder + 0.02, base + 0.14),
            (0, base + 0.15),
        ],
        0.02,
    )
    parts = [revolve(line, body), revolve(lid, cap, ribs=(28, 0.012))]
    if loop:
        angle = np.linspace(np.pi, 0, 22)
        arc = np.stack([0.12 * np.cos(angle), 0 * angle, base + 0.12 + 0.15 * np.sin(angle)], -1)
        parts.append(tube(arc, 0.022, cap, flat=1.8, reference=(0, 1, 0)))
    return parts


def saucepan(
    body: Material,
    grip: Material,
    *,
    height: float = 0.42,
    long_handle: bool = True,
    lid: Material | None = None,
) -> list[Part]:
    """A pan with one long handle or two ears, open or with its lid on."""
    line = rounded(
        [
            (0, 0.01),
            (0.5, 0),
            (0.52, height),
            (0.545, height + 0.015),
            (0.53, height + 0.02),
            (0.505, height - 0.03),
            (0.48, 0.03),
            (0, 0.03),
        ],
        0.04,
    )
    parts = [revolve(line, body, count=96)]
    z = height - 0.08
    if long_handle:
        stem = smooth([(0.5, 0, z), (0.68, 0, z + 0.04), (0.9, 0, z + 0.1), (1.3, 0, z + 0.14)], 26)
        parts.append(
            tube(
                stem,
                smooth([(0.03, 0), (0.045, 0), (0.05, 0), (0.045, 0)], 26)[:, 0],
                grip,
                flat=1.5,
                reference=(0, 1, 0),
            )
        )
    else:
        for side in (-1, 1):
            angle = np.linspace(-1.2, 1.2, 20)
            ear = np.stack(
                [side * (0.45 + 0.25 * np.cos(angle)), 0.2 * np.sin(angle), z + 0 * angle], -1
            )
            parts.append(tube(ear, 0.032, grip))
    if lid is not None:
        dome = smooth(
            [
                (0.54, height + 0.015),
                (0.52, height + 0.04),
                (0.3, height + 0.11),
                (0.03, height + 0.14),
            ],
            24,
        )
        parts.append(revolve(dome, lid, count=80))
        parts.append(sphere(0.06, grip, at=(0, 0, height + 0.19), count=28))
        parts.append(revolve([(0.025, height + 0.12), (0.03, height + 0.17)], grip, count=20))
    return parts


def _dipped(top: str, bottom: str, edge: float) -> Pattern:
    return bands(plain(C[top]), [(-1, edge, C[bottom])])


def _powder(colour: str) -> Material:
    return Material(plain(C[colour], 0.02), gloss=0.3, bump=("fine", 0.8, 0.05))


def _bottles() -> list[Design]:
    return [
        Design(
            "Insulated bottle, forest green",
            "forest",
            "steel",
            29.0,
            partial(bottle, _powder("forest"), painted("black"), loop=True),
        ),
        Design(
            "Insulated bottle, brushed steel",
            "silver",
            "steel",
            27.0,
            partial(bottle, metal("steel", 0.75), timber("oak", "x", 4)),
        ),
        Design(
            "Slim bottle, coral",
            "orange",
            "steel",
            25.0,
            partial(bottle, _powder("orange"), metal("steel"), radius=0.16, height=0.95),
        ),
        Design(
            "Wide-mouth bottle, navy",
            "navy",
            "steel",
            32.0,
            partial(
                bottle,
                _powder("navy"),
                painted("black"),
                radius=0.24,
                shoulder=0.19,
                height=0.8,
                loop=True,
            ),
        ),
        Design(
            "Two-tone bottle, white and pink",
            "pink",
            "steel",
            28.0,
            partial(bottle, Material(_dipped("white", "pink", 0.4), gloss=0.55), painted("white")),
        ),
        Design(
            "Glass bottle with felt sleeve, grey",
            "grey",
            "glass",
            24.0,
            partial(
                bottle,
                Material(bands(plain("#a8cfc5", 0.0), []), gloss=0.97, alpha=0.35),
                timber("natural", "x", 4),
                radius=0.17,
            ),
        ),
    ]


def _saucepans() -> list[Design]:
    return [
        Design(
            "Saucepan, brushed steel",
            "silver",
            "steel",
            49.0,
            partial(saucepan, metal("steel", 0.7), metal("steel", 0.6)),
        ),
        Design(
            "Casserole, flame orange",
            "orange",
            "cast iron",
            139.0,
            partial(
                saucepan,
                ceramic("orange", 0.85),
                ceramic("orange", 0.85),
                long_handle=False,
                lid=ceramic("orange", 0.85),
            ),
        ),
        Design(
            "Copper saucepan with brass handle",
            "copper",
            "copper",
            119.0,
            partial(saucepan, metal("copper", 0.88), metal("gold", 0.8), height=0.46),
        ),
        Design(
            "Non-stick frying pan, black",
            "black",
            "aluminium",
            39.0,
            partial(
                saucepan, Material(plain(C["black"]), gloss=0.4), painted("black"), height=0.17
            ),
        ),
        Design(
            "Milk pan, cream enamel",
            "cream",
            "enamel",
            33.0,
            partial(saucepan, ceramic("cream", 0.9), timber("oak", "x", 3), height=0.5),
        ),
        Design(
            "Stockpot with lid, polished steel",
            "silver",
            "steel",
            89.0,
            partial(
                saucepan,
                metal("silver", 0.92),
                metal("steel", 0.8),
                height=0.66,
                long_handle=False,
                lid=metal("silver", 0.92),
            ),
        ),
    ]


def teapot(
    glaze: Material, accent: Material, *, tall: float = 1.0, overhead: bool = False
) -> list[Part]:
    """A pot with a spout to the left, a lid with a knob and a handle."""
    body = smooth([(0.3, 0.0), (0.48, 0.12), (0.55, 0.32), (0.47, 0.56), (0.24, 0.68)], 40)
    body = np.concatenate([np.array([[0.002, 0.0], [0.27, 0.0]]), body])
    lid = smooth([(0.25, 0.68), (0.24, 0.705), (0.14, 0.76), (0.04, 0.785), (0.035, 0.80)], 20)
    knob = smooth([(0.035, 0.80), (0.075, 0.85), (0.06, 0.9), (0.002, 0.915)], 14)
    for line in (body, lid, knob):
        line[:, 1] *= tall
    spout = smooth([(-0.42, 0, 0.2), (-0.62, 0, 0.3), (-0.7, 0, 0.48), (-0.84, 0, 0.62)], 26)
    spout[:, 2] *= tall
    parts = [
        revolve(body, glaze),
        revolve(lid, glaze),
        revolve(knob, accent, count=32),
        tube(spout, np.linspace(0.13, 0.05, 26), glaze, count=24),
    ]
    path: Floats
    if overhead:
        angle = np.linspace(np.pi, 0, 30)
        path = np.stack([0.42 * np.cos(angle), 0 * angle, (0.6 + 0.62 * np.sin(angle)) * tall], -1)
    else:
        path = smooth(
            [(0.42, 0, 0.56), (0.66, 0, 0.62), (0.78, 0, 0.42), (0.68, 0, 0.2), (0.46, 0, 0.16)], 30
        )
        path[:, 2] *= tall
    return [*parts, tube(path, 0.042, accent, flat=1.25, reference=(0, 1, 0))]


def _teapots() -> list[Design]:
    dots = ceramic(dotted(plain(C["pink"]), C["white"], (14, 8), 0.26))
    return [
        Design(
            "Classic teapot, white",
            "white",
            "porcelain",
            38.0,
            partial(teapot, ceramic("white", 0.85), ceramic("white", 0.85)),
        ),
        Design(
            "Cast-iron teapot, black",
            "black",
            "cast iron",
            64.0,
            partial(
                teapot,
                Material(plain(C["black"]), gloss=0.35, bump=("leather", 0.35, 0.16)),
                metal("charcoal", 0.4),
                tall=0.82,
                overhead=True,
            ),
        ),
        Design(
            "Teapot with oak handle, sage",
            "sage",
            "stoneware",
            49.0,
            partial(teapot, ceramic("sage", 0.5), timber("oak", "z", 3), tall=0.95, overhead=True),
        ),
        Design(
            "Polka dot teapot, pink",
            "pink",
            "porcelain",
            35.0,
            partial(teapot, dots, ceramic("pink")),
        ),
        Design(
            "Brown Betty teapot",
            "brown",
            "earthenware",
            29.0,
            partial(
                teapot, ceramic(plain("#4a2415"), 0.95), ceramic(plain("#4a2415"), 0.95), tall=1.06
            ),
        ),
        Design(
            "Steel teapot, polished",
            "silver",
            "steel",
            55.0,
            partial(teapot, metal("steel", 0.95), painted("black"), tall=1.1),
        ),
    ]


def designs() -> dict[str, list[Design]]:
    """The designs of this shelf by kind."""
    return {"teapot": _teapots(), "bottle": _bottles(), "saucepan": _saucepans()}
