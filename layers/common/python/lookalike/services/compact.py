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
from lookalike.core.errors import (
    Conflict,
    CorruptFile,
    NotFound,
    Retry,
    Unavailable,
    Vanished,
)
from lookalike.core.head import Head
from lookalike.core.keys import base_key
from lookalike.core.ports import Clock, Stores
from lookalike.core.types import Build, Generation, Lineage, Manifest, SegmentEntry
from lookalike.services.collect import claim_orphans, collect
from lookalike.services.compact_steps import Outcome, Steps
from lookalike.services.segments import read_head

logger = logging.getLogger(__name__)

ORPHANS_EVERY_S = 3600.0
"""Between two looks for orphans, which list the bucket; one costs nothing but its storage."""
FILES_EVERY_S = 300.0
"""Between two looks at whether bases are there, and for how long a head is taken to be."""
_LOST_RACES = 3
_HEADS = 8


class HeadLost(Unavailable):
    """A generation's head is missing or damaged: nothing can be projected or routed."""


@dataclass(slots=True)
class CompactionReport:
    """What a compaction did. ``unreadable`` files were left where they are, their rows with them.

    Bases are the exception: those that are unreadable are replaced, out of the raw rows.
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
        self._heads: dict[str, tuple[float, Head]] = {}
        self._orphans_after: dict[str, float] = {}
        self._bases_after: dict[str, float] = {}

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
                _postpone(report, lineage.catalogue, error)
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
            if by_hand:
                self._bases_after.pop(generation.scope, None)
            # What is being built gets its head before it gets bases.
            ready = not _is_in_the_making(lineage.beside, generation)
            try:
                done = self.compact(generation, deadline, build_bases=ready)
            except HeadLost as error:
                # The other generation has a head of its own.
                _postpone(report, lineage.catalogue, error)
                continue
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
        HeadLost
            The generation's head cannot be read.
        """
        outcome, races = Outcome(), 0
        is_time = build_bases and self._clock() >= self._bases_after.get(generation.scope, 0.0)
        looks = is_time
        while self._clock() < deadline:
            entries, manifest = self._stores.registry.read(generation.scope)
            if looks:
                looks = False
                outcome.lost |= self._lost_bases(generation, manifest)
                outcome.blocked |= outcome.lost  # so that they are reported
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
                lost=outcome.lost,
            )
            if step is None or (isinstance(step, Collect) and not delete_files):
                if is_time:
                    self._bases_after[generation.scope] = self._clock() + FILES_EVERY_S
                return Compacted(outcome, finished=True)
            try:
                self._execute(step, generation, manifest, entries, head, outcome)
            except Conflict:
                races += 1
                if races == _LOST_RACES:
                    raise
        return Compacted(outcome, finished=False)

    def head(self, catalogue: str, digest: str) -> Head | None:
        """A head by its digest; None for "" (the identity).

        Raises
        ------
        HeadLost
            It is missing or damaged, so that nothing can be projected.
        """
        if not digest:
            return None
        until, head = self._heads.get(digest, (0.0, None))
        if head is None or self._clock() >= until:
            self._heads.pop(digest, None)
            try:
                head = read_head(self._stores.index, catalogue, digest)
            except (CorruptFile, Vanished) as error:
                raise HeadLost(f"{error}; `lookalike reindex` makes it anew") from error
            while len(self._heads) >= _HEADS:
                self._heads.pop(next(iter(self._heads)))
            # Not for ever: what only this process knows is lost to all others.
            self._heads[digest] = self._clock() + FILES_EVERY_S, head
        return head

    def _lost_bases(self, generation: Generation, manifest: Manifest) -> set[str]:
        """Keys of named bases that are missing from the bucket or have another length."""
        bases = [shard.base for shard in manifest.shards if shard.base is not None]
        keys = [base_key(generation.catalogue, base.digest) for base in bases]
        found = self._pool.map(self._stores.index.head, keys)
        lost = {
            key: info
            for base, key, info in zip(bases, keys, found, strict=True)
            if info is None or info.size_bytes != base.size_bytes
        }
        for key, info in lost.items():
            what = f"has {info.size_bytes:,} bytes" if info else "is not in the bucket"
            logger.error("%s %s; its shard is built anew out of its raw rows", key, what)
        return set(lost)

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


def _postpone(report: CompactionReport, catalogue: str, error: Retry) -> None:
    logger.warning("compaction of %s postponed: %s", catalogue, error)
    report.postponed[catalogue] = str(error)
    report.finished = False


def _is_in_the_making(beside: Build | None, generation: Generation) -> bool:
    return (
        beside is not None
        and beside.generation == generation
        and beside.phase not in {"ready", "kept"}
    )
