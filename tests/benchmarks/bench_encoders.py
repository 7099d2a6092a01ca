"""Measures the encoders: CPU per stage, int8 fidelity, retrieval, and what decoding smaller costs.

    python tests/benchmarks/bench_encoders.py cpu      FOLDER [--encoder NAME] [--images 100]
    python tests/benchmarks/bench_encoders.py fidelity FOLDER [--encoder NAME]
    python tests/benchmarks/bench_encoders.py head     FOLDER [--encoder NAME]
    python tests/benchmarks/bench_encoders.py draft    FOLDER [--encoder NAME] [--images 24]

FOLDER holds photos and, for ``fidelity`` and ``head``, a ``manifest.csv`` (file, split, product_id,
category) whose ``queries`` split is searched for in the rest. Times are CPU milliseconds of this
process on one thread: set OPENBLAS_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import csv
import io
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lookalike.core.encoder import Encoder, preprocess
from lookalike.core.encoders import DEFAULT_ENCODER, ENCODERS, EncoderRecord, encoder_record
from lookalike.core.head import Head, fit_head
from lookalike.core.images import ImageLimits, decode, thumbnail_webp
from lookalike.core.metrics import mean_average_precision_at_k
from lookalike.core.pooling import POOLINGS, border_saliency, pool
from lookalike.core.segment import dequantize, quantize
from lookalike.modelbuild import ensure_model
from lookalike.models import default_model_dir

LIMITS = ImageLimits(25_000_000, 100_000_000)
K = 10
HEAD_DIMS = (512, 256, 128, 64)


def cpu_ms(run: Callable[[Any], object], items: Sequence[Any], repeats: int = 5) -> float:
    """CPU time of one call: the best of several rounds over all items."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        for item in items:
            run(item)
        best = min(best, time.process_time() - start)
    return best / len(items) * 1000


def photo_files(folder: Path, count: int | None = None) -> list[bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg"})
    step = max(1, len(paths) // count) if count else 1
    return [path.read_bytes() for path in paths[::step][:count]]


def measure_cpu(record: EncoderRecord, precision: str, folder: Path, count: int) -> None:
    encoder = Encoder(ensure_model(record.name, precision, default_model_dir()), record, "border")
    files = photo_files(folder, count)
    photos = [decode(data, LIMITS, encoder.min_side) for data in files]
    single = [preprocess([photo.image], record) for photo in photos]
    tens = [np.concatenate(single[i : i + 10]) for i in range(0, len(single) - 9, 10)]
    session = encoder._session
    maps = encoder.feature_maps(single[0])
    weights = border_saliency(maps)

    def bare(batch: Any) -> object:
        return session.run(None, {"images": batch})

    def whole(batch: Sequence[bytes]) -> object:
        batch_photos = [decode(data, LIMITS, encoder.min_side) for data in batch]
        encoded = encoder.embed([photo.image for photo in batch_photos])
        return encoded, [thumbnail_webp(photo) for photo in batch_photos]

    rows = {
        "Pillow decode alone": cpu_ms(lambda d: Image.open(io.BytesIO(d)).load(), files),
        "ONNX alone, 1 a run": cpu_ms(bare, single),
        "ONNX alone, 10 a run": cpu_ms(bare, tens) / 10 if tens else float("nan"),
        "decode": cpu_ms(lambda d: decode(d, LIMITS, encoder.min_side), files),
        "preprocess": cpu_ms(lambda p: preprocess([p.image], record), photos),
        "feature map": cpu_ms(encoder.feature_maps, single),
        "border saliency": cpu_ms(border_saliency, [maps] * count),
        "pool": cpu_ms(lambda m: pool(m, weights), [maps] * count),
        "thumbnail": cpu_ms(thumbnail_webp, photos),
        "decode + embed + thumbnail, 10 a batch": cpu_ms(
            whole, [files[i : i + 10] for i in range(0, len(files) - 9, 10)]
        )
        / 10,
    }
    print(f"\n{record.name} {precision}, {len(files)} photos, CPU ms an image")
    for name, value in rows.items():
        print(f"| {name} | {value:.2f} |")
    bare_ms = rows["Pillow decode alone"] + rows["ONNX alone, 1 a run"]
    print(
        f"| ratio to Pillow alone + ONNX alone, 1 a run | {list(rows.values())[-1] / bare_ms:.2f} |"
    )


def measure_fidelity(record: EncoderRecord, folder: Path) -> None:
    rows, queries, categories = read_manifest(folder)
    embeddings: dict[tuple[str, str], np.ndarray[Any, Any]] = {}
    for precision in ("fp32", "int8"):
        path = ensure_model(record.name, precision, default_model_dir())
        encoder = Encoder(path, record, "gap")
        start = time.process_time()
        for pooling, values in _embed_all(encoder, (folder / row["file"] for row in rows)).items():
            embeddings[precision, pooling] = values
        rate = len(rows) / (time.process_time() - start)
        print(f"\n{record.name} {precision}: {rate:.0f} images/s of CPU with decoding", flush=True)
    for pooling in POOLINGS:
        exact, quantized = embeddings["fp32", pooling], embeddings["int8", pooling]
        cosines = (exact * quantized).sum(axis=1)
        low = np.percentile(cosines, 1)
        print(f"{pooling}: cosine to fp32 mean {cosines.mean():.4f}, 1st percentile {low:.4f}")
        for label, q, c in (
            ("fp32 → fp32", exact, exact),
            ("int8 → int8", quantized, quantized),
            ("int8 → fp32", quantized, exact),
        ):
            scores = retrieval(q[:queries], c[queries:], categories[:queries], categories[queries:])
            print(f"| {label} | {' / '.join(f'{100 * score:.1f}' for score in scores)} |")


def read_manifest(folder: Path) -> tuple[list[dict[str, str]], int, np.ndarray[Any, Any]]:
    """The rows, queries first; how many queries there are; each row's category."""
    with (folder / "manifest.csv").open(newline="") as stream:
        rows = sorted(csv.DictReader(stream), key=lambda row: row["split"] != "queries")
    queries = sum(row["split"] == "queries" for row in rows)
    return rows, queries, np.array([row["category"] for row in rows])


def measure_head(record: EncoderRecord, folder: Path) -> None:
    """Retrieval as the index has it: raw rows in int8, then through heads fitted on them."""
    rows, queries, categories = read_manifest(folder)
    encoder = Encoder(ensure_model(record.name, "fp32", default_model_dir()), record, "gap")
    for pooling, raw in _embed_all(encoder, (folder / row["file"] for row in rows)).items():
        stored = dequantize(*quantize(raw[queries:]))
        heads = {"none": Head.identity(record.dim)}
        heads |= {f"centred, PCA to {dim}": fit_head(stored, dim) for dim in HEAD_DIMS}
        print(f"\n{record.name} {pooling}, {queries} queries, {len(stored)} products")
        print("| head | bytes a row in SQ8 | P@1 / P@10 / mAP@10 |")
        for label, head in heads.items():
            scores = retrieval(
                head.project(raw[:queries]),
                head.project(stored),
                categories[:queries],
                categories[queries:],
            )
            quality = " / ".join(f"{100 * score:.1f}" for score in scores)
            print(f"| {label} | {head.dim_out} | {quality} |", flush=True)


def _embed_all(encoder: Encoder, paths: Iterable[Path]) -> dict[str, np.ndarray[Any, Any]]:
    found: dict[str, list[np.ndarray[Any, Any]]] = {pooling: [] for pooling in POOLINGS}
    for path in paths:
        photo = decode(path.read_bytes(), LIMITS, encoder.min_side)
        maps = encoder.embed([photo.image]).maps
        for pooling, weigh in POOLINGS.items():
            found[pooling].append(pool(maps, weigh(maps)))
    return {pooling: np.concatenate(values) for pooling, values in found.items()}


def retrieval(
    queries: np.ndarray[Any, Any],
    catalogue: np.ndarray[Any, Any],
    wanted: np.ndarray[Any, Any],
    categories: np.ndarray[Any, Any],
) -> tuple[float, float, float]:
    """(precision@1, precision@10, mAP@10 of the found), as ``lookalike eval`` defines them."""
    ranked = np.argsort(-(queries @ catalogue.T), axis=1)[:, :K]
    relevant = categories[ranked] == wanted[:, None]
    average = mean_average_precision_at_k([(row, None) for row in relevant], K)
    return float(relevant[:, 0].mean()), float(relevant.mean()), average


def measure_draft(record: EncoderRecord, folder: Path, count: int) -> None:
    """Photos scaled up to 12 megapixels, decoded whole and decoded smaller."""
    encoder = Encoder(ensure_model(record.name, "fp32", default_model_dir()), record, "border")
    sources = [decode(data, LIMITS).image for data in photo_files(folder, count)]
    for kind, options in (("JPEG", {"quality": 90}), ("PNG", {"compress_level": 1})):
        files = []
        for image in sources if kind == "JPEG" else sources[: max(1, count // 4)]:
            side = (12e6 / (image.width * image.height)) ** 0.5
            large = image.resize(
                (round(image.width * side), round(image.height * side)), Image.Resampling.LANCZOS
            )
            stream = io.BytesIO()
            large.save(stream, kind, **options)
            files.append(stream.getvalue())
        whole = encoder.embed([decode(data, LIMITS).image for data in files]).embeddings
        small = encoder.embed(
            [decode(data, LIMITS, encoder.min_side).image for data in files]
        ).embeddings
        cosines = (whole * small).sum(axis=1)
        slow = cpu_ms(lambda d: decode(d, LIMITS), files, 1)
        fast = cpu_ms(lambda d: decode(d, LIMITS, encoder.min_side), files, 1)
        print(
            f"| {kind} 12 MP | {slow:.0f} → {fast:.0f} ms | cosine mean {cosines.mean():.4f}, "
            f"min {cosines.min():.4f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", choices=["cpu", "fidelity", "head", "draft"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", choices=sorted(ENCODERS), default=DEFAULT_ENCODER)
    parser.add_argument("--images", type=int, default=24)
    options = parser.parse_args()
    record = encoder_record(options.encoder)
    if options.what == "fidelity":
        measure_fidelity(record, options.folder)
    elif options.what == "head":
        measure_head(record, options.folder)
    elif options.what == "draft":
        measure_draft(record, options.folder, options.images)
    else:
        for precision in ("fp32", "int8"):
            measure_cpu(record, precision, options.folder, options.images)


if __name__ == "__main__":
    main()
