"""Chairs, armchairs and sofas."""

from __future__ import annotations

from functools import partial

import numpy as np

from data.sample.colours import COLOURS as C
from data.sample.kinds.design import Design, fabric, leather, metal, painted, timber
from data.sample.material import (
    Material,
    plain,
    stripes,
)
from data.sample.mesh import Part, box, moved, rotation, smooth, surface, tube


def chair(
    frame: Material, seat: Material, *, back: str = "spindle", splay: float = 0.06
) -> list[Part]:
    """A dining chair."""
    parts: list[Part] = []
    for sx in (-1, 1):
        parts.append(
            tube(
                smooth([(sx * (0.21 + splay), -0.22 - splay, 0), (sx * 0.19, -0.19, 0.46)], 10),
                np.linspace(0.02, 0.03, 10),
                frame,
            )
        )
        parts.append(
            tube(
                smooth([(sx * (0.2 + splay), 0.25 + splay, 0), (sx * 0.18, 0.19, 0.46)], 10),
                np.linspace(0.02, 0.03, 10),
                frame,
            )
        )
        if back != "shell":
            parts.append(
                tube(
                    smooth(
                        [(sx * 0.2, 0.19, 0.45), (sx * 0.21, 0.24, 0.7), (sx * 0.2, 0.31, 0.98)], 20
                    ),
                    0.024,
                    frame,
                )
            )
    parts.extend(box((0.48, 0.47, 0.06), seat, at=(0, 0, 0.48), bevel=0.028, puff=0.02))
    for y, x in ((-0.2, 0.19), (0.21, 0.19)):
        parts.append(tube([(-x, y, 0.24), (0, y, 0.24), (x, y, 0.24)], 0.015, frame))
    parts.extend(_chair_back(frame, seat, back))
    return parts


def _chair_back(frame: Material, seat: Material, back: str) -> list[Part]:
    parts: list[Part] = []
    if back == "spindle":
        parts.append(
            tube(
                smooth([(-0.23, 0.3, 0.94), (0, 0.34, 0.98), (0.23, 0.3, 0.94)], 22),
                0.035,
                frame,
                flat=0.6,
            )
        )
        for x in np.linspace(-0.13, 0.13, 5):
            parts.append(
                tube(
                    smooth([(x * 0.9, 0.2, 0.5), (x, 0.27, 0.72), (x * 1.1, 0.325, 0.96)], 16),
                    0.011,
                    frame,
                    count=8,
                )
            )
    elif back == "ladder":
        for z in (0.62, 0.76, 0.9):
            parts.extend(
                moved(
                    box((0.4, 0.03, 0.08), frame, bevel=0.012),
                    rotation("x", -12),
                    (0, 0.2 + 0.24 * (z - 0.5), z),
                )
            )
    elif back == "padded":
        parts.extend(
            moved(
                box((0.42, 0.06, 0.34), seat, bevel=0.028, puff=0.025),
                rotation("x", -12),
                (0, 0.27, 0.8),
            )
        )
    else:
        s, t = np.meshgrid(np.linspace(-1, 1, 26), np.linspace(0, 1, 24))
        wide = 0.25 * s * (1 - 0.12 * t**3)
        deep = 0.2 + 0.14 * t - 0.16 * np.abs(s) ** 2.5 * (1 - 0.4 * t)
        high = 0.46 + 0.44 * t - 0.06 * s**4 * t
        for shift, flip in ((0.0, False), (0.02, True)):
            parts.append(
                surface(np.stack([wide, deep + shift, high], -1), seat, flip=flip, two_sided=True)
            )
    return parts


def armchair(
    cover: Material, legs: Material, *, width: float = 0.86, wings: bool = False, seats: int = 1
) -> list[Part]:
    """An upholstered armchair, or a sofa with more seats."""
    inner = width - 0.26
    parts = [
        *box((width, 0.78, 0.2), cover, at=(0, 0, 0.22), bevel=0.05),
        *moved(
            box((width - 0.02, 0.2, 0.66), cover, bevel=0.09, puff=0.03),
            rotation("x", -8),
            (0, 0.32, 0.56),
        ),
    ]
    for side in (-1, 1):
        parts.extend(
            box(
                (0.17, 0.76, 0.44),
                cover,
                at=(side * (width / 2 - 0.06), -0.02, 0.38),
                bevel=0.075,
                puff=0.015,
            )
        )
        if wings:
            parts.extend(
                box(
                    (0.12, 0.34, 0.4),
                    cover,
                    at=(side * (width / 2 - 0.05), 0.2, 0.68),
                    bevel=0.055,
                    puff=0.02,
                )
            )
        for y in (-0.3, 0.3):
            parts.append(
                tube(
                    [(side * (width / 2 - 0.1), y, 0), (side * (width / 2 - 0.13), y * 0.94, 0.16)],
                    [0.02, 0.032],
                    legs,
                    count=12,
                )
            )
    for k in range(seats):
        parts.extend(_seat_cushions(cover, (k - (seats - 1) / 2) * inner / seats, inner / seats))
    return parts


def _seat_cushions(cover: Material, at: float, width: float) -> list[Part]:
    seat = box(
        (width - 0.01, 0.64, 0.17), cover, at=(at, -0.07, 0.39), bevel=0.065, puff=0.045, cells=12
    )
    back = box((width - 0.02, 0.16, 0.4), cover, bevel=0.07, puff=0.05, cells=12)
    return [*seat, *moved(back, rotation("x", -12), (at, 0.19, 0.62))]


def _chairs() -> list[Design]:
    return [
        Design(
            "Spindle-back chair, oak",
            "oak",
            "wood",
            149.0,
            partial(chair, timber("oak"), timber("oak", "x")),
        ),
        Design(
            "Spindle-back chair, black",
            "black",
            "wood",
            139.0,
            partial(chair, painted("black", 0.35), painted("black", 0.35)),
        ),
        Design(
            "Ladder-back chair, walnut with linen seat",
            "walnut",
            "wood",
            169.0,
            partial(chair, timber("walnut"), fabric("cream"), back="ladder", splay=0.0),
        ),
        Design(
            "Shell chair, mustard",
            "mustard",
            "plastic",
            99.0,
            partial(chair, timber("natural"), painted("mustard", 0.35), back="shell", splay=0.1),
        ),
        Design(
            "Padded dining chair, teal velvet",
            "teal",
            "velvet",
            159.0,
            partial(
                chair,
                metal("gold", 0.8),
                Material(plain(C["teal"], 0.1), gloss=0.1, sheen=1.1),
                back="padded",
            ),
        ),
        Design(
            "Shell chair, white",
            "white",
            "plastic",
            95.0,
            partial(chair, metal("steel", 0.85), painted("white", 0.45), back="shell", splay=0.02),
        ),
    ]


def _single_armchairs() -> list[Design]:
    return [
        Design(
            "Armchair, sage bouclé",
            "sage",
            "bouclé",
            449.0,
            partial(
                armchair,
                Material(
                    plain(C["sage"], 0.08), gloss=0.02, bump=("leather", 1.4, 0.35), sheen=0.5
                ),
                timber("oak"),
            ),
        ),
        Design(
            "Leather armchair, cognac",
            "tan",
            "leather",
            690.0,
            partial(armchair, leather("tan", 0.5), timber("walnut"), width=0.92),
        ),
        Design(
            "Wing chair, navy velvet",
            "navy",
            "velvet",
            560.0,
            partial(
                armchair,
                Material(plain(C["navy"], 0.12), gloss=0.1, sheen=1.2),
                timber("black"),
                wings=True,
            ),
        ),
        Design(
            "Striped armchair, cream and blue",
            "cream",
            "cotton",
            480.0,
            partial(
                armchair,
                fabric(stripes(plain(C["cream"]), plain(C["blue"]), "x", 0.12), 300),
                timber("natural"),
                width=0.8,
            ),
        ),
    ]


def _sofas() -> list[Design]:
    return [
        Design(
            "Two-seat sofa, light grey",
            "grey",
            "wool",
            899.0,
            partial(armchair, fabric("grey", 300), timber("oak"), width=1.5, seats=2),
        ),
        Design(
            "Two-seat sofa, rust",
            "rust",
            "linen",
            949.0,
            partial(armchair, fabric("rust", 300), timber("walnut"), width=1.6, seats=2),
        ),
    ]


def designs() -> dict[str, list[Design]]:
    """The designs of this shelf by kind."""
    return {"chair": _chairs(), "armchair": [*_single_armchairs(), *_sofas()]}
