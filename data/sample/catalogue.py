"""The catalogue: which products there are, how each is photographed, and the files they become.

Every photo is a pure function of the product, the view and the seed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from data.sample.kinds import (
    bags,
    balls,
    clothing,
    decor,
    footwear,
    kitchen,
    leisure,
    pottery,
    seating,
    tables,
    watches,
)
from data.sample.kinds.design import Design
from data.sample.mesh import assemble
from data.sample.photo import Model, Shot, model_of, take
from data.sample.scene import LARGE_SETTINGS, PAPERS, SMALL_SETTINGS

JPEG_QUALITY = 88
PRODUCT_DOCUMENT = "product.json"

LARGE = frozenset({"chair", "armchair", "side-table", "suitcase", "plant", "lamp"})
LAID_FLAT = frozenset({"t-shirt", "watch"})

STANDING_VIEWS = {"front": (14.0, 13.0), "side": (46.0, 20.0), "top": (28.0, 47.0)}
FLAT_VIEWS = {"front": (0.0, 80.0), "angle": (24.0, 48.0), "detail": (-20.0, 62.0)}


@dataclass(frozen=True, slots=True)
class SampleProduct:
    """One product. ``price`` is in euros; ``views`` are in the order of its photos."""

    product_id: str
    category: str
    title: str
    price: float
    colour: str
    material: str
    views: tuple[str, ...]
    seed: int = 0

    def metadata(self) -> dict[str, str | float]:
        """What its ``product.json`` says."""
        return {
            "title": self.title,
            "category": self.category,
            "price": self.price,
            "colour": self.colour,
            "material": self.material,
        }


@dataclass(frozen=True, slots=True)
class QueryPhoto:
    """A photo of a catalogue product that the catalogue does not hold."""

    name: str
    product_id: str
    category: str
    image: Image.Image


@lru_cache(maxsize=1)
def _designs() -> dict[str, tuple[str, Design]]:
    shelves = (
        pottery,
        kitchen,
        seating,
        tables,
        decor,
        footwear,
        bags,
        clothing,
        watches,
        balls,
        leisure,
    )
    kinds = {kind: designs for shelf in shelves for kind, designs in shelf.designs().items()}
    return {
        f"{kind}-{number:02d}": (kind, design)
        for kind, designs in kinds.items()
        for number, design in enumerate(designs, start=1)
    }


def products(seed: int = 0) -> tuple[SampleProduct, ...]:
    """All products, by kind; ``seed`` changes how they are photographed, not what they are."""
    found = []
    for index, (product_id, (kind, design)) in enumerate(_designs().items()):
        views = tuple(FLAT_VIEWS if kind in LAID_FLAT else STANDING_VIEWS)
        found.append(
            SampleProduct(
                product_id,
                kind,
                design.title,
                design.price,
                design.colour,
                design.material,
                views[: 3 if index % 3 == 1 else 2],
                seed,
            )
        )
    return tuple(found)


@lru_cache(maxsize=2)
def _model(product_id: str) -> Model:
    return model_of(assemble(_designs()[product_id][1].build()))


def _rng(product: SampleProduct, view: str) -> np.random.Generator:
    name = f"{product.product_id}/{view}/{product.seed}".encode()
    return np.random.default_rng(
        int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")
    )


def _shot(product: SampleProduct, view: str) -> Shot:
    """Camera, background and exposure: shop photos are calm, photos to search with are not."""
    rng = _rng(product, view)
    query = view == "query"
    flat = product.category in LAID_FLAT
    views = FLAT_VIEWS if flat else STANDING_VIEWS
    azimuth, elevation = views.get(view, (-38.0, 60.0 if flat else 26.0))
    places = LARGE_SETTINGS if product.category in LARGE else SMALL_SETTINGS
    draw = rng.random()
    if query or (view != "front" and draw < 0.5):
        setting = places[int(rng.integers(len(places)))]
    elif view == "front" and draw < 0.6:
        setting = "white"
    else:
        setting = PAPERS[int(rng.integers(len(PAPERS)))]
    wander = 2.2 if query else 1.0
    gain = float(rng.uniform(0.94, 1.05)) * (float(rng.uniform(0.9, 1.06)) if query else 1.0)
    warm = float(rng.normal(0, 0.025 if query else 0.012))
    return Shot(
        azimuth=azimuth + float(rng.uniform(-9, 9)) * wander,
        elevation=min(elevation + float(rng.uniform(-4, 4)) * wander, 86.0),
        setting=setting,
        fill=float(rng.uniform(0.52, 0.7)) if query else float(rng.uniform(0.7, 0.82)),
        field_deg=float(rng.uniform(22, 36)),
        roll=float(rng.normal(0, 2.5 if query else 0.3)),
        shift=(float(rng.normal(0, 0.04)), float(rng.normal(0, 0.03))) if query else (0.0, 0.01),
        noise=0.018 if query else float(rng.uniform(0.004, 0.01)),
        lift=(gain * (1 + warm), gain, gain * (1 - warm)),
        seed=int(rng.integers(2**31)),
    )


def render(product: SampleProduct, view: str) -> Image.Image:
    """Draw one photo of a product, 600 x 600 RGB; ``view`` is one of its views or ``"query"``.

    Raises
    ------
    ValueError
        The product has no such view.
    """
    if view not in (*product.views, "query"):
        raise ValueError(
            f"{product.product_id} has no view {view!r}; it has {', '.join(product.views)}."
        )
    return take(_model(product.product_id), _shot(product, view))


def query_photos(seed: int = 0) -> list[QueryPhoto]:
    """One photo for each kind from another side and in another place, not in the catalogue."""
    photos: dict[str, QueryPhoto] = {}
    for index, product in enumerate(products(seed)):
        if product.category not in photos and index % 4 == 2:
            image = render(product, "query")
            photos[product.category] = QueryPhoto(
                f"{product.category}.jpg", product.product_id, product.category, image
            )
    return list(photos.values())


def write_product(product: SampleProduct, folder: Path) -> list[Path]:
    """Write a product's photos and ``product.json`` to ``<folder>/<product_id>/``."""
    place = folder / product.product_id
    place.mkdir(parents=True, exist_ok=True)
    text = json.dumps(product.metadata(), ensure_ascii=False, indent=1)
    (place / PRODUCT_DOCUMENT).write_text(text + "\n", encoding="utf-8")
    paths = [place / f"{view}.jpg" for view in product.views]
    for path in paths:
        render(product, path.stem).save(path, quality=JPEG_QUALITY)
    return paths


def write_catalogue(
    folder: Path,
    on_progress: Callable[[int, int], None] | None = None,
    seed: int = 0,
    workers: int = 1,
) -> list[Path]:
    """Write ``<folder>/<product_id>/<view>.jpg`` and ``product.json`` for every product.

    Parameters
    ----------
    on_progress
        Called with (photos written, photos in all) after each product.
    workers
        Processes that draw. More than one starts them afresh ("spawn"), so the caller's main module
        must be importable.

    Returns
    -------
    list[Path]
        The photos, in order of product and view.
    """
    chosen = products(seed)
    total = sum(len(product.views) for product in chosen)
    written: list[Path] = []
    with ExitStack() as stack:
        found: Iterable[list[Path]]
        if workers > 1:
            pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
            stack.enter_context(pool)
            found = pool.map(write_product, chosen, [folder] * len(chosen), chunksize=2)
        else:
            found = (write_product(product, folder) for product in chosen)
        for paths in found:
            written.extend(paths)
            if on_progress is not None:
                on_progress(len(written), total)
    return written
