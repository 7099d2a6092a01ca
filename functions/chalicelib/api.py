"""Carries requests and answers between Chalice and `lookalike.http`; here errors are caught."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from chalice.app import Blueprint, CORSConfig, Request, Response

from chalicelib.log import logger
from lookalike.http.message import HttpAnswer, HttpRequest, json_answer
from lookalike.http.problems import framework_problem, problem_answer, problem_of

BINARY_TYPES = ["image/*", "multipart/form-data", "application/octet-stream"]
# Nothing here depends on who asks (no cookies), so any page may search; infra/gateway.py takes
# DELETE out of what pages are told they may do.
CORS = CORSConfig(allow_origin="*", expose_headers=["Retry-After"], max_age=3600)
View = Callable[[HttpRequest], object]


def endpoint(blueprint: Blueprint, method: str, path: str) -> Callable[[View], View]:
    """Register a view: it takes an `HttpRequest`, returns what becomes JSON or an `HttpAnswer`."""

    def register(view: View) -> View:
        @functools.wraps(view)
        def answer(**path_parameters: str) -> Response:
            request = incoming(blueprint.current_request, path_parameters)
            return outgoing(answer_of(view, request))

        # Chalice matches content types exactly; `lookalike.http.body` knows image/* and says more.
        blueprint.route(path, methods=[method], content_types=["*/*"], cors=CORS)(answer)
        return view

    return register


def answer_of(view: View, request: HttpRequest) -> HttpAnswer:
    """Run a view; whatever it raises is answered by a problem document."""
    try:
        result = view(request)
        return result if isinstance(result, HttpAnswer) else json_answer(result)
    except Exception as error:
        problem = problem_of(error, request.request_id)
        if problem.status == 500:
            logger.exception("unexpected error", path=request.path, request_id=request.request_id)
        if problem.status == 503:
            logger.warning(
                "unavailable", path=request.path, request_id=request.request_id, cause=str(error)
            )
        return problem_answer(problem)


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
    )


def outgoing(answer: HttpAnswer) -> Response:
    """An answer as Chalice wants it."""
    headers: dict[str, str | list[str]] = dict(answer.headers)
    if answer.content_type:
        headers["Content-Type"] = answer.content_type
    return Response(body=answer.body, headers=headers, status_code=answer.status)


def problems_of_the_framework(request: Request, respond: Callable[[Request], Response]) -> Response:
    """Middleware: what Chalice refuses by itself (a wrong method) is a problem document too."""
    response = respond(request)
    body: Any = response.body
    if response.status_code < 400 or not isinstance(body, dict):
        return response
    detail = f"{body.get('Message', 'Refused')}."
    problem = framework_problem(response.status_code, detail, request.context.get("requestId", ""))
    return outgoing(problem_answer(problem, response.headers))
