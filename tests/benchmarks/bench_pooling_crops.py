"""Measures border saliency where the product touches the image's edges (docs/explanations.md).

    OPENBLAS_NUM_THREADS=1 python tests/benchmarks/bench_pooling_crops.py PHOTOS

PHOTOS has a ``manifest.csv`` (file, split, product_id, category). Queries are the photos of its
``queries`` split as they are, their centre crops, the largest square of them that border saliency
calls foreground, and the photos among others, as on a shelf; catalogue photos, changed in the same
way, look for themselves. The catalogue is pooled with border saliency. z is of paired differences.
Some 6,000 runs of the network: two minutes.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from lookalike.core.encoder import Encoder, preprocess
from lookalike.core.encoders import DEFAULT_ENCODER, encoder_record
from lookalike.core.geometry import coverage, seen_square
from lookalike.core.head import Head, fit_head
from lookalike.core.images import ImageLimits, decode
from lookalike.core.pooling import (
    UNSURE_CONTRAST,
    Array,
    border_contrast,
    border_saliency,
    pool,
    uniform,
)
from lookalike.modelbuild import ensure_model
from lookalike.models import default_model_dir

LIMITS = ImageLimits(25_000_000, 100_000_000)
CROPS = (0.7, 0.5, 0.35)
K = 10
SHELF_SIDE, SHELF_PART = 400, 0.58
MOSAIC_SIDE = 600
RECORD = encoder_record(DEFAULT_ENCODER)
Box = tuple[float, float, float, float]


class Photos:
    """The photos of one split, and their feature maps after some change."""

    def __init__(self, folder: Path, queries: bool, encoder: Encoder) -> None:
        with (folder / "manifest.csv").open(newline="") as lines:
            rows = [row for row in csv.DictReader(lines) if (row["split"] == "queries") == queries]
        self.categories = np.array([row["category"] for row in rows])
        self.images = [
            decode((folder / row["file"]).read_bytes(), LIMITS, encoder.min_side).image
            for row in rows
        ]
        self._encoder = encoder

    def maps(self, images: Iterable[Image.Image]) -> Array:
        """(n, C, h, w), as float16 in memory."""
        runs = (self._encoder.feature_maps(preprocess([image], RECORD)) for image in images)
        return np.concatenate([run.astype(np.float16) for run in runs])

    def crops(self, images: Iterable[Image.Image], boxes: Iterable[Box]) -> Array:
        return self.maps(
            image.crop((round(x), round(y), round(x + w), round(y + h)))
            for image, (x, y, w, h) in zip(images, boxes, strict=True)
        )


def centre_box(image: Image.Image, part: float) -> Box:
    width, height = image.size
    return (1 - part) / 2 * width, (1 - part) / 2 * height, part * width, part * height


def detail_box(image: Image.Image, saliency: Array) -> Box:
    """The largest square of foreground cells, of equal ones the most salient."""
    side = len(saliency)
    foreground = saliency * saliency.size > 1
    left, top, seen = seen_square(*image.size, RECORD)
    cell = seen / side
    for size in range(side, 0, -1):
        corners = [(y, x) for y in range(side - size + 1) for x in range(side - size + 1)]
        inside = {
            (y, x): float(saliency[y : y + size, x : x + size].sum())
            for y, x in corners
            if foreground[y : y + size, x : x + size].all()
        }
        if inside:
            y, x = max(inside, key=lambda corner: inside[corner])
            return left + x * cell, top + y * cell, size * cell, size * cell
    return 0, 0, *image.size


def on_a_shelf(images: list[Image.Image], others: list[Image.Image]) -> Iterable[Image.Image]:
    """Each image in the middle of eight others."""
    generator = np.random.default_rng(1)
    third = SHELF_SIDE // 3 + 1
    part = int(SHELF_SIDE * SHELF_PART)
    for image in images:
        shelf = Image.new("RGB", (SHELF_SIDE, SHELF_SIDE))
        for place in range(9):
            other = others[int(generator.integers(len(others)))]
            shelf.paste(_square(other, third), (place % 3 * third, place // 3 * third))
        shelf.paste(_square(image, part), ((SHELF_SIDE - part) // 2, (SHELF_SIDE - part) // 2))
        yield shelf


def among_three(images: list[Image.Image]) -> Iterable[tuple[Image.Image, Box]]:
    """Each image as a quarter of what the network sees, beside three others, and where it is."""
    generator = np.random.default_rng(2)
    for image in images:
        mosaic = Image.new("RGB", (MOSAIC_SIDE, MOSAIC_SIDE))
        left, top, seen = seen_square(*mosaic.size, RECORD)
        side = int(seen / 2)
        chosen = int(generator.integers(4))
        for place in range(4):
            one = image if place == chosen else images[int(generator.integers(len(images)))]
            corner = int(left) + place % 2 * side, int(top) + place // 2 * side
            mosaic.paste(_square(one, side), corner)
            if place == chosen:
                box = float(corner[0]), float(corner[1]), float(side), float(side)
        yield mosaic, box


def _square(image: Image.Image, side: int) -> Image.Image:
    shorter = min(image.size)
    left, top = (image.width - shorter) // 2, (image.height - shorter) // 2
    return image.crop((left, top, left + shorter, top + shorter)).resize((side, side))


def fallback(maps: Array) -> Array:
    """Border saliency, the plain average where the border's contrast is low."""
    unsure = border_contrast(maps) < UNSURE_CONTRAST
    return np.where(unsure[:, None, None], uniform(maps), border_saliency(maps))


def embed(maps: Array, weigh: Callable[[Array], Array], step: int = 100) -> Array:
    parts = [maps[i : i + step].astype(np.float32) for i in range(0, len(maps), step)]
    return np.concatenate([pool(part, weigh(part)) for part in parts])


def embed_cells(maps: Array, images: list[Image.Image], boxes: list[Box]) -> Array:
    """Whole photos' maps, pooled over boxes."""
    weights = border_saliency(maps.astype(np.float32))
    for weight, image, box in zip(weights, images, boxes, strict=True):
        weight *= coverage(box, seen_square(*image.size, RECORD), weight.shape)
        weight /= weight.sum()
    return pool(maps.astype(np.float32), weights)


def by_category(queries: Array, catalogue: Array, wanted: Array, found: Array) -> list[Array]:
    """P@1, P@10 and AP@10 of each query; every category has at least ten products."""
    nearest = np.argsort(-(queries @ catalogue.T), axis=1)[:, :K]
    relevant = found[nearest] == wanted[:, None]
    precision = np.cumsum(relevant, axis=1) / np.arange(1, K + 1)
    return [relevant[:, 0] * 1.0, relevant.mean(axis=1), (precision * relevant).sum(axis=1) / K]


def by_itself(queries: Array, catalogue: Array) -> list[Array]:
    """Whether the photo that a query was made of comes first, and one by its rank."""
    scores = queries @ catalogue.T
    rank = (scores > np.diag(scores)[:, None]).sum(axis=1) + 1
    return [(rank == 1) * 1.0, 1 / rank]


def compared(values: list[Array], base: list[Array] | None = None) -> str:
    text = []
    for column, value in enumerate(values):
        text.append(f"{100 * value.mean():5.1f}")
        if base is not None:
            gain = value - base[column]
            error = gain.std(ddof=1) / np.sqrt(len(gain))
            text.append(f"({gain.mean() / error:+.1f})" if error else "(0)")
    return " ".join(text)


def report(name: str, maps: Array, judge: Callable[[Array], list[Array]]) -> None:
    base = judge(embed(maps, border_saliency))
    unsure = float(np.mean(border_contrast(maps.astype(np.float32)) < UNSURE_CONTRAST))
    others = {"gap": uniform, "fallback": fallback}
    columns = [f"{key} {compared(judge(embed(maps, w)), base)}" for key, w in others.items()]
    print(f"{name:22} unsure {100 * unsure:3.0f} % | border {compared(base)} | ", end="")
    print(" | ".join(columns), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    path = ensure_model(RECORD.name, "fp32", default_model_dir())
    encoder = Encoder(path, RECORD, "border")
    queries, products = (Photos(folder, queries, encoder) for queries in (True, False))
    whole = products.maps(products.images)
    catalogue = embed(whole, border_saliency)
    heads = {"no head": Head.identity(RECORD.dim), "head of 256": fit_head(catalogue, 256)}

    query_maps = queries.maps(queries.images)
    saliency = border_saliency(query_maps.astype(np.float32))
    boxes = {
        f"{part:.0%} crop": [centre_box(image, part) for image in queries.images] for part in CROPS
    }
    boxes["detail"] = [
        detail_box(image, weights) for image, weights in zip(queries.images, saliency, strict=True)
    ]
    changed = {"as it is": query_maps}
    changed |= {name: queries.crops(queries.images, of) for name, of in boxes.items()}
    changed["on a shelf"] = queries.maps(on_a_shelf(queries.images, products.images))
    product_boxes = {
        "50% crop": [centre_box(image, 0.5) for image in products.images],
        "detail": [
            detail_box(image, border_saliency(one[None].astype(np.float32))[0])
            for image, one in zip(products.images, whole, strict=True)
        ],
    }
    of_products = {name: products.crops(products.images, of) for name, of in product_boxes.items()}
    of_products["on a shelf"] = products.maps(on_a_shelf(products.images, products.images[::-1]))
    mosaics, places = map(list, zip(*among_three(queries.images), strict=True))
    by_cells = {name: (query_maps, queries.images, of, changed[name]) for name, of in boxes.items()}
    by_cells["one of four photos"] = (
        queries.maps(mosaics),
        mosaics,
        places,
        queries.crops(mosaics, places),
    )
    for name, head in heads.items():
        index = head.project(catalogue)
        print(f"{name}: P@1 P@10 mAP@10 by category, (z) against border")

        def category(found: Array, head: Head = head, index: Array = index) -> list[Array]:
            return by_category(head.project(found), index, queries.categories, products.categories)

        for change, maps in changed.items():
            report(change, maps, category)
        for change, (maps, images, of, encoded) in by_cells.items():
            cells = category(embed_cells(maps, images, of))
            base = category(embed(encoded, border_saliency))
            print(f"{change:22} by itself {compared(base)} | ", end="")
            print(f"cells of the whole photo {compared(cells, base)}", flush=True)
        print(f"{name}: catalogue photos look for themselves, R@1 MRR")
        for change, maps in of_products.items():
            report(change, maps, lambda found: by_itself(head.project(found), index))  # noqa: B023


if __name__ == "__main__":
    main()
