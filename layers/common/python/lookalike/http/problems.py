"""Maps errors to problem documents (RFC 9457). The only place where an error becomes a status."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from lookalike.core.errors import Reject, Retry, Unindexable
from lookalike.http.message import HttpAnswer

PROBLEM_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:lookalike:problem:"
RETRY_AFTER_S = 1

# Reasons of `Unindexable` that HTTP has a status of its own for; every other one is 422.
STATUS_OF_REASON = {
    "too-large": 413,
    "too-many-pixels": 413,
    "too-much-memory": 413,
    "not-an-image": 415,
    "missing-codec": 415,
}
# What could not be reached is our business (the log has it), not the client's.
UNAVAILABLE = "A part of the service cannot be reached right now. Try again in a second."
FRAMEWORK_TITLES = {
    400: ("malformed-body", "Malformed body"),
    404: ("not-found", "Not found"),
    405: ("method-not-allowed", "Method not allowed"),
    415: ("unsupported-media", "Unsupported media type"),
}
INTERNAL = ("internal-error", "Internal error")


class Problem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What went wrong, for a program (``type``, ``parameter``, ``reason``) and for a person."""

    type: str
    """Kind of problem: ``urn:lookalike:problem:`` and a name that does not change."""
    title: str
    """The kind in words, the same for every problem of this type."""
    status: int
    """The HTTP status."""
    detail: str
    """What is wrong with this request, what is allowed, what to do next."""
    instance: str | None = None
    """This occurrence, ``urn:lookalike:request:`` and the request id, as the logs name it."""
    parameter: str | None = None
    """The parameter or field that is wrong, when one is."""
    reason: str | None = None
    """Why an image cannot be used, when that is the problem."""


def problem_of(error: Exception, request_id: str) -> Problem:
    """The problem document of an error.

    An error that was not raised on purpose becomes a 500 that says nothing of its cause.
    """
    instance = f"urn:lookalike:request:{request_id}" if request_id else None
    if isinstance(error, Reject):
        return Problem(
            type=TYPE_PREFIX + _kebab(type(error).__name__),
            title=error.title,
            status=error.status,
            detail=error.detail,
            instance=instance,
            parameter=error.parameter,
        )
    if isinstance(error, Unindexable):
        return Problem(
            type=TYPE_PREFIX + "unusable-image",
            title="Unusable image",
            status=STATUS_OF_REASON.get(error.reason, 422),
            detail=error.detail,
            instance=instance,
            parameter="image",
            reason=error.reason,
        )
    if isinstance(error, Retry):
        return Problem(
            type=TYPE_PREFIX + "unavailable",
            title="Unavailable",
            status=503,
            detail=UNAVAILABLE,
            instance=instance,
        )
    return framework_problem(500, "Something went wrong on our side. It was logged.", request_id)


def framework_problem(status: int, detail: str, request_id: str) -> Problem:
    """The problem document of an answer that the web framework gave by itself."""
    kind, title = FRAMEWORK_TITLES.get(status, INTERNAL)
    return Problem(
        type=TYPE_PREFIX + kind,
        title=title,
        status=status,
        detail=detail,
        instance=f"urn:lookalike:request:{request_id}" if request_id else None,
    )


def problem_answer(problem: Problem, headers: Mapping[str, Any] | None = None) -> HttpAnswer:
    """The answer that carries a problem document; a 503 says when to come back."""
    extra = {name: str(value) for name, value in (headers or {}).items()}
    if problem.status == 503:
        extra["Retry-After"] = str(RETRY_AFTER_S)
    # What was sent may hold lone surrogates, and a detail quotes it.
    detail = problem.detail.encode(errors="replace").decode()
    body = msgspec.json.encode(msgspec.structs.replace(problem, detail=detail)).decode()
    return HttpAnswer(problem.status, body, PROBLEM_TYPE, extra)


def _kebab(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()
