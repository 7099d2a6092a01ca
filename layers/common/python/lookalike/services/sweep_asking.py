"""Asks for objects to be looked at again, no faster than they are worked off."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lookalike.core.ports import Clock, Queue
from lookalike.services.derived import OutOfTime

_LOOK_EVERY_S = 5.0
_AT_ONCE = 100


class Asking:
    """Puts keys in the ingest queue while it is short.

    What the queue says of its length may be late: between two looks at it, at most what there was
    room for is sent.

    Parameters
    ----------
    queue
        The ingest queue.
    backlog
        Messages from which on it is not short.
    clock
        Epoch seconds.
    pause
        Waits for so many seconds.
    deadline
        Epoch second at which waiting ends.
    """

    def __init__(
        self,
        queue: Queue,
        backlog: int,
        clock: Clock,
        pause: Callable[[float], None],
        deadline: float,
    ) -> None:
        self._queue = queue
        self._backlog = backlog
        self._clock = clock
        self._pause = pause
        self._deadline = deadline
        self._room = 0
        self._looked_at = float("-inf")
        self.asked = 0

    def ask(self, keys: Sequence[str], *, write_again: bool = False) -> None:
        """Ask for these; returns when all were sent.

        Raises
        ------
        OutOfTime
            The deadline came first; ``asked`` says how many were sent in all.
        """
        left = list(keys)
        while left:
            self._wait_for_room()
            few, left = left[: self._room][:_AT_ONCE], left[min(self._room, _AT_ONCE) :]
            self._queue.send_keys(few, write_again=write_again)
            self._room -= len(few)
            self.asked += len(few)

    def _wait_for_room(self) -> None:
        while self._room <= 0:
            until = self._looked_at + _LOOK_EVERY_S
            if until > self._deadline:
                raise OutOfTime
            if (left_s := until - self._clock()) > 0:
                self._pause(left_s)
            self._looked_at = self._clock()
            self._room = self._backlog - self._queue.backlog()
