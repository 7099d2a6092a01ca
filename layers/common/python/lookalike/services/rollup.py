"""Adds up the search log: every entry exactly once, however late it comes; deletes what expires.

An hour that has been written to is counted whole and its aggregates are replaced whole, so that
doing it again, or twice at a time, changes nothing. It is settled when it was counted after all
writes had ended that were announced (`lookalike.services.counted_writes`).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from lookalike.core.errors import Retry
from lookalike.core.ports import Clock, Stores
from lookalike.core.rollups import (
    Counted,
    Reading,
    RollupState,
    TouchedHour,
    has_left,
    hours_due,
    hours_over,
    is_settled,
    last_to_purge,
)
from lookalike.core.search_hours import HOUR_S, end_of, number_at, start_of
from lookalike.core.shown import ShownProducts
from lookalike.core.types import Lineage
from lookalike.services.clusters import Clusters
from lookalike.services.jobs import (
    SAVE_EVERY_S,
    CatalogueReport,
    JobLedger,
    WorkReport,
    run_catalogues,
)
from lookalike.services.rollup_hours import HourCount, read_hour
from lookalike.services.rollup_sums import RollupSums

logger = logging.getLogger(__name__)

_WORK = "work/rollup/hours-"
_MAX_WORK_BYTES = 2**31
_DELETE_AT_ONCE = 1_000
_PURGE_HOURS_A_SAVE = 24


@dataclass(slots=True)
class _Slice:
    """What one run has done. ``counted`` are hours and searches by catalogue."""

    deadline: float
    left: int = 0
    counted: dict[str, list[int]] = field(default_factory=dict)


class SearchRollup:
    """The use case behind the rollup function.

    Parameters
    ----------
    stores
        The search log, feedback, and where aggregates go.
    ledger
        Says in each catalogue's record when it was added up last.
    clusters
        Each catalogue's clusters.
    retention_s
        Seconds for which entries are kept.
    clock
        Epoch seconds.
    """

    def __init__(
        self,
        stores: Stores,
        ledger: JobLedger,
        clusters: Clusters,
        retention_s: float,
        clock: Clock,
    ) -> None:
        self._stores = stores
        self._ledger = ledger
        self._sums = RollupSums(stores, clusters, clock)
        self._retention_s = retention_s
        self._clock = clock

    def run(
        self, deadline: float, catalogue: str | None = None, *, now: bool = False
    ) -> WorkReport:
        """Count the hours that are due, until epoch second ``deadline``.

        Parameters
        ----------
        deadline
            When to stop.
        catalogue
            What the report is about. An hour's entries are of all catalogues and are read once, so
            all are counted.
        now
            By hand: all hours that have been written to lately, however short ago they were
            counted.

        Raises
        ------
        NotFound
            There is no such catalogue.
        """
        done = _Slice(deadline)
        postponed = ""
        try:
            self._advance(done, at_once=now)
        except Retry as error:
            logger.warning("the roll-up is left to the next run: %s", error)
            postponed = str(error)
        report = run_catalogues(
            self._stores, catalogue, lambda lineage: self._report(lineage, done, not postponed)
        )
        if postponed:
            report.finished = False
            for item in report.catalogues:
                report.postponed[item.catalogue] = postponed
        return report

    def _advance(self, done: _Slice, *, at_once: bool) -> None:
        state = self._stores.rollups.state() or self._first_state()
        state = self._purge(state, done.deadline)
        now = self._clock()
        state = self._look_at_hours(state, now)
        touched = self._stores.rollups.touched()
        for item in touched:
            if has_left(item.hour, self._retention_s, now):
                logger.error(
                    "hour %d was not counted before its entries expired",
                    item.hour,
                    extra={"metrics": {"HoursNotCounted": 1}},
                )
                self._stores.rollups.settle(item)
        due = hours_due(touched, state, self._retention_s, now, at_once=at_once)
        reading = state.reading.hour if state.reading is not None else None
        due.sort(key=lambda item: item.hour != reading)  # one that is half counted comes first
        done.left = len(due)
        known = {item.hour for item in touched}
        state = replace(
            state,
            counted={hour: at for hour, at in state.counted.items() if hour in known},
            reading=state.reading if reading in known else None,
        )
        if due and state.reading is None:
            self._clear(None)  # what a slice left that died between two writes
        while due and self._clock() < done.deadline:
            day = _day(due[0])
            group = [item for item in due if _day(item) == day]
            due = [item for item in due if _day(item) != day]
            state = self._count_day(group, state, done)

    def _first_state(self) -> RollupState:
        now = self._clock()
        last = last_to_purge(self._retention_s, now)
        touched = (item.hour for item in self._stores.rollups.touched())
        over = int(now // HOUR_S) - 2
        return RollupState(purged=min([last + 1, *touched]), looked_at=over)

    def _look_at_hours(self, state: RollupState, now: float) -> RollupState:
        """Touch each hour once when it is over: an entry may be in it that was not announced."""
        hours = hours_over(state, now)
        for hour in hours:
            self._stores.rollups.touch(hour, end_of("hour", hour))
        if not hours:
            return state
        return self._stores.rollups.put_state(replace(state, looked_at=hours[-1]))

    def _count_day(
        self, group: Sequence[TouchedHour], state: RollupState, done: _Slice
    ) -> RollupState:
        """Count hours of one day, add the day and its week up, and settle what can be."""
        counted = dict(state.counted)
        hours: dict[str, list[int]] = {}
        shown: dict[str, ShownProducts] = {}
        settled: list[TouchedHour] = []
        read: set[int] = set()
        begun_at = self._clock()
        for item in group:
            if self._clock() >= done.deadline:
                break
            state, reading, count = self._read(item, state, done.deadline)
            if count is None:
                break
            is_over = is_settled(item, reading.begun_at)
            self._sums.put_hour(item.hour, count, reading.begun_at)
            for catalogue, tally in count.tallies.items():
                hours.setdefault(catalogue, []).append(item.hour)
                shown.setdefault(catalogue, ShownProducts()).merge(count.shown[catalogue])
                known = done.counted.setdefault(catalogue, [0, 0])
                known[0], known[1] = known[0] + 1, known[1] + tally.searches
            read.add(item.hour)
            counted[item.hour] = Counted(reading.begun_at, item.at, reading.read_s)
            done.left -= 1
            if is_over:
                settled.append(item)
                del counted[item.hour]
        for catalogue, of_catalogue in sorted(hours.items()):
            self._sums.put_sums(catalogue, of_catalogue, begun_at)
            self._sums.put_shown(
                catalogue,
                shown[catalogue].hashes(),
                of_catalogue[-1],
                is_settled=bool(settled),
            )
        state = replace(state, counted=counted)
        if state.reading is not None and state.reading.hour in read:
            state = self._stores.rollups.put_state(replace(state, reading=None))
            self._clear(None)
        else:
            state = self._stores.rollups.put_state(state)
        for item in settled:
            self._stores.rollups.settle(item)
        return state

    def _read(
        self, item: TouchedHour, state: RollupState, deadline: float
    ) -> tuple[RollupState, Reading, HourCount | None]:
        """Read an hour, or go on with it; the count is None if the time was over before its end."""
        reading, count = self._begun(item.hour, state)
        since = self._clock()
        before = reading.read_s
        places = read_hour(
            self._stores, item.hour, reading.shard, reading.after, reading.begun_at, count
        )
        for shard, after in places:
            at = self._clock()
            reading = replace(reading, shard=shard, after=after, read_s=before + at - since)
            is_late = at >= deadline
            if is_late or at - max(since, reading.saved_at) >= SAVE_EVERY_S:
                state, reading = self._save(state, replace(reading, saved_at=at), count)
            if is_late:
                return state, reading, None
        return state, reading, count

    def _begun(self, hour: int, state: RollupState) -> tuple[Reading, HourCount]:
        reading = state.reading
        if reading is not None and reading.hour == hour:
            found = self._stores.index.get(reading.key, _MAX_WORK_BYTES)
            if found is not None:
                return reading, HourCount.decode(found[1])
        return Reading(hour, self._clock()), HourCount()

    def _save(
        self, state: RollupState, reading: Reading, count: HourCount
    ) -> tuple[RollupState, Reading]:
        body = count.encode()
        key = _WORK + hashlib.blake2b(body, digest_size=16).hexdigest()
        self._stores.index.put(key, body, "application/octet-stream")
        reading = replace(reading, key=key)
        state = self._stores.rollups.put_state(replace(state, reading=reading))
        self._clear(key)
        return state, reading

    def _clear(self, kept: str | None) -> None:
        for info in list(self._stores.index.list(_WORK)):
            if info.key != kept:
                self._stores.index.delete(info.key)

    def _purge(self, state: RollupState, deadline: float) -> RollupState:
        """Delete entries that expired some time ago, where nobody else has."""
        last = last_to_purge(self._retention_s, self._clock())
        first = state.purged
        while first <= last and self._clock() < deadline:
            until = min(first + _PURGE_HOURS_A_SAVE, last + 1)
            for hour in range(first, until):
                for table in (self._stores.log, self._stores.feedback):
                    while table.delete(hour, _DELETE_AT_ONCE) == _DELETE_AT_ONCE:
                        pass
            state = self._stores.rollups.put_state(replace(state, purged=until))
            first = until
        return state

    def _report(self, lineage: Lineage, done: _Slice, is_whole: bool) -> CatalogueReport:
        catalogue = lineage.catalogue
        hours, searches = done.counted.get(catalogue, [0, 0])
        if is_whole:
            self._sums.put_sizes(catalogue)
        run = self._ledger.open(catalogue, "rollup")
        if (hours or run.is_under_way) and not done.left:
            if not run.is_under_way:  # else one died in between
                run.begin("adding up", total=hours)
            run.finish()
        return CatalogueReport(
            catalogue,
            "rollup",
            "adding up" if done.left else "",
            hours,
            hours + done.left,
            not done.left,
            {"hours": hours, "searches": searches},
        )


def _day(item: TouchedHour) -> int:
    return number_at("day", start_of("hour", item.hour))
