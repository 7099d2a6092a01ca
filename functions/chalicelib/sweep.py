"""The sweep function: finds what events did not say, within the time it is given."""

from __future__ import annotations

import time
from typing import Any

import msgspec
from chalice.app import Blueprint, CloudWatchEvent, Rate

from chalicelib.log import logger
from lookalike import wiring

STOP_BEFORE_TIMEOUT_S = 10.0
blueprint = Blueprint(__name__)


@blueprint.schedule(Rate(15, unit=Rate.MINUTES), name="sweep")
def sweep(event: CloudWatchEvent) -> object:
    """Compare bucket and records; give the report."""
    context: Any = event.context  # Lambda's, which Chalice calls a dict
    left_s = context.get_remaining_time_in_millis() / 1000
    report = wiring.services().sweep.run(time.time() + left_s - STOP_BEFORE_TIMEOUT_S)
    answer = msgspec.to_builtins(report)
    logger.info("swept", report=answer)
    return answer
