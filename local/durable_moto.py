"""The one seam around moto: every call to the local AWS passes through here, one at a time.

With a journal, what a call has changed is on disk before its answer is given. Calls that come
together are committed together.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from moto.sqs.models import sqs_backends

from local import aws_requests, bucket_cors, presigned, queues, shims, touched
from local.aws_requests import Environ as Environ
from local.aws_requests import Kind
from local.journal import Journal
from local.keeper import Keeper, KeptCall
from local.template import REGION

Headers = list[tuple[str, str]]
WsgiApp = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP answer."""

    status: int
    headers: Headers
    body: bytes


class DurableMoto:
    """WSGI middleware around moto's application.

    Calls are serialised: moto's conditional writes are checks followed by writes, its queues are
    lists rebuilt without a lock, and both lose updates when threads interleave.

    Parameters
    ----------
    app
        moto's WSGI application; by default all of its services.
    journal
        What keeps moto's state, which is loaded from it; without one the state is in memory.
    """

    def __init__(self, app: WsgiApp | None = None, journal: Journal | None = None) -> None:
        self._app = app or DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()
        self._keeper: Keeper | None = None
        if journal is not None:
            self._keeper = Keeper(journal, lambda environ: self._moto(environ).status)
            self._keeper.load()

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve one request as WSGI."""
        answer = self.call(environ)
        start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", answer.headers)
        return [answer.body]

    def call(self, environ: Environ) -> Answer:
        """Serve one request whose body has been read completely (``wsgi.input`` in memory)."""
        return self.call_all([environ])[0]

    def call_all(self, environs: Sequence[Environ]) -> list[Answer]:
        """Serve requests in this order; their changes are on disk together when it returns."""
        with self._lock:
            if self._keeper is None:
                touched.take()
                return [self._serve(environ) for environ in environs]
            kept: list[KeptCall] = []
            answers = [self._serve_kept(environ, kept) for environ in environs]
            if self._commit(kept):
                return answers
            return [
                _failure(environ, "The local cloud could not write to its disk.")
                for environ in environs
            ]

    def release_messages(self, queue_name: str) -> bool:
        """Make every message of a queue that is in flight visible again; ``False`` if it failed."""
        with self._lock:
            queue = sqs_backends[DEFAULT_ACCOUNT_ID][REGION].queues.get(queue_name)
            if queue is not None:
                queues.release(queue)
            return self._commit([])

    def _commit(self, kept: Sequence[KeptCall]) -> bool:
        if self._keeper is None:
            touched.take()
            return True
        try:
            self._keeper.commit(kept)
        except Exception:
            traceback.print_exc()
            return False
        return True

    def _serve_kept(self, environ: Environ, kept: list[KeptCall]) -> Answer:
        body: bytes = environ["wsgi.input"].read()
        environ["wsgi.input"].seek(0)
        call = aws_requests.read_call(environ, body)
        if call.kind is Kind.UNKNOWN:
            return _failure(environ, f"The local cloud does not keep {call.what}.", 501)
        try:
            answer = self._serve(environ)
        except Exception:
            # What it changed before is committed with the others, as moto has it.
            traceback.print_exc()
            return _failure(environ, "moto failed; see the log of the local AWS endpoint.")
        if call.kind is not Kind.EFFECTS and answer.status < 300:
            kept.append(KeptCall(call.kind, call.resource, aws_requests.keep(environ, body)))
        return answer

    def _serve(self, environ: Environ) -> Answer:
        if not _is_s3(environ):
            return self._moto(environ)
        try:
            presigned.check_request(environ, datetime.now(UTC))
        except presigned.Refusal as refusal:
            return _with_cors(environ, _refused(refusal))
        if environ["REQUEST_METHOD"] == "OPTIONS":
            return _preflight(environ)
        request_id = shims.begin_request()
        answer = self._moto(environ)
        headers = [item for item in answer.headers if item[0].lower() != "x-amzn-requestid"]
        headers.append(("x-amz-request-id", request_id))
        return _with_cors(environ, Answer(answer.status, headers, answer.body))

    def _moto(self, environ: Environ) -> Answer:
        started: list[Any] = []

        def start_response(status: str, headers: Headers, exc_info: Any = None) -> None:
            started[:] = [int(status.split(" ", 1)[0]), headers]

        body = b"".join(self._app(environ, start_response))
        return Answer(started[0], started[1], body)


def durable_moto(path: Path) -> DurableMoto:
    """Make the application, with every shim applied to moto, and with the state kept at ``path``.

    Raises
    ------
    local.journal.JournalError
        The file cannot be used.
    """
    shims.install()
    return DurableMoto(journal=Journal(path))


def _failure(environ: Environ, message: str, status: int = 500) -> Answer:
    """An error in the words of the service that was asked."""
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if not target:
        refusal = presigned.Refusal(status, "InternalError", message)
        return _refused(refusal)
    kind = "InternalServerError" if target.startswith("DynamoDB") else "InternalFailure"
    document = msgspec.json.encode({"__type": kind, "message": message})
    return Answer(status, [("Content-Type", "application/x-amz-json-1.0")], document)


def _refused(refusal: presigned.Refusal) -> Answer:
    return Answer(refusal.status, [("Content-Type", "application/xml")], refusal.body())


def _is_s3(environ: Environ) -> bool:
    """Unsigned and presigned requests without a target are S3's, as in moto's own dispatch."""
    authorization = environ.get("HTTP_AUTHORIZATION", "")
    if authorization:
        return "/s3/" in authorization.split(",", 1)[0]
    content_type = environ.get("CONTENT_TYPE", "")
    return "HTTP_X_AMZ_TARGET" not in environ and "x-www-form-urlencoded" not in content_type


def _bucket_rules(environ: Environ) -> list[Any]:
    name = environ["PATH_INFO"].lstrip("/").split("/", 1)[0]
    bucket = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets.get(name)
    return [] if bucket is None else list(bucket.cors)


def _with_cors(environ: Environ, answer: Answer) -> Answer:
    """Replace moto's idea of cross-origin headers by the bucket's rules."""
    kept = [item for item in answer.headers if not item[0].lower().startswith("access-control-")]
    if origin := environ.get("HTTP_ORIGIN"):
        method = environ["REQUEST_METHOD"]
        kept.extend(bucket_cors.answer(_bucket_rules(environ), origin, method))
    return Answer(answer.status, kept, answer.body)


def _preflight(environ: Environ) -> Answer:
    names = ("Origin", "Access-Control-Request-Method", "Access-Control-Request-Headers")
    request = {
        name: environ[key]
        for name in names
        if (key := f"HTTP_{name.upper().replace('-', '_')}") in environ
    }
    headers = bucket_cors.preflight(_bucket_rules(environ), request)
    if headers is None:
        refusal = presigned.Refusal(
            403, "AccessForbidden", "CORSResponse: This CORS request is not allowed."
        )
        return _refused(refusal)
    return Answer(200, headers, b"")
