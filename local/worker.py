"""One execution environment of a function: an awslambdaric process and the Runtime API it talks to.

Each process has its own port, since the Runtime API of Lambda has no notion of who asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from aiohttp import web

from local import die_with_parent
from local.functions import Function
from local.logs import LogFile
from local.serving import LOOPBACK, listen, port_of, read_body

MAX_PAYLOAD_BYTES = 6 * 1024 * 1024
"""Lambda's limit for a synchronous invocation, each way."""
INIT_TIMEOUT_S = 30.0
"""Lambda allows 10 s, then starts over within the call's own timeout; a laptop may be busy."""

_PREFIX = "/2018-06-01/runtime/"
_ANSWER = re.compile(re.escape(_PREFIX) + r"invocation/([^/]+)/(response|error)$")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call came to: the function's answer, or an error document when ``error`` is set."""

    payload: bytes
    error: str | None
    request_id: str
    duration_ms: float


@dataclass(slots=True, eq=False)
class Invocation:
    """One call of a function, from being asked for until its outcome."""

    payload: bytes
    outcome: asyncio.Future[Outcome]
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    started: float = 0.0

    def finish(self, payload: bytes, error: str | None) -> None:
        """Settle it, unless it is settled."""
        if not self.outcome.done():
            duration = (time.perf_counter() - self.started) * 1000 if self.started else 0.0
            self.outcome.set_result(Outcome(payload, error, self.request_id, duration))

    def fail(self, error_type: str, message: str) -> None:
        """Settle it with an error document as Lambda writes them."""
        text = f"RequestId: {self.request_id} Error: {message}"
        document = {"errorType": error_type, "errorMessage": text}
        self.finish(msgspec.json.encode(document), "Unhandled")


@dataclass(frozen=True, slots=True)
class Launch:
    """How function processes are started: where, with what environment, logging where.

    ``credentials`` are variables by the ARN of a function's role.
    """

    task_root: Path
    environment: Mapping[str, str]
    logs: Path
    credentials: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


class Worker:
    """A process that serves one invocation at a time.

    Parameters
    ----------
    function
        What to run.
    launch
        How to run it.
    log
        Where its output goes.
    on_idle
        Called when it can take an invocation.
    on_exit
        Called once when its process has ended.
    """

    def __init__(
        self,
        function: Function,
        launch: Launch,
        log: LogFile,
        on_idle: Callable[[Worker], None],
        on_exit: Callable[[Worker], None],
    ) -> None:
        self.function = function
        self.current: Invocation | None = None
        self.ready = False
        self.init_error: bytes | None = None
        self._launch = launch
        self._log = log
        self._on_idle = on_idle
        self._on_exit = on_exit
        self._assigned: asyncio.Future[Invocation] | None = None
        self._death: tuple[str, str] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._server: web.ServerRunner | None = None

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if self._process and running else None

    async def run(self) -> None:
        """Start the process and stay until it has ended."""
        self._server = await listen(self._handle, 0, max_body_bytes=4 * MAX_PAYLOAD_BYTES)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, die_with_parent.__file__, str(os.getpid())),
                *("awslambdaric", self.function.handler),
                cwd=self._launch.task_root,
                env=self._environment(port_of(self._server)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                limit=1 << 20,
            )
            self._after(INIT_TIMEOUT_S, "Sandbox.Timedout", "the function did not start in time")
            await self._copy_output(self._process)
            status = await self._process.wait()
        finally:
            self.kill()
            self._stop_timer()
            await self._server.cleanup()
        self._settle_exit(status)
        self._on_exit(self)

    def assign(self, invocation: Invocation) -> None:
        """Give an idle worker its next invocation; its time runs from now."""
        if self._assigned is None or self.current is not None:
            raise RuntimeError("assigned to a worker that is not idle")
        self.current = invocation
        invocation.started = time.perf_counter()
        timeout = self.function.timeout_s
        self._after(timeout, "Sandbox.Timedout", f"Task timed out after {timeout:.2f} seconds")
        self._assigned.set_result(invocation)
        self._assigned = None

    def kill(self, error_type: str = "Runtime.ExitError", message: str = "killed") -> None:
        """End the process now; an invocation it has fails with this error."""
        if self.pid is not None and self._process is not None:
            self._death = self._death or (error_type, message)
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if request.method == "GET" and path == f"{_PREFIX}invocation/next":
            return await self._next()
        body = await read_body(request)
        if path == f"{_PREFIX}init/error":
            self.init_error = body
            return web.Response(status=202)
        matched = _ANSWER.match(path)
        if matched is None or self.current is None or self.current.request_id != matched[1]:
            return web.Response(status=400)
        if matched[2] == "error":
            self.current.finish(body, "Unhandled")
        elif len(body) > MAX_PAYLOAD_BYTES:
            self.current.fail(
                "Function.ResponseSizeTooLarge",
                f"Response payload size ({len(body)} bytes) exceeded maximum allowed payload size "
                f"({MAX_PAYLOAD_BYTES} bytes).",
            )
        else:
            self.current.finish(body, None)
        return web.Response(status=202)

    async def _next(self) -> web.StreamResponse:
        """The process asks for work, which also says that it is done with what it had."""
        self._stop_timer()
        self.current = None
        self.ready = True
        assigned = self._assigned = asyncio.get_running_loop().create_future()
        self._on_idle(self)
        invocation = await assigned
        deadline_ms = int((time.time() + self.function.timeout_s) * 1000)
        return web.Response(
            body=invocation.payload,
            content_type="application/json",
            headers={
                "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
                "Lambda-Runtime-Deadline-Ms": str(deadline_ms),
                "Lambda-Runtime-Invoked-Function-Arn": self.function.arn,
                "Lambda-Runtime-Trace-Id": "Root=1-00000000-000000000000000000000000;Sampled=0",
            },
        )

    def _environment(self, port: int) -> dict[str, str]:
        function = self.function
        return {
            **function.environment,
            **self._launch.environment,
            **self._launch.credentials.get(function.role_arn, {}),
            "AWS_LAMBDA_RUNTIME_API": f"{LOOPBACK}:{port}",
            "AWS_LAMBDA_FUNCTION_NAME": function.name,
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
            "AWS_EXECUTION_ENV": f"AWS_Lambda_python{sys.version_info[0]}.{sys.version_info[1]}",
            "LAMBDA_TASK_ROOT": str(self._launch.task_root),
            "_HANDLER": function.handler,
        }

    async def _copy_output(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            return
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # longer than the limit; asyncio has dropped it
                line = b"[a line of more than 1 MiB was dropped]\n"
            if not line:
                return
            self._log.write_bytes(line)

    def _after(self, seconds: float, error_type: str, message: str) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.kill, error_type, message)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _settle_exit(self, status: int) -> None:
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        error_type, message = self._death or (
            "Runtime.ExitError",
            f"Runtime exited with error: {how}",
        )
        if self.current is not None:
            self.current.fail(error_type, message)
        if not self.ready and self.init_error is None:
            document = {"errorType": error_type, "errorMessage": message}
            self.init_error = msgspec.json.encode(document)
        self._log.write(f"PROCESS {self._process.pid if self._process else '-'} ended: {message}")
