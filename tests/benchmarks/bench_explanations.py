"""Measures explanations: time against the grad-cam package, agreement with it, and exactness.

    OPENBLAS_NUM_THREADS=1 python tests/benchmarks/bench_explanations.py FOLDER [--encoder NAME]

FOLDER holds photos and a ``manifest.csv`` as for bench_encoders.py. Every third query is explained
to its nearest product: embeddings and feature maps as the index stores them, with a head fitted on
the products and without. The package explains the same pairs with the same network, pooling and
head in torch: as its documentation uses it (its backward pass goes through the whole network), and
with all weights frozen, so that it stops at the feature map. Times are CPU milliseconds of this
process on one thread, the best of several rounds. Needs torch, torchvision and grad-cam.
"""

from __future__ import annotations

import argparse
import runpy
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_encoders import LIMITS, read_manifest
from pytorch_grad_cam import GradCAM

from lookalike.core.attribution import attribute, pool_cells
from lookalike.core.encoder import Encoder, preprocess
from lookalike.core.encoders import DEFAULT_ENCODER, ENCODERS, EncoderRecord, encoder_record
from lookalike.core.explanation import Cells, explain
from lookalike.core.faithfulness import cell_trust
from lookalike.core.feature_map import decode_map, encode_map
from lookalike.core.head import Head, fit_head
from lookalike.core.images import decode
from lookalike.core.regions import regions
from lookalike.core.segment import dequantize, quantize
from lookalike.modelbuild import ensure_model
from lookalike.models import default_model_dir

REFERENCE = Path(__file__).parents[1] / "torch/test_torch_explanations.py"
HEAD_DIM = 256
FEW = 10

Array = np.ndarray[Any, Any]


def cpu_ms(run: Callable[[], object], rounds: int) -> float:
    """CPU time of one call: the best of several rounds, after one that is not counted."""
    times = []
    for _ in range(rounds + 1):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times[1:]) * 1000


class Photos:
    """Photos encoded once: batches (n, 3, S, S), feature maps, weights and raw embeddings."""

    def __init__(self, encoder: Encoder, paths: Sequence[Path]) -> None:
        self.batch = np.empty((len(paths), 3, *[encoder.record.input_size] * 2), np.float32)
        for row, path in enumerate(paths):
            photo = decode(path.read_bytes(), LIMITS, encoder.min_side)
            self.batch[row] = preprocess([photo.image], encoder.record)[0]
        encoded = encoder.encode(self.batch)
        self.maps, self.weights, self.raw = encoded.maps, encoded.weights, encoded.embeddings

    def cells(self, row: int, embedding: Array) -> Cells:
        """As they are explained: the map as it is stored."""
        maps = decode_map(encode_map(self.maps[row]), "benchmark")
        return Cells(maps, self.weights[row], embedding)


def each(
    explained: Callable[[Cells, Cells, Head], object],
    pairs: Sequence[tuple[Cells, Cells]],
    head: Head,
) -> list[object]:
    """One pair after another."""
    return [explained(query, result, head) for query, result in pairs]


def whole(query: Cells, result: Cells, head: Head) -> object:
    """All that is said of a pair."""
    return explain([query], result, head)


def closed_form(query: Cells, result: Cells, head: Head) -> list[Array]:
    """Both sides' Grad-CAM alone, with the contributions that come along."""
    pooled = pool_cells([query, result], head)
    _, attributions = attribute(pooled[:1], pooled[1], head)
    heats = [np.maximum(attribution.responses, 0) for attribution in attributions]
    return [heat / (heat.max() or 1) for heat in heats]


def measure_exactness(pairs: Sequence[tuple[Cells, Cells]], head: Head) -> None:
    explanations = [explain([query], result, head) for query, result in pairs]
    sums, pulls, residuals = [], [], []
    for (query, result), got in zip(pairs, explanations, strict=True):
        assert query.embedding is not None and result.embedding is not None
        score = float(query.embedding.astype(np.float64) @ result.embedding)
        for side in (got.query[0], got.result):
            sums.append(abs(side.contributions.sum() - score))
            pulls.append(abs(side.pulls.sum()))
            residuals.append(abs(side.residual))
    listed = [sum(match.share or 0 for match in got.matches) for got in explanations]
    fronts = [got.foreground_share for got in explanations if got.foreground_share is not None]
    backs = [got.background_share for got in explanations if got.background_share is not None]
    rows = {
        "contributions − score, worst": f"{max(sums):.1e}",
        "sum of pulls, worst": f"{max(pulls):.1e}",
        "residual (stored map − search), mean / worst": f"{np.mean(residuals):.1e} / "
        f"{max(residuals):.1e}",
        "score, median": f"{np.median([got.score for got in explanations]):.2f}",
        "listed matches, median share of the score": f"{np.median(listed):.0%}",
        "foreground ↔ foreground, median share": f"{np.median(fronts):.0%}",
        "background ↔ background, median share": f"{np.median(backs):.0%}",
    }
    for name, value in rows.items():
        print(f"| {name} | {value} |", flush=True)


def measure_package(
    record: EncoderRecord,
    queries: Photos,
    products: Photos,
    pairs: Sequence[tuple[int, int]],
    head: Head,
) -> None:
    """Agreement on pairs, then times for one and for ten results of one query."""
    reference = runpy.run_path(str(REFERENCE))
    features = reference["features_of"](record)
    apart = 0.0
    for query, product in pairs[:FEW]:
        batch = torch.from_numpy(np.stack([queries.batch[query], products.batch[product]]))
        weights = np.stack([queries.weights[query], products.weights[product]])
        maps, _, (ours, theirs), _ = package(reference, features, batch, weights, head)
        first, second = (Cells(maps[row], weights[row]) for row in range(2))
        for heat, other in zip(closed_form(first, second, head), (ours, theirs), strict=True):
            apart = max(apart, float(np.abs(heat - other).max()))
    print(f"| grad-cam package, worst difference of {2 * FEW} maps | {apart:.1e} |")

    query = pairs[0][0]
    nearest = [product for _, product in pairs[:FEW]]
    for count in (1, FEW):
        photos = [queries.batch[query]] * count + [products.batch[p] for p in nearest[:count]]
        weights = np.stack(
            [queries.weights[query]] * count + [products.weights[p] for p in nearest[:count]]
        )
        batch = torch.from_numpy(np.stack(photos))
        maps, model, _, run = package(reference, features, batch, weights, head)
        documented = cpu_ms(run, 3)
        forward = cpu_ms(partial(model, batch), 3)
        model.feature_map.register_forward_pre_hook(lambda _, given: given[0].requires_grad_())
        model.requires_grad_(False)
        frozen = cpu_ms(run, 3)
        model.requires_grad_(True)
        cells = [Cells(image, weight) for image, weight in zip(maps, weights, strict=True)]
        both = list(zip(cells[:count], cells[count:], strict=True))
        quick = cpu_ms(partial(each, closed_form, both, head), 100)
        full = cpu_ms(partial(each, whole, both, head), 100)
        left = documented - forward
        print(f"\n{count} explanation(s), both sides, ms; ratio to the second row")
        for name, value in (
            ("grad-cam package", documented),
            ("grad-cam package, forward excluded", left),
            ("grad-cam package, weights frozen, with its forward", frozen),
            ("closed form: Grad-CAM and contributions", quick),
            ("explain(): also pulls, foreground, regions, matches", full),
        ):
            print(
                f"| {name} | {value:.2f} | {value / left:.5f} (1/{left / value:.0f}) |", flush=True
            )


def package(
    reference: dict[str, Any], features: Any, batch: Any, weights: Array, head: Head
) -> tuple[Array, Any, Array, Callable[[], Array]]:
    """(maps, model, Grad-CAM on the cells, the call) for a batch of as many queries as results.

    The package takes all of them as one batch, each image towards the one it is paired with.
    """
    with torch.inference_mode():
        maps = features(batch).numpy()
    model = reference["Embedder"](features, weights, head)
    with torch.no_grad():
        embeddings = model(batch)
    count = len(batch) // 2
    targets = [reference["CosineTo"](row) for row in torch.roll(embeddings, count, 0)]
    gradcam = GradCAM(model, [model.feature_map])

    def run() -> Array:
        return np.asarray(gradcam(batch, targets))

    run()
    grads = gradcam.activations_and_grads.gradients[0].numpy()
    raw = gradcam.get_cam_image(batch, model.feature_map, targets, maps, grads)
    heats = np.maximum(raw, 0).reshape(len(batch), -1)
    return maps, model, heats / np.maximum(heats.max(axis=1, keepdims=True), 1e-30), run


def measure(record: EncoderRecord, folder: Path) -> None:
    rows, count, _ = read_manifest(folder)
    encoder = Encoder(ensure_model(record.name, "fp32", default_model_dir()), record, "border")
    queries = Photos(encoder, [folder / row["file"] for row in rows[:count:3]])
    products = Photos(encoder, [folder / row["file"] for row in rows[count::2]])
    stored = dequantize(*quantize(products.raw))
    for name, head in (
        ("head of 256", fit_head(stored, HEAD_DIM)),
        ("no head", Head.identity(record.dim)),
    ):
        asked, indexed = head.project(queries.raw), head.project(stored)
        nearest = (asked @ indexed.T).argmax(axis=1)
        pairs = [(row, int(product)) for row, product in enumerate(nearest)]
        cells = [
            (queries.cells(query, asked[query]), products.cells(product, indexed[product]))
            for query, product in pairs
        ]
        print(f"\n{record.name}, {name}, {len(pairs)} pairs")
        measure_exactness(cells, head)
        (first, second), target = cells[0], indexed[nearest[0]]
        heat = explain([first], second, head).query[0].gradcam
        divided = cpu_ms(partial(regions, first.maps, heat >= 0), 50)
        judged = cpu_ms(partial(cell_trust, first, target, head, heat), 50)
        print(f"| regions of a map, ms | {divided:.2f} |")
        print(f"| trust of a map, ms | {judged:.2f} |")
        measure_package(record, queries, products, pairs, head)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", choices=sorted(ENCODERS), default=DEFAULT_ENCODER)
    options = parser.parse_args()
    torch.set_num_threads(1)
    measure(encoder_record(options.encoder), options.folder)


if __name__ == "__main__":
    main()
