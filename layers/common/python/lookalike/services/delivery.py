"""Has what a batch of messages names indexed, so that one object that kills the process is alone.

A process that is killed fails its whole batch, and nobody says by which object. So objects that
come again are tried one by one, each with a note that is taken back when the process has lived
through it. What has such a note when it comes is not tried in company any more: its neighbours
leave the queue, and it goes to the dead letters alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from lookalike.core.errors import Retry, Unavailable
from lookalike.core.types import Delivered
from lookalike.services.failures import GAVE_UP, GivingUp
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
        coming_again = [item for item in delivered if item.receives > 1 or item.is_last]
        first = [item.key for item in delivered if item not in coming_again]
        retries = self._ingest.reconcile(first, write_again=write_again, report=report)
        filed = self._giving_up.file([item.key for item in coming_again if item.is_last])
        for item in self._chosen(coming_again, first):
            retries |= self._try_alone(item.key, write_again, report)
            coming_again.remove(item)
        for item in coming_again:
            retries[item.key] = Unavailable("it may have killed the process and is kept apart")
        for key in filed:
            if key in retries:
                report(Filed(key, GAVE_UP))
        return retries

    def _chosen(self, coming_again: list[Delivered], first: list[str]) -> list[Delivered]:
        """What is to be tried one by one: all that is not suspected, else one that is."""
        suspected = self._giving_up.suspected([item.key for item in coming_again])
        chosen = [item for item in coming_again if item.key not in suspected]
        if not first and not chosen:
            return coming_again[:1]
        if chosen and max(item.receives for item in chosen) % 2:
            # From the other end: what came behind the one that killed the process has its turn.
            chosen.reverse()
        return chosen

    def _try_alone(self, key: str, write_again: set[str], report: Report) -> dict[str, Retry]:
        try:
            self._giving_up.suspect(key)
            retries = self._ingest.reconcile([key], write_again=write_again, report=report)
            self._giving_up.clear(key)
        except Retry as error:
            return {key: error}
        return retries
