"""Carries requests and answers between Chalice and `lookalike.http`; here errors are caught."""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from chalice.app import Blueprint, CORSConfig, Request, Response

from chalicelib.log import logger
from lookalike import wiring
from lookalike.core.access import Right
from lookalike.core.errors import Reject
from lookalike.http.message import HttpAnswer, HttpRequest, json_answer
from lookalike.http.operations import RIGHTS
from lookalike.http.problems import framework_problem, problem_answer, problem_of

# A page has no rights that come by themselves (no cookies; keys are sent by who has them), so any
# page may search; infra/gateway.py takes DELETE out of what pages are told they may do.
CORS = CORSConfig(allow_origin="*", expose_headers=["Retry-After", "X-Cache"], max_age=3600)
View = Callable[[HttpRequest], object]


def endpoint(blueprint: Blueprint, method: str, path: str) -> Callable[[View], View]:
    """Register a view: it takes an `HttpRequest`, returns what becomes JSON or an `HttpAnswer`.

    It is called for those who have the right that `RIGHTS` says.
    """
    right = RIGHTS[method, path]

    def register(view: View) -> View:
        @functools.wraps(view)
        def answer(**path_parameters: str) -> Response:
            request = incoming(blueprint.current_request, path_parameters)
            return outgoing(answer_of(view, request, right))

        # Chalice matches content types exactly; `lookalike.http.body` knows image/* and says more.
        blueprint.route(path, methods=[method], content_types=["*/*"], cors=CORS)(answer)
        return view

    return register


def answer_of(view: View, request: HttpRequest, right: Right | None) -> HttpAnswer:
    """Run a view for who may; whatever is raised is answered by a problem document."""
    try:
        result = view(request) if right is None else _admitted(view, request, right)
        return result if isinstance(result, HttpAnswer) else json_answer(result)
    except Exception as error:
        problem = problem_of(error, request.request_id)
        if problem.status == 500:
            logger.exception("unexpected error", path=request.path, request_id=request.request_id)
        if problem.status == 503:
            logger.warning(
                "unavailable", path=request.path, request_id=request.request_id, cause=str(error)
            )
        return problem_answer(problem, error.headers if isinstance(error, Reject) else None)


def _admitted(view: View, request: HttpRequest, right: Right) -> object:
    access = wiring.services().access
    key = access.key(request.authorization)
    logger.append_keys(api_key_id=key.key_id if key else None)
    admitted = access.admit(key, right)
    try:
        return view(replace(request, caller=admitted.caller))
    finally:
        admitted.check()  # errors count, too


def incoming(request: Request, path_parameters: Mapping[str, str]) -> HttpRequest:
    """A request without Chalice."""
    event = request.to_original_event()
    body = request.raw_body
    return HttpRequest(
        path_parameters=path_parameters,
        query=event.get("multiValueQueryStringParameters") or {},
        content_type=request.headers.get("content-type", ""),
        body=body if isinstance(body, bytes) else body.encode(),
        path=request.context.get("path", request.path),
        request_id=request.context.get("requestId", ""),
        base_url=base_url(request),
        authorization=request.headers.get("authorization", ""),
    )


def base_url(request: Request) -> str:
    """What the API's absolute URLs begin with: "" when the event does not name its host."""
    host = request.context.get("domainName")
    if not host:
        return ""
    scheme = "http" if request.headers.get("x-forwarded-proto") == "http" else "https"
    # A stage, or what a domain of one's own maps to it, stands before the route in the path.
    path, route = (request.context.get(name, "").rstrip("/") for name in ("path", "resourcePath"))
    before = path.split("/")[: -route.count("/") or None]
    return f"{scheme}://{host}{'/'.join(before)}"


class BinaryResponse(Response):
    """A body of bytes, which only base64 carries through Lambda.

    Chalice would do this for the types that it takes for binary, and refuse clients that send no
    ``Accept`` for them: so it is told of none, and API Gateway of all (infra/gateway.py).
    """

    def to_dict(self, binary_types: list[str] | None = None) -> dict[str, Any]:
        """The answer as API Gateway takes it."""
        answer = super().to_dict()
        return answer | {"body": base64.b64encode(self.body).decode(), "isBase64Encoded": True}


def outgoing(answer: HttpAnswer) -> Response:
    """An answer as Chalice wants it."""
    headers: dict[str, str | list[str]] = dict(answer.headers)
    if answer.content_type:
        headers["Content-Type"] = answer.content_type
    kind = BinaryResponse if isinstance(answer.body, bytes) else Response
    return kind(body=answer.body, headers=headers, status_code=answer.status)


def problems_of_the_framework(request: Request, respond: Callable[[Request], Response]) -> Response:
    """Middleware: what Chalice refuses by itself (a wrong method) is a problem document too."""
    response = respond(request)
    body: Any = response.body
    if response.status_code < 400 or not isinstance(body, dict):
        return response
    detail = f"{body.get('Message', 'Refused')}."
    problem = framework_problem(response.status_code, detail, request.context.get("requestId", ""))
    return outgoing(problem_answer(problem, response.headers))
