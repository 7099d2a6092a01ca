"""The reindex function: takes builds of new generations further, and what is asked for by hand."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from chalice.app import Blueprint, CloudWatchEvent, Rate

from chalicelib.log import log_invocations
from chalicelib.metrics import measure
from chalicelib.refusals import refusal
from lookalike import wiring
from lookalike.core.errors import InvalidRequest, Reject
from lookalike.services.build_state import ReindexReport
from lookalike.services.reindex import Action

STOP_BEFORE_TIMEOUT_S = 30.0
blueprint = Blueprint(__name__)


@blueprint.schedule(Rate(1, unit=Rate.MINUTES), name="reindex")
@log_invocations
def reindex(event: CloudWatchEvent) -> object:
    """Do what the event's detail asks for, if anything, then go on; give the report."""
    context: Any = event.context  # Lambda's, which Chalice calls a dict
    left_s = context.get_remaining_time_in_millis() / 1000
    try:
        report = _report(event.detail or {}, time.time() + left_s - STOP_BEFORE_TIMEOUT_S)
    except Reject as error:
        return refusal(error)
    answer = msgspec.to_builtins(report)
    measure("reindexed", {"CataloguesPostponed": len(report.postponed)}, report=answer)
    return answer


def _report(detail: dict[str, Any], deadline: float) -> ReindexReport:
    service = wiring.services().reindex
    catalogue, asked = detail.get("catalogue"), ""
    if "action" in detail:
        try:
            action = msgspec.convert(detail["action"], Action)
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"action: {error}", parameter="action") from error
        state = service.ask(action, catalogue, detail.get("encoder"))
        catalogue, asked = state.catalogue, state.asked if action == "build" else ""
    report = service.run(deadline, catalogue)
    report.asked = asked
    return report
