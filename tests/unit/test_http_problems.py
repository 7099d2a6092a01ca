from __future__ import annotations

import json

import pytest

from lookalike.core.errors import (
    Conflict,
    InvalidRequest,
    LookalikeError,
    MalformedBody,
    NotFound,
    TooLarge,
    Unavailable,
    Unindexable,
    UnsupportedMedia,
)
from lookalike.http.problems import framework_problem, problem_answer, problem_of


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (InvalidRequest("d", parameter="k"), 422, "invalid-request"),
        (MalformedBody("d"), 400, "malformed-body"),
        (NotFound("d"), 404, "not-found"),
        (TooLarge("d"), 413, "too-large"),
        (UnsupportedMedia("d"), 415, "unsupported-media"),
        (Unindexable("corrupt-image", "d"), 422, "unusable-image"),
        (Unindexable("too-large", "d"), 413, "unusable-image"),
        (Unindexable("too-many-pixels", "d"), 413, "unusable-image"),
        (Unindexable("not-an-image", "d"), 415, "unusable-image"),
        (Unavailable("AccessDenied for arn:aws:s3:::secret"), 503, "unavailable"),
        (Conflict("lost"), 503, "unavailable"),
        (LookalikeError("?"), 500, "internal-error"),
        (KeyError("secret"), 500, "internal-error"),
    ],
)
def test_every_error_has_one_status(error: Exception, status: int, kind: str) -> None:
    answer = problem_answer(problem_of(error, "r-1"))
    document = json.loads(answer.body)
    assert answer.status == document["status"] == status
    assert answer.content_type == "application/problem+json"
    assert document["type"] == f"urn:lookalike:problem:{kind}"
    assert document["instance"] == "urn:lookalike:request:r-1"
    assert document["title"] and document["detail"]
    assert ("Retry-After" in answer.headers) == (status == 503)
    assert "secret" not in answer.body


def test_parameter_and_reason_are_there_when_there_is_one() -> None:
    assert problem_of(InvalidRequest("d", parameter="k"), "").parameter == "k"
    image = json.loads(problem_answer(problem_of(Unindexable("corrupt-image", "d"), "")).body)
    assert (image["reason"], image["parameter"]) == ("corrupt-image", "image")
    assert "instance" not in image
    assert "reason" not in json.loads(problem_answer(problem_of(NotFound("d"), "r")).body)


def test_what_the_framework_refuses_keeps_its_headers() -> None:
    problem = framework_problem(405, "Unsupported method: PUT.", "r")
    answer = problem_answer(problem, {"Allow": "GET"})
    assert (answer.status, answer.headers) == (405, {"Allow": "GET"})
    assert json.loads(answer.body)["type"] == "urn:lookalike:problem:method-not-allowed"
