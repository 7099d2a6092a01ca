"""How long a sweep takes, how often it calls, what it holds: python tests/benchmarks/bench_sweep.py

Records, failures and index of a catalogue that is in order, in memory: what is measured is the
sweep's own time, and the number of its calls, by which its time on AWS can be reckoned.
"""

from __future__ import annotations

import argparse
import bisect
import functools
import json
import resource
import time
import tracemalloc
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from typing import Any

import numpy as np

from lookalike.adapters.memory import MemoryProducts, memory_stores_of
from lookalike.core.keys import map_key, thumbnail_key
from lookalike.core.ports import Stores
from lookalike.core.segment import Row
from lookalike.core.types import Generation, Lineage, Product, View, row_version
from lookalike.services.append import append_rows
from lookalike.services.sweep import Sweep, SweepReport

SPACE = "efficientnet-lite2-border-v1"
DIM = 1280
ROWS = 1000  # of a segment, as compaction leaves them or more
LISTED = 1000  # keys that one call of S3 lists


class SortedProducts(MemoryProducts):
    """Pages without sorting all records for each; to be filled before the first."""

    @functools.cached_property
    def _sorted(self) -> list[str]:
        return sorted(product_id for _, product_id in self._products)

    def page(self, catalogue: str, limit: int, after: str = "") -> tuple[list[Product], str | None]:
        """See `lookalike.core.ports.ProductTable`."""
        first = bisect.bisect_right(self._sorted, after)
        page = [self._products[catalogue, item] for item in self._sorted[first : first + limit]]
        return page, page[-1].product_id if first + limit < len(self._sorted) else None


class Counting:
    """Passes calls on and counts them by store and method."""

    def __init__(self, name: str, store: Any, calls: Counter[str]) -> None:
        self._name, self._store, self._calls = name, store, calls

    def __getattr__(self, method: str) -> Any:
        found = getattr(self._store, method)

        def call(*args: Any, **kwargs: Any) -> Any:
            self._calls[f"{self._name}.{method}"] += 1
            answer = found(*args, **kwargs)
            return self._listed(answer) if method == "list" else answer

        return call

    def _listed(self, listing: Any) -> Any:
        for number, info in enumerate(listing):
            if number and number % LISTED == 0:
                self._calls[f"{self._name}.list"] += 1
            yield info


def shop(objects: int) -> Stores:
    """A catalogue in order: photos, records, thumbnails, maps (without their bytes) and rows."""
    stores = replace(memory_stores_of(time.time), products=SortedProducts())
    generation = Generation("shop", "g", SPACE)
    stores.lineages.put(Lineage("shop", generation))
    rng, rows = np.random.default_rng(0), []
    for number in range(objects):
        key = f"shop/product-{number:07d}/front.jpg"
        stores.images.put_object(key, b"%d" % number)
        info = stores.images.head(key)
        assert info
        version = row_version(info.etag, {})
        thumbnail = thumbnail_key(key, info.etag, info.last_modified)
        view = View(key, info.etag, version, "s", 0, 9, 9, thumbnail, info.last_modified, 1.0)
        stores.products.put(Product("shop", f"product-{number:07d}", "g", {key: view}))
        stores.index.put_object(thumbnail, b"")
        stores.index.put_object(map_key(SPACE, key, info.etag), b"")
        rows.append(Row(key, version, rng.normal(size=DIM).astype(np.float32), {}))
        if len(rows) == ROWS:
            append_rows(stores.index, stores.registry, [generation], {SPACE: rows}, time.time())
            rows = []
    if rows:
        append_rows(stores.index, stores.registry, [generation], {SPACE: rows}, time.time())
    return stores


def measure(objects: int, stores: Stores, mode: str, *, traced: bool) -> dict[str, Any]:
    """One sweep; traced for its memory, which slows it down."""
    calls: Counter[str] = Counter()
    wrapped = {
        item.name: Counting(item.name, getattr(stores, item.name), calls) for item in fields(stores)
    }
    with ThreadPoolExecutor(16) as pool:
        sweep = Sweep(replace(stores, **wrapped), pool, time.time, 86_400, 1000, time.sleep)
        if traced:
            tracemalloc.start()
        began = time.perf_counter()
        report: SweepReport = sweep.run(float("inf"), mode)
        seconds = time.perf_counter() - began
        peak = tracemalloc.get_traced_memory()[1] if traced else 0
        tracemalloc.stop()
    assert report.finished and report.queued == 0 and report.objects == objects
    return {
        "objects": objects,
        "index": mode == "anew",
        "seconds": round(seconds, 2),
        "calls": sum(calls.values()),
        "calls_a_second": round(sum(calls.values()) / seconds),
        "by_call": dict(calls.most_common(8)),
        **({"peak_mb": round(peak / 1e6, 1)} if traced else {}),
    }


def main() -> None:
    """Print one line of JSON a measurement."""
    parser = argparse.ArgumentParser()
    parser.add_argument("objects", type=int, nargs="*", default=[20_000, 100_000])
    for objects in parser.parse_args().objects:
        stores = shop(objects)
        for mode in ("anew", ""):
            for traced in (False, True):
                print(json.dumps(measure(objects, stores, mode, traced=traced)), flush=True)
        print(f"resident: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


if __name__ == "__main__":
    main()
