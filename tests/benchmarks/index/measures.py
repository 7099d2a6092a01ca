"""The measurements, each run in a process of its own: a dict of figures, times in milliseconds."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from index.contender import Contender
from index.vectors import FILTERS, QUERIES, Vectors, recall
from index.wire import SlowWire

BATCHES = (1, 64)
APPENDS = 500
OWN = 100  # queries that are compared with the contender's own exact search


def build(contender: Contender) -> dict[str, Any]:
    """Index everything from scratch."""
    shutil.rmtree(contender.folder, ignore_errors=True)
    contender.folder.mkdir(parents=True)
    contender.vectors.embeddings  # noqa: B018  read before the clock starts
    begun = time.perf_counter()
    contender.build()
    return {"s": time.perf_counter() - begun, "bytes": contender.size_bytes()}


def append(contender: Contender, budget_s: float = 2.5) -> dict[str, Any]:
    """Durable appends of each batch size, one after another: wall and CPU time of the median."""
    figures: dict[str, Any] = {}
    contender.open()
    with _scratch(contender) as folder:
        contender.prepare_append(folder)
        for rows in BATCHES:
            contender.append(contender.vectors.extra[:rows])
            wall, cpu = _time_appends(contender, rows, 200, budget_s)
            figures[str(rows)] = {"ms": wall, "cpu_ms": cpu}
    return figures


def queries(contender: Contender) -> dict[str, Any]:
    """Latency and recall at each effort, everything in memory."""
    contender.open()
    points = []
    for effort in contender.efforts:
        points.append({"effort": effort, **_query(contender, effort)})
        if points[-1]["recall"] > 0.9985 and effort >= (contender.default_effort() or 0):
            break
    return {
        "setting": contender.setting,
        "default": contender.default_effort(),
        "points": points,
    }


def appended(contender: Contender, effort: int) -> dict[str, Any]:
    """Queries before and after 500 appends that nothing has tidied up, and an append then."""
    figures: dict[str, Any] = {}
    for rows in BATCHES:
        contender.open()
        with _scratch(contender) as folder:
            contender.prepare_append(folder)
            before = _query(contender, effort)["p50"]
            figures[str(rows)] = _append_many(contender, effort, rows) | {"before": before}
    return figures


def _append_many(contender: Contender, effort: int, rows: int) -> dict[str, Any]:
    extra = contender.vectors.extra
    first, _ = _time_appends(contender, rows, 20, 1.5)
    # Where every append rewrites a file, only the first and the last ones do.
    durable = not contender.rewrites
    for number in range(20, APPENDS - 20):
        contender.append(extra[number * rows : (number + 1) * rows], durable)
    last, _ = _time_appends(contender, rows, 20, 1.5, start=APPENDS - 20)
    begun = time.perf_counter()
    contender.after_appends()
    caught_up = (time.perf_counter() - begun) * 1000
    after = _query(contender, effort)["p50"]
    # The newest row and an early one must be what is found for themselves.
    total = contender.vectors.rows
    probes = [25 * rows, (APPENDS - 30) * rows]
    found = [contender.search(extra[row], effort)[0] >= total for row in probes]
    return {"after": after, "first": first, "last": last, "refresh": caught_up, "found": all(found)}


def cold(contender: Contender, effort: int) -> dict[str, Any]:
    """From files on this machine to the first answer, and what stays in memory."""
    queries = contender.vectors.queries
    before = _resident()
    begun = time.perf_counter()
    contender.open()
    contender.search(queries[0], effort)
    took = (time.perf_counter() - begun) * 1000
    for query in queries[:100]:
        contender.search(query, effort)
    return {"ms": took, "resident": _resident() - before}


def remote(contender: Contender, effort: int) -> dict[str, Any]:
    """First answer with nothing on this machine, over a slow wire: by ranges, and all fetched."""
    query = contender.vectors.queries[0]
    figures: dict[str, Any] = {}
    with _scratch(contender) as scratch:
        # Once as it is, and once without what it fetches in the background, to count the GETs that
        # the answer needs.
        for background in (True, False) if contender.has_background else (False,):
            wire = SlowWire()
            begun = time.perf_counter()
            place = scratch / f"ranged-{background}"
            with contender.opened_remote(place, wire, background) as can:
                if can:
                    contender.search(query, effort)
                    took = (time.perf_counter() - begun) * 1000
                    counted = {"bytes": wire.bytes, "gets": wire.gets}
                    figures["ranged"] = {"ms": took, **figures.get("ranged", {}), **counted}
                    wire.cut()
        wire = SlowWire()
        begun = time.perf_counter()
        contender.fetch(scratch / "whole", wire)
        fetched = (time.perf_counter() - begun) * 1000
        contender.open()
        contender.search(query, effort)
        took = (time.perf_counter() - begun) * 1000
    figures["whole"] = {"fetched": fetched, "ms": took, "bytes": wire.bytes, "gets": wire.gets}
    return figures | {"ms": figures.get("ranged", figures["whole"])["ms"]}


def filters(contender: Contender, effort: int) -> dict[str, Any]:
    """Latency and recall under each filter."""
    contender.open()
    points = []
    for condition in FILTERS:
        begun = time.perf_counter()
        try:
            contender.search(contender.vectors.queries[0], effort, condition)
        except NotImplementedError as error:
            return {"cannot": str(error)}
        first = (time.perf_counter() - begun) * 1000
        measured = _query(contender, effort, condition)
        points.append({**asdict(condition), "first": first, **measured})
        own = [contender.exact(query, condition) for query in contender.vectors.queries[:OWN]]
        if None not in own:
            some = contender.vectors.queries[:OWN]
            found = [contender.search(query, effort, condition) for query in some]
            points[-1]["of_exact"] = recall(found, np.asarray(own))
    return {"points": points}


def _query(
    contender: Contender, effort: int, condition: Any = None, budget_s: float = 4.0
) -> dict[str, float]:
    """p50 and p95 over all queries, twice, or over as many as fit in the time."""
    vectors = contender.vectors
    for query in vectors.queries[:: QUERIES // 20]:
        contender.search(query, effort, condition)
    answers: list[list[int]] = []
    took = []
    begun = time.perf_counter()
    for round_ in range(2):
        for query in vectors.queries:
            start = time.perf_counter()
            found = contender.search(query, effort, condition)
            took.append(time.perf_counter() - start)
            if round_ == 0:
                answers.append(found)
            if len(answers) >= 20 and time.perf_counter() - begun > budget_s:
                break
    truth = vectors.exact(condition)[: len(answers)]
    return {
        "p50": float(np.percentile(took, 50)) * 1000,
        "p95": float(np.percentile(took, 95)) * 1000,
        "recall": recall(answers, truth),
    }


def _time_appends(
    contender: Contender, rows: int, most: int, budget_s: float, start: int = 0
) -> tuple[float, float]:
    """Median wall and mean CPU milliseconds of an append; three at least."""
    wall = []
    extra = contender.vectors.extra
    begun, cpu = time.perf_counter(), time.process_time()
    while len(wall) < 3 or (len(wall) < most and time.perf_counter() - begun < budget_s):
        number = start + len(wall)
        batch = extra[number * rows : (number + 1) * rows]
        at = time.perf_counter()
        contender.append(batch)
        wall.append(time.perf_counter() - at)
    cpu = time.process_time() - cpu
    return statistics.median(wall) * 1000, cpu / len(wall) * 1000


@contextmanager
def _scratch(contender: Contender) -> Iterator[Path]:
    parent = contender.folder.parent
    # Threads that fetch in the background may still write there.
    with tempfile.TemporaryDirectory(dir=parent, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def _resident() -> int:
    """Bytes of memory that this process holds, mapped files included."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS in /proc/self/status")


STEPS: dict[str, Callable[..., dict[str, Any]]] = {
    "build": build,
    "append": append,
    "queries": queries,
    "appended": appended,
    "cold": cold,
    "remote": remote,
    "filters": filters,
}
NEEDS_EFFORT = {"appended", "cold", "remote", "filters"}


def open_vectors(work: Path, rows: int, dim: int) -> Vectors:
    """The catalogue, drawn if it is not there."""
    vectors = Vectors(work / "vectors", rows, dim)
    vectors.prepare()
    return vectors
