"""The dashboard's side of the HTTP API. Every failure becomes a `Problem` in words for a person."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

API_URL_VARIABLE = "LOOKALIKE_API_URL"
API_KEY_VARIABLE = "LOOKALIKE_API_KEY"
DATA_DIR_VARIABLE = "LOOKALIKE_DATA_DIR"
DEFAULT_API_URL = "http://127.0.0.1:8000"
MAX_DIRECT_BYTES = 4_000_000
"""Larger photos go through ``POST /uploads``: a function's request is limited to 6 MB in base64."""
TIMEOUT_S = 30.0

Json = dict[str, Any]


class Problem(Exception):
    """Why a request failed: ``title`` in a few words, ``detail`` in a sentence."""

    def __init__(self, title: str, detail: str) -> None:
        super().__init__(detail)
        self.title = title
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo that somebody picked."""

    data: bytes
    content_type: str
    name: str


def api_url() -> str:
    """Where the API is: ``LOOKALIKE_API_URL``, else the local cloud's default."""
    return os.environ.get(API_URL_VARIABLE, DEFAULT_API_URL).rstrip("/")


def api_key() -> str:
    """The key to ask with: ``LOOKALIKE_API_KEY``, else that of the local cloud, else none."""
    if key := os.environ.get(API_KEY_VARIABLE):
        return key
    if folder := os.environ.get(DATA_DIR_VARIABLE):
        # Made when all of the local cloud runs, this process too.
        with suppress(FileNotFoundError):
            return Path(folder, "api-key").read_text().strip()
    return ""


class Api:
    """Calls the API at ``url``; ``key`` says what API key to send, if any, at each call."""

    def __init__(self, url: str, key: Callable[[], str] = api_key) -> None:
        self.url = url
        self._key = key

    async def search(self, photo: Photo, options: Mapping[str, str | int]) -> Json:
        """Products that look like a photo; ``options`` are query parameters of ``POST /search``."""
        if len(photo.data) <= MAX_DIRECT_BYTES:
            headers = {"Content-Type": photo.content_type}
            return await self._call(
                "POST", "/search", options, data=io.BytesIO(photo.data), headers=headers
            )
        form = await self._call("POST", "/uploads", {})
        await self._upload(form, photo)
        return await self._call("POST", "/search", options, json={"upload_key": form["upload_key"]})

    async def similar(self, product_id: str, options: Mapping[str, str | int]) -> Json:
        """Products that look like a stored one."""
        return await self._call("POST", "/search", options, json={"product_id": product_id})

    async def explanation(self, url: str) -> Json:
        """Why a result matches; ``url`` is its ``explanation_url``."""
        return await self._call("GET", _explanation_path(url), {})

    async def pair_picture(self, url: str) -> bytes:
        """The WebP of a query and the result whose ``explanation_url`` this is."""
        return await self._send("GET", f"{_explanation_path(url)}/pair.webp", {})

    async def stats(self) -> Json:
        """What every catalogue holds."""
        return await self._call("GET", "/stats", {})

    async def failures(self, catalogue: str, cursor: str | None, limit: int = 20) -> Json:
        """A page of objects that could not be indexed."""
        query: dict[str, str | int] = {"catalogue": catalogue, "status": "failed", "limit": limit}
        if cursor:
            query["cursor"] = cursor
        return await self._call("GET", "/products", query)

    async def _upload(self, form: Json, photo: Photo) -> None:
        fields = aiohttp.FormData()
        for name, value in form["fields"].items():
            fields.add_field(name, value)
        fields.add_field(
            "file", io.BytesIO(photo.data), content_type=photo.content_type, filename="photo"
        )
        try:
            async with _session() as session, session.post(form["url"], data=fields) as answer:
                if answer.status >= 400:
                    raise Problem(
                        "Upload refused", f"The bucket answered {answer.status} to the photo."
                    )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Problem("Upload failed", f"The bucket does not answer: {error}") from error

    async def _call(
        self, method: str, path: str, query: Mapping[str, str | int], **options: Any
    ) -> Json:
        return self._read(await self._send(method, path, query, **options))

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str | int],
        headers: Mapping[str, str] | None = None,
        **body: Any,
    ) -> bytes:
        key = self._key()
        sent = {**(headers or {}), **({"Authorization": f"Bearer {key}"} if key else {})}
        try:
            async with (
                _session() as session,
                session.request(
                    method, self.url + path, params=query, headers=sent, **body
                ) as answer,
            ):
                content = await answer.read()
        except (aiohttp.ClientConnectionError, TimeoutError) as error:
            raise Problem(
                "No answer",
                f"The API at {self.url} does not answer. `lookalike up` starts it; another address "
                f"goes into {API_URL_VARIABLE}.",
            ) from error
        except (aiohttp.ClientError, ValueError) as error:
            raise Problem("Not understood", f"{self.url} did not answer in HTTP.") from error
        if answer.status >= 400:
            problem = self._read(content)
            title = str(problem.get("title") or f"Error {answer.status}")
            raise Problem(title, str(problem.get("detail") or "The API gave no reason."))
        return content

    def _read(self, content: bytes) -> Json:
        try:
            read = json.loads(content)
        except ValueError as error:
            raise Problem("Not understood", f"{self.url} did not answer in JSON.") from error
        if not isinstance(read, dict):
            raise Problem("Not understood", f"{self.url} answered something unexpected.")
        return read


def _explanation_path(url: str) -> str:
    _, path, rest = urlsplit(url).path.partition("/explanations/")
    return path + rest


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))
