"""The rollup function: adds up the search log and deletes what has expired."""

from __future__ import annotations

from chalice.app import Blueprint, CloudWatchEvent, Rate

from chalicelib.log import log_invocations
from chalicelib.scheduled_work import do_slice
from lookalike import wiring

blueprint = Blueprint(__name__)


@blueprint.schedule(Rate(1, unit=Rate.MINUTES), name="rollup")
@log_invocations
def rollup(event: CloudWatchEvent) -> object:
    """Go on with what is not added up yet, or with what the event's detail asks for."""
    return do_slice(event, {"rollup": wiring.services().rollup}, "rolled up")
