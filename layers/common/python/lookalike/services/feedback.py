"""Takes in what shoppers did with results, if those results were really shown."""

from __future__ import annotations

from dataclasses import dataclass

from lookalike.core.access import ANYBODY, Caller
from lookalike.core.errors import Gone, InvalidRequest, NotFound
from lookalike.core.feedback import Event, FeedbackEntry, was_shown
from lookalike.core.ports import Clock, Stores
from lookalike.core.rollups import is_leaving
from lookalike.core.search_hours import DAY_S, hour_of
from lookalike.core.types import SearchRecord
from lookalike.services.counted_writes import CountedWrites


@dataclass(frozen=True, slots=True)
class FeedbackRequest:
    """An event on one result: ``product_id``, which stood at ``rank``, counted from 1."""

    query_id: str
    product_id: str
    event: Event
    rank: int


class Feedback:
    """The use case behind ``POST /feedback``.

    Parameters
    ----------
    stores
        Where the search log is read.
    writes
        Keeps the event.
    retention_s
        Seconds for which searches are kept.
    clock
        Epoch seconds.
    """

    def __init__(
        self, stores: Stores, writes: CountedWrites, retention_s: float, clock: Clock
    ) -> None:
        self._stores = stores
        self._writes = writes
        self._retention_s = retention_s
        self._clock = clock

    def record(self, request: FeedbackRequest, caller: Caller = ANYBODY) -> None:
        """Keep an event. The same event on the same product of a search again changes nothing.

        Raises
        ------
        NotFound
            There was no such search that the caller may know of, or it is not in the log yet.
        Gone
            The search is about to leave the log, or has left it.
        InvalidRequest
            The search did not show this product at this rank.
        Retry
            A table cannot be reached.
        """
        now = self._clock()
        record = self._search(request.query_id, now, caller)
        if not was_shown(record, request.product_id, request.rank):
            raise self._not_shown(request, record)
        self._writes.write_feedback(
            FeedbackEntry(
                query_id=request.query_id,
                product_id=request.product_id,
                event=request.event,
                rank=request.rank,
                catalogue=record.catalogue,
                at=now,
                expires_at=record.at + self._retention_s,
            )
        )

    def _search(self, query_id: str, now: float, caller: Caller) -> SearchRecord:
        try:
            hour = hour_of(query_id)
        except ValueError:
            raise NotFound(
                f"“{query_id[:60]}” is no search's id; use the query_id of an answer.",
                parameter="query_id",
            ) from None
        if is_leaving(hour, self._retention_s, now):
            raise Gone(
                f"The search “{query_id}” has expired: feedback is taken for about "
                f"{self._retention_s / DAY_S:g} days.",
                parameter="query_id",
            )
        record = self._stores.log.get(query_id, now)
        if record is None or not caller.sees(record.catalogue):
            raise NotFound(
                f"There is no search “{query_id}” in the log; one that was answered this moment "
                "may be there in a second.",
                parameter="query_id",
            )
        return record

    @staticmethod
    def _not_shown(request: FeedbackRequest, record: SearchRecord) -> InvalidRequest:
        shown = (result[0] for result in record.results)
        at = next((rank for rank, name in enumerate(shown, 1) if name == request.product_id), None)
        if at is None:
            return InvalidRequest(
                f"The search “{request.query_id}” did not show the product "
                f"“{request.product_id[:60]}”; send a product_id of its results.",
                parameter="product_id",
            )
        return InvalidRequest(
            f"The search “{request.query_id}” showed that product at rank {at}, not at "
            f"{request.rank}.",
            parameter="rank",
        )
