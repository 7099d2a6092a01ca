"""Runs the template's functions: a pool of processes each, on demand, with Lambda's limits."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from local.functions import Function
from local.logs import LogFile
from local.worker import MAX_PAYLOAD_BYTES, Invocation, Launch, Outcome, Worker

MEMORY_CHECK_S = 0.5
MAX_BACKOFF_S = 30.0


class PayloadTooLarge(Exception):
    """The payload of an invocation is over Lambda's 6 MB."""


class FunctionPool:
    """The processes of one function, and the invocations that wait for one.

    Parameters
    ----------
    function
        What to run.
    launch
        How to run it.
    max_workers
        Most processes at a time.
    min_workers
        Processes that are kept ready.
    """

    def __init__(
        self, function: Function, launch: Launch, max_workers: int, min_workers: int
    ) -> None:
        self.function = function
        self.max_workers = max_workers
        self.invocations = 0
        self.errors = 0
        self._launch = launch
        self._min_workers = min(min_workers, max_workers)
        self._log = LogFile(launch.logs / f"{function.logical_id}.log")
        self._pending: deque[Invocation] = deque()
        self._idle: list[Worker] = []
        self._workers: dict[Worker, asyncio.Task[None]] = {}
        self._failed_starts = 0
        self._closing = False
        self._ready = asyncio.Event()

    @property
    def busy(self) -> list[Worker]:
        """Workers that have an invocation."""
        return [worker for worker in self._workers if worker.current is not None]

    @property
    def pids(self) -> list[int]:
        """Process ids of all workers."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    def start(self) -> None:
        """Start the processes that are kept ready."""
        while len(self._workers) < self._min_workers:
            self._spawn()

    async def wait_ready(self) -> None:
        """Return when as many processes as are kept ready have once asked for work."""
        if self._min_workers:
            await self._ready.wait()

    async def invoke(self, payload: bytes) -> Outcome:
        """Call the function; waits for a free process.

        Raises
        ------
        PayloadTooLarge
            The payload is over 6 MB.
        """
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise PayloadTooLarge(f"{len(payload)} bytes; the limit is {MAX_PAYLOAD_BYTES}")
        invocation = Invocation(payload, asyncio.get_running_loop().create_future())
        self._pending.append(invocation)
        self._dispatch()
        outcome = await asyncio.shield(invocation.outcome)
        self.invocations += 1
        if outcome.error:
            self.errors += 1
            detail = outcome.payload[:2000].decode("utf-8", "replace")
            self._log.write(f"ERROR {outcome.request_id} {detail}")
        return outcome

    async def stop(self) -> None:
        """End all processes; what waits or runs fails."""
        self._closing = True
        for invocation in self._pending:
            invocation.fail("Sandbox.Stopped", "the local cloud is stopping")
        self._pending.clear()
        tasks = list(self._workers.values())
        for worker in self._workers:
            worker.kill(message="the local cloud is stopping")
        await asyncio.gather(*tasks, return_exceptions=True)
        self._log.close()

    def check_memory(self) -> None:
        """Kill workers that hold more memory than the function has (see ``memory_mb_of``)."""
        for worker in self.busy:
            used = memory_mb_of(worker.pid) if worker.pid is not None else None
            if used is not None and used > self.function.memory_mb:
                worker.kill(
                    "Runtime.OutOfMemory",
                    f"Runtime exited with error: signal: killed, {used:.0f} MB of "
                    f"{self.function.memory_mb} MB in use",
                )

    def _dispatch(self) -> None:
        while self._pending and self._idle:
            # The one that was busy last has the warmest caches.
            self._idle.pop().assign(self._pending.popleft())
        starting = sum(not worker.ready for worker in self._workers)
        wanted = min(len(self._pending) - starting, self.max_workers - len(self._workers))
        for _ in range(max(0, wanted)):
            self._spawn()

    def _spawn(self) -> None:
        if self._closing:
            return
        worker = Worker(self.function, self._launch, self._log, self._on_idle, self._on_exit)
        self._workers[worker] = asyncio.create_task(worker.run())

    def _on_idle(self, worker: Worker) -> None:
        self._failed_starts = 0
        self._idle.append(worker)
        if len(self._idle) >= self._min_workers:
            self._ready.set()
        self._dispatch()

    def _on_exit(self, worker: Worker) -> None:
        self._workers.pop(worker, None)
        with contextlib.suppress(ValueError):
            self._idle.remove(worker)
        if self._closing:
            return
        if not worker.ready:
            self._failed_starts += 1
            if self._pending:
                # As on Lambda, the call that needed this start fails; the next tries again.
                self._pending.popleft().finish(worker.init_error or b"{}", "Unhandled")
        delay = min(MAX_BACKOFF_S, 2.0 ** (self._failed_starts - 1)) if self._failed_starts else 0
        asyncio.get_running_loop().call_later(delay, self.start)
        self._dispatch()


class Runtime:
    """All functions of a template.

    Parameters
    ----------
    functions
        By logical id.
    launch
        How processes are started.
    workers
        Most processes a function may have; the template may allow fewer.
    prewarmed
        Logical ids of functions of which one process is kept ready.
    """

    def __init__(
        self,
        functions: Mapping[str, Function],
        launch: Launch,
        workers: int,
        prewarmed: frozenset[str],
    ) -> None:
        self.pools = {
            name: FunctionPool(
                function, launch, concurrency(function, workers), int(name in prewarmed)
            )
            for name, function in functions.items()
        }
        self._by_arn = {pool.function.arn: pool for pool in self.pools.values()}
        self._memory_task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the processes that are kept ready."""
        for pool in self.pools.values():
            pool.start()
        self._memory_task = asyncio.create_task(self._watch_memory())

    async def wait_ready(self) -> None:
        """Return when every prewarmed function can take a call."""
        await asyncio.gather(*(pool.wait_ready() for pool in self.pools.values()))

    def pool_by_arn(self, arn: str) -> FunctionPool:
        """The pool of the function with this ARN."""
        return self._by_arn[arn]

    async def stop(self) -> None:
        """End everything."""
        if self._memory_task:
            self._memory_task.cancel()
        await asyncio.gather(*(pool.stop() for pool in self.pools.values()))

    def status(self) -> dict[str, Any]:
        """What each function is doing."""
        return {
            name: {
                "name": pool.function.name,
                "pids": pool.pids,
                "busy": len(pool.busy),
                "max_workers": pool.max_workers,
                "invocations": pool.invocations,
                "errors": pool.errors,
            }
            for name, pool in self.pools.items()
        }

    async def _watch_memory(self) -> None:
        while True:
            await asyncio.sleep(MEMORY_CHECK_S)
            for pool in self.pools.values():
                pool.check_memory()


def concurrency(function: Function, workers: int) -> int:
    """Processes a function may have here: the option, unless the template allows fewer."""
    limits = [workers]
    if function.reserved_concurrency is not None:
        limits.append(function.reserved_concurrency)
    limits.extend(
        source.maximum_concurrency
        for source in function.queues
        if source.maximum_concurrency is not None
    )
    return max(1, min(limits))


def memory_mb_of(pid: int) -> float | None:
    """Private memory of a process in MB, or ``None`` where it cannot be read.

    Not address space (ONNX Runtime and FAISS reserve far more than they use, so RLIMIT_AS would
    kill healthy functions), and not files mapped from disk, which the kernel takes back.
    """
    if sys.platform != "linux":
        return None
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    kilobytes = [int(line.split()[1]) for line in lines if line.startswith(("RssAnon", "RssShmem"))]
    return sum(kilobytes) / 1024
