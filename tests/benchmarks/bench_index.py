"""The index beside lancedb, usearch, hnswlib and plain FAISS; writes docs/benchmarks.md's tables.

    pip install -r tests/benchmarks/requirements-peers.txt
    python tests/benchmarks/bench_index.py --write
    python tests/benchmarks/bench_index.py --quick

``--quick`` measures 10,000 rows only. ``--sizes`` and ``--steps`` choose; what was measured before
with the same ``--work`` folder stays in the tables, and the others' files are used again. Each
measurement has a process of its own, on one core unless it builds or waits for the wire; all
contenders of a step take turns before the next step begins. One that is not installed is said to be
missing. Results are in ``results.json`` in the work folder.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from index.contender import MODULES, contender
from index.measures import NEEDS_EFFORT, STEPS, open_vectors
from index.tables import choose_effort, render

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs/benchmarks.md"
SIZES = {"10k": (10_000, 256), "100k": (100_000, 256), "1m": (1_000_000, 256)}
WIDE = (100_000, 1280)
BEGIN, END = "<!-- bench_index: begin -->", "<!-- bench_index: end -->"
APPENDERS = list(MODULES)
SEARCHERS = [name for name in MODULES if name not in ("lookalike folder", "lookalike fsync")]
# Where brute force adds nothing that is worth waiting for.
INDEXED = [name for name in SEARCHERS if name != "faiss flat"]
LIMIT_S = {"build": 600}
MANY_THREADS = ("build", "remote")
ONE_THREAD = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "RAYON_NUM_THREADS",
    "TOKIO_WORKER_THREADS",
    "LANCE_CPU_THREADS",
)


def main() -> None:
    arguments = parse()
    if arguments.worker:
        work(json.loads(arguments.worker))
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    path = arguments.work / "results.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if not arguments.tables_only:
        begun = time.monotonic()
        for rows, dim in catalogues(arguments):
            vectors = open_vectors(arguments.work, rows, dim)
            results[f"vectors|{vectors.slug}"] = {
                "rows": rows,
                "dim": dim,
                "neighbour": vectors.neighbour_cosine(),
            }
        for step, rows, dim, name in jobs(arguments):
            run(arguments, results, step, rows, dim, name)
            path.write_text(json.dumps(results, indent=1))
        results["about"] = about(time.monotonic() - begun)
        path.write_text(json.dumps(results, indent=1))
    tables = render(results)
    print(tables)
    if arguments.write:
        write(tables)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=ROOT / "build/bench-index", help="folder")
    parser.add_argument("--sizes", default="10k,100k,1m", help="of 10k, 100k, 1m (× 256)")
    parser.add_argument("--no-wide", action="store_true", help="leave out 100k × 1280")
    parser.add_argument("--steps", default=",".join(STEPS), help="of " + ", ".join(STEPS))
    parser.add_argument("--contenders", default=",".join(MODULES), help="of " + ", ".join(MODULES))
    parser.add_argument("--quick", action="store_true", help="--sizes 10k --no-wide")
    parser.add_argument("--rebuild", action="store_true", help="build the others anew, too")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md")
    parser.add_argument("--tables-only", action="store_true", help="measure nothing")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.sizes, arguments.no_wide = "10k", True
    arguments.work = arguments.work.resolve()
    return arguments


def catalogues(arguments: argparse.Namespace) -> list[tuple[int, int]]:
    chosen = [SIZES[size] for size in arguments.sizes.split(",") if size]
    return chosen + ([] if arguments.no_wide else [WIDE])


def jobs(arguments: argparse.Namespace) -> Iterator[tuple[str, int, int, str]]:
    """What to measure: contenders take turns within a step, so that they meet the same machine."""
    steps, names = arguments.steps.split(","), arguments.contenders.split(",")
    contenders = {
        "append": APPENDERS,
        "appended": INDEXED,
        "cold": SEARCHERS,
        "remote": INDEXED,
    }
    for step in STEPS:
        if step not in steps:
            continue
        for rows, dim in catalogues(arguments):
            # Few appends to a small catalogue say nothing, and its files are fetched at once.
            if step in ("appended", "remote") and rows < 100_000 and not arguments.quick:
                continue
            for name in contenders.get(step, SEARCHERS):
                if name in names:
                    yield step, rows, dim, name


def run(
    arguments: argparse.Namespace,
    results: dict[str, Any],
    step: str,
    rows: int,
    dim: int,
    name: str,
) -> None:
    """Measure in a process of its own and keep the result, or why there is none."""
    slug = f"{rows}x{dim}"
    if step == "build" and not is_ours(name) and is_built(results, slug, name, arguments):
        return
    task = {"step": step, "rows": rows, "dim": dim, "name": name, "work": str(arguments.work)}
    if step in NEEDS_EFFORT:
        task["effort"] = choose_effort(results, slug, name)
    begun = time.monotonic()
    repeats = 3 if step in ("cold", "remote") else 1
    found = [worker(task, LIMIT_S.get(step, 240)) for _ in range(repeats)]
    median = sorted(found, key=lambda item: item.get("ms", 0.0))[repeats // 2]
    if "error" in median:
        print(f"{step} {slug} {name}: {median['error']}", file=sys.stderr)
    results[f"{step}|{slug}|{name}"] = median | {"effort": task.get("effort")}
    took = time.monotonic() - begun
    print(f"{step:9} {slug:12} {name:17} {took:6.1f} s", file=sys.stderr, flush=True)


def is_ours(name: str) -> bool:
    return name.startswith("lookalike")


def is_built(results: dict[str, Any], slug: str, name: str, arguments: argparse.Namespace) -> bool:
    """Whether another run has left this contender's files."""
    found = results.get(f"build|{slug}|{name}", {})
    return (
        not arguments.rebuild
        and "s" in found
        and folder_of(arguments.work, slug, name).exists()
        and results.get("about", {}).get("versions") == versions()
    )


def folder_of(work: Path | str, slug: str, name: str) -> Path:
    kind = "lookalike" if is_ours(name) else name.replace(" ", "-")
    return Path(work) / f"{kind}-{slug}"


def worker(task: dict[str, Any], limit_s: float) -> dict[str, Any]:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
    }
    if task["step"] not in MANY_THREADS:
        environment |= dict.fromkeys(ONE_THREAD, "1")
    environment |= {"RUST_LOG": "error", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, __file__, "--worker", json.dumps(task)]
    try:
        ended = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=limit_s
        )
    except subprocess.TimeoutExpired:
        return {"error": f"over {limit_s} s"}
    for line in ended.stdout.splitlines():
        if line.startswith("RESULT "):
            found: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
            return found
    return {"error": ended.stderr[-2000:] or f"exit code {ended.returncode}"}


def work(task: dict[str, Any]) -> None:
    """One measurement, in this process."""
    if task["step"] not in MANY_THREADS:
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    vectors = open_vectors(Path(task["work"]), task["rows"], task["dim"])
    try:
        made = contender(task["name"], folder_of(task["work"], vectors.slug, task["name"]), vectors)
    except ImportError as error:
        print("RESULT", json.dumps({"missing": str(error)}))
        return
    options = {"effort": task["effort"]} if "effort" in task else {}
    print("RESULT", json.dumps(STEPS[task["step"]](made, **options)), flush=True)
    # Threads that go on fetching are of no interest any more.
    os._exit(0)


def about(took_s: float) -> dict[str, Any]:
    return {"day": time.strftime("%Y-%m-%d"), "versions": versions(), "took_s": took_s}


def versions() -> dict[str, str]:
    found = {}
    for name in ("faiss-cpu", "lancedb", "usearch", "hnswlib", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    return found


def write(tables: str) -> None:
    """Put the tables between the markers of the document."""
    text = DOCUMENT.read_text()
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{DOCUMENT} has no {BEGIN} and {END}")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}")


if __name__ == "__main__":
    main()
