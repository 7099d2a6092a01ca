"""How the health check's arithmetic grows with the catalogue, and what it finds of all there is.

    python tests/benchmarks/bench_health.py --rows 100000
    python tests/benchmarks/bench_health.py --rows 1000000

Synthetic embeddings (groups of uneven size, 256 dimensions, int8 as a run stores them) and random
hashes with planted copies; no thumbnails are read. One process, as many threads as FAISS
and BLAS take (``OMP_NUM_THREADS``).
"""

from __future__ import annotations

import argparse
import resource
import time

import faiss
import numpy as np

from lookalike.core.health_crops import CropSearch
from lookalike.core.neighbours import (
    divide,
    list_neighbours,
    nearest_lists,
    sample_rows,
    train_centroids,
)
from lookalike.core.perceptual_hash import close_pairs
from lookalike.core.segment import dequantize, quantize

DIM, K, SEED = 256, 10, 11
ASKED = 1000
ROWS_AT_ONCE = 8192


def synthetic(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """int8 codes (rows, 256) and scales of embeddings about centres that themselves gather."""
    chance = np.random.default_rng(SEED)
    groups = max(20, rows // 100)
    coarse = chance.normal(size=(50, DIM)).astype(np.float32)
    centres = coarse[chance.integers(0, 50, groups)] + chance.normal(size=(groups, DIM)) * 0.8
    share = chance.pareto(1.5, groups) + 0.2
    of = chance.choice(groups, rows, p=share / share.sum())
    codes, scales = np.empty((rows, DIM), np.int8), np.empty(rows, np.float32)
    for start in range(0, rows, 16_384):
        some = of[start : start + 16_384]
        points = centres[some] + chance.normal(size=(len(some), DIM)) * 0.7
        points /= np.linalg.norm(points, axis=1, keepdims=True)
        codes[start : start + len(some)], scales[start : start + len(some)] = quantize(
            points.astype(np.float32)
        )
    return codes, scales


def measure_neighbours(rows: int) -> None:
    """Time of the whole graph, and the share of each row's true neighbours that is in it."""
    codes, scales = synthetic(rows)

    def embeddings_of(numbers: np.ndarray) -> np.ndarray:
        return dequantize(codes[numbers], scales[numbers])

    begun = time.perf_counter()
    sample = np.random.default_rng(SEED).permutation(rows)[: sample_rows(rows)]
    centroids = train_centroids(embeddings_of(np.sort(sample)), rows)
    trained = time.perf_counter()
    blocks = np.array_split(np.arange(rows), -(-rows // ROWS_AT_ONCE))
    nearest = [nearest_lists(embeddings_of(block), centroids) for block in blocks]
    lists = divide(np.concatenate(nearest), centroids)
    divided = time.perf_counter()
    found = np.empty((rows, K), np.int32)
    longest = 0.0
    for number in range(len(lists)):
        since = time.perf_counter()
        of, neighbours = list_neighbours(lists, number, embeddings_of, K)
        found[of] = neighbours.rows
        longest = max(longest, time.perf_counter() - since)
    ended = time.perf_counter()
    print(
        f"neighbours of {rows:,}: {len(lists):,} lists, {lists.near.shape[1]} searched; "
        f"k-means {trained - begun:.1f} s, lists {divided - trained:.1f} s, "
        f"neighbours {ended - divided:.1f} s, "
        f"{(ended - begun) / rows * 1e6:.0f} µs a row; longest list {longest:.2f} s"
    )
    asked = np.random.default_rng(1).permutation(rows)[:ASKED]
    best = np.full((ASKED, K + 1), -2.0, np.float32)
    names = np.full((ASKED, K + 1), -1, np.int64)
    queries = embeddings_of(asked)
    for start in range(0, rows, 100_000):
        block = np.arange(start, min(start + 100_000, rows))
        cosines, places = faiss.knn(
            queries, embeddings_of(block), K + 1, metric=faiss.METRIC_INNER_PRODUCT
        )
        both = np.concatenate([best, cosines], axis=1)
        order = np.argsort(-both, axis=1)[:, : K + 1]
        best = np.take_along_axis(both, order, 1)
        names = np.take_along_axis(np.concatenate([names, block[places]], axis=1), order, 1)
    shares = [
        len(set(found[row]) & set(true[true != row][:K])) / K
        for row, true in zip(asked, names, strict=True)
    ]
    print(f"recall@{K} {np.mean(shares):.3f}; peak {peak_mb():,.0f} MB")


def measure_hashes(rows: int) -> None:
    """Time to find every pair of close hashes among random ones."""
    chance = np.random.default_rng(SEED)
    hashes = chance.integers(0, 2**63, rows, dtype=np.uint64) * np.uint64(2)
    mirrored = chance.integers(0, 2**63, rows, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    copies = rows // 100
    flipped = np.uint64(1) << chance.integers(0, 64, (copies, 4), dtype=np.uint64)
    hashes[-copies:] = hashes[:copies] ^ np.bitwise_xor.reduce(flipped, axis=1)
    begun = time.perf_counter()
    pairs = close_pairs(hashes, mirrored)
    took = time.perf_counter() - begun
    expected = {(row, rows - copies + row) for row in range(copies)}
    found = len(expected & set(map(tuple, pairs.tolist())))
    print(f"hashes of {rows:,}: {took:.1f} s, {found:,} of {copies:,} copies; {peak_mb():,.0f} MB")


def measure_windows(rows: int) -> None:
    """Time to slide pictures over others: a sample, since each row takes the same."""
    chance = np.random.default_rng(SEED)
    some = min(rows, 2_000)
    signatures = chance.integers(0, 256, (some, 16, 16)).astype(np.uint8)
    crops = CropSearch(signatures, np.full(some, 0.75, np.float32))
    begun = time.perf_counter()
    for row in range(some):
        crops.find(row, chance.integers(0, some, 8))
    print(f"windows: {(time.perf_counter() - begun) / some * 1e3:.2f} ms a row of 8 candidates")


def peak_mb() -> float:
    """Peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    """Measure at the size that was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    rows = parser.parse_args().rows
    measure_hashes(rows)
    measure_windows(rows)
    measure_neighbours(rows)


if __name__ == "__main__":
    main()
