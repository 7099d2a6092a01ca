"""The health function: looks for what is wrong with catalogues."""

from __future__ import annotations

from chalice.app import Blueprint, CloudWatchEvent, Rate

from chalicelib.log import log_invocations
from chalicelib.scheduled_work import do_slice
from lookalike import wiring

blueprint = Blueprint(__name__)


@blueprint.schedule(Rate(1, unit=Rate.MINUTES), name="health")
@log_invocations
def health(event: CloudWatchEvent) -> object:
    """Go on with examinations that are due, or with what the event's detail asks for."""
    return do_slice(event, {"health": wiring.services().health}, "examined")
