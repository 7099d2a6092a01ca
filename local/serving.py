"""Serving HTTP with aiohttp's low-level server: no routing, keep-alive, loopback only."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

from aiohttp import web

LOOPBACK = "127.0.0.1"
MAX_LINE_BYTES = 1_048_576
"""The request line's; longer ones aiohttp refuses in words of its own, before any handler."""
MAX_FIELD_BYTES = 16_384
"""A header's."""
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


async def listen(
    handler: Handler, port: int, *, max_body_bytes: int, keepalive_s: float = 3600.0
) -> web.ServerRunner:
    """Serve on 127.0.0.1; port 0 takes a free one (see ``port_of``).

    Requests whose client has gone are cancelled, so that a long poll takes no message for nobody.
    """
    server = web.Server(
        handler,
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
