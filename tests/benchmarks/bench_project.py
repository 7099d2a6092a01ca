"""The map: how true it is, how far it moves, what it costs.

``python tests/benchmarks/bench_project.py photos EMBEDDINGS.npz`` (an array ``raw`` of embeddings,
one a product) compares layouts and placements, each with one that is made from nothing.
``python tests/benchmarks/bench_project.py synthetic --products 200000`` runs the service on stores
in memory: first map, arrivals, and a map made anew after a tenth has come.
"""

from __future__ import annotations

import argparse
import json
import logging
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from lookalike.adapters.memory import memory_stores_of
from lookalike.core.head import encode_head, fit_head
from lookalike.core.keys import content_digest, head_key
from lookalike.core.placement import Anchors, Float32, Float64, nearest, radius, weighted_medoid
from lookalike.core.projection import (
    WARM_ITERATIONS,
    Descent,
    Start,
    affinities_of,
    aligned,
    descend,
    fit_basis,
    neighbour_graph,
    principal_plane,
    start_of,
)
from lookalike.core.projection_quality import movement, trustworthiness
from lookalike.core.segment import Row
from lookalike.core.types import Counts, Generation, Lineage, Product, View
from lookalike.services.append import append_rows
from lookalike.services.jobs import Run
from lookalike.services.map_reader import MapReader
from lookalike.settings import Settings
from lookalike.wiring_project import build_project

DIM = 1280
PERPLEXITY = 30.0
CATALOGUE = "bench"
SPACE = "efficientnet-lite2-border-v1"
FILE_ROWS = 8_192


def laid_out(
    embeddings: Float32, start: Callable[[Float32], Start], iterations: int | None = None
) -> tuple[Anchors, Float64, float]:
    """A t-SNE layout from a start; anchors of radius one, the layout itself, and CPU seconds."""
    begun = time.process_time()
    basis = fit_basis(embeddings)
    coordinates = basis.project(embeddings)
    affinities = affinities_of(neighbour_graph(coordinates, PERPLEXITY), PERPLEXITY, 1)
    descent = Descent.begin(start(coordinates))
    descent.iterations = iterations or descent.iterations
    descend(affinities, descent, descent.iterations, 1)
    took = time.process_time() - begun
    numbers = hashes(len(embeddings))
    nowhere = np.zeros(len(embeddings), dtype=bool)
    positions = aligned(descent.positions, np.zeros_like(descent.positions), nowhere)
    return Anchors(numbers, basis, coordinates, positions), descent.positions, took


def hashes(count: int) -> Any:
    return np.random.default_rng(0).integers(0, 2**63, 2_000_000).astype(np.uint64)[:count]


def from_nothing(coordinates: Float32) -> Start:
    none = np.zeros(len(coordinates), dtype=bool)
    return start_of(coordinates, np.zeros((len(coordinates), 2)), none)


def of_photos(path: Path, seeds: int) -> dict[str, Any]:
    """A tenth more products, laid out anew and placed, over some draws."""
    raw = np.load(path)["raw"].astype(np.float32)
    embeddings = fit_head(raw, 256).project(raw)
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(embeddings))
        mixed = embeddings[order]
        old = int(len(mixed) / 1.1)
        before, layout, took = laid_out(mixed[:old], from_nothing)
        note("first map: CPU s", took)
        truth = fit_basis(mixed).project(mixed)
        everyone, newcomers = np.arange(len(mixed)), np.arange(old, len(mixed))
        known, is_placed = before.place(hashes(len(mixed)), mixed)
        was = ~is_placed
        assert was.sum() == old
        note("placed: trustworthiness of new points", trustworthiness(truth, known, newcomers))
        rows, cosines = nearest(before.basis.project(mixed[old:]), before.coordinates, 10)
        for name, at in _other_places(before, rows, cosines).items():
            there = known.copy()
            there[old:] = at
            note(f"{name}: trustworthiness of new points", trustworthiness(truth, there, newcomers))
        scale = radius(layout)
        ways: dict[str, tuple[Callable[[Float32], Start], int | None]] = {
            "from nothing": (from_nothing, None),
        }
        for steps in (50, WARM_ITERATIONS, 250, 500):
            warm = Start(known * scale, steps)
            ways[f"from before, {steps} steps"] = (lambda _, warm=warm: warm, steps)
        for name, (start, steps) in ways.items():
            _, positions, took = laid_out(mixed, start, steps)
            after = aligned(positions, known, was)
            note(f"{name}: trustworthiness", trustworthiness(truth, after, everyone))
            note(f"{name}: of new points", trustworthiness(truth, after, newcomers))
            note(f"{name}: moved", movement(after, known, was))
            largest = float(np.linalg.norm(known[was] - known[was].mean(axis=0), axis=1).max())
            steps_moved = np.linalg.norm(after[was] - known[was], axis=1).mean()
            note(f"{name}: moved, of the largest radius", float(steps_moved) / largest)
            note(f"{name}: CPU s", took)
        note("PCA: trustworthiness", trustworthiness(truth, principal_plane(truth), everyone))
    return {"products": len(raw)} | {key: round(float(np.mean(v)), 4) for key, v in found.items()}


def _other_places(before: Anchors, rows: Any, cosines: Float32) -> dict[str, Float64]:
    """Where neighbours say that new products belong, other than by their weighted medoid."""
    at = before.positions[rows]
    weights = np.exp((cosines - cosines[:, :1]) / 0.1)[..., None]
    medoid = weighted_medoid(at, cosines)
    return {
        "on the medoid itself": at[np.arange(len(at)), medoid],
        "nearest neighbour": at[:, 0],
        "weighted mean": (at * weights).sum(axis=1) / weights.sum(axis=1),
    }


class Vectors:
    """Embeddings of groups of groups, drawn by number: the same for the same number."""

    def __init__(self, groups: int) -> None:
        rng = np.random.default_rng(0)
        coarse = rng.normal(size=(40, 64)).astype(np.float32)
        self._fine = coarse[rng.integers(0, 40, groups)]
        self._fine += 0.5 * rng.normal(size=(groups, 64)).astype(np.float32)
        self._basis = rng.normal(size=(64, DIM)).astype(np.float32) / 8
        self._mean = rng.normal(size=DIM).astype(np.float32)

    def block(self, start: int, count: int) -> Float32:
        """(count, DIM) float32, L2-normalised."""
        rng = np.random.default_rng([1, start])
        latent = self._fine[rng.integers(0, len(self._fine), count)]
        latent = latent + 0.4 * rng.normal(size=latent.shape).astype(np.float32)
        rows = latent @ self._basis + self._mean
        rows += 0.3 * rng.normal(size=rows.shape).astype(np.float32)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


@contextmanager
def measured(report: dict[str, Any], name: str) -> Iterator[None]:
    """Notes seconds and the most memory beside what was there before."""
    base = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    begun, cpu = time.perf_counter(), time.process_time()
    yield
    report[name] = {
        "s": round(time.perf_counter() - begun, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "peak_mb_beside_the_stores": round((_status("VmHWM") - base) / 1e3),
    }


def _status(field: str) -> int:
    """A number of kB in /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Bench:
    """The service on a synthetic catalogue."""

    def __init__(self, slice_s: float, rows: int) -> None:
        self.stores = memory_stores_of(time.time)
        self.settings = replace(Settings(), map_rows=rows)
        self.slice_s = slice_s
        self.vectors = Vectors(2_000)
        self.generation = Generation(CATALOGUE, "g1", SPACE)
        self.count = 0
        self.stores.lineages.put(Lineage(CATALOGUE, self.generation))
        self.phases: list[tuple[str, float]] = []

    def fit_head(self) -> None:
        body = encode_head(fit_head(self.vectors.block(0, 20_000), 256))
        digest = content_digest(body)
        self.stores.index.put(head_key(CATALOGUE, digest), body, "")
        _, manifest = self.stores.registry.read(self.generation.scope)
        self.stores.registry.put_manifest(replace(manifest, head=digest))

    def fill(self, products: int) -> None:
        """So many more products, committed an hour ago."""
        while products:
            count = min(products, FILE_ROWS)
            embeddings = self.vectors.block(self.count, count)
            rows = []
            for number, embedding in enumerate(embeddings, self.count):
                key = f"{CATALOGUE}/product-{number:07d}/front.jpg"
                version = f"{number:016x}"
                rows.append(Row(key, version, embedding, {}))
                facts = {"title": f"Product number {number}", "category": f"kind {number % 40}"}
                view = View(
                    key,
                    version,
                    version,
                    "",
                    0,
                    1,
                    1,
                    f"thumbnails/{version * 2}.webp",
                    0,
                    0,
                    facts,
                )
                product = Product(CATALOGUE, f"product-{number:07d}", "g1", {key: view})
                self.stores.products.put(product)
            append_rows(
                self.stores.index,
                self.stores.registry,
                [self.generation],
                {SPACE: rows},
                time.time() - 3_600,
            )
            self.count += count
            products -= count
        self.stores.counts.set(CATALOGUE, Counts(products=self.count))

    def project(self, now: bool = False, settle_s: float = 90.0) -> dict[str, Any]:
        """Run slice after slice until all is done; gives the summary."""
        numbers = iter(range(10**6))
        settings = replace(self.settings, settle_s=settle_s)
        service = build_project(settings, self.stores, lambda: f"{next(numbers):026d}{self.count}")
        slices = 0
        while True:
            report = service.run(time.time() + self.slice_s, CATALOGUE, now=now)
            slices += 1
            now = False
            assert not report.postponed, report.postponed
            if report.finished:
                return dict(report.catalogues[0].summary) | {"slices": slices}


def synthetic(products: int, slice_s: float, rows: int) -> dict[str, Any]:
    """First map, arrivals, a map made anew, and what reading it costs."""
    bench = Bench(slice_s, rows)
    bench.fit_head()
    bench.fill(products)
    report: dict[str, Any] = {"products": products, "map_rows": rows}
    _time_phases(report)
    with measured(report, "first map"):
        report["first map: summary"] = bench.project(now=True)
    report["first map: phases"] = _phases_of(report)
    bench.fill(1_000)
    with measured(report, "a thousand arrivals"):
        # Rows of an hour ago count as new within that time.
        report["arrivals: summary"] = bench.project(settle_s=1e9)
    bench.fill(products // 10 - 1_000)
    with measured(report, "made anew with a tenth more"):
        report["anew: summary"] = bench.project(now=True)
    report["anew: phases"] = _phases_of(report)
    with measured(report, "the dashboard reads it"):
        found = MapReader(bench.stores).read(CATALOGUE)
    assert found is not None and len(found) == bench.count
    with measured(report, "details of a point"):
        MapReader(bench.stores).details(found, 12_345)
    made = found.artifact
    parts = found.files[0].head
    stored = bench.stores.index.get(made.key, 10**10)
    assert stored is not None
    report["file_mb"] = round(stored[0].size_bytes / 1e6, 1)
    report["points_mb"] = round(sum(part.length for part in parts.points) / 1e6, 1)
    del report["_phases"]
    return report


def _time_phases(report: dict[str, Any]) -> None:
    """From now on note when each run enters a phase."""
    report["_phases"] = []
    save, begin = Run.save, Run.begin

    def saved(run: Run, **changes: Any) -> None:
        save(run, **changes)
        report["_phases"].append((run.job.phase, time.perf_counter()))

    def begun(run: Run, phase: str, total: int = 0) -> None:
        begin(run, phase, total)
        report["_phases"].append((phase, time.perf_counter()))

    Run.save, Run.begin = saved, begun  # type: ignore[method-assign]


def _phases_of(report: dict[str, Any]) -> dict[str, float]:
    """Seconds of each phase; that of drawing the sample counts as reading."""
    noted = [*report["_phases"], ("", time.perf_counter())]
    report["_phases"].clear()
    seconds: dict[str, float] = {}
    for (phase, at), (_, until) in pairwise(noted):
        seconds[phase] = round(seconds.get(phase, 0.0) + until - at, 1)
    return seconds


def main() -> None:
    """Measure, and print what was found as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    photos = commands.add_parser("photos")
    photos.add_argument("embeddings", type=Path)
    photos.add_argument("--seeds", type=int, default=3)
    made_up = commands.add_parser("synthetic")
    made_up.add_argument("--products", type=int, default=200_000)
    made_up.add_argument("--slice-s", type=float, default=870.0)
    made_up.add_argument("--map-rows", type=int, default=20_000)
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    if chosen.command == "photos":
        report = of_photos(chosen.embeddings, chosen.seeds)
    else:
        report = synthetic(chosen.products, chosen.slice_s, chosen.map_rows)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
