"""Compaction: keeps every generation's index small in files and free of dead rows.

Idempotent; safe beside any number of writers, readers and compactions: what to do is planned on the
registry as it is (`lookalike.core.compaction`), and counts only if the registry is still so.
"""

from __future__ import annotations

import logging
from concurrent.futures import Executor
from dataclasses import dataclass, field

from lookalike.core.compaction import (
    Collect,
    CompactionPolicy,
    Forget,
    Merge,
    Rebuild,
    Route,
    Step,
    plan,
)
from lookalike.core.errors import Conflict, CorruptFile, NotFound, Retry, Unavailable
from lookalike.core.head import Head
from lookalike.core.ports import Clock, Stores
from lookalike.core.types import Build, Generation, Lineage, Manifest, SegmentEntry
from lookalike.services.collect import claim_orphans, collect
from lookalike.services.compact_steps import Outcome, Steps
from lookalike.services.segments import read_head

logger = logging.getLogger(__name__)

ORPHANS_EVERY_S = 3600.0
"""Between two looks for orphans, which list the bucket; one costs nothing but its storage."""
_LOST_RACES = 3
_HEADS = 8


@dataclass(slots=True)
class CompactionReport:
    """What a compaction did. ``unreadable`` files were left where they are, their rows with them.

    ``postponed`` says why a catalogue was left to the next run; ``finished`` unless there is more
    to do.
    """

    merged_segments: int = 0
    merged_rows: int = 0
    bases: int = 0
    dropped_rows: int = 0
    deleted_objects: int = 0
    orphans: int = 0
    unreadable: list[str] = field(default_factory=list)
    postponed: dict[str, str] = field(default_factory=dict)
    finished: bool = True

    def add(self, outcome: Outcome) -> None:
        """Add what was done in one scope."""
        self.merged_segments += outcome.merged_segments
        self.merged_rows += outcome.merged_rows
        self.bases += outcome.bases
        self.dropped_rows += outcome.dropped_rows
        self.deleted_objects += outcome.deleted_objects
        self.unreadable += sorted(key for key in outcome.blocked if "/" in key)


class Compaction:
    """The use case behind the *compact* function.

    Parameters
    ----------
    stores
        Where to read and write.
    policy
        Thresholds and periods.
    pool
        Runs calls side by side.
    clock
        Epoch seconds.
    """

    def __init__(
        self, stores: Stores, policy: CompactionPolicy, pool: Executor, clock: Clock
    ) -> None:
        self._stores = stores
        self._policy = policy
        self._pool = pool
        self._clock = clock
        self._heads: dict[str, Head] = {}
        self._orphans_after: dict[str, float] = {}

    def run(self, deadline: float, catalogue: str | None = None) -> CompactionReport:
        """Compact every generation of every catalogue, or of one, until nothing is left to do.

        Parameters
        ----------
        deadline
            Epoch seconds after which no step is begun.
        catalogue
            Only this one; its orphans are looked for, too, which else happens at the first run of a
            process and then once an hour.

        Raises
        ------
        NotFound
            There is no such catalogue.
        """
        report = CompactionReport()
        lineages = self._stores.lineages.all()
        if catalogue is not None:
            lineages = [item for item in lineages if item.catalogue == catalogue]
            if not lineages:
                raise NotFound(f"There is no catalogue “{catalogue}”.", parameter="catalogue")
        for lineage in lineages:
            try:
                self._run(lineage, deadline, report, by_hand=catalogue is not None)
            except Retry as error:
                # One catalogue that cannot be compacted now must not keep the others from it.
                logger.warning("compaction of %s postponed: %s", lineage.catalogue, error)
                report.postponed[lineage.catalogue] = str(error)
                report.finished = False
        return report

    def _run(
        self, lineage: Lineage, deadline: float, report: CompactionReport, *, by_hand: bool
    ) -> None:
        if by_hand or self._clock() >= self._orphans_after.get(lineage.catalogue, 0.0):
            report.orphans += claim_orphans(
                self._stores, lineage.catalogue, self._policy.grace_s, self._clock
            )
            self._orphans_after[lineage.catalogue] = self._clock() + ORPHANS_EVERY_S
        for generation in lineage.generations:
            # What is being built gets its head before it gets bases.
            ready = not _is_in_the_making(lineage.beside, generation)
            done = self.compact(generation, deadline, build_bases=ready)
            report.add(done.outcome)
            report.finished &= done.finished

    def compact(
        self,
        generation: Generation,
        deadline: float,
        *,
        build_bases: bool = True,
        delete_files: bool = True,
    ) -> Compacted:
        """Compact one generation until nothing is left to do or the deadline has passed.

        Parameters
        ----------
        generation
            Which one.
        deadline
            Epoch seconds after which no step is begun.
        build_bases
            False while the generation has yet to get its head.
        delete_files
            Whether files that were replaced long enough ago are deleted.

        Raises
        ------
        Conflict
            Somebody else was quicker several times.
        """
        outcome, lost = Outcome(), 0
        while self._clock() < deadline:
            entries, manifest = self._stores.registry.read(generation.scope)
            head = self.head(generation.catalogue, manifest.head)
            step = plan(
                manifest,
                entries,
                self._live_views(generation.catalogue) if build_bases else None,
                self._policy,
                self._clock(),
                shards=head.shards if head else 1,
                build_bases=build_bases,
                blocked=outcome.blocked,
            )
            if step is None or (isinstance(step, Collect) and not delete_files):
                return Compacted(outcome, finished=True)
            try:
                self._execute(step, generation, manifest, entries, head, outcome)
            except Conflict:
                lost += 1
                if lost == _LOST_RACES:
                    raise
        return Compacted(outcome, finished=False)

    def head(self, catalogue: str, digest: str) -> Head | None:
        """A head by its digest; None for "" (the identity).

        Raises
        ------
        Vanished
            The bucket does not hold it.
        Unavailable
            It is damaged, so that nothing can be projected.
        """
        if not digest:
            return None
        if digest not in self._heads:
            try:
                head = read_head(self._stores.index, catalogue, digest)
            except CorruptFile as error:
                raise Unavailable(str(error)) from error
            while len(self._heads) >= _HEADS:
                self._heads.pop(next(iter(self._heads)))
            self._heads[digest] = head
        return self._heads[digest]

    def _live_views(self, catalogue: str) -> int | None:
        counts = self._stores.counts.all().get(catalogue)
        return counts.views if counts else None

    def _execute(
        self,
        step: Step,
        generation: Generation,
        manifest: Manifest,
        entries: list[SegmentEntry],
        head: Head | None,
        outcome: Outcome,
    ) -> None:
        logger.info("%s of %s", type(step).__name__.lower(), generation.scope)
        steps = Steps(
            self._stores,
            generation,
            manifest,
            head,
            self._policy,
            self._pool,
            self._clock,
            outcome,
        )
        match step:
            case Forget(merged):
                self._stores.registry.remove(merged)
            case Merge(appended):
                steps.merge(appended)
            case Route(runs):
                steps.route(runs)
            case Rebuild():
                steps.rebuild(step)
            case Collect(keys):
                lineage = self._stores.lineages.get(generation.catalogue)
                if lineage is not None:
                    outcome.deleted_objects += collect(
                        self._stores, lineage, manifest, entries, keys, self._pool
                    )


@dataclass(frozen=True, slots=True)
class Compacted:
    """What was done in one scope; ``finished`` when nothing is left to do there."""

    outcome: Outcome
    finished: bool


def _is_in_the_making(beside: Build | None, generation: Generation) -> bool:
    return (
        beside is not None
        and beside.generation == generation
        and beside.phase not in {"ready", "kept"}
    )
