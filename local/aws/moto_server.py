"""Plays AWS: HTTP in front of ``DurableMoto``: ``python -m local.aws.moto_server``.

aiohttp parses and one thread calls moto. Beside werkzeug, waitress and cheroot it was the fastest
under parallel PUTs and in the middle for one client alone (docs/benchmarks.md); it is here anyway
for the HTTP front, and lets long polls wait without a thread each.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote_to_bytes, urlencode

# Read by moto when it is imported: the buckets' own rules decide about origins.
os.environ["MOTO_DISABLE_GLOBAL_CORS"] = "true"

from aiohttp import web
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.core.request import (
    PRESERVED_HEADER_NAMES_ENVIRON_KEY,
    environ_key_for_header,
    should_preserve_original_header_name,
)
from moto.sqs.models import sqs_backends

from local.aws import presigned, shims
from local.aws.durable_moto import Answer, DurableMoto, Environ, durable_moto, failure
from local.aws.journal import JournalError
from local.roles import Role, load_roles
from local.serving import listen, read_body, signalled
from local.sqs import RELEASE_PATH
from local.template import REGION

MAX_BODY_BYTES = 1 << 30
MAX_WAIT_S = 20.0
RECHECK_S = 1.0
"""How late a message may be seen that became visible without a call, by its timeout."""

if TYPE_CHECKING:
    from local.aws.role_check import RoleCheck

Batch = list[tuple[Environ, asyncio.Future[Answer]]]
_RECEIVE = "AmazonSQS.ReceiveMessage"
_HOP_HEADERS = frozenset({"content-length", "connection", "transfer-encoding", "date", "server"})


class MotoServer:
    """Serves HTTP requests by calling moto in one thread, those that have come together at once."""

    def __init__(self, moto: DurableMoto, roles: Sequence[Role] = ()) -> None:
        self._moto = moto
        self._check = _role_check(roles) if roles else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="moto")
        self._arrival = asyncio.Event()
        self._waiting: Batch = []
        self._serving: asyncio.Task[None] | None = None
        self.broken = asyncio.Event()
        """Set when memory may not be what the journal has: nothing is served from it any more."""

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request of any AWS service."""
        body = await read_body(request)
        if request.path == RELEASE_PATH and request.method == "POST":
            loop = asyncio.get_running_loop()
            release, queue = self._moto.release_messages, json.loads(body)["queue"]
            released = False
            with self._or_break():
                released = not self.broken.is_set() and await loop.run_in_executor(
                    self._thread, release, queue
                )
            self._announce()
            return web.Response(status=200 if released else 500)
        environ = environ_of(request, body)
        if self._check is not None and (refusal := self._check(environ, body)):
            return _response(request, refusal)
        if environ.get("HTTP_X_AMZ_TARGET") == _RECEIVE:
            answer = await self._receive_message(environ, body)
        else:
            _never_wait(environ, body)
            answer = await self._call(environ, body)
        return _response(request, answer)

    async def _call(self, environ: Environ, body: bytes) -> Answer:
        environ["wsgi.input"] = io.BytesIO(body)
        environ["CONTENT_LENGTH"] = str(len(body))
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((environ, answered))
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve_waiting())
        return await answered

    async def _serve_waiting(self) -> None:
        """Serve what waits; what comes meanwhile is served, and committed, together after it."""
        try:
            while self._waiting:
                batch = [item for item in self._waiting if not item[1].done()]
                self._waiting.clear()
                before = shims.arrivals()
                for (_, answered), answer in zip(batch, await self._serve(batch), strict=True):
                    if not answered.done():
                        answered.set_result(answer)
                if shims.arrivals() != before:
                    self._announce()
        finally:
            self._serving = None

    async def _serve(self, batch: Batch) -> list[Answer]:
        environs = [environ for environ, _ in batch]
        loop = asyncio.get_running_loop()
        if not self.broken.is_set():
            with self._or_break():
                return await loop.run_in_executor(self._thread, self._moto.call_all, environs)
        return [failure(environ, "The local AWS endpoint starts again.") for environ in environs]

    @contextmanager
    def _or_break(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            traceback.print_exc()
            self.broken.set()
            self._announce()

    def _announce(self) -> None:
        self._arrival.set()
        self._arrival = asyncio.Event()

    async def _receive_message(self, environ: Environ, body: bytes) -> Answer:
        """Ask again at each arrival until there is a message or the caller's time is over."""
        loop = asyncio.get_running_loop()
        try:
            asked = json.loads(body)
            wait_s = float(asked.get("WaitTimeSeconds", _queue_wait_s(asked.get("QueueUrl", ""))))
            polling = json.dumps({**asked, "WaitTimeSeconds": 0}).encode()
        except (ValueError, TypeError, AttributeError):
            return await self._call(environ, body)
        if not 0 < wait_s <= MAX_WAIT_S:
            return await self._call(environ, body)
        deadline = loop.time() + wait_s
        while True:
            arrival = self._arrival
            answer = await self._call(dict(environ), polling)
            remaining = deadline - loop.time()
            if remaining <= 0 or answer.status != 200 or b'"Messages"' in answer.body:
                return answer
            try:
                await asyncio.wait_for(arrival.wait(), min(remaining, RECHECK_S))
            except TimeoutError:
                continue


def environ_of(request: web.BaseRequest, body: bytes) -> Environ:
    """The request as WSGI (PEP 3333), with the raw path and metadata names that moto wants."""
    path, _, query = request.raw_path.partition("?")
    host, _, port = request.host.partition(":")
    environ: Environ = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query,
        "RAW_URI": request.raw_path,
        "REQUEST_URI": request.raw_path,
        "REMOTE_ADDR": request.remote or "127.0.0.1",
        "SERVER_NAME": host,
        "SERVER_PORT": port or "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    preserved: dict[str, str] = {}
    for name, value in request.headers.items():
        if name.lower() in ("content-length", "transfer-encoding"):
            continue
        key = environ_key_for_header(name)
        if "_" in name:
            if not should_preserve_original_header_name(name):
                continue
            preserved.setdefault(key, name)
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    environ[PRESERVED_HEADER_NAMES_ENVIRON_KEY] = preserved
    return environ


def _never_wait(environ: Environ, body: bytes) -> None:
    """Old SDKs speak SQS's form protocol; a long poll of theirs must not hold moto's one thread."""
    if b"Action=ReceiveMessage" in body and "urlencoded" in environ.get("CONTENT_TYPE", ""):
        fields = [item for item in parse_qsl(body.decode()) if item[0] != "WaitTimeSeconds"]
        shortened = urlencode([*fields, ("WaitTimeSeconds", "0")]).encode()
        environ["wsgi.input"] = io.BytesIO(shortened)
        environ["CONTENT_LENGTH"] = str(len(shortened))


def _queue_wait_s(queue_url: str) -> float:
    queue = sqs_backends[DEFAULT_ACCOUNT_ID][REGION].queues.get(queue_url.rsplit("/", 1)[-1])
    return float(getattr(queue, "receive_message_wait_time_seconds", 0))


def _response(request: web.BaseRequest, answer: Answer) -> web.Response:
    response = web.Response(status=answer.status, body=answer.body)
    for name, value in answer.headers:
        if name.lower() not in _HOP_HEADERS:
            response.headers.add(name, value)
    if request.method == "HEAD":
        for name, value in answer.headers:
            if name.lower() == "content-length":
                response.headers["Content-Length"] = value
    return response


def _role_check(roles: Sequence[Role]) -> RoleCheck:
    from local.aws.role_check import (
        RoleCheck,  # a tenth of a second that only those pay who want it
    )

    return RoleCheck(roles)


async def serve(port: int, journal: Path | None, roles: Sequence[Role]) -> None:
    """Serve on 127.0.0.1 until SIGTERM or SIGINT, or until memory cannot be trusted.

    Raises
    ------
    SystemExit
        It could not; a start from the journal mends that.
    """
    secrets = {role.access_key_id: role.secret_access_key for role in roles}
    server = MotoServer(durable_moto(journal, presigned.SECRETS | secrets), roles)
    runner = await listen(server.handle, port, max_body_bytes=MAX_BODY_BYTES)
    ends = [asyncio.ensure_future(end) for end in (signalled(), server.broken.wait())]
    try:
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for end in ends:
            end.cancel()
        await runner.cleanup()
    if server.broken.is_set():
        sys.exit("Memory is not what the journal has.")


def main(argv: list[str] | None = None) -> None:
    """Run the process."""
    parser = argparse.ArgumentParser(description="The local AWS endpoint.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--journal", type=Path, help="file of its state; without it, in memory")
    parser.add_argument("--roles", default="", help="file of the roles to enforce")
    arguments: Any = parser.parse_args(argv)
    try:
        asyncio.run(serve(arguments.port, arguments.journal, load_roles(arguments.roles)))
    except JournalError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
