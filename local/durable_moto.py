"""The one seam around moto: every call to the local AWS passes through here, one at a time.

State is in memory. Durability (a journal of state-changing calls, fsynced before the answer)
belongs into ``DurableMoto.call`` and nowhere else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3.models import s3_backends
from moto.sqs.models import sqs_backends

from local import bucket_cors, presigned, shims
from local.template import REGION

Environ = dict[str, Any]
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
    """

    def __init__(self, app: WsgiApp | None = None) -> None:
        self._app = app or DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()

    def __call__(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Serve one request as WSGI."""
        answer = self.call(environ)
        start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", answer.headers)
        return [answer.body]

    def call(self, environ: Environ) -> Answer:
        """Serve one request whose body has been read completely (``wsgi.input`` in memory)."""
        with self._lock:
            if not _is_s3(environ):
                return self._moto(environ)
            try:
                presigned.check_request(environ, datetime.now(UTC))
            except presigned.Refusal as refusal:
                plain = Answer(
                    refusal.status, [("Content-Type", "application/xml")], refusal.body()
                )
                return _with_cors(environ, plain)
            if environ["REQUEST_METHOD"] == "OPTIONS":
                return _preflight(environ)
            return _with_cors(environ, self._moto(environ))

    def release_messages(self, queue_name: str) -> None:
        """Make every message of a queue that is in flight visible again."""
        with self._lock:
            queue = sqs_backends[DEFAULT_ACCOUNT_ID][REGION].queues.get(queue_name)
            if queue is not None:
                for message in queue._messages:
                    message.visible_at = 0.0
                queue.pending_messages.clear()

    def _moto(self, environ: Environ) -> Answer:
        started: list[Any] = []

        def start_response(status: str, headers: Headers, exc_info: Any = None) -> None:
            started[:] = [int(status.split(" ", 1)[0]), headers]

        body = b"".join(self._app(environ, start_response))
        return Answer(started[0], started[1], body)


def durable_moto() -> DurableMoto:
    """Make the application, with every shim applied to moto."""
    shims.install()
    return DurableMoto()


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
