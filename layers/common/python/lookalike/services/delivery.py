"""Has what a batch of messages names indexed, so that one object that kills the process is alone.

A process that is killed fails its whole batch, and nobody says by which object. Therefore:

- A key that comes again is tried alone, with a note that is taken back when the process has lived
  through it. What comes for the first time is tried together, whatever was noted of it before.
- A key that has such a note is a suspect, and comes last, when all others of its batch are done.
  Among suspects, one that will not come again is first, then the one with the fewest such tries.
- A suspect is not tried beside a key that comes for the last time, which its death would make a
  dead letter. That key leaves the queue, and the suspect comes again without it.

Of ten that always come together, up to three may kill the process: it takes one delivery to know
that any does, one each to know which, and the last is for all others. A suspect that was killed
from outside has its turn in the next batch without such a key, however full that is.
"""

from __future__ import annotations

from collections.abc import Sequence

from lookalike.core.errors import Retry, Unavailable
from lookalike.core.types import Delivered
from lookalike.services.failures import GAVE_UP, GivingUp, Note
from lookalike.services.ingest import Ingest
from lookalike.services.ingest_pass import Filed, Report, ignore


class Delivery:
    """The use case behind the *embed* function.

    Parameters
    ----------
    ingest
        Indexes objects.
    giving_up
        Files failures before last tries, and notes what may have killed the process.
    """

    def __init__(self, ingest: Ingest, giving_up: GivingUp) -> None:
        self._ingest = ingest
        self._giving_up = giving_up

    def deliver(self, delivered: Sequence[Delivered], report: Report = ignore) -> dict[str, Retry]:
        """Index everything that is named; gives the keys that have to be delivered again.

        Parameters
        ----------
        delivered
            Each key once.
        report
            Told of each photo that became searchable and of each failure that was filed.
        """
        write_again = {item.key for item in delivered if item.write_again}
        last = [item for item in delivered if item.is_last]
        again = [item for item in delivered if item.receives > 1 and not item.is_last]
        first = [item.key for item in delivered if item.receives == 1 and not item.is_last]
        filed = self._giving_up.file([item.key for item in last])
        suspects: list[tuple[Delivered, Note]] = []
        retries: dict[str, Retry] = {}

        def try_each(items: Sequence[Delivered]) -> None:
            for item in items:
                try:
                    note = self._giving_up.note_of(item.key)
                except Retry as error:
                    retries[item.key] = error
                    continue
                if note.tries:
                    suspects.append((item, note))
                else:
                    retries.update(self._try_alone(item.key, note, write_again, report))

        try_each(last)
        retries |= self._ingest.reconcile(first, write_again=write_again, report=report)
        try_each(sorted(again, key=lambda item: -item.receives))
        beside_last = len(last) > sum(item.is_last for item, _ in suspects)
        suspects.sort(key=lambda suspect: (not suspect[0].is_last, suspect[1].tries))
        for item, note in suspects:
            if beside_last:
                retries[item.key] = Unavailable("it may have killed the process and is kept apart")
            else:
                retries |= self._try_alone(item.key, note, write_again, report)
                beside_last = item.is_last
        for key in filed:
            if key in retries:
                report(Filed(key, GAVE_UP))
        return retries

    def _try_alone(
        self, key: str, note: Note, write_again: set[str], report: Report
    ) -> dict[str, Retry]:
        try:
            self._giving_up.begin(note)
            retries = self._ingest.reconcile([key], write_again=write_again, report=report)
            self._giving_up.end(note)
        except Retry as error:
            return {key: error}
        return retries
