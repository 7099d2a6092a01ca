"""One signed HTTP request, once, at a third of the SDK's CPU; whatever is not plain is left to it.

botocore spends over a millisecond of CPU on a call (endpoint rules, hooks, user agent, modelled
parsing), as much as decoding and scaling a photo, and the embed function makes four calls a photo.
Signing is botocore's here too; retries, redirects and unusual answers are the SDK's own, since
every caller falls back to it. docs/decisions/0005-signed-requests.md has the figures.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import urllib3
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.utils import get_environ_proxies

from lookalike.adapters.aws import ca_bundle, client, credentials

_TIMEOUT = urllib3.Timeout(connect=3, read=20)
_DOTS = frozenset({".", ".."})


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, headers (case-insensitive) and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class SignedRequests:
    """Sends requests to one service as the process's AWS identity.

    Parameters
    ----------
    service
        ``s3`` or ``dynamodb``.
    """

    def __init__(self, service: str) -> None:
        meta = client(service).meta
        self._service = service
        self._region = meta.region_name
        self._endpoint = meta.endpoint_url.rstrip("/")
        self._host = urlsplit(self._endpoint).netloc
        self._pool = connections(ca_bundle())
        self._direct = urlsplit(self._endpoint).scheme not in get_environ_proxies(self._endpoint)

    def url(self, path: str, expires_s: int) -> str:
        """A presigned URL of an S3 object."""
        request: Any = AWSRequest("GET", self._endpoint + quote(path, safe="/~"))
        signer = S3SigV4QueryAuth(credentials(), self._service, self._region, expires=expires_s)
        signer.add_auth(request)
        url: str = request.url
        return url

    def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        max_bytes: int | None = None,
    ) -> Answer | None:
        """Send once; None when no whole answer came, or when this is not for us to send.

        That is a path with dotted segments, which urllib3 would resolve to another object, and any
        request to an endpoint that a proxy is set up for.

        Parameters
        ----------
        method, path
            The path is quoted here.
        headers
            Signed along with the host and the body's hash.
        body
            Payload.
        max_bytes
            An answer that is longer comes without its body.
        """
        if not self._direct or not _DOTS.isdisjoint(path.split("/")):
            return None
        request: Any = AWSRequest(
            method,
            self._endpoint + quote(path, safe="/~"),
            headers={"Host": self._host, **(headers or {})},
            data=body,
        )
        signer = S3SigV4Auth if self._service == "s3" else SigV4Auth
        signer(credentials(), self._service, self._region).add_auth(request)
        try:
            answer = self._pool.request(
                method,
                request.url,
                headers=dict(request.headers.items()),
                body=body or None,
                preload_content=False,
            )
            length = int(answer.headers.get("Content-Length", 0))
            if method != "HEAD" and max_bytes is not None and length > max_bytes:
                answer.close()
                return Answer(answer.status, answer.headers, b"")
            data = answer.read()
            answer.release_conn()
        except urllib3.exceptions.HTTPError:
            return None
        return Answer(answer.status, answer.headers, data)


@functools.cache
def connections(ca_certs: str | None) -> urllib3.PoolManager:
    """The process's connections to servers that these certificates vouch for."""
    return urllib3.PoolManager(maxsize=32, retries=False, timeout=_TIMEOUT, ca_certs=ca_certs)
