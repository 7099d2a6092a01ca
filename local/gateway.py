"""The HTTP front: API Gateway's REST API as the template describes it, with its limits."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec
from aiohttp import web

from local.api_definition import Api, Integration, Route
from local.proxy_event import MalformedAnswer, ProxyAnswer, ProxyRequest, build_event, read_answer
from local.runtime import PayloadTooLarge, Runtime
from local.serving import read_body

MAX_BODY_BYTES = 10 * 1024 * 1024
"""API Gateway's limit of a request's body."""
MAX_URL_CHARACTERS = 16_384
"""Path and query together; API Gateway takes 10,240 bytes of request line and headers."""

_MAX_HOST_CHARACTERS = 261  # a name's 255 and a port
_HOST = re.compile(r"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


class Refused(Exception):
    """The gateway answers itself: a type of response, its usual status, and a message."""

    def __init__(self, response_type: str, status: int, message: str) -> None:
        super().__init__(message)
        self.response_type = response_type
        self.status = status
        self.message = message


class Gateway:
    """Answers HTTP requests by calling functions.

    Parameters
    ----------
    api
        Routes, binary types and the gateway's own answers.
    runtime
        What runs the functions.
    """

    def __init__(self, api: Api, runtime: Runtime) -> None:
        self._api = api
        self._runtime = runtime

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        request_id = str(uuid.uuid4())
        try:
            answer = await self._answer(request, request_id)
        except Refused as refused:
            answer = self._refusal(refused, request_id)
        except web.HTTPRequestEntityTooLarge:
            answer = self._refusal(_too_large(), request_id)
        return _response(answer, request_id)

    def refuse(self, status: int) -> web.Response:
        """The answer to what is no HTTP request (400), or to a defect of the gateway (500)."""
        request_id = str(uuid.uuid4())
        kind = "DEFAULT_4XX" if status < 500 else "DEFAULT_5XX"
        message = "Bad Request" if status < 500 else "Internal server error"
        return _response(self._refusal(Refused(kind, status, message), request_id), request_id)

    async def _answer(self, request: web.BaseRequest, request_id: str) -> ProxyAnswer:
        if len(request.raw_path) > MAX_URL_CHARACTERS:
            raise Refused("DEFAULT_4XX", 400, "Request URL Too Long")
        if not is_host(request.headers.getall("Host", [])):
            raise Refused("DEFAULT_4XX", 400, "Bad Request")
        raw_path, _, query = request.raw_path.partition("?")
        found = self._api.find(raw_path)
        if found is None:
            raise _no_such_route()
        route, parameters = found
        integration = route.methods.get(request.method) or route.methods.get("ANY")
        if integration is None:
            raise _no_such_route()
        if integration.function_arn is None:
            return ProxyAnswer(200, integration.headers, b"")
        if (request.content_length or 0) > MAX_BODY_BYTES:
            raise _too_large()
        proxied = ProxyRequest(
            method=request.method,
            path=raw_path,
            query=query,
            headers=tuple(request.headers.items()),
            body=await read_body(request),
            resource=route.resource,
            path_parameters=parameters,
            stage=self._api.stage,
            request_id=request_id,
            source_ip=request.remote or "127.0.0.1",
            received=datetime.now(UTC),
        )
        return await self._invoke(proxied, route, integration, request.headers.get("Accept"))

    async def _invoke(
        self, request: ProxyRequest, route: Route, integration: Integration, accept: str | None
    ) -> ProxyAnswer:
        binary = self._api.binary_types
        payload = msgspec.json.encode(build_event(request, binary))
        pool = self._runtime.pool_by_arn(integration.function_arn or "")
        try:
            # The function goes on after the gateway has given up, as on AWS.
            invoked = asyncio.ensure_future(pool.invoke(payload))
            outcome = await asyncio.wait_for(asyncio.shield(invoked), integration.timeout_s)
        except TimeoutError:
            raise Refused("INTEGRATION_TIMEOUT", 504, "Endpoint request timed out") from None
        except PayloadTooLarge:
            raise _too_large() from None
        if outcome.error is not None:
            raise Refused("INTEGRATION_ERROR", 502, "Internal server error")
        try:
            return read_answer(outcome.payload, accept, binary)
        except MalformedAnswer:
            raise Refused("INTEGRATION_ERROR", 502, "Internal server error") from None

    def _refusal(self, refused: Refused, request_id: str) -> ProxyAnswer:
        answer = self._api.answer(refused.response_type, refused.status)
        headers = (*answer.headers, ("x-amzn-ErrorType", refused.response_type))
        body = answer.body(request_id, refused.response_type, refused.message)
        return ProxyAnswer(answer.status, headers, body.encode())


def is_host(values: Sequence[str]) -> bool:
    """Whether these values of ``Host`` are one name or address, with a port or without.

    API Gateway knows its own name. Here it is the client who says it, and it comes back in URLs.
    """
    return (
        len(values) == 1
        and len(values[0]) <= _MAX_HOST_CHARACTERS
        and bool(_HOST.fullmatch(values[0]))
    )


def _response(answer: ProxyAnswer, request_id: str) -> web.Response:
    response = web.Response(status=answer.status, body=answer.body)
    for name, value in answer.headers:
        if name.lower() == "content-type":
            response.headers[name] = value
        else:
            response.headers.add(name, value)
    response.headers["x-amzn-RequestId"] = request_id
    return response


def _no_such_route() -> Refused:
    """API Gateway's name and words for a path or method that does not exist."""
    return Refused("MISSING_AUTHENTICATION_TOKEN", 403, "Missing Authentication Token")


def _too_large() -> Refused:
    return Refused("REQUEST_TOO_LARGE", 413, "Request Too Long")
