"""Keeps the processes of the local cloud running: start, log, restart with backoff, stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from local import die_with_parent
from local.logs import LogFile

GRACE_S = 5.0
MAX_BACKOFF_S = 15.0
STEADY_S = 30.0
"""A process that ran this long starts its next backoff from the beginning."""
_CHECK_S = 0.25


@dataclass(slots=True)
class Child:
    """One process. ``on_restart`` is called, and must not wait, after it was started again."""

    name: str
    module: Sequence[str]
    environment: Mapping[str, str]
    working_dir: Path
    on_restart: Callable[[], None] | None = None
    process: subprocess.Popen[bytes] | None = None
    failures: int = 0
    started: float = 0.0
    restart_at: float = 0.0
    log: LogFile | None = field(default=None, repr=False)


class Supervisor:
    """Runs children from one thread of its own: the kernel ties them to the thread that forks.

    Parameters
    ----------
    logs
        Folder of the log files.
    on_change
        Called after a child was restarted, in the supervisor's thread.
    """

    def __init__(self, logs: Path, on_change: Callable[[], None]) -> None:
        self._logs = logs
        self._on_change = on_change
        self._children: dict[str, Child] = {}
        self._to_start: list[Child] = []
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self._thread.start()

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name of those that run."""
        return {
            name: child.process.pid
            for name, child in list(self._children.items())
            if child.process and child.process.poll() is None
        }

    def start(self, child: Child) -> None:
        """Start a child and keep it running."""
        with self._lock:
            self._to_start.append(child)
        self._wake.set()

    def failures(self, name: str) -> int:
        """How often a child ended by itself since it last ran for a while."""
        child = self._children.get(name)
        return child.failures if child else 0

    def stop(self) -> None:
        """End all children, the last started first, each with a grace before SIGKILL."""
        self._stopping = True
        self._wake.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(_CHECK_S)
            self._wake.clear()
            with self._lock:
                starting, self._to_start = self._to_start, []
            for child in starting:
                self._children[child.name] = child
                self._spawn(child)
            for child in list(self._children.values()):
                self._check(child)
        for child in reversed(list(self._children.values())):
            _end(child)

    def _check(self, child: Child) -> None:
        if child.process is None:
            if time.monotonic() >= child.restart_at and not self._stopping:
                self._spawn(child)
                if child.on_restart:
                    child.on_restart()
                self._on_change()
            return
        status = child.process.poll()
        if status is None or self._stopping:
            return
        if time.monotonic() - child.started > STEADY_S:
            child.failures = 0
        child.failures += 1
        delay = min(MAX_BACKOFF_S, 0.25 * 2 ** (child.failures - 1))
        child.restart_at = time.monotonic() + delay
        child.process = None
        self._note(child, f"ended with status {status}; starting again in {delay:.2f} s")

    def _spawn(self, child: Child) -> None:
        child.log = child.log or LogFile(self._logs / f"{child.name}.log")
        child.process = subprocess.Popen(
            [sys.executable, die_with_parent.__file__, str(os.getpid()), *child.module],
            cwd=child.working_dir,
            env=dict(child.environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        child.started = time.monotonic()
        self._note(child, f"started, process {child.process.pid}")
        threading.Thread(target=_copy, args=(child.process, child.log), daemon=True).start()

    @staticmethod
    def _note(child: Child, text: str) -> None:
        if child.log:
            moment = datetime.now(UTC).isoformat(timespec="milliseconds")
            child.log.write(f"{moment} SUPERVISOR {child.name} {text}")


def _copy(process: subprocess.Popen[bytes], log: LogFile) -> None:
    if process.stdout is not None:
        for line in process.stdout:
            log.write_bytes(line)
        process.stdout.close()


def _end(child: Child) -> None:
    process = child.process
    if process is not None and process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if child.log:
        child.log.close()
