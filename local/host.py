"""The process that plays Lambda, API Gateway and EventBridge: ``python -m local.host CONFIG``."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from aiohttp import web

from local.api_definition import read_api
from local.control import Control
from local.functions import Function, read_functions
from local.gateway import MAX_BODY_BYTES, Gateway
from local.pollers import Poller
from local.roles import load_roles
from local.runtime import Runtime
from local.scheduler import ScheduledFunction
from local.serving import Refusal, listen, signalled
from local.sqs import SqsClient, SqsError
from local.template import Template
from local.worker import MAX_PAYLOAD_BYTES, Launch


class HostConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the host is told in its configuration file; ``roles`` is a path, empty for none."""

    template: str
    parameters: dict[str, str]
    task_root: str
    logs: str
    aws_url: str
    api_port: int
    control_port: int
    workers: int
    environment: dict[str, str]
    roles: str = ""


class Host:
    """Functions with everything that triggers them.

    Parameters
    ----------
    config
        Addresses, folders and limits.
    """

    def __init__(self, config: HostConfig) -> None:
        self._config = config
        template = Template.load(Path(config.template), config.aws_url, config.parameters)
        self._functions = read_functions(template)
        self._api = read_api(template)
        self._roles = {role.arn: role for role in load_roles(config.roles)}
        launch = Launch(
            Path(config.task_root),
            config.environment,
            Path(config.logs),
            {arn: role.environment for arn, role in self._roles.items()},
        )
        self._runtime = Runtime(self._functions, launch, config.workers, self._prewarmed())
        self._ready = False
        self._queues: dict[str, SqsClient] = {}
        self._schedules: list[ScheduledFunction] = []

    async def run(self) -> None:
        """Run until SIGTERM or SIGINT, then stop cleanly."""
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(_session())
            control = Control(self._runtime, Path(self._config.logs), self._describe)
            await self._serve(stack, control.handle, self._config.control_port)
            stack.push_async_callback(self._runtime.stop)
            self._runtime.start()
            triggers = self._start_triggers(session)
            if self._api is not None:
                gateway = Gateway(self._api, self._runtime)
                await self._serve(
                    stack, gateway.handle, self._config.api_port, MAX_BODY_BYTES, gateway.refuse
                )
            starting = asyncio.create_task(self._announce_ready())
            stopping = asyncio.create_task(signalled())
            ended, _ = await asyncio.wait(
                [stopping, *triggers], return_when=asyncio.FIRST_COMPLETED
            )
            _report("stopping")
            for task in (starting, *triggers):
                task.cancel()
            if stopping not in ended:
                # A trigger never returns: this raises its error, and the supervisor starts anew.
                ended.pop().result()

    async def _serve(
        self,
        stack: AsyncExitStack,
        handler: Any,
        port: int,
        max_body_bytes: int = MAX_PAYLOAD_BYTES + 1024,
        refusal: Refusal | None = None,
    ) -> web.ServerRunner:
        runner = await listen(handler, port, max_body_bytes=max_body_bytes, refusal=refusal)
        stack.push_async_callback(runner.cleanup)
        return runner

    def _prewarmed(self) -> frozenset[str]:
        """Functions that somebody waits for: behind the API or a queue."""
        from_api = {
            integration.function_arn
            for route in (self._api.routes if self._api else ())
            for integration in route.methods.values()
        }
        return frozenset(
            name
            for name, function in self._functions.items()
            if function.queues or function.arn in from_api
        )

    def _start_triggers(self, session: aiohttp.ClientSession) -> list[asyncio.Task[None]]:
        tasks: list[asyncio.Task[None]] = []
        for name, function in self._functions.items():
            for poller in self._pollers(name, function, session):
                tasks.append(asyncio.create_task(poller.run()))
            for schedule in function.schedules:
                timed = ScheduledFunction(schedule, self._runtime.pools[name], _report)
                self._schedules.append(timed)
                tasks.append(asyncio.create_task(timed.run()))
        return tasks

    def _pollers(
        self, name: str, function: Function, session: aiohttp.ClientSession
    ) -> list[Poller]:
        pollers = []
        for source in function.queues:
            # Lambda polls a function's queue in that function's role.
            role = self._roles.get(function.role_arn)
            client = SqsClient(session, self._config.aws_url, source.queue_name, role)
            self._queues[source.queue_name] = client
            pollers.append(Poller(source, self._runtime.pools[name], client, _report))
        return pollers

    async def _announce_ready(self) -> None:
        await self._runtime.wait_ready()
        self._ready = True
        _report("ready")

    async def _describe(self) -> dict[str, Any]:
        queues: dict[str, Any] = {}
        for name, client in self._queues.items():
            try:
                queues[name] = await client.counts()
            except SqsError as error:
                queues[name] = {"error": str(error)}
        schedules = {
            timed.schedule.name: {
                "expression": timed.schedule.expression,
                "next_run": timed.next_run.isoformat(timespec="seconds")
                if timed.next_run
                else None,
            }
            for timed in self._schedules
        }
        return {"ready": self._ready, "queues": queues, "schedules": schedules}


def _session() -> aiohttp.ClientSession:
    # No total timeout: a long poll lasts 20 s and is bounded by the server.
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=600),
        timeout=aiohttp.ClientTimeout(total=None, connect=5, sock_read=60),
    )


def _report(line: str) -> None:
    print(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {line}", flush=True)


def main(argv: list[str]) -> None:
    """Run the process."""
    config = msgspec.json.decode(Path(argv[1]).read_bytes(), type=HostConfig)
    asyncio.run(Host(config).run())


if __name__ == "__main__":
    main(sys.argv)
