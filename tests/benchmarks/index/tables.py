"""Results as the Markdown tables of docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from index.budgets import budgets
from index.contender import MODULES

Results = dict[str, Any]
RECALL = 0.98

DURABLE = {
    "lookalike": "encode, PUT and registry entry in memory: what it costs us, not the stores",
    "lookalike folder": "the same into files (two new files), no fsync",
    "lookalike fsync": "the same, files and folders fsynced",
    "lancedb": "`table.add` into files (a new version), no fsync",
    "usearch": "add, save the whole index, no fsync; had been loaded before",
    "hnswlib": "add, save the whole index, no fsync; had been loaded before",
    "faiss flat": "load, add, write the whole index, no fsync",
    "faiss ivf": "load, add, write the whole index, no fsync",
}


def choose_effort(results: Results, slug: str, name: str) -> int:
    """Its default setting, else the smallest with recall 0.98 when nothing is filtered."""
    found = results.get(f"queries|{slug}|{name}", {})
    if found.get("default") is not None:
        return int(found["default"])
    points = found.get("points", [])
    enough = [point["effort"] for point in points if point["recall"] >= RECALL]
    if enough:
        return int(enough[0])
    return int(points[-1]["effort"]) if points else 32


def render(results: Results) -> str:
    """Every table that there are results for."""
    slugs = [key.partition("|")[2] for key in results if key.startswith("vectors|")]
    parts = [
        _about(results, slugs),
        budgets(results),
        _appends(results, slugs),
        _queries(results, slugs),
        _appended(results, slugs),
        _filters(results, slugs),
        _remote(results, slugs),
        _sizes(results, slugs),
    ]
    return "\n\n".join(part for part in parts if part)


def _about(results: Results, slugs: Sequence[str]) -> str:
    about = results.get("about", {})
    versions = ", ".join(
        f"{name} {version}" for name, version in about.get("versions", {}).items() if version
    )
    lines = [f"Measured on {about.get('day', '?')}: {versions}."]
    drawn = []
    for slug in slugs:
        vectors = results[f"vectors|{slug}"]
        points = results.get(f"queries|{slug}|faiss ivf", {}).get("points", [])
        at = {point["effort"]: point["recall"] for point in points}
        shares = ", ".join(f"{at[effort]:.3f} of {effort}" for effort in (1, 16) if effort in at)
        drawn.append(
            [title(slug), f"{vectors['neighbour']:.3f}", shares or "–"],
        )
    lines.append(
        table(["", "mean cosine to the nearest row", "recall@10 of FAISS IVF in the lists"], drawn)
    )
    return "\n\n".join(lines)


def _appends(results: Results, slugs: Sequence[str]) -> str:
    rows = []
    for name in MODULES:
        cells: list[str] = []
        for batch in ("1", "64"):
            cells += [
                _cell(results, "append", slug, name, lambda found, b=batch: _wall_cpu(found[b]))
                for slug in slugs
            ]
        if any(cells):
            rows.append([name, *cells, DURABLE[name]])
    header = ["", *(f"1 row, {title(slug)}" for slug in slugs)]
    header += [*(f"64 rows, {title(slug)}" for slug in slugs), "what is durable then"]
    return _section("Append, milliseconds (of CPU)", header, rows)


def _queries(results: Results, slugs: Sequence[str]) -> str:
    parts = []
    for slug in slugs:
        rows = []
        for name in MODULES:
            found = results.get(f"queries|{slug}|{name}")
            if found is None:
                continue
            if "points" not in found:
                rows.append([name, _problem(found)])
                continue
            cells = []
            for point in found["points"]:
                figures = f"{point['recall']:.3f} · {ms(point['p50'])} · {ms(point['p95'])}"
                effort = str(point["effort"])
                if point["effort"] == found["default"]:
                    effort = f"**{effort}**"
                cells.append(figures if found["setting"] == "exact" else f"{effort}: {figures}")
            rows.append([name, found["setting"], *cells])
        header = ["", "", "setting: recall@10 · p50 · p95"]
        header += [""] * (max((len(row) for row in rows), default=3) - 3)
        parts.append(_section(f"Queries, {title(slug)}, milliseconds", header, rows))
    return "\n\n".join(part for part in parts if part)


def _appended(results: Results, slugs: Sequence[str]) -> str:
    parts = []
    for slug in slugs:
        rows = []
        for name in MODULES:
            found = results.get(f"appended|{slug}|{name}")
            if found is None:
                continue
            if "1" not in found:
                rows.append([name, _problem(found)])
                continue
            for batch in ("1", "64"):
                one = found[batch]
                query = [ms(one["before"]), ms(one["after"]), _times(one, "after", "before")]
                append = [ms(one["first"]), ms(one["last"]), _times(one, "last", "first")]
                appends = f"500 × {batch}" + ("" if one["found"] else ", **rows not found**")
                rows.append([name, appends, *query, *append, ms(one["refresh"])])
        header = ["", "appends", "query before", "after", "ratio"]
        header += ["append before", "after", "ratio", "taking them in"]
        parts.append(_section(f"After 500 appends, {title(slug)}, milliseconds", header, rows))
    return "\n\n".join(part for part in parts if part)


def _filters(results: Results, slugs: Sequence[str]) -> str:
    parts = []
    for slug in slugs:
        rows: list[list[str]] = []
        header = ["recall@10 · p50 · the first"]
        for name in MODULES:
            found = results.get(f"filters|{slug}|{name}")
            if found is None:
                continue
            if "points" not in found:
                rows.append([name, _problem(found)])
                continue
            header[1:] = [f"{item['attribute']} {item['selectivity']}" for item in found["points"]]
            rows.append(
                [
                    name,
                    *(
                        f"{item['recall']:.3f} · {ms(item['p50'])} · {ms(item['first'])}"
                        for item in found["points"]
                    ),
                ]
            )
        parts.append(_section(f"Filters, {title(slug)}, milliseconds", header, rows))
    return "\n\n".join(part for part in parts if part)


def _remote(results: Results, slugs: Sequence[str]) -> str:
    rows = []
    for slug in slugs:
        for name in MODULES:
            found = results.get(f"remote|{slug}|{name}")
            if found is None:
                continue
            if "whole" not in found:
                rows.append([title(slug), name, _problem(found)])
                continue
            if "ranged" in found:
                rows.append([title(slug), f"{name}, by ranges", *_wired(found["ranged"])])
            rows.append([title(slug), f"{name}, fetched whole", *_wired(found["whole"])])
    header = ["", "", "first answer, ms", "bytes", "GETs"]
    return _section("Cold query, 30 ms a GET and 90 MB/s a connection", header, rows)


def _wired(figures: dict[str, Any]) -> list[str]:
    shown = ms(figures["ms"])
    if "fetched" in figures:
        shown += f" ({ms(figures['fetched'])} of it fetching)"
    return [shown, size(figures["bytes"]), str(figures["gets"])]


def _sizes(results: Results, slugs: Sequence[str]) -> str:
    rows = []
    for slug in slugs:
        count = int(slug.partition("x")[0])
        for name in MODULES:
            build = results.get(f"build|{slug}|{name}")
            cold = results.get(f"cold|{slug}|{name}")
            if build is None and cold is None:
                continue
            problem = _problem(build or {}) or _problem(cold or {})
            if problem:
                rows.append([title(slug), name, problem])
                continue
            cells = ["–", "–", "–", "–"]
            if build:
                sizes = build["bytes"].items()
                cells[0] = f"{build['s']:.1f}"
                cells[1] = " + ".join(f"{total / count:.0f} ({what})" for what, total in sizes)
            if cold:
                cells[2], cells[3] = ms(cold["ms"]), size(cold["resident"])
            rows.append([title(slug), name, *cells])
    header = ["", "", "build, s (2 threads)", "bytes a row on disk", "open to first answer, ms"]
    return _section("Size, build and cold start from local files", [*header, "memory"], rows)


def title(slug: str) -> str:
    """10000x256 → 10k × 256."""
    rows, _, dim = slug.partition("x")
    thousands = int(rows) // 1000
    return f"{thousands // 1000}M × {dim}" if thousands >= 1000 else f"{thousands}k × {dim}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; short rows are filled up."""
    lines = [header, ["---"] * len(header)]
    lines += [[*row, *[""] * (len(header) - len(row))] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ms(value: float) -> str:
    """Milliseconds with two or three significant figures."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def size(value: float) -> str:
    """Bytes as kB or MB."""
    return f"{value / 1e6:,.1f} MB" if value >= 1e6 else f"{value / 1e3:,.0f} kB"


def _section(name: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return f"### {name}\n\n{table(header, rows)}" if rows else ""


def _times(figures: dict[str, float], after: str, before: str) -> str:
    return f"{figures[after] / figures[before]:.2f}"


def _wall_cpu(figures: dict[str, float]) -> str:
    return f"{ms(figures['ms'])} ({ms(figures['cpu_ms'])})"


def _cell(
    results: Results, step: str, slug: str, name: str, show: Callable[[dict[str, Any]], str]
) -> str:
    found = results.get(f"{step}|{slug}|{name}")
    if found is None:
        return ""
    return _problem(found) or show(found)


def _problem(found: dict[str, Any]) -> str:
    if "missing" in found:
        return "not installed"
    if "cannot" in found:
        return str(found["cannot"])
    if "error" in found:
        return "failed: " + str(found["error"]).strip().splitlines()[-1][:80]
    return ""
