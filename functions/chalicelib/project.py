"""The project function: lays catalogues out as maps. It has a layer of its own."""

from __future__ import annotations

from chalice.app import Blueprint, CloudWatchEvent, Rate

from chalicelib.log import log_invocations
from chalicelib.scheduled_work import do_slice
from lookalike import wiring_project

blueprint = Blueprint(__name__)


@blueprint.schedule(Rate(1, unit=Rate.MINUTES), name="project")
@log_invocations
def project(event: CloudWatchEvent) -> object:
    """Go on with maps that are due, or with what the event's detail asks for."""
    return do_slice(event, {"project": wiring_project.project()}, "projected")
