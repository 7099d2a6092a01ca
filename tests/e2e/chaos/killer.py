"""Kills processes of a running local cloud with SIGKILL, in an order that its seed decides."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from botocore.exceptions import BotoCoreError, ClientError
from chaos.clients import QUEUE
from chaos.history import History
from running_cloud import Running

from local.control import ControlError, status
from local.ports import PortInUse, check_free
from local.state import State, find_running

# Operations for each kill of its kind.
OPERATIONS_A_KILL = {"function": 8, "host": 60, "moto": 60, "tree": 120}
# The template allows five deliveries of a message, and each of these kills may cost one.
MAX_STRIKES = 3
_STRIKING = {"Embed", "host", "moto", "tree"}
_GONE_S = 15.0
_QUIET_S = 120.0


class Killer:
    """Carries out a plan: a kill of some kind each time that so many operations have ended.

    Parameters
    ----------
    cloud
        What runs.
    history
        Where kills are noted.
    restart
        Starts the local cloud again on the same folder and ports, and gives it when it answers.
    seed
        Of the plan and of every choice.
    """

    def __init__(
        self, cloud: Running, history: History, restart: Callable[[], Running], seed: int
    ) -> None:
        self.cloud = cloud
        self._history = history
        self._restart = restart
        self._strikes = 0
        self._random = random.Random(seed)

    def run(self, operations: int, stop: threading.Event) -> None:
        """Kill until the plan for so many operations is carried out; the whole tree comes last."""
        try:
            self._carry_out(operations, stop)
        finally:
            self._history.may_go_on.set()

    def _carry_out(self, operations: int, stop: threading.Event) -> None:
        kinds = [
            kind for kind, every in OPERATIONS_A_KILL.items() for _ in range(operations // every)
        ]
        self._random.shuffle(kinds)
        for number, kind in enumerate(kinds, 1):
            self._history.wait_for(number * operations // (len(kinds) + 1), stop)
            time.sleep(self._random.uniform(0, 0.3))
            if stop.is_set():
                return
            if self._strikes == MAX_STRIKES:
                self._wait_until_quiet()
            self._kill(kind)
        self._history.wait_for(operations, stop)
        self._kill("tree")

    def _kill(self, kind: str) -> None:
        state = find_running(self.cloud.data_dir)
        if state is None:
            raise AssertionError("nothing runs")
        if kind == "tree":
            self._kill_tree(state)
        elif kind == "function":
            self._kill_function(state)
        elif kind in state.pids and _kill(state.pids[kind]):
            self._note(kind)

    def _kill_function(self, state: State) -> None:
        functions = {name: pids for name, pids in _functions(state).items() if pids}
        if functions:
            name = self._random.choice(sorted(functions))
            if _kill(self._random.choice(functions[name])):
                self._note(name)

    def _kill_tree(self, state: State) -> None:
        pids = [*state.pids.values(), *(pid for few in _functions(state).values() for pid in few)]
        self._random.shuffle(pids)
        self._note("tree")
        for pid in pids:
            _kill(pid)
        self.cloud.process.communicate()
        deadline = time.monotonic() + _GONE_S
        while not self._is_gone():
            assert time.monotonic() < deadline, f"not gone after {_GONE_S} s"
            time.sleep(0.05)
        self.cloud = self._restart()

    def _note(self, what: str) -> None:
        self._history.killed(what)
        self._strikes += what in _STRIKING

    def _wait_until_quiet(self) -> None:
        """Clients rest until every message has been worked off."""
        self._history.may_go_on.clear()
        deadline = time.monotonic() + _QUIET_S
        while self._is_busy() and time.monotonic() < deadline:
            time.sleep(0.1)
        if time.monotonic() > deadline:
            self._history.differs(f"messages are left after {_QUIET_S:.0f} s without kills")
        self._strikes = 0
        self._history.may_go_on.set()

    def _is_busy(self) -> bool:
        with suppress(BotoCoreError, ClientError):
            return self.cloud.waiting(QUEUE) > 0
        return True

    def _is_gone(self) -> bool:
        try:
            for address in (self.cloud.api, self.cloud.aws):
                check_free(int(address.rsplit(":", 1)[1]), "")
        except PortInUse:
            return False
        return find_running(self.cloud.data_dir) is None


def _functions(state: State) -> dict[str, list[int]]:
    """Process ids by function; none while the host does not answer."""
    with suppress(ControlError, OSError, ValueError):
        return {name: item["pids"] for name, item in status(state)["functions"].items()}
    return {}


def _kill(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False
