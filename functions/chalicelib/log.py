"""The functions' structured log. ``logging.getLogger("lookalike.…")`` anywhere ends in it.

Every line names its function and its invocation; lines of an HTTP request also ``request_id``, API
Gateway's, which problem documents tell, and the id of the API key that it came with.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from aws_lambda_powertools import Logger
from chalice.app import Request, Response

from chalicelib.metrics import EmbeddedMetrics, measure
from lookalike.settings import Settings

Handler = TypeVar("Handler", bound=Callable[..., Any])
REFUSED = (401, 403, 429)

logger = Logger(
    service="lookalike",
    level=Settings.from_env().log_level,
    function_name=os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "lookalike"),
    # There from the start: threads that log while a key is added would stumble.
    function_request_id=None,
    request_id=None,
    api_key_id=None,
)
logger.registered_handler.addFilter(EmbeddedMetrics())


def log_invocations(handler: Handler) -> Handler:
    """Put the id of each invocation in the log; to be written below the decorator of an event.

    Middleware would not do: Lambda calls these handlers in their own modules, without the app.
    """

    @functools.wraps(handler)
    def logged(event: Any) -> Any:
        _begin(event.context)
        return handler(event)

    return cast(Handler, logged)


def log_requests(request: Request, respond: Callable[[Request], Response]) -> Response:
    """Middleware: put the ids of each request in the log, and measure its answer."""
    _begin(request.lambda_context, request.context.get("requestId"))
    begun = time.perf_counter()
    response = respond(request)
    metrics = {
        f"Answers{response.status_code // 100}xx": 1,
        "AnswerTime": round((time.perf_counter() - begun) * 1000, 3),
        "AccessRefused": int(response.status_code in REFUSED),
    }
    route = f"{request.method} {request.context.get('resourcePath', '')}"
    measure("answered", metrics, route=route, status=response.status_code)
    return response


def _begin(context: Any, request_id: str | None = None) -> None:
    logger.append_keys(
        function_request_id=getattr(context, "aws_request_id", None),  # not a test's context
        request_id=request_id,
        api_key_id=None,
    )
