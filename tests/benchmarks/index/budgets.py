"""The index's budgets of the design, each with its figure of this run."""

from __future__ import annotations

from typing import Any

Results = dict[str, Any]

SMALL, MIDDLE, LARGE = "10000x256", "100000x256", "1000000x256"
OURS = "lookalike"


def budgets(results: Results) -> str:
    """A table of the budgets that there are figures for."""
    rows = [
        *_append(results),
        *_query(results),
        *_after_appends(results),
        *_cold(results),
        *_filters(results),
    ]
    if not rows:
        return ""
    lines = ["| budget | | measured |", "| --- | --- | --- |"]
    for what, wanted, measured, kept in rows:
        lines.append(f"| {what} | {wanted} | {measured if kept else f'**{measured}**, missed'} |")
    return "### Budgets\n\n" + "\n".join(lines)


Row = tuple[str, str, str, bool]


def _append(results: Results) -> list[Row]:
    rows: list[Row] = []
    small, large = _get(results, "append", SMALL, OURS), _get(results, "append", LARGE, OURS)
    if small and large:
        ratios = [large[batch]["ms"] / small[batch]["ms"] for batch in ("1", "64")]
        shown = f"{ratios[0]:.2f} (1 row), {ratios[1]:.2f} (64 rows)"
        rows.append(("append, 1M rows against 10k", "≤ 1.2 ×", shown, max(ratios) <= 1.2))
    ours = _get(results, "append", MIDDLE, OURS)
    rewrite = _get(results, "append", MIDDLE, "faiss flat")
    if ours and rewrite:
        ratios = [rewrite[batch]["cpu_ms"] / ours[batch]["cpu_ms"] for batch in ("1", "64")]
        shown = f"1/{ratios[0]:,.0f} (1 row), 1/{ratios[1]:,.0f} (64 rows)"
        what = "CPU of an append against load-add-write of a flat FAISS file, 100k"
        rows.append((what, "≤ 1/400", shown, ratios[0] >= 400))
    folder = _get(results, "append", MIDDLE, "lookalike folder")
    lance = _get(results, "append", MIDDLE, "lancedb")
    if folder and lance:
        ratio = lance["1"]["ms"] / folder["1"]["ms"]
        what = "append of one row into a folder against lancedb's, 100k"
        rows.append((what, "≤ 1/10", f"1/{ratio:.1f}", ratio >= 10))
    return rows


def _query(results: Results) -> list[Row]:
    found = _get(results, "queries", LARGE, OURS)
    if not found:
        return []
    points = [point for point in found["points"] if point["effort"] == found["default"]]
    if not points:
        return []
    p50, recall = points[0]["p50"], points[0]["recall"]
    kept = p50 <= 5 and recall >= 0.98
    shown = f"{p50:.2f} ms at {recall:.4f}"
    return [("query without encoding, 1M × 256, p50 at recall@10", "≤ 5 ms at 0.98", shown, kept)]


def _after_appends(results: Results) -> list[Row]:
    rows: list[Row] = []
    for slug, size in ((MIDDLE, "100k"), (LARGE, "1M")):
        ours = _get(results, "appended", slug, OURS)
        if not ours:
            continue
        lance = _get(results, "appended", slug, "lancedb")
        for batch, rows_each in (("1", "one row"), ("64", "64 rows")):
            ratio = ours[batch]["after"] / ours[batch]["before"]
            shown = f"{ratio:.2f}"
            if lance:
                shown += f" (lancedb {lance[batch]['after'] / lance[batch]['before']:.1f}"
                shown += f", its appends {lance[batch]['last'] / lance[batch]['first']:.1f})"
            what = f"queries after 500 appends of {rows_each}, {size}"
            rows.append((what, "≤ 1.2 ×", shown, ratio <= 1.2))
    return rows


def _cold(results: Results) -> list[Row]:
    found = _get(results, "remote", LARGE, OURS)
    if not found:
        return []
    ranged, whole = found["ranged"], found["whole"]
    ratio, share = ranged["ms"] / whole["fetched"], ranged["bytes"] / whole["bytes"]
    shown = f"1/{1 / ratio:.1f} ({ranged['ms']:.0f} of {whole['fetched']:.0f} ms)"
    what = "cold query, 1M, against fetching the whole index on 8 connections"
    return [
        (what, "≤ 1/4", shown, ratio <= 1 / 4),
        ("… its bytes", "≤ 1.5 %", f"{100 * share:.2f} %", share <= 0.015),
    ]


def _filters(results: Results) -> list[Row]:
    rows: list[Row] = []
    for slug, size in ((MIDDLE, "100k"), (LARGE, "1M")):
        found = _get(results, "filters", slug, OURS)
        if not found:
            continue
        points = [item for item in found["points"] if item["selectivity"] == "0.5 %"]
        recalls = {item["attribute"]: item["recall"] for item in points}
        shown = ", ".join(f"{recall:.4f} ({name})" for name, recall in recalls.items())
        kept = min(recalls.values()) >= 0.99
        rows.append((f"recall under a filter of 0.5 %, {size}", "≥ 0.99", shown, kept))
        own = {item["attribute"]: item["of_exact"] for item in points}
        shown = ", ".join(f"{recall:.4f} ({name})" for name, recall in own.items())
        rows.append(("… of what `exact=true` finds", "≥ 0.99", shown, min(own.values()) >= 0.99))
    return rows


def _get(results: Results, step: str, slug: str, name: str) -> dict[str, Any] | None:
    found = results.get(f"{step}|{slug}|{name}")
    if not found or {"error", "missing", "cannot"} & found.keys():
        return None
    return dict(found)
