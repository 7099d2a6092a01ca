"""The HTTP side: every request is answered, and what cannot be trusted ends."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from local.aws.moto_server import MotoServer


class Broken:
    """Serves nothing."""

    calls = 0

    def call_all(self, environs: list[Any]) -> list[Any]:
        self.calls += 1
        raise RuntimeError("memory is not what the journal has")


def test_a_batch_that_breaks_is_answered_and_is_the_last() -> None:
    moto: Any = Broken()
    statuses: list[int] = []

    async def run() -> None:
        server = MotoServer(moto)
        runner = web.ServerRunner(web.Server(server.handle))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        address = f"http://127.0.0.1:{runner.addresses[0][1]}/b/k"
        async with aiohttp.ClientSession() as session:

            async def put() -> None:
                async with session.put(address, data=b"x") as answer:
                    statuses.append(answer.status)

            async with asyncio.timeout(20):
                await asyncio.gather(*(put() for _ in range(5)))
                await server.broken.wait()
                await put()
        await runner.cleanup()

    asyncio.run(run())
    assert statuses == [500] * 6
    assert moto.calls == 1


@pytest.mark.usefixtures("shimmed")
def test_the_process_ends_when_it_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    from local.aws import moto_server
    from local.ports import free_port

    monkeypatch.setattr(moto_server, "durable_moto", lambda path, secrets: Broken())
    port = free_port()

    async def run() -> None:
        serving = asyncio.create_task(moto_server.serve(port, None, []))
        async with aiohttp.ClientSession() as session, asyncio.timeout(20):
            while not serving.done():
                try:
                    async with session.get(f"http://127.0.0.1:{port}/b/k") as answer:
                        assert answer.status == 500
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.01)
        await serving

    with pytest.raises(SystemExit, match="not what the journal has"):
        asyncio.run(run())
