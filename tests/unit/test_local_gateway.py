from __future__ import annotations

import asyncio
import json
from typing import cast

import aiohttp
import pytest

from infra.gateway import GATEWAY_RESPONSES
from local.api_definition import Api, GatewayAnswer
from local.gateway import MAX_URL_CHARACTERS, Gateway
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
