"""Books, headphones and suitcases."""

from __future__ import annotations

from functools import partial

import numpy as np
from PIL import Image, ImageDraw

from data.sample.colours import COLOURS as C
from data.sample.kinds.design import Design, fabric, leather, metal, painted, rubber
from data.sample.material import Material, Sample, linear, mix, plain, printed
from data.sample.mesh import (
    Part,
    box,
    moved,
    revolve,
    rotation,
    rounded,
    smooth,
    tube,
)
from data.sample.texture import Floats


def cover(ground: str, ink: str, accent: str, motif: str, title: str, author: str) -> Image.Image:
    """A book's front cover."""
    image = Image.new("RGBA", (360, 520), C[ground])
    draw = ImageDraw.Draw(image)
    if motif == "moon":
        draw.ellipse((90, 210, 270, 390), fill=C[accent])
        draw.ellipse((140, 190, 300, 350), fill=C[ground])
    elif motif == "waves":
        for k in range(7):
            points = [(x, 260 + 36 * k + 14 * np.sin(x / 28 + k)) for x in range(0, 361, 6)]
            draw.line(points, fill=C[accent], width=9)
    elif motif == "grid":
        for k in range(24):
            x, y = 36 + 76 * (k % 4), 190 + 48 * (k // 4)
            draw.rectangle((x, y, x + 60, y + 36), fill=C[accent if (k * 7) % 3 else ink])
    elif motif == "leaf":
        for k in range(6):
            y = 220 + 40 * k
            draw.ellipse((70, y, 180, y + 34), fill=C[accent])
            draw.ellipse((182, y - 16, 292, y + 18), fill=C[accent])
        draw.line([(181, 200), (181, 470)], fill=C[ink], width=5)
    elif motif == "rays":
        for k in range(18):
            a, b = np.radians(20 * k), np.radians(20 * k + 10)
            draw.polygon(
                [
                    (180, 330),
                    (180 + 400 * np.cos(a), 330 + 400 * np.sin(a)),
                    (180 + 400 * np.cos(b), 330 + 400 * np.sin(b)),
                ],
                fill=C[accent],
            )
    else:
        for k, radius in enumerate((130, 100, 70, 40)):
            box_ = (180 - radius, 320 - radius, 180 + radius, 320 + radius)
            draw.ellipse(box_, fill=C[accent if k % 2 == 0 else ground])
    draw.rectangle((0, 0, 360, 150), fill=C[ground])
    size = min(44, round(480 / len(title)))
    draw.text((180, 72), title, fill=C[ink], anchor="mm", font_size=size)
    draw.text((180, 126), author, fill=C[ink], anchor="mm", font_size=24)
    return image


def book(front: Image.Image, cloth: str, *, thick: float = 0.12) -> list[Part]:
    """A hardback that stands upright."""
    art = printed(front, (-0.36, 0.0, 0.36, 1.04), plain(C[cloth]))
    board, spine = Material(art, gloss=0.45), Material(plain(C[cloth]), gloss=0.35)
    base, dark = linear("#f1ead9"), linear("#c9bfa8")

    def paper(s: Sample) -> Floats:
        return mix(base, dark, 0.5 + 0.5 * np.sin(s.y * 900))

    pages = Material(paper, gloss=0.05)
    parts = [
        *box((0.72, 0.018, 1.04), board, at=(0, -thick / 2, 0.52), bevel=0.006),
        *box((0.72, 0.018, 1.04), spine, at=(0, thick / 2, 0.52), bevel=0.006),
        *box((0.018, thick + 0.018, 1.04), spine, at=(-0.36, 0, 0.52), bevel=0.008),
        *box((0.68, thick - 0.02, 0.99), pages, at=(-0.01, 0, 0.52), bevel=0.004),
    ]
    return moved(parts, rotation("z", 24))


def headphones(shell: Material, pad: Material, band: Material) -> list[Part]:
    """Over-ear headphones that stand on their cups."""
    angle = np.linspace(-0.15, np.pi + 0.15, 48)
    arc = np.stack([0.44 * np.cos(angle), 0 * angle, 0.55 + 0.5 * np.sin(angle)], -1)
    parts = [tube(arc, 0.024, shell, flat=2.6, reference=(0, 0, 1))]
    crown = arc[12:36] - [0, 0, 0.012]
    parts.append(tube(crown, 0.05, band, flat=2.0, reference=(0, 0, 1)))
    disc = rounded([(0, 0.0), (0.19, 0.0), (0.2, 0.05), (0.17, 0.1), (0, 0.115)], 0.04)
    lining = rubber("charcoal")
    soft = smooth([(0.19, 0.0), (0.215, -0.05), (0.19, -0.1), (0.13, -0.11), (0.1, -0.06)], 20)[
        ::-1
    ]
    for side in (-1, 1):
        turn = rotation("y", 90 * side)
        mesh = revolve(
            [(0.002, -0.02), (0.07, -0.025), (0.15, -0.03)],
            lining,
            squash=(1.18, 1),
            two_sided=True,
        )
        cup = [revolve(disc, shell, squash=(1.18, 1)), revolve(soft, pad, squash=(1.18, 1)), mesh]
        parts.extend(moved(cup, turn, (side * 0.41, 0, 0.3)))
        arm = smooth([(side * 0.44, 0, 0.6), (side * 0.52, 0, 0.5), (side * 0.52, 0, 0.34)], 14)
        parts.append(tube(arm, 0.02, band, flat=1.8, reference=(0, 1, 0)))
    return parts


def _ribbed_shell(shell: Material, ribs: int, height: float) -> list[Part]:
    """A bevelled box with flutes pressed into its front and back."""
    parts: list[Part] = []
    for part in box(
        (0.66, 0.4, height), shell, at=(0, 0, 0.12 + height / 2), bevel=0.085, cells=60
    ):
        grid = part.points.copy()
        depth = np.abs(part.normals[..., 1:2])
        grid -= (
            part.normals
            * depth**2
            * 0.012
            * (1 - np.cos(grid[..., :1] * 2 * np.pi * ribs / 0.6))
            * (np.abs(grid[..., :1]) < 0.27)
        )
        d_row, d_column = np.gradient(grid, axis=0), np.gradient(grid, axis=1)
        normals = np.cross(d_row, d_column)
        normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
        agree = np.sum(normals * part.normals, axis=-1, keepdims=True) > 0.3
        parts.append(
            Part(grid, np.where(agree, normals, part.normals).astype(np.float32), part.uv, shell)
        )
    return parts


def suitcase(
    shell: Material, trim: Material, handle: Material, *, ribs: int = 7, height: float = 1.0
) -> list[Part]:
    """A hard-shell trolley case on four wheels, its handle pulled out."""
    parts = _ribbed_shell(shell, ribs, height)
    parts.extend(
        box((0.668, 0.03, height + 0.008), trim, at=(0, 0, 0.12 + height / 2), bevel=0.012)
    )
    top = 0.12 + height
    for side in (-1, 1):
        parts.append(
            tube(
                [
                    (side * 0.14, 0.13, top - 0.1),
                    (side * 0.14, 0.13, top + 0.1),
                    (side * 0.14, 0.13, top + 0.3),
                ],
                0.016,
                metal("steel", 0.85),
            )
        )
        for y in (-0.14, 0.14):
            wheel = revolve(
                rounded([(0, -0.028), (0.055, -0.028), (0.055, 0.028), (0, 0.028)], 0.02),
                trim,
                count=28,
            )
            parts.append(wheel.transformed(rotation("y", 90), (side * 0.25, y, 0.056)))
            parts.extend(box((0.09, 0.08, 0.06), trim, at=(side * 0.25, y, 0.115), bevel=0.02))
    parts.extend(box((0.34, 0.05, 0.045), trim, at=(0, 0.13, top + 0.3), bevel=0.02))
    parts.append(
        tube(
            smooth(
                [
                    (-0.11, -0.03, top - 0.01),
                    (-0.09, -0.03, top + 0.045),
                    (0.09, -0.03, top + 0.045),
                    (0.11, -0.03, top - 0.01),
                ],
                20,
            ),
            0.018,
            handle,
        )
    )
    return parts


def _novels() -> list[Design]:
    return [
        Design(
            "Night Garden, hardback",
            "indigo",
            "paper",
            22.0,
            partial(
                book,
                cover("indigo", "cream", "yellow", "moon", "NIGHT GARDEN", "E. Marlow"),
                "indigo",
            ),
        ),
        Design(
            "The Long Tide, hardback",
            "teal",
            "paper",
            24.0,
            partial(
                book,
                cover("cream", "teal", "teal", "waves", "THE LONG TIDE", "J. Okafor"),
                "teal",
                thick=0.17,
            ),
        ),
        Design(
            "City of Windows, paperback",
            "rust",
            "paper",
            14.0,
            partial(
                book,
                cover("rust", "cream", "mustard", "grid", "CITY OF WINDOWS", "L. Ferrante"),
                "rust",
                thick=0.07,
            ),
        ),
    ]


def _illustrated_books() -> list[Design]:
    return [
        Design(
            "A Field Guide to Leaves",
            "forest",
            "paper",
            29.0,
            partial(
                book, cover("sage", "forest", "forest", "leaf", "LEAVES", "a field guide"), "forest"
            ),
        ),
        Design(
            "Morning Bread, cookbook",
            "yellow",
            "paper",
            31.0,
            partial(
                book,
                cover("white", "rust", "yellow", "rays", "MORNING BREAD", "R. Haas"),
                "white",
                thick=0.15,
            ),
        ),
        Design(
            "Circles, graphic novel",
            "black",
            "paper",
            26.0,
            partial(
                book,
                cover("black", "white", "red", "rings", "CIRCLES", "K. Ito"),
                "black",
                thick=0.1,
            ),
        ),
    ]


def _headphones() -> list[Design]:
    return [
        Design(
            "Over-ear headphones, black",
            "black",
            "plastic",
            149.0,
            partial(headphones, painted("black", 0.45), leather("black"), leather("black")),
        ),
        Design(
            "Over-ear headphones, white and tan",
            "white",
            "plastic",
            169.0,
            partial(headphones, painted("white", 0.6), leather("tan"), leather("tan")),
        ),
        Design(
            "Studio headphones, silver",
            "silver",
            "aluminium",
            229.0,
            partial(headphones, metal("silver", 0.8), leather("black"), leather("charcoal")),
        ),
        Design(
            "Headphones, mint",
            "mint",
            "plastic",
            79.0,
            partial(headphones, painted("mint", 0.5), leather("white"), painted("mint")),
        ),
        Design(
            "Walnut headphones",
            "walnut",
            "wood",
            259.0,
            partial(
                headphones,
                Material(plain(C["walnut"], 0.15), gloss=0.6),
                leather("brown"),
                leather("black"),
            ),
        ),
        Design(
            "Kids' headphones, red",
            "red",
            "plastic",
            35.0,
            partial(headphones, painted("red", 0.6), painted("blue", 0.2), painted("yellow")),
        ),
    ]


def _suitcases() -> list[Design]:
    dark = rubber("black")
    return [
        Design(
            "Cabin trolley, silver aluminium",
            "silver",
            "aluminium",
            299.0,
            partial(suitcase, metal("silver", 0.72), dark, leather("black"), ribs=10),
        ),
        Design(
            "Cabin trolley, navy",
            "navy",
            "polycarbonate",
            139.0,
            partial(suitcase, painted("navy", 0.6), dark, painted("black")),
        ),
        Design(
            "Cabin trolley, yellow",
            "yellow",
            "polycarbonate",
            129.0,
            partial(suitcase, painted("yellow", 0.7), dark, painted("black"), ribs=5, height=0.9),
        ),
        Design(
            "Large trolley, sage",
            "sage",
            "polycarbonate",
            179.0,
            partial(
                suitcase, painted("sage", 0.45), rubber("brown"), leather("brown"), height=1.15
            ),
        ),
        Design(
            "Large trolley, burgundy",
            "burgundy",
            "polycarbonate",
            189.0,
            partial(
                suitcase, painted("burgundy", 0.75), dark, painted("black"), height=1.15, ribs=8
            ),
        ),
        Design(
            "Fabric trolley, charcoal",
            "charcoal",
            "polyester",
            99.0,
            partial(suitcase, fabric("charcoal"), dark, fabric("black"), ribs=0),
        ),
    ]


def designs() -> dict[str, list[Design]]:
    """The designs of this shelf by kind."""
    return {
        "book": [*_novels(), *_illustrated_books()],
        "headphones": _headphones(),
        "suitcase": _suitcases(),
    }
