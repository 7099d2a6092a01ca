"""The reindex function: takes builds of new generations further, and what is asked for by hand."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from chalice.app import Blueprint, CloudWatchEvent, Rate

from chalicelib.log import logger
from lookalike import wiring
from lookalike.services.reindex import Action

STOP_BEFORE_TIMEOUT_S = 30.0
blueprint = Blueprint(__name__)


@blueprint.schedule(Rate(1, unit=Rate.MINUTES), name="reindex")
def reindex(event: CloudWatchEvent) -> object:
    """Do what the event's detail asks for, if anything, then go on; give the report."""
    context: Any = event.context  # Lambda's, which Chalice calls a dict
    left_s = context.get_remaining_time_in_millis() / 1000
    service = wiring.services().reindex
    detail = event.detail or {}
    catalogue = detail.get("catalogue")
    if "action" in detail:
        action = msgspec.convert(detail["action"], Action)
        catalogue = service.ask(action, catalogue, detail.get("encoder")).catalogue
    report = service.run(time.time() + left_s - STOP_BEFORE_TIMEOUT_S, catalogue)
    answer = msgspec.to_builtins(report)
    logger.info("reindexed", report=answer)
    return answer
