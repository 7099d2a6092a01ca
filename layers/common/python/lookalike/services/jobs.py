"""Runs scheduled work in slices that can end anywhere, and goes on where the last one stopped.

Owns the record of each job and the working objects of its run; what the work is, services know. One
runner at a time counts: each writes the record only as it knows it, and the one that comes second
is told so.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lookalike.core.errors import Conflict, CorruptFile, NotFound, Retry
from lookalike.core.jobs import Artifact, Job, JobName, artifact_key, work_key, work_prefix
from lookalike.core.ports import Clock, Ids, Stores
from lookalike.core.types import Lineage, Scalar

logger = logging.getLogger(__name__)

SAVE_EVERY_S = 30.0
"""Seconds of work that a slice that dies may lose."""
MAX_TRIES = 5
"""Slices of a run that may die in a row before it is given up."""
MAX_WORK_BYTES = 2**31
_TYPE = "application/octet-stream"


class Superseded(Retry):
    """Another runner has taken the run over."""


@dataclass(frozen=True, slots=True)
class CatalogueReport:
    """How far a job on a catalogue is after a slice.

    ``finished`` unless there is more to do now; ``summary`` says what there is of it.
    """

    catalogue: str
    job: JobName
    phase: str
    done: int
    total: int
    finished: bool
    summary: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(slots=True)
class WorkReport:
    """What a slice did. ``postponed`` says why a catalogue was left to the next one."""

    catalogues: list[CatalogueReport] = field(default_factory=list)
    postponed: dict[str, str] = field(default_factory=dict)
    finished: bool = True


class Run:
    """One job on one catalogue, as one runner has it; made by `JobLedger.open`."""

    def __init__(self, stores: Stores, clock: Clock, ids: Ids, job: Job) -> None:
        self._stores = stores
        self._clock = clock
        self._ids = ids
        self._since = clock()
        self.job = job

    @property
    def is_under_way(self) -> bool:
        """Whether there is a run to go on with."""
        return bool(self.job.phase)

    @property
    def is_due(self) -> bool:
        """Whether so much was done since the record was written that it should be saved."""
        return self._clock() - self._since >= SAVE_EVERY_S

    def begin(self, phase: str, total: int = 0) -> None:
        """Start a new run in its first phase. What runs before left behind is deleted.

        Raises
        ------
        Superseded
            Another runner has written the record.
        """
        self._since = self._clock()
        new = Job(
            self.job.catalogue,
            self.job.name,
            run=self._ids(),
            phase=phase,
            begun_at=self._since,
            total=total,
            finished_at=self.job.finished_at,
            took_s=self.job.took_s,
            revision=self.job.revision,
        )
        before = self.job.run
        self._put(new)
        if before:
            self._clear(before)

    def take_up(self) -> bool:
        """Say that another slice goes on with the run; False when it is given up instead.

        That is when `MAX_TRIES` slices in a row have died before they saved anything.

        Raises
        ------
        Superseded
            Another runner has written the record.
        """
        if self.job.tries >= MAX_TRIES:
            logger.error(
                "%s of %s is given up in phase %s: it died %d times",
                *(self.job.name, self.job.catalogue, self.job.phase, self.job.tries),
                extra={"metrics": {"RunsGivenUp": 1}},
            )
            self.finish(f"It died {self.job.tries} times while {self.job.phase}.")
            return False
        self._put(replace(self.job, tries=self.job.tries + 1, slices=self.job.slices + 1))
        return True

    def rests(self, pause_s: float) -> bool:
        """Whether the last run came to nothing less than ``pause_s`` ago."""
        return bool(self.job.error) and self._clock() - self.job.finished_at < pause_s

    def save(self, **changes: Any) -> None:
        """Write how far the run is: any of ``phase``, ``done``, ``total`` and ``cursor``.

        Raises
        ------
        Superseded
            Another runner has written the record.
        """
        self._put(replace(self.job, tries=0, **changes))

    def finish(self, error: str = "") -> None:
        """End the run; with ``error`` it came to nothing, and that is why.

        Raises
        ------
        Superseded
            Another runner has written the record.
        """
        ended = self._worked(replace(self.job, phase="", cursor="", error=error))
        self._put(replace(ended, finished_at=self._clock(), took_s=ended.worked_s))
        self._clear(self.job.run)

    def report(self, made: Artifact | None, *, finished: bool) -> CatalogueReport:
        """How far the job is, and what there is of it: ``made``, None when nothing is current."""
        summary: dict[str, Scalar] = {}
        if made is not None:
            summary = {"products": made.products, "arrivals": made.arrivals, **made.summary}
            summary.pop("head_bytes", None)  # for readers of the file alone
        job = self.job
        return CatalogueReport(
            job.catalogue, job.name, job.phase, job.done, job.total, finished, summary
        )

    def put(self, name: str, body: bytes) -> None:
        """Write a working object of the run."""
        self._stores.index.put(work_key(self.job, name), body, _TYPE)

    def get(self, name: str) -> bytes | None:
        """A working object of the run; None when there is none."""
        found = self._stores.index.get(work_key(self.job, name), MAX_WORK_BYTES)
        return found[1] if found else None

    def _put(self, job: Job) -> None:
        try:
            self.job = self._stores.jobs.put(self._worked(replace(job, changed_at=self._clock())))
        except Conflict:
            raise Superseded(f"{job.name} of “{job.catalogue}” is done by another runner") from None
        self._since = self._clock()

    def _worked(self, job: Job) -> Job:
        """The record with the time since it was last written counted as work."""
        now = self._clock()
        worked_s = job.worked_s + max(0.0, now - self._since)
        self._since = now
        return replace(job, worked_s=worked_s)

    def _clear(self, upto: str) -> None:
        """Delete working objects of this run, if it is ``upto``, and of those before it.

        Run ids are in order of time: another runner may have begun the next one already.
        """
        prefix = work_prefix(self.job.name, self.job.catalogue)
        for info in list(self._stores.index.list(prefix)):
            if info.key.removeprefix(prefix).partition("/")[0] <= upto:
                self._stores.index.delete(info.key)


class JobLedger:
    """Opens jobs.

    Parameters
    ----------
    stores
        Where to read and write.
    clock, ids
        Epoch seconds; a new run's id.
    """

    def __init__(self, stores: Stores, clock: Clock, ids: Ids) -> None:
        self._stores = stores
        self._clock = clock
        self._ids = ids

    def open(self, catalogue: str, name: JobName) -> Run:
        """A job as it is, with a run under way or none."""
        job = self._stores.jobs.get(catalogue, name) or Job(catalogue, name)
        return Run(self._stores, self._clock, self._ids, job)


def run_catalogues(
    stores: Stores,
    catalogue: str | None,
    advance: Callable[[Lineage], CatalogueReport],
) -> WorkReport:
    """Take a job further on every catalogue, or on one.

    Parameters
    ----------
    stores
        Where catalogues are listed.
    catalogue
        Its name, or None for all.
    advance
        Does a slice on one. One that cannot go on now, or meets a defect, must not keep the others
        from it; an error that is no `Retry` and no `CorruptFile` is raised behind the last.

    Raises
    ------
    NotFound
        There is no such catalogue.
    """
    lineages = stores.lineages.all()
    if catalogue is not None:
        lineages = [lineage for lineage in lineages if lineage.catalogue == catalogue]
        if not lineages:
            raise NotFound(
                f"There is no catalogue “{catalogue}”; `lookalike status` names those that there "
                "are.",
                parameter="catalogue",
            )
    report = WorkReport()
    defects: list[Exception] = []
    for lineage in lineages:
        try:
            done = advance(lineage)
        except (Retry, CorruptFile) as error:
            logger.warning("%s is left to the next run: %s", lineage.catalogue, error)
            report.postponed[lineage.catalogue] = str(error)
            continue
        except Exception as error:
            logger.exception("%s meets a defect", lineage.catalogue)
            defects.append(error)
            continue
        report.catalogues.append(done)
    if defects:
        raise defects[0]  # whoever runs the function must see it
    report.finished = not report.postponed and all(item.finished for item in report.catalogues)
    return report


def make_current(
    stores: Stores, before: Artifact | None, after: Artifact, now: float, grace_s: float
) -> Artifact:
    """Turn readers from one artifact to the next, and delete what was current earlier.

    The objects of ``before`` stay until the next time: somebody may be reading them.

    Parameters
    ----------
    stores
        Where to write and delete.
    before, after
        What is current, None if nothing is, and what shall be; with the revision of ``before``.
    now
        Epoch seconds.
    grace_s
        Age in seconds below which an object that nothing names may be about to be named.

    Raises
    ------
    Conflict
        Something else is current than ``before``.
    """
    revision = before.revision if before else None
    written = stores.artifacts.put(replace(after, revision=revision))
    kept = {key for item in (before, after) if item for key in (item.key, item.arrivals_key)}
    for info in list(stores.index.list(artifact_key(after.kind, after.catalogue, ""))):
        if info.key not in kept and now - info.last_modified >= grace_s:
            stores.index.delete(info.key)
    return written
