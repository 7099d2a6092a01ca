"""Scheduled work on a catalogue: how far a run is, what it has made, and when it is due again.

Pure: what to do next is decided on records as they are; services read and write them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lookalike.core.types import Scalar

JobName = Literal["recluster", "calibrate", "project", "health", "rollup"]
ArtifactKind = Literal["clusters", "calibration", "map", "findings", "facts", "shown"]

MIN_PRODUCTS = 20
"""Products from which there is something to group, to lay out and to compare."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """What scheduled work has made of a catalogue: the object of its kind that is current.

    ``key`` is an immutable object of the index bucket; writing another key here is what turns
    readers from the one before to the next. It was made of the rows of ``generation`` (of space
    ``encoder``, through the head file ``head``) that were committed by ``through_at``, of so many
    ``products``. Rows that have come since are in ``arrivals_key``, ``arrivals`` of them; "" and 0
    when there are none. ``serial`` counts those made of this kind, from 1. Times are epoch seconds.
    ``revision`` is the store's token for conditional writes, None before the first write.
    """

    catalogue: str
    kind: ArtifactKind
    key: str
    encoder: str
    generation: str
    head: str
    made_at: float
    through_at: float
    serial: int
    products: int
    summary: Mapping[str, Scalar] = field(default_factory=dict)
    arrivals_key: str = ""
    arrivals: int = 0
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """How far scheduled work on a catalogue is; ``phase`` is "" when no run is under way.

    ``run`` names the run under way, or the last: its working objects are under `work_key`.
    ``done`` of ``total`` is in the unit of the phase; ``cursor`` is where the phase goes on. A run
    is done in ``slices``, each one invocation at most, of which the last ``tries`` have saved
    nothing yet; it was worked on for ``worked_s`` so far. Of the run that finished last,
    ``finished_at`` is when and ``took_s`` how long it was worked on; ``error`` says why it came to
    nothing, "" if it did not. Times are epoch seconds. ``revision`` is the store's token for
    conditional writes, None before the first write.
    """

    catalogue: str
    name: JobName
    run: str = ""
    phase: str = ""
    begun_at: float = 0.0
    changed_at: float = 0.0
    done: int = 0
    total: int = 0
    cursor: str = ""
    slices: int = 0
    tries: int = 0
    worked_s: float = 0.0
    finished_at: float = 0.0
    took_s: float = 0.0
    error: str = ""
    revision: str | None = None


def work_prefix(name: JobName, catalogue: str) -> str:
    """What the keys of all working objects of a job on a catalogue begin with."""
    return f"work/{name}/{catalogue}/"


def work_key(job: Job, name: str) -> str:
    """Where a working object of a run lives in the index bucket, until the run has finished."""
    return f"{work_prefix(job.name, job.catalogue)}{job.run}/{name}"


def artifact_key(kind: ArtifactKind, catalogue: str, digest: str) -> str:
    """Where what scheduled work has made of a catalogue lives in the index bucket."""
    return f"derived/{kind}/{catalogue}/{digest}"


@dataclass(frozen=True, slots=True)
class RenewalPolicy:
    """The settings of the same names (`lookalike.settings.Settings`)."""

    renew_s: float
    renew_share: float
    quiet_s: float
    pause_s: float


def why_due(
    policy: RenewalPolicy,
    artifact: Artifact | None,
    *,
    products: int,
    arrivals: int,
    newest_at: float,
    now: float,
) -> str:
    """Why something is to be made anew, in a few words for the log; "" when it is not.

    Parameters
    ----------
    policy
        Periods and shares.
    artifact
        What there is; None when nothing was made yet.
    products
        Live products now.
    arrivals
        Products that came since it was made.
    newest_at, now
        When the newest row was committed, and the time, in epoch seconds. While photos arrive,
        nothing is made anew, unless that has been put off for ``pause_s``.
    """
    if artifact is None:
        is_due = products >= MIN_PRODUCTS and now - newest_at >= policy.quiet_s
        return "there is none" if is_due else ""
    age_s = now - artifact.made_at
    is_quiet = now - newest_at >= policy.quiet_s
    if age_s < policy.quiet_s or not (is_quiet or age_s >= policy.pause_s):
        return ""
    departed = max(0, artifact.products + arrivals - products)
    share = (arrivals + departed) / max(artifact.products, 1)
    if share >= policy.renew_share:
        return f"{arrivals} products came and {departed} went"
    if age_s >= policy.renew_s and (arrivals or departed or newest_at > artifact.through_at):
        return "it is old"
    return ""
