"""The control endpoint of the host process, and the client that commands call.

Every request needs the header ``X-Lookalike-Local``, which no web page can send across origins.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import parse_qs
from urllib.request import ProxyHandler, Request, build_opener

import msgspec
from aiohttp import web

from local.logs import tail
from local.runtime import PayloadTooLarge, Runtime
from local.serving import read_body
from local.state import State

HEADER = "X-Lookalike-Local"
_INVOKE_TIMEOUT_S = 960.0
_PREFIX = "/_local/"


class ControlError(Exception):
    """The running local cloud refused a request or cannot be reached."""


class Control:
    """Answers status, log and invocation requests.

    Parameters
    ----------
    runtime
        What runs the functions.
    logs
        Folder of the log files.
    describe
        Gives what the status says beside the functions.
    """

    def __init__(
        self, runtime: Runtime, logs: Path, describe: Callable[[], Awaitable[dict[str, Any]]]
    ) -> None:
        self._runtime = runtime
        self._logs = logs
        self._describe = describe

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        if HEADER not in request.headers or not request.path.startswith(_PREFIX):
            return _answer(403, {"error": f"The header {HEADER} is missing."})
        parts = request.path.removeprefix(_PREFIX).split("/")
        match (request.method, parts):
            case ("GET", ["status"]):
                extra = await self._describe()
                return _answer(200, {"functions": self._runtime.status(), **extra})
            case ("POST", ["functions", name, "invocations"]):
                return await self._invoke(name, await read_body(request))
            case ("GET", ["logs", name]) if (path := self._logs / f"{name}.log").is_file():
                query = parse_qs(request.query_string)
                return _answer(200, {"lines": tail(path, int(query.get("lines", ["200"])[0]))})
        return _answer(404, {"error": f"There is no {request.method} {request.path}."})

    async def _invoke(self, name: str, payload: bytes) -> web.Response:
        pool = self._runtime.pools.get(name)
        if pool is None:
            known = ", ".join(self._runtime.pools)
            return _answer(404, {"error": f"There is no function {name!r}; there are {known}."})
        try:
            outcome = await pool.invoke(payload)
        except PayloadTooLarge as error:
            return _answer(413, {"error": str(error)})
        return _answer(
            200,
            {
                "payload": msgspec.json.decode(outcome.payload or b"null"),
                "error": outcome.error,
                "request_id": outcome.request_id,
                "duration_ms": round(outcome.duration_ms, 3),
            },
        )


def invoke(state: State, function: str, payload: object) -> dict[str, Any]:
    """Call a function now.

    Parameters
    ----------
    state
        The running local cloud.
    function
        Logical id in the template, such as ``"Sweep"``.
    payload
        The event.

    Returns
    -------
    dict
        ``payload`` (the function's answer, or an error document), ``error`` (``None`` or
        ``"Unhandled"``), ``request_id``, ``duration_ms``.

    Raises
    ------
    ControlError
        There is no such function, or nothing answers.
    """
    return _request(state, f"functions/{function}/invocations", msgspec.json.encode(payload))


def status(state: State) -> dict[str, Any]:
    """What the local cloud does: ``functions``, ``queues`` and ``schedules`` by name.

    Raises
    ------
    ControlError
        Nothing answers.
    """
    return _request(state, "status", None)


def log_tail(state: State, name: str, lines: int = 200) -> list[str]:
    """Last lines of one log, by its file name without ``.log``.

    Raises
    ------
    ControlError
        There is no such log, or nothing answers.
    """
    return list(_request(state, f"logs/{name}?lines={lines}", None)["lines"])


def _request(state: State, path: str, body: bytes | None) -> dict[str, Any]:
    request = Request(f"{state.control_url}{_PREFIX}{path}", data=body, headers={HEADER: "1"})
    try:
        # Never through a proxy that the environment names.
        with build_opener(ProxyHandler({})).open(request, timeout=_INVOKE_TIMEOUT_S) as response:
            return dict(msgspec.json.decode(response.read()))
    except HTTPError as error:
        raise ControlError(msgspec.json.decode(error.read())["error"]) from None
    except (URLError, OSError) as error:
        raise ControlError(f"The local cloud does not answer: {error}") from None


def _answer(status_code: int, document: dict[str, Any]) -> web.Response:
    return web.Response(
        status=status_code, body=msgspec.json.encode(document), content_type="application/json"
    )
