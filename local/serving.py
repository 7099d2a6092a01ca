"""Serving HTTP with aiohttp's low-level server: no routing, keep-alive, loopback only."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

LOOPBACK = "127.0.0.1"
MAX_LINE_BYTES = 1_048_576
"""The request line's; longer ones aiohttp refuses in words of its own, before any handler."""
MAX_FIELD_BYTES = 16_384
"""A header's."""
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Refusal = Callable[[int], web.Response]
"""Makes the answer for a status that no handler gave: broken HTTP (400), a handler's defect."""


async def listen(
    handler: Handler,
    port: int,
    *,
    max_body_bytes: int,
    keepalive_s: float = 3600.0,
    refusal: Refusal | None = None,
) -> web.ServerRunner:
    """Serve on 127.0.0.1; port 0 takes a free one (see ``port_of``).

    Requests whose client has gone are cancelled, so that a long poll takes no message for nobody.
    """
    server = _Server(
        handler,
        refusal,
        request_factory=_request_factory(max_body_bytes),
        handler_cancellation=True,
        keepalive_timeout=keepalive_s,
        access_log=None,
        # A body is passed on as it was sent: "Content-Encoding: gzip" belongs to the S3 object.
        auto_decompress=False,
        max_line_size=MAX_LINE_BYTES,
        max_field_size=MAX_FIELD_BYTES,
    )
    runner = web.ServerRunner(server, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, LOOPBACK, port).start()
    return runner


class _Server(web.Server):
    """A server that answers by ``refusal`` where aiohttp has an answer of its own."""

    def __init__(self, handler: Handler, refusal: Refusal | None, **options: Any) -> None:
        super().__init__(handler, **options)
        self._refusal = refusal
        self._options = options

    def __call__(self) -> web.RequestHandler:
        options = {**self._options}
        for name in ("request_factory", "handler_cancellation"):
            options.pop(name)
        return _Connection(self, self._refusal, loop=self._loop, **options)


class _Connection(web.RequestHandler):
    """One connection of a `_Server`."""

    __slots__ = ("_refusal",)

    def __init__(self, server: _Server, refusal: Refusal | None, **options: Any) -> None:
        super().__init__(server, **options)
        self._refusal = refusal

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        # This also writes to the log, and raises if an answer has begun.
        answer = super().handle_error(request, status, exc, message)
        if self._refusal is None:
            return answer
        refused = self._refusal(status)
        refused.force_close()
        return refused


def port_of(runner: web.ServerRunner) -> int:
    """The port a runner listens on."""
    port: int = runner.addresses[0][1]
    return port


async def read_body(request: web.BaseRequest) -> bytes:
    """Read the body, first telling a client that waits for it that it may send.

    Raises
    ------
    aiohttp.web.HTTPRequestEntityTooLarge
        The body is over the server's limit.
    """
    if request.headers.get("Expect", "").lower() == "100-continue":
        # The low-level server leaves this to its handler; without it botocore waits a second.
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    return await request.read()


async def run_until_signalled(handler: Handler, port: int, *, max_body_bytes: int) -> None:
    """Serve until SIGTERM or SIGINT, then stop cleanly."""
    runner = await listen(handler, port, max_body_bytes=max_body_bytes)
    try:
        await signalled()
    finally:
        await runner.cleanup()


async def signalled() -> None:
    """Return at the first SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


def _request_factory(max_body_bytes: int) -> Callable[..., web.BaseRequest]:
    def make(message, payload, protocol, writer, task):  # type: ignore[no-untyped-def]
        return web.BaseRequest(
            message, payload, protocol, writer, task, protocol._loop, client_max_size=max_body_bytes
        )

    return make
