"""A design: one product's words, price and shape."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data.sample.colours import COLOURS
from data.sample.material import Material, Pattern, brushed, plain, wood, woven
from data.sample.mesh import Part

Build = Callable[[], Sequence[Part]]


@dataclass(frozen=True)
class Design:
    """What a product is called and how its parts are made. Prices are in euros."""

    title: str
    colour: str
    material: str
    price: float
    build: Build


def ceramic(pattern: Pattern | str, gloss: float = 0.72) -> Material:
    """Glazed stoneware or porcelain."""
    return Material(plain(COLOURS[pattern]) if isinstance(pattern, str) else pattern, gloss=gloss)


def metal(colour: str, gloss: float = 0.7) -> Material:
    """Brushed or, with a gloss near 1, polished metal."""
    return Material(brushed(COLOURS[colour]), gloss=gloss, metal=True)


def timber(colour: str = "oak", axis: str = "z", scale: float = 1.6) -> Material:
    """Oiled wood with its grain along ``axis``."""
    dark = {"oak": "#96693a", "walnut": "#452c1d", "natural": "#b58f5d", "black": "#151517"}
    tone = dark.get(colour, "#3c2a20")
    return Material(wood(COLOURS[colour], tone, axis, scale), gloss=0.42)


def painted(colour: str, gloss: float = 0.5) -> Material:
    """Lacquer or plastic."""
    return Material(plain(COLOURS[colour], 0.015), gloss=gloss)


def fabric(pattern: Pattern | str, threads: float = 420.0, depth: float = 0.22) -> Material:
    """Cloth: matt, woven, bright at grazing angles."""
    base = plain(COLOURS[pattern], 0.05) if isinstance(pattern, str) else pattern
    return Material(
        woven(base, threads, depth), gloss=0.05, bump=("crumpled", 0.3, 0.02), sheen=0.35
    )


def jersey(pattern: Pattern | str) -> Material:
    """Fine knitted cotton."""
    base = plain(COLOURS[pattern], 0.015) if isinstance(pattern, str) else pattern
    return Material(woven(base, 520.0, 0.08), gloss=0.02, sheen=0.3)


def leather(colour: str, gloss: float = 0.45) -> Material:
    """Grained leather."""
    return Material(plain(COLOURS[colour], 0.08), gloss=gloss, bump=("leather", 0.9, 0.035))


def rubber(colour: str) -> Material:
    """Matt rubber."""
    return Material(plain(COLOURS[colour], 0.02), gloss=0.15)
