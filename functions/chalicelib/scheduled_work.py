"""What the functions of scheduled work have in common: a slice of work, its report and metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Protocol

import msgspec
from chalice.app import CloudWatchEvent

from chalicelib.metrics import measure
from chalicelib.refusals import refusal
from lookalike.core.errors import InvalidRequest, Reject
from lookalike.services.jobs import WorkReport

STOP_BEFORE_TIMEOUT_S = 30.0


class Work(Protocol):
    """A service that does scheduled work."""

    def run(
        self, deadline: float, catalogue: str | None = None, *, now: bool = False
    ) -> WorkReport:
        """Do what is due, or with ``now`` all of it anew, until ``deadline`` in epoch seconds."""


def do_slice(event: CloudWatchEvent, works: Mapping[str, Work], message: str) -> object:
    """Take work further, one job after the other, within the function's time; give the report.

    Parameters
    ----------
    event
        Its detail may name a ``catalogue`` and a ``job``, and say ``"now": true``.
    works
        By the name of their jobs.
    message
        What was done, for the log.
    """
    context: Any = event.context  # Lambda's, which Chalice calls a dict
    deadline = time.time() + context.get_remaining_time_in_millis() / 1000 - STOP_BEFORE_TIMEOUT_S
    detail = event.detail or {}
    report = WorkReport()
    try:
        for work in _asked_for(works, detail.get("job")):
            done = work.run(deadline, detail.get("catalogue"), now=detail.get("now") is True)
            report.catalogues += done.catalogues
            report.postponed |= done.postponed
            report.finished &= done.finished
    except Reject as error:
        return refusal(error)
    answer = msgspec.to_builtins(report)
    metrics = {
        "RunFinished": int(report.finished),
        "CataloguesPostponed": len(report.postponed),
    }
    measure(message, metrics, report=answer)
    return answer


def _asked_for(works: Mapping[str, Work], job: str | None) -> list[Work]:
    if job is None:
        return list(works.values())
    if job not in works:
        raise InvalidRequest(f"job: “{job}” is none of {', '.join(works)}", parameter="job")
    return [works[job]]
