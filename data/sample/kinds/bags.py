"""Handbags and backpacks."""

from __future__ import annotations

from functools import partial

import numpy as np

from data.sample.colours import COLOURS as C
from data.sample.kinds.design import Design, fabric, leather, metal, painted
from data.sample.material import (
    Material,
    checked,
    plain,
    stripes,
)
from data.sample.mesh import (
    Part,
    box,
    loft,
    ring,
    smooth,
    sphere,
    surface,
    tube,
)
from data.sample.texture import Floats


def _rounded_rectangle(
    width: float, depth: float, z: float, count: int = 96, power: float = 0.35
) -> Floats:
    angle = ring(count)
    c, s = np.cos(angle), np.sin(angle)
    x = width / 2 * np.sign(c) * np.abs(c) ** power
    y = depth / 2 * np.sign(s) * np.abs(s) ** power
    return np.stack([x, y, np.full_like(x, z)], -1).astype(np.float32)


def handbag(
    body: Material,
    trim: Material,
    fittings: Material,
    *,
    width: float = 0.86,
    top: float = 0.72,
    height: float = 0.62,
    flap: bool = False,
    handles: int = 2,
    drop: float = 0.34,
) -> list[Part]:
    """A handbag or tote; the flap closes a structured bag."""
    t = np.concatenate([[0, 0, 0.01, 0.03], np.linspace(0.08, 1, 22)])
    inset = np.array([0.9, 0.06, 0.02, 0.004] + [0.0] * 22)
    rings = []
    for share, inner in zip(t, inset, strict=True):
        wide = (width + (top - width) * share) * (1 - inner)
        deep = (0.32 - 0.16 * share**1.5) * (1 - inner)
        rings.append(_rounded_rectangle(wide, deep, share * height))
    mouth = [
        _rounded_rectangle(top - d, 0.16 - d, height + h)
        for d, h in ((0, 0), (0.012, 0.008), (0.03, 0), (0.06, -0.2), (0.1, -0.4))
    ]
    parts = [loft(rings, body), loft(mouth, trim)]
    for side in (-1, 1) if handles == 2 else (0,):
        angle = np.linspace(np.pi, 0, 34)
        x = top * 0.3 * np.cos(angle)
        z = height - 0.1 + (drop + 0.1) * np.sin(angle) ** 0.8
        y = side * (0.09 + 0 * angle) + 0.0
        parts.append(
            tube(
                np.stack([x, y - side * 0.02 * np.sin(angle), z], -1),
                0.021,
                trim,
                flat=1.1,
                reference=(0, 1, 0),
            )
        )
        for end in (-1, 1):
            parts.append(
                sphere(0.03, fittings, at=(end * top * 0.3, side * 0.115, height - 0.11), count=18)
            )
    if flap:
        s, u = np.meshgrid(np.linspace(-1, 1, 40), np.linspace(0, 1, 34))
        x = s * (top / 2 + 0.02 + 0.05 * u)
        reach = 0.6 * (1 - 0.25 * np.abs(s) ** 3)
        y = np.where(u < 0.25, 0.09 - u * 0.76, -0.1 - (u - 0.25) * 0.09)
        z = np.where(
            u < 0.25,
            height + 0.03 * np.clip(np.sin(np.pi * u * 4), 0, 1) ** 0.5,
            height - (u - 0.25) / 0.75 * height * reach,
        )
        parts.append(surface(np.stack([x, y, z], -1), body, flip=True, two_sided=True))
        parts.extend(box((0.1, 0.03, 0.06), fittings, at=(0, -0.19, height * 0.45), bevel=0.012))
    return parts


def backpack(body: Material, pocket: Material, strap: Material, fittings: Material) -> list[Part]:
    """A day pack with a front pocket, side pockets, straps and a grab handle."""
    parts = [
        *box((0.62, 0.3, 0.92), body, at=(0, 0, 0.46), bevel=0.145, puff=0.035, cells=14),
        *box((0.5, 0.14, 0.42), pocket, at=(0, -0.17, 0.27), bevel=0.06, puff=0.03, cells=12),
    ]
    for side in (-1, 1):
        parts.extend(
            box((0.12, 0.22, 0.34), pocket, at=(side * 0.31, 0.0, 0.2), bevel=0.05, puff=0.01)
        )
        line = smooth(
            [
                (side * 0.14, 0.12, 0.86),
                (side * 0.17, 0.24, 0.78),
                (side * 0.19, 0.27, 0.5),
                (side * 0.22, 0.2, 0.2),
                (side * 0.24, 0.13, 0.1),
            ],
            30,
        )
        parts.append(tube(line, 0.022, strap, flat=2.4, reference=(0, 1, 0)))
    zipper = smooth(
        [
            (-0.315, -0.09, 0.42),
            (-0.3, -0.105, 0.72),
            (-0.19, -0.11, 0.885),
            (0, -0.115, 0.905),
            (0.19, -0.11, 0.885),
            (0.3, -0.105, 0.72),
            (0.315, -0.09, 0.42),
        ],
        60,
    )
    parts.append(tube(zipper, 0.011, fittings, count=8))
    parts.append(
        tube(
            smooth([(-0.2, -0.255, 0.4), (0, -0.27, 0.415), (0.2, -0.255, 0.4)], 24),
            0.01,
            fittings,
            count=8,
        )
    )
    parts.append(
        tube(
            smooth(
                [(-0.09, 0.07, 0.9), (-0.05, 0.07, 0.98), (0.05, 0.07, 0.98), (0.09, 0.07, 0.9)], 20
            ),
            0.018,
            strap,
            flat=1.6,
            reference=(0, 1, 0),
        )
    )
    parts.extend(box((0.13, 0.02, 0.07), strap, at=(0, -0.185, 0.66), bevel=0.008))
    return parts


def _open_bags() -> list[Design]:
    breton = fabric(stripes(plain(C["cream"]), plain(C["navy"]), "z", 0.14))
    return [
        Design(
            "Leather tote, tan",
            "tan",
            "leather",
            159.0,
            partial(handbag, leather("tan"), leather("brown"), metal("gold", 0.9), height=0.68),
        ),
        Design(
            "Breton canvas tote, navy stripes",
            "navy",
            "canvas",
            45.0,
            partial(
                handbag,
                breton,
                leather("tan"),
                metal("gold"),
                width=0.8,
                top=0.9,
                height=0.72,
                drop=0.4,
            ),
        ),
        Design(
            "Bucket bag, sage",
            "sage",
            "leather",
            139.0,
            partial(
                handbag,
                leather("sage"),
                leather("sage"),
                metal("gold"),
                width=0.62,
                top=0.66,
                height=0.7,
                handles=1,
                drop=0.5,
            ),
        ),
    ]


def _flap_bags() -> list[Design]:
    return [
        Design(
            "Structured handbag, black",
            "black",
            "leather",
            189.0,
            partial(
                handbag,
                leather("black", 0.6),
                leather("black", 0.6),
                metal("gold", 0.9),
                flap=True,
                handles=1,
                height=0.56,
                drop=0.26,
            ),
        ),
        Design(
            "Satchel, burgundy",
            "burgundy",
            "leather",
            175.0,
            partial(
                handbag,
                leather("burgundy"),
                leather("burgundy"),
                metal("silver", 0.9),
                flap=True,
                handles=1,
                width=0.8,
                drop=0.2,
                height=0.6,
            ),
        ),
        Design(
            "Mini bag, pink",
            "pink",
            "leather",
            99.0,
            partial(
                handbag,
                leather("pink", 0.7),
                leather("pink", 0.7),
                metal("gold", 0.9),
                width=0.66,
                top=0.5,
                height=0.5,
                flap=True,
                handles=1,
                drop=0.44,
            ),
        ),
    ]


def _backpacks() -> list[Design]:
    dark = painted("black", 0.3)
    camo = Material(
        checked(plain(C["olive"], 0.2), C["forest"], (3, 3)), gloss=0.05, bump=("cloth", 1.2, 0.08)
    )
    return [
        Design(
            "Day pack, navy with leather trim",
            "navy",
            "canvas",
            79.0,
            partial(backpack, fabric("navy"), fabric("navy"), leather("tan"), metal("gold")),
        ),
        Design(
            "Day pack, olive",
            "olive",
            "nylon",
            72.0,
            partial(backpack, fabric("olive"), fabric("forest"), fabric("black"), dark),
        ),
        Design(
            "City backpack, grey",
            "grey",
            "polyester",
            85.0,
            partial(backpack, fabric("grey"), fabric("charcoal"), fabric("black"), dark),
        ),
        Design(
            "Leather backpack, brown",
            "brown",
            "leather",
            229.0,
            partial(backpack, leather("brown"), leather("brown"), leather("brown"), metal("gold")),
        ),
        Design(
            "School backpack, red and yellow",
            "red",
            "nylon",
            49.0,
            partial(backpack, fabric("red"), fabric("yellow"), fabric("navy"), dark),
        ),
        Design(
            "Hiking pack, check",
            "forest",
            "nylon",
            95.0,
            partial(backpack, camo, fabric("orange"), fabric("black"), dark),
        ),
    ]


def designs() -> dict[str, list[Design]]:
    """The designs of this shelf by kind."""
    return {"handbag": [*_open_bags(), *_flap_bags()], "backpack": _backpacks()}
