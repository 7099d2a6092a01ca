"""How far scheduled work on a catalogue is and what it has made, in words for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from local.commands.terminal import local_time, plain, print_table

if TYPE_CHECKING:
    from lookalike.core.jobs import Job
    from lookalike.core.ports import Stores
    from lookalike.core.types import Scalar

Summary = Mapping[str, "Scalar"]

MADE_BY = {
    "recluster": "clusters",
    "calibrate": "calibration",
    "project": "map",
    "health": "findings",
    "rollup": "shown",
}
"""The kind of artifact that each job makes."""


def jobs_of(stores: Stores, catalogue: str) -> list[dict[str, Any]]:
    """What has been done on a catalogue and is under way, by job; jobs that never ran are left out.

    Raises
    ------
    Unavailable
        The table cannot be read.
    """
    jobs: dict[str, Job] = {job.name: job for job in stores.jobs.all(catalogue)}
    made = stores.artifacts.current(catalogue)
    rows = []
    for name, kind in MADE_BY.items():
        job, artifact = jobs.get(name), made.get(kind)
        if job is None and artifact is None:
            continue
        rows.append(
            {
                "catalogue": catalogue,
                "job": name,
                "phase": job.phase if job else "",
                "done": job.done if job else 0,
                "total": job.total if job else 0,
                "finished_at": (job.finished_at if job else 0.0) or None,
                "took_s": job.took_s if job else 0.0,
                "error": job.error if job else "",
                "made_at": artifact.made_at if artifact else None,
                "products": artifact.products if artifact else 0,
                "arrivals": artifact.arrivals if artifact else 0,
                "summary": dict(artifact.summary) if artifact else {},
            }
        )
    return rows


def show_work(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print a table of `jobs_of` catalogues, and what came to nothing below it."""
    print_table(
        ("Catalogue", "Work", "Now", "Finished", ">Took", "There is"),
        (
            (
                row["catalogue"],
                row["job"],
                _now(row),
                local_time(row["finished_at"]) if row["finished_at"] else "",
                f"{row['took_s']:.1f} s" if row["finished_at"] else "",
                _there_is(row),
            )
            for row in rows
        ),
    )
    for row in rows:
        if row["error"]:
            name = f"{plain(row['catalogue'])}: the last {row['job']}"
            click.echo(f"{name} came to nothing: {plain(row['error'])}", err=True)


def _now(row: Mapping[str, Any]) -> str:
    if not row["phase"]:
        return ""
    return f"{row['phase']}, {row['done']:,} of {row['total']:,}" if row["total"] else row["phase"]


def _there_is(row: Mapping[str, Any]) -> str:
    if row["made_at"] is None:
        return ""
    words = in_words(row["job"], row["summary"])
    return f"{words}; {row['arrivals']:,} came since" if row["arrivals"] else words


def in_words(job: str, summary: Summary) -> str:
    """One line without a full stop; of a summary with other fields than this knows, all fields."""
    if not summary:
        return f"nothing for {job} to do yet"
    try:
        return _SENTENCES[job](summary)
    except (KeyError, TypeError, ValueError):  # made by another version of the functions
        return ", ".join(
            f"{plain(name).replace('_', ' ')} {_value(summary[name])}" for name in summary
        )


def _value(value: Scalar) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else plain(value)


def _clusters(made: Summary) -> str:
    words = f"{made['clusters']:,} clusters, cohesion {made['cohesion']:.2f}"
    return f"{words}, {made['kept']:,} of them as before" if made["kept"] else words


def _calibration(made: Summary) -> str:
    if "error" not in made:
        return "too little is known of good matches to calibrate scores"
    what = {"judged": "clicks and purchases", "category": "categories", "product": "other views"}
    return (
        f"scores calibrated on {made['queries']:,} searches by {what[str(made['relevance'])]}, "
        f"off by {made['error']:.3f} instead of {made['error_before']:.3f}"
    )


def _map(made: Summary) -> str:
    words = (
        f"{made['laid_out']:,} products laid out by {made['method']}, "
        f"trustworthiness {made['trustworthiness']:.3f}"
    )
    return f"{words}, moved by {made['moved']:.1%} of the map" if made["from_before"] else words


def _findings(made: Summary) -> str:
    found = [f"{made[kind]:,} {kind}" for kind in _KINDS if made[kind]]
    return ", ".join(found) or "nothing found"


def _rollup(made: Summary) -> str:
    if "hours" in made:
        return f"{made['searches']:,} searches of {made['hours']:,} hours counted"
    return f"{made['searches']:,} searches since {local_time(float(made['since']))}"


_KINDS = (
    *("near-duplicate", "wrong-category", "outlier", "low-quality"),
    *("never-shown", "thin-category"),
)
_SENTENCES: dict[str, Callable[[Summary], str]] = {
    "recluster": _clusters,
    "calibrate": _calibration,
    "project": _map,
    "health": _findings,
    "rollup": _rollup,
}
