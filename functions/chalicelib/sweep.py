"""The sweep function: finds what events did not say, within the time it is given."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from chalice.app import Blueprint, CloudWatchEvent, Rate

from chalicelib.log import log_invocations
from chalicelib.metrics import measure
from lookalike import wiring

STOP_BEFORE_TIMEOUT_S = 10.0
blueprint = Blueprint(__name__)


@blueprint.schedule(Rate(15, unit=Rate.MINUTES), name="sweep")
@log_invocations
def sweep(event: CloudWatchEvent) -> object:
    """Go on with the sweep; give the report.

    The event's detail may hold ``mode`` (see `lookalike.services.sweep`) and ``within_s``, seconds.
    """
    context: Any = event.context  # Lambda's, which Chalice calls a dict
    detail = event.detail or {}
    left_s = context.get_remaining_time_in_millis() / 1000 - STOP_BEFORE_TIMEOUT_S
    within_s = min(left_s, detail.get("within_s", left_s))
    report = wiring.services().sweep.run(
        time.time() + within_s, detail.get("mode", ""), is_short=within_s < left_s
    )
    answer = msgspec.to_builtins(report)
    metrics = {"SweepAskedAgain": report.queued, "RunFinished": int(report.finished)}
    measure("swept", metrics, report=answer)
    return answer
