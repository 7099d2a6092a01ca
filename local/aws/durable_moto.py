"""The one seam around moto: every call to the local AWS passes through here, one at a time.

With a journal, what a call has changed is on disk before its answer is given. Calls that come
together are committed together.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from moto.sqs.models import sqs_backends

from local.aws import aws_requests, bucket_cors, presigned, queues, shims, touched
from local.aws.aws_requests import Environ as Environ
from local.aws.aws_requests import Kind
from local.aws.journal import Journal
from local.aws.keeper import Keeper, KeptCall, find
from local.template import REGION

Headers = list[tuple[str, str]]
WsgiApp = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP answer."""

    status: int
    headers: Headers
    body: bytes


class _Request(NamedTuple):
    """A request that has been read: refused already, or with what is kept if it configures."""

    environ: Environ
    refusal: Answer | None = None
    kept: KeptCall | None = None

    @property
    def configures(self) -> bool:
        return self.kept is not None


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
    secrets
        Secrets by access key of those whose presigned forms are checked.
    """

    def __init__(
        self,
        app: WsgiApp | None = None,
        journal: Journal | None = None,
        secrets: Mapping[str, str] = presigned.SECRETS,
    ) -> None:
        self._app = app or DomainDispatcherApplication(create_backend_app)
        self._secrets = secrets
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
        """Serve requests in this order; their changes are on disk when it returns.

        Raises
        ------
        Exception
            Memory is not what the journal has, and could not be made so: the process must end.
        """
        with self._lock:
            requests = [_read(environ) for environ in environs]
            if self._keeper is None:
                touched.take()
                return [request.refusal or self._try(request.environ) for request in requests]
            answers: list[Answer] = []
            for configures, group in groupby(requests, lambda request: request.configures):
                serve = self._configure if configures else self._serve_together
                answers += serve(self._keeper, list(group))
            return answers

    def release_messages(self, queue_name: str) -> bool:
        """Make every message of a queue that is in flight visible again; ``False`` if it failed."""
        with self._lock:
            queue = sqs_backends[DEFAULT_ACCOUNT_ID][REGION].queues.get(queue_name)
            if queue is not None:
                queues.release(queue)
            if self._keeper is not None:
                return self._keeper.commit()
            touched.take()
            return True

    def _serve_together(self, keeper: Keeper, requests: list[_Request]) -> list[Answer]:
        """Serve requests that are kept by their effects, and commit them together."""
        answers = [request.refusal or self._try(request.environ) for request in requests]
        if keeper.commit():
            return answers
        return [_not_written(request.environ) for request in requests]

    def _configure(self, keeper: Keeper, requests: list[_Request]) -> list[Answer]:
        """Serve and commit requests that are kept themselves, each alone.

        Of one that fails nothing stays: moto may have done half of it.
        """
        answers = []
        for environ, _, kept in requests:
            assert kept is not None
            before = find(kept.resource)
            answer = self._try(environ)
            done = answer.status < 300
            if not done and (
                answer.status >= 500
                or find(kept.resource) is not before
                or (kept.kind is Kind.CHANGES and before is not None)
            ):
                keeper.load()
            elif not keeper.commit(kept if done else None):
                answer = _not_written(environ)
            answers.append(answer)
        return answers

    def _try(self, environ: Environ) -> Answer:
        try:
            return self._serve(environ)
        except Exception:
            # What it changed before is committed with the others, as moto has it.
            traceback.print_exc()
            return failure(environ, "moto failed; see the log of the local AWS endpoint.")

    def _serve(self, environ: Environ) -> Answer:
        if not _is_s3(environ):
            return self._moto(environ)
        try:
            presigned.check_request(environ, datetime.now(UTC), self._secrets)
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


def durable_moto(path: Path | None, secrets: Mapping[str, str]) -> DurableMoto:
    """Make the application, with every shim applied to moto.

    Parameters
    ----------
    path
        Where the state is kept; in memory when it is None.
    secrets
        As of `DurableMoto`.

    Raises
    ------
    local.aws.journal.JournalError
        The file cannot be used.
    """
    shims.install()
    return DurableMoto(journal=Journal(path) if path else None, secrets=secrets)


def _read(environ: Environ) -> _Request:
    """Read a request before moto does, with what is kept of it: nothing can fail after."""
    try:
        body: bytes = environ["wsgi.input"].read()
        environ["wsgi.input"].seek(0)
        aws_requests.use_path_style(environ)
        call = aws_requests.read_call(environ, body)
        if call.kind is Kind.EFFECTS:
            return _Request(environ)
        if call.kind is Kind.UNKNOWN:
            message = f"The local cloud does not keep {call.what}."
            return _Request(environ, failure(environ, message, 501))
        kept = KeptCall(call.kind, call.resource, aws_requests.keep(environ, body))
        find(call.resource)
    except Exception:
        traceback.print_exc()
        return _Request(environ, failure(environ, "The request cannot be read.", 400))
    return _Request(environ, kept=kept)


def _not_written(environ: Environ) -> Answer:
    return failure(environ, "The local cloud could not write to its disk.")


def failure(environ: Environ, message: str, status: int = 500) -> Answer:
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
