"""Aggregates of the search log a catalogue: of an hour, a day or a week, and which must be made.

An hour is always counted whole, from its entries; days are sums of hours, weeks of days. Whoever
writes an entry says of which hour before (`TouchedHour`), so that every hour that has changed is
counted again, however late the entry is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from lookalike.core.search_hours import DAY_S, HOUR_S, Period, start_of
from lookalike.core.tally import Tally

SETTLE_S = 120.0
"""Seconds after a touch in which the writes that it announced have ended, or touched again."""
TOUCH_EVERY_S = 30.0
"""Seconds for which a writer lets one touch of an hour stand for all that it writes to it."""
REST = 20.0
"""An hour that goes on changing is counted again after so many times what counting it took."""
LEAVING_S = 2 * HOUR_S
"""Seconds before an hour's first entry expires from which feedback on the hour is refused."""
LEFT_S = HOUR_S / 2
"""Seconds before an hour's first entry expires from which the hour is not counted any more."""
PURGE_AFTER_S = 2 * DAY_S
"""Seconds after an hour's last entry has expired after which those still there are deleted."""

_LOOKED_BACK = 48


@dataclass(frozen=True, slots=True)
class Rollup:
    """The aggregate of one period of a catalogue.

    Everything is in it that was written by epoch second ``made_at``. ``revision`` is the store's
    token for conditional writes.
    """

    catalogue: str
    period: Period
    number: int
    tally: Tally
    made_at: float
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class TouchedHour:
    """An hour that was, or is about to be, written to; ``at`` is the last time in epoch seconds."""

    hour: int
    at: float


@dataclass(frozen=True, slots=True)
class Counted:
    """When an hour was counted, by epoch second and as touched by when; how long that took."""

    at: float
    touched_at: float
    took_s: float


@dataclass(frozen=True, slots=True)
class Reading:
    """An hour that is being counted: everything of its shards up to a place is in a working object.

    ``begun_at`` is when reading began and ``saved_at`` when that object was written, in epoch
    seconds; ``read_s`` is how long reading has taken so far.
    """

    hour: int
    begun_at: float
    shard: int = 0
    after: str = ""
    key: str = ""
    read_s: float = 0.0
    saved_at: float = 0.0


@dataclass(frozen=True, slots=True)
class RollupState:
    """How far the roll-up of all catalogues is.

    ``counted`` are the hours that may have to be counted again soon. Hours before ``purged`` have
    no entries any more. Hours up to ``looked_at`` have been touched once by the roll-up itself when
    they were over. ``revision`` is the store's token for conditional writes.
    """

    purged: int
    counted: Mapping[int, Counted] = field(default_factory=dict)
    reading: Reading | None = None
    looked_at: int = 0
    revision: str | None = None


def is_leaving(hour: int, retention_s: float, now: float) -> bool:
    """Whether entries of an hour are about to expire: nothing more is to be said of it."""
    return now >= start_of("hour", hour) + retention_s - LEAVING_S


def has_left(hour: int, retention_s: float, now: float) -> bool:
    """Whether entries of an hour may expire while it is counted: what was counted is final."""
    return now >= start_of("hour", hour) + retention_s - LEFT_S


def last_to_purge(retention_s: float, now: float) -> int:
    """The last hour whose entries have all expired, and should be deleted if they still exist."""
    return int((now - retention_s - PURGE_AFTER_S) // HOUR_S) - 1


def hours_over(state: RollupState, now: float) -> range:
    """The hours that the roll-up has to look at by itself: they are over, and so are their writes.

    Somebody who could not say what he wrote may never write again. At most the last two days.
    """
    last = int((now - SETTLE_S) // HOUR_S) - 1
    return range(max(state.looked_at + 1, last - _LOOKED_BACK), last + 1)


def is_settled(touched: TouchedHour, counted_from: float) -> bool:
    """Whether counting that began then has seen everything that the touch announced."""
    return counted_from >= touched.at + SETTLE_S


def hours_due(
    touched: Iterable[TouchedHour],
    state: RollupState,
    retention_s: float,
    now: float,
    *,
    at_once: bool = False,
) -> list[TouchedHour]:
    """The hours to count now, the oldest first.

    Parameters
    ----------
    touched
        Hours that have been written to.
    state
        When they were counted.
    retention_s
        Seconds for which entries are kept.
    now
        Epoch seconds.
    at_once
        By hand: all of them.
    """
    return sorted(
        (
            item
            for item in touched
            if not has_left(item.hour, retention_s, now)
            and (at_once or _is_due(item, state.counted.get(item.hour), now))
        ),
        key=lambda item: item.hour,
    )


def _is_due(touched: TouchedHour, counted: Counted | None, now: float) -> bool:
    if counted is None:
        return True
    if touched.at <= counted.touched_at and not is_settled(touched, now):
        return False  # it was counted since; once more when all writes have ended
    return now - counted.at >= REST * counted.took_s


def total(rollups: Iterable[Rollup]) -> Tally:
    """The sum of several periods."""
    tally = Tally()
    for rollup in rollups:
        tally.merge(rollup.tally)
    return tally.trim()
