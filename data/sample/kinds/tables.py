"""Side tables."""

from __future__ import annotations

from functools import partial

import numpy as np

from data.sample.kinds.design import Design, metal, painted, timber
from data.sample.material import (
    Material,
    marbled,
)
from data.sample.mesh import Part, box, revolve, rounded, smooth, tube


def side_table(
    top: Material,
    legs: Material,
    *,
    style: str = "splayed",
    square: bool = False,
    height: float = 0.62,
) -> list[Part]:
    """A side table with a round or square top."""
    parts: list[Part] = []
    if square:
        parts.extend(box((0.78, 0.6, 0.05), top, at=(0, 0, height), bevel=0.014, cells=12))
    else:
        edge = rounded(
            [
                (0, height - 0.025),
                (0.4, height - 0.025),
                (0.42, height),
                (0.41, height + 0.022),
                (0, height + 0.025),
            ],
            0.018,
        )
        parts.append(revolve(edge, top, count=96))
    return [*parts, *_table_legs(legs, style, height)]


def _table_legs(legs: Material, style: str, height: float) -> list[Part]:
    parts: list[Part] = []
    if style == "pedestal":
        parts.append(
            revolve(
                smooth(
                    [(0.26, 0.0), (0.24, 0.03), (0.05, 0.08), (0.04, 0.3), (0.06, height - 0.03)],
                    30,
                ),
                legs,
            )
        )
    elif style == "drum":
        for k in range(24):
            turn = 2 * np.pi * k / 24
            at = np.array([0.34 * np.cos(turn), 0.34 * np.sin(turn)])
            parts.append(
                tube([(*at, 0.0), (*at, height / 2), (*at, height - 0.02)], 0.016, legs, count=8)
            )
        angle = np.linspace(0, 2 * np.pi, 60)
        parts.append(
            tube(
                np.stack([0.34 * np.cos(angle), 0.34 * np.sin(angle), 0.02 + 0 * angle], -1),
                0.02,
                legs,
            )
        )
    else:
        thin = style == "hairpin"
        for sx in (-1, 1):
            for sy in (-1, 1):
                out = 0.06 if style == "splayed" else 0.0
                head = np.array([sx * 0.28, sy * 0.2, height - 0.02])
                foot = np.array([sx * (0.28 + out), sy * (0.2 + out), 0.0])
                for spread in (-0.05, 0.05) if thin else (0.0,):
                    bent = head + np.array([spread, 0, 0])
                    parts.append(
                        tube(
                            smooth([bent.tolist(), foot.tolist()], 10),
                            0.012 if thin else np.linspace(0.034, 0.02, 10),
                            legs,
                        )
                    )
    return parts


def _wooden_tables() -> list[Design]:
    return [
        Design(
            "Round side table, oak",
            "oak",
            "wood",
            119.0,
            partial(side_table, timber("oak", "x"), timber("oak")),
        ),
        Design(
            "Square side table, walnut",
            "walnut",
            "wood",
            139.0,
            partial(
                side_table, timber("walnut", "x"), timber("walnut"), square=True, style="straight"
            ),
        ),
        Design(
            "Hairpin table, pine and black",
            "natural",
            "wood",
            99.0,
            partial(
                side_table,
                timber("natural", "x"),
                painted("black"),
                square=True,
                style="hairpin",
                height=0.5,
            ),
        ),
    ]


def _metal_tables() -> list[Design]:
    return [
        Design(
            "Marble side table with brass foot",
            "white",
            "marble",
            229.0,
            partial(
                side_table,
                Material(marbled("#ebeae7", "#6f7378"), gloss=0.8),
                metal("gold", 0.85),
                style="pedestal",
            ),
        ),
        Design(
            "Wire drum table, black",
            "black",
            "steel",
            109.0,
            partial(
                side_table, painted("black", 0.4), painted("black", 0.4), style="drum", height=0.5
            ),
        ),
        Design(
            "Tray table, blush",
            "pink",
            "steel",
            79.0,
            partial(
                side_table,
                painted("pink", 0.45),
                painted("pink", 0.45),
                style="pedestal",
                height=0.68,
            ),
        ),
    ]


def designs() -> dict[str, list[Design]]:
    """The designs of this shelf by kind."""
    return {"side-table": [*_wooden_tables(), *_metal_tables()]}
