"""Compares bucket, records and index, and asks for whatever differs to be looked at again.

Picks up lost events and buckets that existed before, sets the counts right, mends what the index
has lost, and has deleted what was derived from photos and searches that are gone. It goes through
everything in order and page by page, as far as its time goes; the next run goes on there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from lookalike.core.errors import Retry
from lookalike.core.keys import first_live_explanation
from lookalike.core.ports import Clock, Stores
from lookalike.core.types import ObjectInfo
from lookalike.services.derived import DERIVED_AGE_S, DerivedFiles, KeySet, Needed, OutOfTime
from lookalike.services.failures import NOTE_AGE_S
from lookalike.services.sweep_asking import Asking
from lookalike.services.sweep_index import IndexCheck
from lookalike.services.sweep_records import RecordCheck
from lookalike.services.sweep_state import (
    DONE,
    INDEX,
    MAPS,
    OBJECTS,
    PRODUCTS,
    THUMBNAILS,
    Superseded,
    SweepLedger,
    SweepState,
)

logger = logging.getLogger(__name__)

INDEX_EVERY_S = 6 * 3600.0
"""Every row of the index is read for its comparison, so it is not part of every sweep."""

ANEW, GO_ON = "anew", "go-on"


@dataclass(slots=True)
class SweepReport:
    """What one run of a sweep saw and deleted; ``finished`` when it came to the sweep's end.

    ``queued`` keys differ from their records, or the index had ``lost`` of them what the records
    name. The index of ``given_up`` catalogues is too large to be compared. ``phase`` is where the
    next run goes on.
    """

    objects: int = 0
    products: int = 0
    queued: int = 0
    deleted_queries: int = 0
    deleted_explanations: int = 0
    deleted_thumbnails: int = 0
    deleted_maps: int = 0
    lost: int = 0
    given_up: int = 0
    phase: str = DONE
    finished: bool = False


class Sweep:
    """The use case behind the *sweep* function.

    Safe beside anything: it writes counts and hints, lets go of index files that nobody can read,
    and deletes only what nobody can need.

    Parameters
    ----------
    stores
        Where to look.
    pool
        Runs deletions side by side.
    clock
        Epoch seconds.
    query_retention_s
        Seconds for which searches can be explained.
    backlog
        Messages in the ingest queue from which on no more are sent.
    pause
        Waits for so many seconds.
    """

    def __init__(
        self,
        stores: Stores,
        pool: Executor,
        clock: Clock,
        query_retention_s: float,
        backlog: int,
        pause: Callable[[float], None],
    ) -> None:
        self._stores = stores
        self._pool = pool
        self._clock = clock
        self._query_retention_s = query_retention_s
        self._backlog = backlog
        self._pause = pause

    def run(self, deadline: float, mode: str = "", *, is_short: bool = False) -> SweepReport:
        """Go on with the sweep that is under way, or begin one, until epoch second ``deadline``.

        Parameters
        ----------
        deadline
            Epoch seconds.
        mode
            ``anew`` begins one in any case, which includes the index; ``go-on`` begins none.
        is_short
            The deadline comes sooner than it need: nothing is given up for it.
        """
        ledger = SweepLedger(self._stores.index, self._clock)
        state = ledger.read()
        under_way = state is not None and state.phase != DONE
        if mode == GO_ON and not under_way:
            return SweepReport(finished=True)
        if state is None or mode == ANEW:
            state = SweepState(self._clock())
        elif not under_way:
            state = SweepState(self._clock(), indexed_at=state.indexed_at)
        report = SweepReport()
        asking = Asking(self._stores.queue, self._backlog, self._clock, self._pause, deadline)
        try:
            ledger.save(state)
            run = _Run(
                self._stores, self._pool, self._clock, deadline, state, ledger, asking, is_short
            )
            run.delete_expired(report, self._query_retention_s)
            run.go_through(report)
            report.finished = True
        except OutOfTime:
            logger.info("time is over; the next run goes on with %s", state.phase)
        except Superseded:
            logger.info("another run has taken over")
        report.queued = asking.asked
        report.phase = state.phase
        return report


class _Run:
    """One run on one state."""

    def __init__(
        self,
        stores: Stores,
        pool: Executor,
        clock: Clock,
        deadline: float,
        state: SweepState,
        ledger: SweepLedger,
        asking: Asking,
        is_short: bool,
    ) -> None:
        self._clock = clock
        self._deadline = deadline
        self._state = state
        self._ledger = ledger
        self._in_bucket, self._names = KeySet(state.in_bucket), KeySet(state.needed)
        self._stored, self._lacking = KeySet(state.stored), KeySet(state.lacking)
        self._needed = Needed(stores.lineages.all(), self._names)
        self._derived = DerivedFiles(stores.index, pool, clock)
        self._records = RecordCheck(stores, pool, asking, self._in_bucket, self._needed)
        self._counts = stores.counts
        self._lineages = stores.lineages
        self._is_index_due = state.begun_at - state.indexed_at >= INDEX_EVERY_S
        self._index = IndexCheck(
            stores,
            pool,
            clock,
            asking,
            deadline,
            has_whole_run=state.phase == INDEX and not is_short,
        )

    def delete_expired(self, report: SweepReport, kept_s: float) -> None:
        """First what a shopper was promised, which is quick: its names are in order of time.

        And notes of tries, of which there are few.
        """
        now = self._clock()
        live = first_live_explanation(now)
        for _ in self._derived.delete(
            "tried", lambda info: info.last_modified < now - NOTE_AGE_S, self._deadline
        ):
            pass
        for _, count in self._derived.delete(
            "queries", lambda info: info.last_modified < now - kept_s, self._deadline, in_order=True
        ):
            report.deleted_queries += count
        for _, count in self._derived.delete(
            "explanations",
            lambda info: info.key < live or kept_s == 0,
            self._deadline,
            in_order=True,
        ):
            report.deleted_explanations += count

    def go_through(self, report: SweepReport) -> None:
        """Every phase from where the state is to the end."""
        steps: dict[str, Callable[[SweepReport], None]] = {
            OBJECTS: self._compare_objects,
            PRODUCTS: self._compare_products,
            THUMBNAILS: lambda report: self._delete_unneeded(report, THUMBNAILS),
            MAPS: lambda report: self._delete_unneeded(report, MAPS),
            INDEX: self._compare_index,
        }
        following = dict(zip(steps, [*list(steps)[1:], DONE], strict=True))
        try:
            while self._state.phase in steps:
                phase = self._state.phase
                steps[phase](report)
                self._state.enter(following[phase])
        except (OutOfTime, Retry):
            self._save()
            raise
        self._save()

    def _save(self) -> None:
        state = self._state
        is_comparing = state.phase in (OBJECTS, PRODUCTS)
        state.in_bucket = self._in_bucket.to_bytes() if is_comparing else b""
        is_tidying = state.phase in (THUMBNAILS, MAPS)
        state.needed = self._names.to_bytes() if is_comparing or is_tidying else b""
        state.stored = self._stored.to_bytes() if is_tidying else b""
        state.lacking = self._lacking.to_bytes() if state.phase == INDEX else b""
        self._ledger.save(state)

    def _step(self, after: str) -> None:
        """A page is done: go on behind it, if there is time."""
        self._state.after = after
        if self._clock() > self._deadline:
            raise OutOfTime
        if self._ledger.is_due:
            self._save()

    def _compare_objects(self, report: SweepReport) -> None:
        for after, count in self._records.compare_objects(self._state.after):
            report.objects += count
            self._step(after)

    def _compare_products(self, report: SweepReport) -> None:
        state = self._state
        for catalogue in self._records.catalogues():
            if catalogue < state.catalogue:
                continue
            if catalogue > state.catalogue:
                state.enter(PRODUCTS, catalogue)
                self._step("")
            pages = self._records.compare_products(catalogue, state.after)
            for after, count, counts in pages:
                report.products += count
                if after:
                    state.counts += counts
                    self._step(after)
                else:
                    self._counts.set(catalogue, state.counts + counts)
        self._in_bucket = KeySet()

    def _delete_unneeded(self, report: SweepReport, folder: str) -> None:
        before = self._state.begun_at - DERIVED_AGE_S

        def unneeded(info: ObjectInfo) -> bool:
            is_needed = info.key in self._needed
            if is_needed and self._is_index_due:
                self._stored.add(info.key)
            return info.last_modified < before and not is_needed

        for after, count in self._derived.delete(
            folder, unneeded, self._deadline, self._state.after
        ):
            if folder == THUMBNAILS:
                report.deleted_thumbnails += count
            else:
                report.deleted_maps += count
            self._step(after)
        if folder == MAPS and self._is_index_due:
            # They were written before the records that name them, and those were read before this.
            self._lacking = self._names.without(self._stored)

    def _compare_index(self, report: SweepReport) -> None:
        state = self._state
        if not self._is_index_due:
            return
        for lineage in self._lineages.all():
            if lineage.catalogue <= state.after:
                continue
            report.lost += self._index.compare(lineage, self._lacking)
            report.given_up = self._index.given_up
            state.found_wrong |= self._index.found_wrong
            self._step(lineage.catalogue)
        # What was wrong is looked at again by the next sweep, not only in a few hours.
        state.indexed_at = 0.0 if state.found_wrong else state.begun_at
