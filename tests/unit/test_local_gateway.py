from __future__ import annotations

import asyncio
import json
from typing import cast

import aiohttp
import pytest
from aiohttp import web

from infra.gateway import GATEWAY_RESPONSES
from local.api_definition import Api, GatewayAnswer
from local.gateway import MAX_URL_CHARACTERS, Gateway, is_host
from local.runtime import Runtime
from local.serving import listen, port_of

TEMPLATE = '{"status": 400, "detail": "Refused.", "instance": "$context.requestId"}'
PROBLEM = GatewayAnswer(400, (("Content-Type", "application/problem+json"),), TEMPLATE)
API = Api(stage="api", routes=(), binary_types=(), answers={"DEFAULT_4XX": PROBLEM})


@pytest.mark.parametrize("characters", [MAX_URL_CHARACTERS + 1, 20_000, 900_000])
def test_a_url_that_is_too_long_is_answered_by_the_templates_problem(characters: int) -> None:
    async def ask() -> tuple[int, str | None, bytes]:
        # No route is found, so no function is called.
        gateway = Gateway(API, cast(Runtime, None))
        runner = await listen(gateway.handle, 0, max_body_bytes=1000)
        url = f"http://127.0.0.1:{port_of(runner)}/search?filter=".ljust(characters + 30, "a")
        try:
            async with aiohttp.ClientSession() as session, session.get(url) as answer:
                return answer.status, answer.headers["Content-Type"], await answer.read()
        finally:
            await runner.cleanup()

    status, kind, body = asyncio.run(ask())
    assert (status, kind) == (400, "application/problem+json")
    assert json.loads(body)["detail"] == "Refused."


def test_the_deployed_gateway_says_that_a_url_may_be_too_long() -> None:
    assert "URL too long" in GATEWAY_RESPONSES["DEFAULT_4XX"][3]


BROKEN = (
    b"hello\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET  /two  spaces HTTP/1.1\r\nHost: a\r\n\r\n",
    b"G\0T / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nx: \0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nx: " + b"a" * 20_000 + b"\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\nzz",
    b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x: y\r\n" * 40_000 + b"\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a/../<script>\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: \xff\xfe\r\n\r\n",
    b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03 TLS",
)


@pytest.mark.parametrize("sent", BROKEN, ids=lambda sent: repr(sent[:40])[2:-1])
def test_broken_http_is_answered_by_a_problem_document(sent: bytes) -> None:
    async def ask() -> tuple[bytes, bytes]:
        gateway = Gateway(API, cast(Runtime, None))
        runner = await listen(gateway.handle, 0, max_body_bytes=1000, refusal=gateway.refuse)
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(runner))
            writer.write(sent)
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            size = int(head.lower().split(b"content-length: ")[1].split()[0])
            body = await asyncio.wait_for(reader.readexactly(size), 10)
            writer.close()
            return head, body
        finally:
            await runner.cleanup()

    head, body = asyncio.run(ask())
    assert head.startswith(b"HTTP/1.1 400 ") or head.startswith(b"HTTP/1.0 400 "), head
    assert b"content-type: application/problem+json" in head.lower()
    assert json.loads(body)["detail"] == "Refused."
    assert b"script" not in head + body


def test_a_defect_of_the_gateway_is_a_problem_document() -> None:
    async def ask() -> tuple[int, str | None, bytes]:
        gateway = Gateway(API, cast(Runtime, None))

        async def defect(request: object) -> web.StreamResponse:
            raise RuntimeError("secret")

        runner = await listen(defect, 0, max_body_bytes=1000, refusal=gateway.refuse)
        url = f"http://127.0.0.1:{port_of(runner)}/"
        try:
            async with aiohttp.ClientSession() as session, session.get(url) as answer:
                return answer.status, answer.headers["Content-Type"], await answer.read()
        finally:
            await runner.cleanup()

    status, kind, body = asyncio.run(ask())
    assert (status, kind) == (500, "application/json")  # this API has no answer for 5xx
    assert json.loads(body) == {"message": "Internal server error"}


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("127.0.0.1:8000", True),
        ("localhost", True),
        ("shop.example.org:443", True),
        ("[::1]:8000", True),
        ("", False),
        ("a b", False),
        ("a@b", False),
        ("a:123456", False),
        ("a\n", False),
        ("a" * 300, False),
    ],
)
def test_a_host_is_a_name_or_an_address(host: str, good: bool) -> None:
    assert is_host([host]) is good
    assert not is_host([host, host])
