"""Reclustering: how good, how stable, how fast, in how much memory.

    python tests/benchmarks/bench_recluster.py peers --rows 50000
    python tests/benchmarks/bench_recluster.py photos --embeddings raw.npz
    python tests/benchmarks/bench_recluster.py size --rows 1000000 --work FOLDER

``peers`` compares k-means here with FAISS's and scikit-learn's MiniBatchKMeans: time and objective
(mean cosine of a row to its centroid). ``photos`` needs a file with arrays ``raw`` (n, dim),
``product_id`` and ``category``: purity and normalised mutual information with the categories, and
how many labels change when a tenth is added, warm and cold. ``size`` runs the service on a
synthetic catalogue in files, in slices of 60 s, in a process of its own: time and peak memory.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from index.folder_store import FolderObjectStore
from index.vectors import _draw

from lookalike.adapters.memory import MemoryRegistry, memory_stores_of
from lookalike.core.cluster_plan import plan_clusters
from lookalike.core.cluster_sample import Sample
from lookalike.core.clustering import assign, choose_clusters, cluster, match_clusters
from lookalike.core.clusters import Cluster, Clustering, product_hash
from lookalike.core.head import Head, encode_head, fit_head
from lookalike.core.keys import content_digest, head_key
from lookalike.core.segment import Segment, encode_rows, quantize
from lookalike.core.types import (
    Counts,
    Generation,
    Lineage,
    Manifest,
    Product,
    SegmentEntry,
    View,
)
from lookalike.services.jobs import JobLedger
from lookalike.services.live_embeddings import LiveEmbeddings
from lookalike.services.recluster import Recluster, ReclusterPolicy
from lookalike.services.segments import write_segment

GENERATION = Generation("shop", "synthetic-g1", "synthetic")
VERSION = "0123456789abcdef"
FILE_ROWS = 20_000
POLICY = ReclusterPolicy(86_400, 0.1, 20, 600, 0, 90, 900)
KINDS = ("boot", "hat", "scarf", "glove", "coat", "sock", "belt", "bag")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=["peers", "photos", "size", "size-run"])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=256, help="of a raw embedding")
    parser.add_argument("--embeddings", type=Path)
    parser.add_argument("--work", type=Path, default=Path("recluster-bench"))
    arguments = parser.parse_args()
    if arguments.part == "peers":
        peers(arguments.rows)
    elif arguments.part == "photos":
        photos(arguments.embeddings)
    elif arguments.part == "size":
        prepare(arguments.work, arguments.rows, arguments.dim)
        command = [sys.executable, __file__, "size-run", "--work", str(arguments.work)]
        subprocess.run(command, check=True)
    else:
        size_run(arguments.work)


def peers(rows: int) -> None:
    import faiss
    from sklearn.cluster import MiniBatchKMeans

    data = np.concatenate([_draw(256, 50_000, (3, n))[0] for n in range(-(-rows // 50_000))])[:rows]

    def by_faiss(clusters: int) -> np.ndarray:
        kmeans = faiss.Kmeans(
            256, clusters, niter=25, spherical=True, seed=0, max_points_per_centroid=10**9
        )
        kmeans.train(data)
        return np.asarray(kmeans.centroids)

    def by_sklearn(clusters: int) -> np.ndarray:
        found = MiniBatchKMeans(clusters, batch_size=4096, n_init=1, random_state=0).fit(data)
        norms = np.linalg.norm(found.cluster_centers_, axis=1, keepdims=True)
        return np.asarray(found.cluster_centers_ / norms, dtype=np.float32)

    contenders: dict[str, Callable[[int], np.ndarray]] = {
        "ours": lambda clusters: cluster(data, clusters, 0).centroids,
        "faiss": by_faiss,
        "MiniBatchKMeans": by_sklearn,
    }
    for clusters, (name, train) in itertools.product((16, 128), contenders.items()):
        begun = time.perf_counter()
        centroids = train(clusters)
        took = time.perf_counter() - begun
        objective = float(assign(centroids, data)[1].mean())
        print(f"{rows:,} rows, k {clusters:3}: {name:16} {took:6.1f} s  objective {objective:.4f}")
    begun = time.perf_counter()
    chosen = choose_clusters(data, 0)
    print(f"choosing k: {chosen} in {time.perf_counter() - begun:.1f} s")


def photos(path: Path) -> None:
    file = np.load(path)
    raw, ids = file["raw"].astype(np.float32), file["product_id"]
    categories = np.unique(file["category"], return_inverse=True)[1]
    hashes = np.asarray([product_hash(str(id_)) for id_ in ids], dtype=np.uint64)
    head = fit_head(raw, 256)
    embeddings = head.project(raw)
    tables = []
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(raw))
        base = order[: round(len(raw) / 1.1)]
        base_head = fit_head(raw[base], 256)
        before = clustered(raw[base], hashes[base], base_head, None)
        old = assign(before.centroids(base_head), base_head.project(raw[base]))[0]
        after = clustered(raw, hashes, head, before)
        new = assign(after.centroids(head), embeddings)[0]
        named = [np.array([c.cluster_id for c in x.clusters]) for x in (before, after)]
        warm = float((named[0][old] != named[1][new[base]]).mean())
        cold = cluster(embeddings[order], len(before.clusters), 100 + seed)
        cold_labels = assign(cold.centroids, embeddings[base])[0]
        tables.append(
            {
                "clusters": len(before.clusters),
                "purity": purity(new, categories),
                "NMI": mutual_information(new, categories),
                "changed, warm": warm,
                "changed, cold + Hungarian": 1 - hungarian(old, cold_labels) / len(base),
                "changed, cold + greedy": changed(old, cold_labels, len(cold.centroids)),
                "objective, warm": float(assign(after.centroids(head), embeddings)[1].mean()),
                "objective, cold": cold.objective,
            }
        )
    for name in tables[0]:
        values = [table[name] for table in tables]
        print(f"{name:28} {np.mean(values):.4f}   {min(values):.4f} – {max(values):.4f}")


def clustered(
    raw: np.ndarray, hashes: np.ndarray, head: Head, before: Clustering | None
) -> Clustering:
    sample = Sample(50_000)
    sample.add(hashes, raw, np.full(len(raw), before is not None))
    plan = plan_clusters(
        sample,
        head,
        before,
        None,
        setting=0,
        products=len(raw),
        next_number=before.next_number if before else 1,
        now=0.0,
    )
    clusters = tuple(Cluster(id_, "", (), 0, 0.0, 0.0, ()) for id_ in plan.ids)
    return Clustering(1, "", "", 0.0, clusters, plan.means, plan.next_number, plan.chosen_products)


def purity(labels: np.ndarray, categories: np.ndarray) -> float:
    return sum(np.bincount(categories[labels == n]).max() for n in np.unique(labels)) / len(labels)


def mutual_information(labels: np.ndarray, categories: np.ndarray) -> float:
    from sklearn.metrics import normalized_mutual_info_score

    return float(normalized_mutual_info_score(categories, labels))


def hungarian(old: np.ndarray, new: np.ndarray) -> int:
    from scipy.optimize import linear_sum_assignment

    common = np.zeros((old.max() + 1, new.max() + 1))
    np.add.at(common, (old, new), 1)
    return int(common[linear_sum_assignment(-common)].sum())


def changed(old: np.ndarray, new: np.ndarray, clusters: int) -> float:
    matched = match_clusters(old, new, clusters)
    were = np.asarray([-1 if number is None else number for number in matched])
    return float((were[new] != old).mean())


class MadeUpProducts:
    """Records that are made when they are read: a million of them would be what is measured."""

    def get_many(self, ids: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Product]:
        return {id_: made_up(*id_) for id_ in ids}


def made_up(catalogue: str, product_id: str) -> Product:
    key = f"{catalogue}/{product_id}.jpg"
    kind = KINDS[product_hash(product_id) % len(KINDS)]
    attributes = {"title": f"A {kind} number {product_id}", "category": kind}
    view = View(key, "e", VERSION, "", 0, 1, 1, "", 1.0, 1.0, attributes)
    return Product(catalogue, product_id, GENERATION.generation, {key: view})


def prepare(folder: Path, rows: int, dim: int) -> None:
    """Segments of a synthetic catalogue, and a head when they are longer than 256."""
    store = FolderObjectStore(folder / "index")
    entries, sample = [], []
    for start in range(0, rows, FILE_ROWS):
        raw = _draw(dim, min(FILE_ROWS, rows - start), (9, start))[0]
        sample.append(raw[:: max(1, rows // 50_000)])
        codes, scales = quantize(raw)
        keys = tuple(f"shop/product-{start + n:07}.jpg" for n in range(len(raw)))
        segment = Segment(
            GENERATION.encoder, codes, scales, keys, (VERSION,) * len(raw), ({},) * len(raw)
        )
        body = encode_rows(segment)
        entries.append((write_segment(store, "shop", body), len(raw), len(body)))
    head = ""
    if dim > 256:
        data = encode_head(fit_head(np.concatenate(sample), 256))
        head = content_digest(data)
        store.put(head_key("shop", head), data, "")
    (folder / "shop.json").write_text(json.dumps({"rows": rows, "head": head, "files": entries}))


def size_run(folder: Path) -> None:
    shop = json.loads((folder / "shop.json").read_text())
    index = FolderObjectStore(folder / "index")
    stores = replace(
        memory_stores_of(time.time),
        index=index,  # type: ignore[arg-type]
        products=MadeUpProducts(),  # type: ignore[arg-type]
        registry=MemoryRegistry(),
    )
    stores.lineages.put(Lineage("shop", GENERATION))
    stores.counts.set("shop", Counts(products=shop["rows"], views=shop["rows"]))
    for digest, rows, size in shop["files"]:
        stores.registry.add(SegmentEntry(GENERATION.scope, digest, rows, size, 1.0))
    stores.registry.put_manifest(Manifest(GENERATION.scope, head=shop["head"]))
    ids = map("{:026d}".format, itertools.count())
    pool = ThreadPoolExecutor(16)
    live = LiveEmbeddings(stores, pool)
    for name in ("first", "renewal"):
        begun, slices, longest, report = time.perf_counter(), 0, 0.0, None
        while report is None or not report.finished:
            service = Recluster(
                stores, live, JobLedger(stores, time.time, ids.__next__), POLICY, time.time
            )
            at = time.perf_counter()
            report = service.run(time.time() + 60, now=slices == 0)
            longest = max(longest, time.perf_counter() - at)
            slices += 1
        took = time.perf_counter() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{name}: {took:.0f} s in {slices} slices (longest {longest:.0f} s)")
        print(f"  peak {peak:.0f} MB, {dict(report.catalogues[0].summary)}", flush=True)


if __name__ == "__main__":
    main()
