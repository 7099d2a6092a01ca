"""What the health check finds of faults planted among real photos.

    OPENBLAS_NUM_THREADS=1 python tests/benchmarks/bench_health_photos.py PHOTOS

PHOTOS as in `photo_shop`. All photos are uploaded; then, one after the other, copies of 150 of them
made in one way, 100 photos with a fault of quality, and 100 products under a wrong category. The
whole service runs each time. Pairs of products that share a group count as found. Some 3,000 runs
of the network: three minutes.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
from photo_shop import (
    CATALOGUE,
    FOREVER,
    Clock,
    Row,
    Upload,
    put,
    read_manifest,
    stocked,
    take_away,
    upload_of,
)
from PIL import Image, ImageFilter, ImageOps

from lookalike.services.findings import FindingInfo
from lookalike.wiring import Services

COPIES, FAULTS, SEED = 150, 100, 3

Chance = np.random.Generator
Change = Callable[[Image.Image, Chance], Image.Image]


def cropped(side: float) -> Change:
    def crop(image: Image.Image, chance: Chance) -> Image.Image:
        width, height = int(image.width * side), int(image.height * side)
        left = int(chance.integers(0, image.width - width + 1))
        top = int(chance.integers(0, image.height - height + 1))
        return image.crop((left, top, left + width, top + height))

    return crop


def mirrored_crop(image: Image.Image, chance: Chance) -> Image.Image:
    return ImageOps.mirror(cropped(0.75)(image, chance))


WAYS: dict[str, tuple[Change, int]] = {
    "JPEG at quality 30": (lambda image, _: image, 30),
    "a third of the size": (lambda image, _: image.reduce(3), 85),
    "mirrored": (lambda image, _: ImageOps.mirror(image), 85),
    "cropped to 75 % of the area": (cropped(0.75**0.5), 85),
    "cropped to 75 % of each side": (cropped(0.75), 85),
    "the same, mirrored": (mirrored_crop, 85),
}
QUALITY: dict[str, Change] = {
    "dark": lambda image, _: image.point(lambda value: int(value * 0.18)),
    "blurred": lambda image, _: image.filter(ImageFilter.GaussianBlur(image.width * 0.02)),
    "tiny": lambda image, _: image.resize((90, 120)),
    "near-blank": lambda image, _: Image.new("RGB", image.size, (248, 248, 248)),
}


def changed(upload: Upload, name: str, change: Change, quality: int, chance: Chance) -> Upload:
    image = change(Image.open(io.BytesIO(upload.body)).convert("RGB"), chance)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Upload(f"{name}-{upload.name}", buffer.getvalue(), upload.category)


def checked(services: Services, clock: Clock) -> float:
    """Check the catalogue anew; seconds that it took."""
    clock.ahead_s += 200
    begun = time.perf_counter()
    report = services.health.run(FOREVER, now=True)
    assert report.finished and not report.postponed, report
    return time.perf_counter() - begun


def found(services: Services, kind: str) -> list[FindingInfo]:
    findings: list[FindingInfo] = []
    cursor = None
    while True:
        page = services.findings.page(CATALOGUE, kind, 100, cursor)
        findings += page.findings
        if (cursor := page.cursor) is None:
            return findings


def pairs(services: Services) -> set[tuple[str, ...]]:
    return {
        pair
        for finding in found(services, "near-duplicate")
        for pair in combinations(sorted(item.product_id for item in finding.products), 2)
    }


def measure_copies(services: Services, clock: Clock, chosen: list[Upload]) -> None:
    chance, before = np.random.default_rng(SEED), pairs(services)
    for way, (change, quality) in WAYS.items():
        copies = [changed(item, "copy", change, quality, chance) for item in chosen]
        put(services, copies)
        took = checked(services, clock)
        truth = {
            tuple(sorted((Path(item.name).stem, Path(copy.name).stem)))
            for item, copy in zip(chosen, copies, strict=True)
        }
        got = pairs(services)
        hits = len(got & truth)
        print(
            f"{way:30} recall {hits / len(truth):.3f}, precision "
            f"{hits / max(len(got - before), 1):.3f}, {took:.0f} s"
        )
        take_away(services, copies)


def measure_quality(services: Services, clock: Clock, chosen: list[Upload]) -> None:
    chance = np.random.default_rng(SEED)
    for fault, change in QUALITY.items():
        bad = [changed(item, "bad", change, 90, chance) for item in chosen]
        put(services, bad)
        checked(services, clock)
        listed = found(services, "low-quality")
        names = {Path(item.name).stem for item in bad}
        named = [item for item in listed if item.products[0].product_id in names]
        right = sum(item.code == fault for item in named)
        clean = len(listed) - len(named)
        print(f"{fault:12} {right} of {len(bad)} found as such, {len(named)} in all, {clean} clean")
        take_away(services, bad)


def measure_categories(
    services: Services, clock: Clock, rows: list[Row], folder: Path, numbers: list[int]
) -> None:
    chance = np.random.default_rng(SEED)
    names = sorted({row["category"] for row in rows})
    truth = {}
    for number in numbers:
        row = rows[number]
        wrong = str(chance.choice([name for name in names if name != row["category"]]))
        put(services, [upload_of(row, folder, wrong)])
        truth[Path(row["file"]).stem] = row["category"]
    checked(services, clock)
    listed = found(services, "wrong-category")
    hits = [item for item in listed if item.products[0].product_id in truth]
    told = sum(truth[item.products[0].product_id] == item.evidence["likely"] for item in hits)
    print(
        f"wrong category: recall {len(hits) / len(truth):.2f}, precision "
        f"{len(hits) / max(len(listed), 1):.2f}; the right one is named in {told} of {len(hits)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    folder = parser.parse_args().photos
    rows = read_manifest(folder)
    clock = Clock()
    uploads = [upload_of(row, folder) for row in rows]
    services = stocked(uploads, clock)
    took = checked(services, clock)
    summary = services.findings.summary(CATALOGUE)
    print(f"{len(rows)} photos as they are: {summary.counts}, {took:.0f} s")
    order = np.random.default_rng(SEED).permutation(len(rows)).tolist()
    measure_copies(services, clock, [uploads[number] for number in order[:COPIES]])
    measure_quality(services, clock, [uploads[number] for number in order[:FAULTS]])
    measure_categories(services, clock, rows, folder, order[:FAULTS])


if __name__ == "__main__":
    main()
