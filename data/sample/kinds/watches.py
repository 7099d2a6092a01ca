"""Wristwatches."""

from __future__ import annotations

from functools import partial

import numpy as np
from PIL import Image, ImageDraw

from data.sample.colours import COLOURS as C
from data.sample.kinds.design import Design, fabric, leather, metal, painted, rubber
from data.sample.material import (
    Material,
    plain,
    printed,
)
from data.sample.mesh import (
    Part,
    box,
    moved,
    revolve,
    rotation,
    rounded,
    smooth,
    surface,
    tube,
)


def _dial(face: str, hands: str, numerals: bool) -> Image.Image:
    side = 320
    image = Image.new("RGBA", (side, side), C[face])
    draw = ImageDraw.Draw(image)
    for k in range(60):
        angle = np.radians(6 * k)
        inner = 122 if k % 5 == 0 else 136
        ends = [(160 + r * np.sin(angle), 160 - r * np.cos(angle)) for r in (inner, 146)]
        draw.line([ends[0], ends[1]], fill=C[hands], width=7 if k % 5 == 0 else 2)
    if numerals:
        for k, word in enumerate(("12", "3", "6", "9")):
            angle = np.radians(90 * k)
            draw.text(
                (160 + 98 * np.sin(angle), 160 - 98 * np.cos(angle)),
                word,
                fill=C[hands],
                anchor="mm",
                font_size=40,
            )
    for degrees, reach, width in ((305, 78, 13), (60, 116, 9), (190, 120, 3)):
        angle = np.radians(degrees)
        draw.line(
            [(160, 160), (160 + reach * np.sin(angle), 160 - reach * np.cos(angle))],
            fill=C[hands],
            width=width,
        )
    draw.ellipse((150, 150, 170, 170), fill=C[hands])
    return image


def watch(
    case: Material,
    strap: Material,
    face: str,
    hands: str,
    *,
    square: bool = False,
    numerals: bool = False,
    links: bool = False,
) -> list[Part]:
    """A wristwatch lying face up, its strap opened."""
    z = 0.16
    picture = printed(
        _dial(face, hands, numerals), (-0.25, -0.25, 0.25, 0.25), plain(C[face]), "xy"
    )
    dial = Material(picture, gloss=0.55)
    if square:
        parts = [
            *box((0.6, 0.66, 0.13), case, at=(0, 0, z), bevel=0.05),
            *box((0.5, 0.54, 0.02), dial, at=(0, 0, z + 0.065), bevel=0.008),
        ]
    else:
        ringed = rounded(
            [
                (0, z - 0.07),
                (0.3, z - 0.07),
                (0.33, z),
                (0.32, z + 0.06),
                (0.27, z + 0.075),
                (0.262, z + 0.05),
            ],
            0.03,
        )
        parts = [
            revolve(ringed, case, count=96),
            revolve([(0.265, z + 0.052), (0.12, z + 0.053), (0.002, z + 0.054)], dial, count=64),
        ]
    crown = np.stack([np.linspace(0.32, 0.39, 4), np.zeros(4), np.full(4, z)], -1)
    parts.append(tube(crown, 0.035, case, count=16))
    for side in (-1, 1):
        parts.extend(_strap(strap, side, z, links))
    return parts


def _strap(strap: Material, side: int, z: float, links: bool) -> list[Part]:
    """One half of a strap or of a bracelet of links."""
    parts: list[Part] = []
    reach = 0.98 if side < 0 else 0.78
    spine = smooth(
        [
            (side * 0.3, z + 0.01),
            (side * 0.42, z - 0.02),
            (side * 0.62, 0.07),
            (side * reach, 0.03),
        ],
        44,
    )
    wide = np.linspace(0.2, 0.15, 44)
    if links:
        for k in range(2, 42, 4):
            y, h = spine[k]
            parts.extend(
                moved(
                    box((2 * wide[k], 0.075, 0.05), strap, bevel=0.018, cells=3),
                    rotation("x", side * -12),
                    (0, y, h),
                )
            )
        return parts
    u = np.linspace(-1, 1, 18)[None, :]
    x = wide[:, None] * u
    top = spine[:, 1:] + 0.022 * np.clip(1 - u**6, 0, 1)
    grid = np.stack(np.broadcast_arrays(x, spine[:, :1], top), -1)
    low = np.stack(np.broadcast_arrays(x, spine[:, :1], spine[:, 1:] - 0.02), -1)
    return [surface(grid, strap, two_sided=True), surface(low, strap, two_sided=True)]


def _watches() -> list[Design]:
    return [
        Design(
            "Dress watch, white dial, tan strap",
            "tan",
            "leather",
            179.0,
            partial(watch, metal("gold", 0.92), leather("tan"), "white", "black"),
        ),
        Design(
            "Diver's watch, blue dial, steel bracelet",
            "silver",
            "steel",
            349.0,
            partial(
                watch, metal("steel", 0.92), metal("steel", 0.85), "indigo", "white", links=True
            ),
        ),
        Design(
            "Field watch, green strap",
            "olive",
            "canvas",
            129.0,
            partial(
                watch, metal("charcoal", 0.7), fabric("olive"), "black", "cream", numerals=True
            ),
        ),
        Design(
            "Square watch, black strap",
            "black",
            "leather",
            159.0,
            partial(
                watch,
                metal("silver", 0.92),
                leather("black"),
                "white",
                "black",
                square=True,
                numerals=True,
            ),
        ),
        Design(
            "Minimal watch, pink strap",
            "pink",
            "leather",
            99.0,
            partial(watch, metal("copper", 0.92), leather("pink"), "cream", "copper"),
        ),
        Design(
            "Sports watch, red silicone",
            "red",
            "silicone",
            89.0,
            partial(watch, painted("black", 0.5), rubber("red"), "black", "white", square=True),
        ),
    ]


def designs() -> dict[str, list[Design]]:
    """The designs of this shelf by kind."""
    return {"watch": _watches()}
