"""The query function's feedback: what a shopper did with a result."""

from __future__ import annotations

from chalice.app import Blueprint

from chalicelib.api import endpoint
from lookalike import wiring
from lookalike.http.feedback_parameters import read_feedback
from lookalike.http.message import HttpAnswer, HttpRequest

blueprint = Blueprint(__name__)


@endpoint(blueprint, "POST", "/feedback")
def feedback(request: HttpRequest) -> object:
    """Keep a click, a purchase or a complaint."""
    wiring.services().feedback.record(read_feedback(request), request.caller)
    return HttpAnswer(204)
