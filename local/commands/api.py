"""Calls the HTTP API over kept connections; problem documents become errors with exit codes."""

from __future__ import annotations

import json
import mimetypes
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode

import urllib3

from local.commands.exits import Failed, Unreachable, WrongUse
from local.commands.terminal import plain

MAX_BODY_BYTES = 4_500_000
"""Largest image that goes in a request: a Lambda takes 6 MB of base64."""
Fields = dict[str, str | bytes | tuple[str, str | bytes] | tuple[str, str | bytes, str]]
_TIMEOUT = urllib3.Timeout(connect=5, read=60)
_REDIRECTS = 3
_RETRIES = urllib3.Retry(
    total=2,
    connect=2,
    read=0,
    status=0,
    redirect=0,
    backoff_factor=0.2,
    respect_retry_after_header=False,  # the answer's own words say more
)


class Api:
    """The API at ``url``, asked with an API key unless that is empty.

    Safe to share between threads; close it, or use it in a ``with``.
    """

    def __init__(self, url: str, key: str = "", connections: int = 1) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._pool = urllib3.PoolManager(maxsize=connections, timeout=_TIMEOUT, retries=_RETRIES)

    def __enter__(self) -> Api:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.clear()

    def get(self, path: str, query: Mapping[str, object] | None = None) -> Any:
        """GET a path; gives the decoded JSON."""
        return self._call("GET", path, query or {}, None, {})

    def explanation(self, query_id: str, product_id: str) -> Any:
        """Why a product matches an earlier search."""
        return self.get(_explanation_path(query_id, product_id))

    def pair_picture(self, query_id: str, product_id: str) -> bytes:
        """The PNG of a query and a result side by side; a large one comes from the bucket."""
        url = f"{self.url}{_explanation_path(query_id, product_id)}/pair.png"
        return self._request("GET", url, None, {"Accept": "image/png", **self._headers})

    def fetch(self, url: str) -> bytes:
        """GET what is at an address that the API gave, such as a picture."""
        return self._request("GET", url, None, {})

    def search_image(
        self,
        image: Path,
        query: Mapping[str, object],
        crop: tuple[float, ...] | None = None,
    ) -> Any:
        """Search with an image file; large ones are uploaded first.

        Parameters
        ----------
        image
            File.
        query
            ``k``, ``catalogue``, ``filter`` and ``min_score``, those that are given.
        crop
            x, y, width, height.

        Raises
        ------
        Failed, WrongUse, Unreachable
            What the API says, or that it says nothing.
        """
        body = image.read_bytes()
        box = {} if crop is None else {"crop": list(crop)}
        if len(body) > MAX_BODY_BYTES:
            upload_key = self._upload(plain(image.name), body)
            return self.search({"upload_key": upload_key, **box}, query)
        media_type = mimetypes.guess_type(image.name)[0] or ""
        if not media_type.startswith("image/"):
            media_type = "application/octet-stream"
        if crop is None:
            return self._call("POST", "/search", query, body, {"Content-Type": media_type})
        fields: Fields = {
            "image": (plain(image.name), body, media_type),
            "crop": ",".join(map(str, crop)),
        }
        form, content_type = urllib3.encode_multipart_formdata(fields)
        return self._call("POST", "/search", query, form, {"Content-Type": content_type})

    def search(self, body: Mapping[str, object], query: Mapping[str, object]) -> Any:
        """Search with what a JSON body says, such as a stored product."""
        data = json.dumps(body).encode()
        return self._call("POST", "/search", query, data, {"Content-Type": "application/json"})

    def _upload(self, name: str, body: bytes) -> str:
        form = self._call("POST", "/uploads", {}, b"", {"Content-Type": "application/json"})
        if len(body) > form["max_bytes"]:
            raise WrongUse(
                f"{name} has {len(body) / 1e6:.1f} MB; "
                f"a search takes at most {form['max_bytes'] / 1e6:.1f} MB."
            )
        fields: Fields = {**form["fields"], "file": (name, body, "application/octet-stream")}
        data, content_type = urllib3.encode_multipart_formdata(fields)
        self._request("POST", form["url"], data, {"Content-Type": content_type})
        key: str = form["upload_key"]
        return key

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, object],
        body: bytes | None,
        headers: Mapping[str, str],
    ) -> Any:
        url = self.url + path + (f"?{urlencode(query)}" if query else "")
        data = self._request(
            method, url, body, {"Accept": "application/json", **self._headers, **headers}
        )
        try:
            return json.loads(data)
        except ValueError:
            raise Unreachable(f"{self.url} answers, but not as Lookalike's API does.") from None

    def _request(
        self, method: str, url: str, body: bytes | None, headers: Mapping[str, str]
    ) -> bytes:
        try:
            answer = self._pool.request(
                method,
                url,
                body=body,
                headers=dict(headers),
                retries=_RETRIES.new(redirect=_REDIRECTS if method == "GET" else 0),
            )
        except urllib3.exceptions.HTTPError as error:
            cause = getattr(error, "reason", None) or error
            raise Unreachable(f"{self.url} cannot be reached: {plain(cause)}") from error
        if answer.status >= 300:
            raise _refusal(answer.status, answer.data)
        return answer.data


def _refusal(status: int, body: bytes) -> Failed | WrongUse | Unreachable:
    try:
        problem = json.loads(body)
        title, detail = problem["title"], problem.get("detail", "")
    except (ValueError, TypeError, KeyError):
        title, detail = f"HTTP {status}", body[:200].decode(errors="replace")
    message = plain(f"{title}: {detail}" if detail else title)
    if status >= 500 or status == 429:
        return Unreachable(message)
    return Failed(message) if status in {404, 410} else WrongUse(message)


def _explanation_path(query_id: str, product_id: str) -> str:
    return f"/explanations/{quote(query_id, safe='')}/{quote(product_id, safe='')}"
