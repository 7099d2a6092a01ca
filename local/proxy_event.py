"""API Gateway's REST proxy format (version 1.0): requests to events, and answers to HTTP."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from local.template import ACCOUNT_ID

Pairs = Sequence[tuple[str, str]]


class MalformedAnswer(Exception):
    """A function answered with something that is no proxy response; the gateway answers 502."""


@dataclass(frozen=True, slots=True)
class ProxyRequest:
    """An HTTP request that matched a route.

    ``path`` and ``path_parameters`` stay percent-encoded, as API Gateway's REST APIs hand them on.
    """

    method: str
    path: str
    query: str
    headers: Pairs
    body: bytes
    resource: str
    path_parameters: Mapping[str, str]
    stage: str
    request_id: str
    source_ip: str
    received: datetime


@dataclass(frozen=True, slots=True)
class ProxyAnswer:
    """An HTTP answer made of a function's."""

    status: int
    headers: Pairs
    body: bytes


def build_event(request: ProxyRequest, binary_types: Sequence[str]) -> dict[str, Any]:
    """The event for a request.

    Parameters
    ----------
    request
        The request.
    binary_types
        The API's binary media types; bodies of these are passed in base64.
    """
    headers = [
        (_clean(name), _clean(value))
        for name, value in request.headers
        if name.lower() not in _DROPPED_HEADERS
    ]
    headers.extend(
        (
            ("X-Forwarded-For", request.source_ip),
            ("X-Forwarded-Port", "80"),
            ("X-Forwarded-Proto", "http"),
        )
    )
    query = parse_qsl(_clean(request.query), keep_blank_values=True)
    content_type = _last(headers, "content-type")
    is_binary = bool(request.body) and is_binary_type(content_type, binary_types)
    if is_binary:
        body: str | None = base64.b64encode(request.body).decode("ascii")
    else:
        body = request.body.decode("utf-8", "replace") or None
    return {
        "resource": request.resource,
        "path": _clean(request.path),
        "httpMethod": request.method,
        "headers": dict(headers) or None,
        "multiValueHeaders": _grouped(headers) or None,
        "queryStringParameters": dict(query) or None,
        "multiValueQueryStringParameters": _grouped(query) or None,
        "pathParameters": {k: _clean(v) for k, v in request.path_parameters.items()} or None,
        "stageVariables": None,
        "requestContext": _context(request, _last(headers, "user-agent")),
        "body": body,
        "isBase64Encoded": is_binary,
    }


def read_answer(payload: bytes, accept: str | None, binary_types: Sequence[str]) -> ProxyAnswer:
    """Turn a function's answer into HTTP.

    A body in base64 is decoded only when the first type of the request's ``Accept`` is binary for
    this API; otherwise, as on AWS, the base64 text itself goes out.

    Raises
    ------
    MalformedAnswer
        The answer has members or types that API Gateway refuses.
    """
    try:
        answer = msgspec.json.decode(payload, type=_FunctionAnswer)
        headers = _answer_headers(answer)
        body = answer.body.encode()
        first_accepted = (accept or "").split(",", 1)[0]
        if answer.isBase64Encoded and is_binary_type(first_accepted, binary_types):
            body = base64.b64decode(body, validate=True)
    except (msgspec.MsgspecError, binascii.Error) as error:
        raise MalformedAnswer(str(error)) from None
    if not 100 <= answer.statusCode <= 599:
        raise MalformedAnswer(f"the status code {answer.statusCode} does not exist")
    if not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("Content-Type", "application/json"))
    return ProxyAnswer(answer.statusCode, headers, body)


def is_binary_type(header: str | None, binary_types: Sequence[str]) -> bool:
    """Whether a Content-Type or an accepted type is among the API's binary media types."""
    media_type = (header or "").split(";", 1)[0].strip().lower()
    if "*/*" in binary_types:
        return True
    family = media_type.split("/", 1)[0]
    return bool(media_type) and (media_type in binary_types or f"{family}/*" in binary_types)


class _FunctionAnswer(msgspec.Struct, forbid_unknown_fields=True):
    statusCode: int = 200
    headers: dict[str, str | int | bool] | None = None
    multiValueHeaders: dict[str, list[str | int | bool]] | None = None
    body: str = ""
    isBase64Encoded: bool = False
    statusDescription: str | None = None


_DROPPED_HEADERS = frozenset({"connection", "content-length", "expect", "transfer-encoding"})


def _answer_headers(answer: _FunctionAnswer) -> list[tuple[str, str]]:
    """Both kinds together; of a name in both, only the values that ``multiValueHeaders`` has."""
    several = answer.multiValueHeaders or {}
    named = {name.lower() for name in several}
    headers = [
        (name, _text(value))
        for name, value in (answer.headers or {}).items()
        if name.lower() not in named
    ]
    headers.extend((name, _text(value)) for name, values in several.items() for value in values)
    return [item for item in headers if item[0].lower() not in _DROPPED_HEADERS]


def _text(value: str | int | bool) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if "\r" in text or "\n" in text:
        raise MalformedAnswer("a header has a line break")
    return text


def _context(request: ProxyRequest, user_agent: str | None) -> dict[str, Any]:
    return {
        "accountId": ACCOUNT_ID,
        "apiId": "local",
        "domainName": _clean(_last(request.headers, "host") or "127.0.0.1"),
        "extendedRequestId": request.request_id,
        "httpMethod": request.method,
        "identity": {
            "accessKey": None,
            "accountId": None,
            "apiKey": None,
            "caller": None,
            "sourceIp": request.source_ip,
            "user": None,
            "userAgent": user_agent,
            "userArn": None,
        },
        "path": _clean(request.path),
        "protocol": "HTTP/1.1",
        "requestId": request.request_id,
        "requestTime": request.received.astimezone(UTC).strftime("%d/%b/%Y:%H:%M:%S +0000"),
        "requestTimeEpoch": int(request.received.timestamp() * 1000),
        "resourceId": "local",
        "resourcePath": request.resource,
        "stage": request.stage,
    }


def _clean(text: str) -> str:
    """Bytes that were no UTF-8 (aiohttp keeps them as surrogates) become replacement characters."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _grouped(pairs: Pairs) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name, value in pairs:
        groups.setdefault(name, []).append(value)
    return groups


def _last(pairs: Pairs, name: str) -> str | None:
    return next((value for key, value in reversed(pairs) if key.lower() == name), None)
