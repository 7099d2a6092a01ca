"""Mugs, bowls and vases."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from data.sample.colours import COLOURS as C
from data.sample.kinds.design import Design, ceramic, metal, timber
from data.sample.material import (
    Material,
    Pattern,
    bands,
    checked,
    dotted,
    plain,
    speckled,
    stripes,
)
from data.sample.mesh import Part, revolve, rounded, smooth, tube


def mug(
    outside: Material,
    inside: Material,
    *,
    height: float = 0.9,
    top: float = 0.4,
    foot: float = 0.36,
    handle: str = "round",
) -> list[Part]:
    """A cup with a handle to the right."""
    rim = rounded([(0, 0.03), (foot, 0), (top, height), (top - 0.025, height + 0.012)], 0.07)
    well = rounded(
        [
            (top - 0.025, height + 0.012),
            (top - 0.045, height - 0.02),
            (foot - 0.05, 0.07),
            (0, 0.06),
        ],
        0.06,
    )
    parts = [revolve(rim, outside), revolve(well, inside)]
    middle = height * 0.52
    if handle == "square":
        path = rounded([(0, 0.26), (0.3, 0.26), (0.3, -0.24), (0, -0.22)], 0.12)
    else:
        angle = np.linspace(1.35, -1.35, 28)
        path = np.stack([0.3 * np.cos(angle) - 0.04, 0.29 * np.sin(angle)], axis=-1)
    line = np.stack(
        [top - 0.03 + path[:, 0], 0 * path[:, 0], middle + path[:, 1] * height], axis=-1
    )
    ends = 1 + 0.3 * np.abs(np.linspace(-1, 1, len(line))) ** 4
    return [*parts, tube(line, 0.045 * ends, outside, flat=1.35, reference=(0, 1, 0))]


def bowl(
    outside: Material,
    inside: Material,
    *,
    height: float = 0.42,
    width: float = 0.62,
    flare: float = 1.0,
    ribs: int = 0,
) -> list[Part]:
    """A bowl on a small foot."""
    outer = smooth([(0.24, 0.05), (0.36 * flare, 0.1), (0.54, height * 0.6), (width, height)], 30)
    foot = rounded([(0, 0.02), (0.2, 0.02), (0.21, 0), (0.25, 0), (0.24, 0.05)], 0.01)
    inner = smooth(
        [
            (width, height),
            (width - 0.03, height),
            (0.5, height * 0.62),
            (0.3, 0.12),
            (0.002, 0.085),
        ],
        34,
    )
    flutes = (ribs, 0.018 if ribs else 0.0)
    return [
        revolve(np.concatenate([foot, outer]), outside, count=108, ribs=flutes),
        revolve(inner, inside, count=108, ribs=flutes),
    ]


def vase(
    material: Material,
    profile: Sequence[tuple[float, float]],
    *,
    ribs: tuple[int, float] = (0, 0),
    squash: float = 1,
) -> list[Part]:
    """A vase from its outline, (radius, height) from the foot up."""
    outer = smooth(profile, 60)
    top = float(outer[-1, 0])
    z = float(outer[-1, 1])
    lip = rounded(
        [(top, z), (top, z + 0.012), (top - 0.03, z + 0.012), (top - 0.032, z - 0.02)], 0.02
    )
    well = outer[::-1][2:-4] - np.array([0.032, 0])
    well[:, 0] = np.maximum(well[:, 0], 0.02)
    foot = np.array([[0.002, 0.0], [float(outer[0, 0]) * 0.9, 0.0]], np.float32)
    line = np.concatenate([foot, outer, lip[1:], well, [[0.002, float(well[-1, 1])]]])
    return [revolve(line, material, count=120, squash=(1, squash), ribs=ribs)]


def _dipped(top: str, bottom: str, edge: float) -> Pattern:
    return bands(plain(C[top]), [(-1, edge, C[bottom])])


def _plain_mugs() -> list[Design]:
    speckle = ceramic(speckled(C["blue"], "#1c2a38", 1.5))
    oat = ceramic(speckled(C["cream"], "#6b5136", 1.4))
    return [
        Design(
            "Speckled stoneware mug, blue",
            "blue",
            "stoneware",
            16.0,
            partial(mug, speckle, speckle),
        ),
        Design(
            "Oatmeal stoneware mug, cream",
            "cream",
            "stoneware",
            15.0,
            partial(mug, oat, oat, height=0.76, top=0.46, foot=0.4),
        ),
        Design(
            "Dip-glazed mug, terracotta",
            "terracotta",
            "stoneware",
            18.0,
            partial(
                mug,
                ceramic(_dipped("cream", "terracotta", 0.42), 0.5),
                ceramic("cream"),
                height=0.95,
                foot=0.3,
            ),
        ),
        Design(
            "Matt espresso cup, black",
            "black",
            "stoneware",
            11.0,
            partial(mug, ceramic("black", 0.25), ceramic("white"), height=0.62, top=0.4, foot=0.26),
        ),
    ]


def _patterned_mugs() -> list[Design]:
    white = ceramic("white")
    enamel = ceramic(bands(plain(C["white"]), [(0.66, 0.75, C["navy"])]), 0.9)
    striped = ceramic(stripes(plain(C["white"]), plain(C["red"]), "z", 0.16))
    spotted = ceramic(dotted(plain(C["mint"]), C["white"], (11, 5), 0.28))
    return [
        Design(
            "Enamel camping mug, white and navy",
            "white",
            "enamel",
            12.5,
            partial(
                mug,
                enamel,
                ceramic("white", 0.9),
                height=0.78,
                top=0.44,
                foot=0.43,
                handle="square",
            ),
        ),
        Design(
            "Striped porcelain mug, red",
            "red",
            "porcelain",
            14.0,
            partial(mug, striped, white, handle="square"),
        ),
        Design(
            "Polka dot mug, mint",
            "mint",
            "porcelain",
            13.0,
            partial(mug, spotted, white, height=0.82, top=0.43),
        ),
    ]


def _ceramic_bowls() -> list[Design]:
    rim = ceramic(bands(plain(C["white"]), [(0.37, 0.6, C["indigo"])]))
    return [
        Design(
            "Ramen bowl, white with indigo rim",
            "white",
            "porcelain",
            19.0,
            partial(bowl, rim, rim, height=0.45),
        ),
        Design(
            "Stoneware cereal bowl, sage",
            "sage",
            "stoneware",
            14.0,
            partial(
                bowl, ceramic(speckled(C["sage"], "#4d5a49", 1.5)), ceramic("cream"), width=0.56
            ),
        ),
        Design(
            "Fluted serving bowl, terracotta",
            "terracotta",
            "earthenware",
            28.0,
            partial(bowl, ceramic("terracotta", 0.3), ceramic("cream"), ribs=28, height=0.46),
        ),
        Design(
            "Low pasta bowl, turquoise",
            "turquoise",
            "stoneware",
            17.0,
            partial(
                bowl,
                ceramic("turquoise", 0.85),
                ceramic(speckled(C["turquoise"], "#1f5b5c", 1.7), 0.85),
                height=0.26,
                width=0.7,
                flare=1.3,
            ),
        ),
    ]


def _other_bowls() -> list[Design]:
    return [
        Design(
            "Salad bowl, oiled walnut",
            "walnut",
            "wood",
            45.0,
            partial(
                bowl,
                timber("walnut", "x", 2.2),
                timber("walnut", "x", 2.2),
                height=0.4,
                width=0.72,
                flare=1.15,
            ),
        ),
        Design(
            "Hammered fruit bowl, copper",
            "copper",
            "copper",
            52.0,
            partial(
                bowl,
                Material(plain(C["copper"]), gloss=0.8, metal=True, bump=("hammered", 0.25, 0.05)),
                metal("copper", 0.85),
                width=0.7,
                height=0.34,
                flare=1.2,
            ),
        ),
    ]


def _vases() -> list[Design]:
    amphora = [(0.16, 0.0), (0.34, 0.25), (0.38, 0.5), (0.2, 0.78), (0.14, 0.88), (0.2, 1.0)]
    cylinder = [(0.22, 0.0), (0.23, 0.3), (0.23, 0.6), (0.22, 0.95)]
    bud = [(0.2, 0.0), (0.34, 0.14), (0.3, 0.32), (0.1, 0.46), (0.07, 0.7), (0.1, 0.8)]
    urn = [(0.2, 0.0), (0.3, 0.3), (0.42, 0.62), (0.36, 0.8), (0.24, 0.86), (0.27, 0.92)]
    drop = [(0.12, 0.0), (0.28, 0.1), (0.36, 0.3), (0.24, 0.6), (0.1, 0.9), (0.08, 1.1)]
    cone = [(0.14, 0.0), (0.18, 0.3), (0.24, 0.6), (0.34, 0.95)]
    chevrons = ceramic(checked(plain(C["white"]), C["black"], (16, 9)), 0.6)
    return [
        Design(
            "Amphora vase, matt white",
            "white",
            "earthenware",
            39.0,
            partial(vase, ceramic("white", 0.15), amphora),
        ),
        Design(
            "Fluted cylinder vase, sage",
            "sage",
            "stoneware",
            34.0,
            partial(vase, ceramic("sage", 0.6), cylinder, ribs=(22, 0.035)),
        ),
        Design(
            "Bud vase, glossy cobalt",
            "blue",
            "porcelain",
            22.0,
            partial(vase, ceramic(plain("#1f3f94"), 0.95), bud),
        ),
        Design(
            "Floor urn, volcanic black",
            "black",
            "stoneware",
            89.0,
            partial(
                vase,
                Material(
                    speckled(C["black"], "#6d655e", 1.3), gloss=0.12, bump=("leather", 0.4, 0.12)
                ),
                urn,
            ),
        ),
        Design(
            "Teardrop vase, mustard",
            "mustard",
            "stoneware",
            31.0,
            partial(vase, ceramic("mustard", 0.8), drop, squash=0.7),
        ),
        Design(
            "Chequered vase, black and white",
            "white",
            "porcelain",
            36.0,
            partial(vase, chevrons, cone),
        ),
    ]


def designs() -> dict[str, list[Design]]:
    """The designs of this shelf by kind."""
    return {
        "mug": [*_plain_mugs(), *_patterned_mugs()],
        "bowl": [*_ceramic_bowls(), *_other_bowls()],
        "vase": _vases(),
    }
