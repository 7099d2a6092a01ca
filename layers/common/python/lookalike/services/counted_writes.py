"""Writes searches and feedback so that the roll-up cannot miss one, however late it is written.

Whoever is about to write says of which hour (`RollupTable.touch`), and says it again if the write
took so long that the hour may have been settled meanwhile. So no clock has to decide when an hour
is over, and a writer that dies in between costs one more count of that hour. What could not be said
is said at the next write; the roll-up looks at each hour once by itself, should there be none.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from lookalike.core.errors import Retry, Unavailable
from lookalike.core.feedback import FeedbackEntry
from lookalike.core.ports import Clock, Stores
from lookalike.core.rollups import SETTLE_S, TOUCH_EVERY_S, has_left
from lookalike.core.search_hours import hour_of
from lookalike.core.types import SearchRecord

logger = logging.getLogger(__name__)

_KNOWN_HOURS = 100
# A touch is believed for less than it lasts, as clocks differ.
_BELIEVED_S = SETTLE_S - 30.0


class _NotTouched(Unavailable):
    """An entry is kept, and its hour could not be touched."""


class CountedWrites:
    """The way into the search log and the feedback table.

    Parameters
    ----------
    stores
        Where to write.
    retention_s
        Seconds for which entries are kept.
    clock
        Epoch seconds.
    """

    def __init__(self, stores: Stores, retention_s: float, clock: Clock) -> None:
        self._stores = stores
        self._retention_s = retention_s
        self._clock = clock
        self._touched: dict[int, float] = {}
        self._untouched: set[int] = set()

    def write(self, record: SearchRecord) -> None:
        """Keep one search; raises `Unavailable`."""
        try:
            with self._touching(hour_of(record.query_id)):
                self._stores.log.write(record)
        except _NotTouched as error:  # it is kept
            logger.warning("search %s may be counted late: %s", record.query_id, error)

    def write_feedback(self, entry: FeedbackEntry) -> bool:
        """Keep an event; False if it is kept already.

        Raises
        ------
        Unavailable
            It is not kept, or its hour may never be counted again: send it once more.
        """
        with self._touching(hour_of(entry.query_id)):
            return self._stores.feedback.put(entry)

    @contextmanager
    def _touching(self, hour: int) -> Iterator[None]:
        now = self._clock()
        self._make_good(now)
        if has_left(hour, self._retention_s, now):
            yield
            return
        touched_at = self._touched.get(hour)
        if touched_at is None or now - touched_at >= TOUCH_EVERY_S:
            try:
                touched_at = self._touch(hour, now)
            except Retry:  # then behind the write, which is worth more
                touched_at = -math.inf
        try:
            yield
        except BaseException:  # it may have been written all the same
            with suppress(_NotTouched):
                self._touch_again(hour, touched_at)
            raise
        self._touch_again(hour, touched_at)

    def _touch_again(self, hour: int, touched_at: float) -> None:
        """Touch behind a write, if that may have come after what the first touch announced."""
        ended_at = self._clock()
        # A process that is frozen with the write in flight goes on much later.
        if ended_at - touched_at > _BELIEVED_S:
            try:
                self._touch(hour, ended_at)
            except Retry as error:
                self._untouched.add(hour)
                raise _NotTouched(str(error)) from error

    def _make_good(self, now: float) -> None:
        """Say of which hours was written while it could not be said."""
        for hour in list(self._untouched):
            try:
                self._touch(hour, now)
            except Retry:
                return  # and at the next write
            self._untouched.discard(hour)

    def _touch(self, hour: int, at: float) -> float:
        self._stores.rollups.touch(hour, at)
        if len(self._touched) >= _KNOWN_HOURS:
            self._touched.clear()
        self._touched[hour] = at
        return at
