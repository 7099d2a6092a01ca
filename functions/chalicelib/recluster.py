"""The recluster function: groups products into clusters, then calibrates their scores."""

from __future__ import annotations

from chalice.app import Blueprint, CloudWatchEvent, Rate

from chalicelib.log import log_invocations
from chalicelib.scheduled_work import Work, do_slice
from lookalike import wiring

blueprint = Blueprint(__name__)


@blueprint.schedule(Rate(1, unit=Rate.MINUTES), name="recluster")
@log_invocations
def recluster(event: CloudWatchEvent) -> object:
    """Go on with both where they are due, or with what the event's detail asks for."""
    services = wiring.services()
    works: dict[str, Work] = {"recluster": services.recluster, "calibrate": services.calibrate}
    return do_slice(event, works, "reclustered")
