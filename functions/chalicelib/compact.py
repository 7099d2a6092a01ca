"""The compact function: merges what was appended, drops what is dead, deletes what was replaced."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from chalice.app import Blueprint, CloudWatchEvent, Rate

from chalicelib.log import log_invocations
from chalicelib.metrics import measure
from chalicelib.refusals import refusal
from lookalike import wiring
from lookalike.core.errors import Reject

STOP_BEFORE_TIMEOUT_S = 30.0
blueprint = Blueprint(__name__)


@blueprint.schedule(Rate(1, unit=Rate.MINUTES), name="compact")
@log_invocations
def compact(event: CloudWatchEvent) -> object:
    """Compact every catalogue, or the one that the event's detail names; give the report."""
    context: Any = event.context  # Lambda's, which Chalice calls a dict
    left_s = context.get_remaining_time_in_millis() / 1000
    catalogue = (event.detail or {}).get("catalogue")
    try:
        report = wiring.services().compaction.run(
            time.time() + left_s - STOP_BEFORE_TIMEOUT_S, catalogue
        )
    except Reject as error:
        return refusal(error)
    answer = msgspec.to_builtins(report)
    metrics = {
        "RunFinished": int(report.finished),
        "CataloguesPostponed": len(report.postponed),
        "UnreadableFiles": len(report.unreadable),
    }
    measure("compacted", metrics, report=answer)
    return answer
