"""Measures what calibrated scores are worth on photos (docs/scores.md).

    OPENBLAS_NUM_THREADS=1 python tests/benchmarks/bench_calibration.py PHOTOS [FOREIGN]

PHOTOS has a ``manifest.csv`` (file, split, product_id, category): the catalogue is uploaded and
calibrated, photos of the ``queries`` split are searched with. So are photos of FOREIGN, a folder of
anything else, noise, textures, pages of text, and the drawn catalogue of ``data.sample`` without
its clothes. Categories are then left out of the catalogue one by one, and searched for: what is not
there, but is like what is. With several drawings of queries and catalogue, and with photos of
bursts put in, what the fit does about both is measured. Some 1,900 runs of the network: a minute.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from photo_shop import FOREVER, Clock, Row, read_manifest, stocked, upload_of
from PIL import Image, ImageDraw

from data.sample import products, render
from lookalike.core.calibration import (
    ScoreMap,
    calibration_error,
    fit_score_map,
    fit_subspace,
)
from lookalike.core.calibration_pairs import (
    RESULTS,
    Pairs,
    Relevance,
    best_of_products,
    by_chance,
    cross_fitted_pairs,
)
from lookalike.core.encoder import Encoder
from lookalike.core.encoders import DEFAULT_ENCODER, encoder_record
from lookalike.core.head import Head, fit_head
from lookalike.core.segment import Float32
from lookalike.modelbuild import ensure_model
from lookalike.models import default_model_dir
from lookalike.services.query import SearchResponse
from lookalike.services.search_request import QueryInput, SearchRequest
from lookalike.wiring import Services

CLOTHES = {"sneaker", "boot", "hat", "t-shirt", "handbag", "backpack"}
CATEGORY = Relevance("category")
SPLITS = 8
DIM = 256


@dataclass
class Photos:
    """Embeddings of photos with their categories."""

    raw: Float32
    categories: list[str]

    def some(self, numbers: Iterable[int]) -> Photos:
        chosen = list(numbers)
        return Photos(self.raw[chosen], [self.categories[number] for number in chosen])

    def __len__(self) -> int:
        return len(self.raw)


def embedded(images: Iterable[Image.Image], encoder: Encoder) -> Float32:
    """(n, dim) raw embeddings, read one by one."""
    return np.concatenate([encoder.embed([image.convert("RGB")]).embeddings for image in images])


def read(folder: Path) -> tuple[list[Row], list[Row]]:
    rows = read_manifest(folder)
    return (
        [row for row in rows if row["split"] != "queries"],
        [row for row in rows if row["split"] == "queries"],
    )


def textures(count: int = 20) -> dict[str, list[Image.Image]]:
    """Images of nothing: noise, blobs, stripes, gradients, text."""
    rng = np.random.default_rng(0)
    found: dict[str, list[Image.Image]] = {}
    ys, xs = np.mgrid[:300, :300]
    for _ in range(count):
        noise = rng.integers(0, 256, (300, 300, 3), dtype=np.uint8)
        found.setdefault("noise", []).append(Image.fromarray(noise))
        side = int(rng.integers(3, 40))
        blobs = Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8))
        found.setdefault("blobs", []).append(blobs.resize((300, 300), Image.Resampling.BICUBIC))
        across, down = rng.uniform(0.05, 0.6, 2)
        waves = np.sin(xs * across + ys * down)[..., None] * 100 + 128
        stripes = np.clip(waves * rng.uniform(0.3, 1, 3), 0, 255).astype(np.uint8)
        found.setdefault("stripes", []).append(Image.fromarray(stripes))
        first, last = rng.integers(0, 256, (2, 3))
        at = np.linspace(0, 1, 300)[:, None, None]
        gradient = np.broadcast_to(first * (1 - at) + last * at, (300, 300, 3)).astype(np.uint8)
        found.setdefault("gradients", []).append(Image.fromarray(gradient))
        page = Image.new("RGB", (400, 400), "white")
        for line in range(25):
            words = "".join(chr(int(code)) for code in rng.integers(97, 123, 60))
            ImageDraw.Draw(page).text((10, 10 + 15 * line), words, fill="black")
        found.setdefault("text", []).append(page)
    return found


def drawn() -> list[Image.Image]:
    kept = [product for product in products() if product.category not in CLOTHES]
    return [render(product, product.views[0]) for product in kept[::2]]


def pairs_of(queries: Photos, catalogue: Photos, head: Head) -> Pairs:
    """The first results of each query."""
    pairs = Pairs()
    scores = head.project(queries.raw) @ head.project(catalogue.raw).T
    for number, row in enumerate(scores):
        order = np.argsort(-row)[:RESULTS]
        near = best_of_products(
            row[order],
            [str(item) for item in order],
            [catalogue.categories[item] for item in order],
            queries.categories[number],
        )
        for rank, (score, good) in enumerate(near, 1):
            pairs.add(number, score, good, rank)
    return pairs


def fitted(catalogue: Photos, head: Head, owners: Sequence[str] | None = None) -> ScoreMap:
    owners = owners or [str(number) for number in range(len(catalogue))]
    pairs = cross_fitted_pairs(
        catalogue.raw, owners, catalogue.categories, head, CATEGORY, range(len(catalogue))
    )
    chance = by_chance(head.project(catalogue.raw), catalogue.categories)
    found = fit_score_map(pairs.scores, pairs.good, chance)
    assert found is not None
    return found


def plain(catalogue: Photos, head: Head) -> ScoreMap:
    """Leave-one-out with the head that the photos were fitted into."""
    owners = [str(number) for number in range(len(catalogue))]
    rows = head.project(catalogue.raw)
    pairs = cross_fitted_pairs(
        rows, owners, catalogue.categories, Head.identity(head.dim_out), CATEGORY, range(len(rows))
    )
    found = fit_score_map(pairs.scores, pairs.good)
    assert found is not None
    return found


def burst(catalogue: Photos, share: float = 0.2, times: int = 5) -> Photos:
    """The catalogue with photos taken again, moments later, as products of their own."""
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(catalogue))[: int(share * len(catalogue))]
    again = catalogue.some(chosen.tolist() * times)
    noise = rng.normal(size=again.raw.shape).astype(np.float32)
    moved = again.raw + 0.12 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    moved /= np.linalg.norm(moved, axis=1, keepdims=True)
    return Photos(
        np.concatenate([catalogue.raw, moved]), [*catalogue.categories, *again.categories]
    )


def print_curve(score_map: ScoreMap, pairs: Pairs) -> None:
    scores, good = np.asarray(pairs.scores), np.asarray(pairs.good)
    matches = score_map.match(scores)
    print(f"{'match said':>12} {'score':>7} {'results':>8} {'good':>6}")
    for low in np.arange(0, 1, 0.1):
        here = (matches >= low) & (matches < low + 0.1)
        if here.any():
            print(
                f"{matches[here].mean():12.3f} {scores[here].mean():7.3f} {here.sum():8d} "
                f"{good[here].mean():6.3f}"
            )


def error(score_map: ScoreMap, pairs: Pairs) -> float:
    return calibration_error(score_map.match(pairs.scores), pairs.good)


def measure_splits(photos: Photos, queries: int) -> None:
    """Random divisions into catalogue and queries: the choice of queries decides a good deal."""
    found = []
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(photos)).tolist()
        asked, catalogue = photos.some(order[:queries]), photos.some(order[queries:])
        head = fit_head(catalogue.raw, DIM)
        pairs = pairs_of(asked, catalogue, head)
        cosine = calibration_error(np.clip(pairs.scores, 0, 1), pairs.good)
        maps = plain(catalogue, head), fitted(catalogue, head)
        bias = [float(np.mean(item.match(pairs.scores)) - np.mean(pairs.good)) for item in maps]
        found.append([cosine, *(error(item, pairs) for item in maps), *bias])
    mean, spread = np.mean(found, axis=0), np.std(found, axis=0)
    names = ("cosine", "one head", "cross-fitted", "bias, one head", "bias, cross-fitted")
    print(f"calibration error of {SPLITS} drawings of {queries} queries")
    for name, value, deviation in zip(names, mean, spread, strict=True):
        print(f"  {name:20} {value:7.4f} ± {deviation:.4f}")


def measure_bursts(catalogue: Photos, queries: Photos) -> None:
    import lookalike.core.calibration_pairs as module

    crowded = burst(catalogue)
    head = fit_head(crowded.raw, DIM)
    pairs = pairs_of(queries, catalogue, head)
    kept = error(fitted(crowded, head), pairs)
    known, module.SAME_PHOTO_SCORE = module.SAME_PHOTO_SCORE, 2.0
    try:
        counted = error(fitted(crowded, head), pairs)
    finally:
        module.SAME_PHOTO_SCORE = known
    print("with a fifth of the photos in bursts of six:")
    print(f"  error {kept:.4f} with them left out, {counted:.4f} with them in")


def measure_absent(photos: Photos) -> None:
    """A category that the catalogue does not have: how often it is called foreign."""
    refused, areas, low = [], [], []
    for name in sorted(set(photos.categories)):
        has = [number for number, item in enumerate(photos.categories) if item != name]
        catalogue = photos.some(has[: int(0.8 * len(has))])
        genuine = photos.some(has[int(0.8 * len(has)) :])
        absent = photos.some(
            number for number, item in enumerate(photos.categories) if item == name
        )
        subspace = fit_subspace(catalogue.raw, np.arange(len(catalogue)))
        assert subspace is not None
        away, near = subspace.residuals(absent.raw), subspace.residuals(genuine.raw)
        refused.append((away > subspace.threshold).mean())
        areas.append((away[:, None] > near[None, :]).mean())
        head = fit_head(catalogue.raw, DIM)
        best = (head.project(absent.raw) @ head.project(catalogue.raw).T).max(axis=1)
        low.append((fitted(catalogue, head).match(best) < 0.5).mean())
    print(
        f"a category that is not there: {np.mean(refused):.3f} called foreign (AUC "
        f"{np.mean(areas):.2f}), {np.mean(low):.3f} of low confidence"
    )


def searched(folder: Path, foreign: dict[str, list[bytes]]) -> None:
    """All of it through the services: uploads, calibration, searches."""
    rows, asked = read(folder)
    clock = Clock()
    services = stocked((upload_of(row, folder) for row in rows), clock)
    took = {"before": searches(services, asked, folder)[0]}
    begun = time.perf_counter()
    report = services.calibrate.run(FOREVER, now=True)
    print(f"calibrated in {time.perf_counter() - begun:.1f} s: {report.catalogues[0].summary}")
    clock.ahead_s += 10
    services.recluster.run(FOREVER, now=True)
    clock.ahead_s += 10
    services.query.generation("shop")
    searches(services, asked[:1], folder)
    time.sleep(0.5)
    took["after"], found = searches(services, asked, folder)
    for name, spent in took.items():
        print(f"search p50 {name}: {np.median(spent):.2f} ms without decoding and encoding")
    judging = np.median([response.took_ms["judge"] for response in found])
    print(f"of that judging, with clusters: {judging:.3f} ms")
    verdicts = [str(response.verdict) for response in found]
    print("genuine:", {item: verdicts.count(item) for item in sorted(set(verdicts))})
    for verdict in sorted(set(verdicts)):
        good = [
            response.results[0].category == row["category"]
            for response, row in zip(found, asked, strict=True)
            if str(response.verdict) == verdict
        ]
        print(f"  first result of “{verdict}” is good: {np.mean(good):.3f} of {len(good)}")
    for kind, bodies in foreign.items():
        refused = np.mean([search(services, body).verdict == "no_good_match" for body in bodies])
        print(f"{kind:12} refused {refused:.3f} of {len(bodies)}")


def search(services: Services, body: bytes) -> SearchResponse:
    return services.query.search(SearchRequest("shop", (QueryInput(image=body),), explain=False))


def searches(
    services: Services, asked: list[Row], folder: Path
) -> tuple[list[float], list[SearchResponse]]:
    """Milliseconds without decoding and encoding, and the answers."""
    found = [search(services, (folder / row["file"]).read_bytes()) for row in asked]
    took = [item.took_ms for item in found]
    return [item["total"] - item["decode"] - item["encode"] for item in took], found


def as_bytes(images: Iterable[Image.Image]) -> list[bytes]:
    found = []
    for image in images:
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("foreign", type=Path, nargs="?")
    given = parser.parse_args()
    record = encoder_record(DEFAULT_ENCODER)
    encoder = Encoder(ensure_model(record.name, "fp32", default_model_dir()), record, "border")
    rows, asked = read(given.photos)
    images = (Image.open(given.photos / row["file"]) for row in [*rows, *asked])
    photos = Photos(embedded(images, encoder), [row["category"] for row in [*rows, *asked]])
    catalogue = photos.some(range(len(rows)))
    queries = photos.some(range(len(rows), len(photos)))
    head = fit_head(catalogue.raw, DIM)
    pairs = pairs_of(queries, catalogue, head)
    score_map = fitted(catalogue, head)
    print(f"{len(catalogue)} photos, {len(queries)} queries")
    cosine = calibration_error(np.clip(pairs.scores, 0, 1), pairs.good)
    print(f"calibration error: cosine {cosine:.4f}, match {error(score_map, pairs):.4f}")
    print_curve(score_map, pairs)
    measure_splits(photos, len(queries))
    measure_bursts(catalogue, queries)
    measure_absent(photos)
    foreign = {kind: as_bytes(images) for kind, images in textures().items()}
    foreign["drawn"] = as_bytes(drawn())
    if given.foreign is not None:
        files = sorted(path for path in given.foreign.iterdir() if path.is_file())
        foreign["photos"] = as_bytes(map(Image.open, files))
    searched(given.photos, foreign)


if __name__ == "__main__":
    main()
