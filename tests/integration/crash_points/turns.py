"""Two functions at once, one call at a time: whose turn it is is drawn at every call to a store."""

from __future__ import annotations

import threading
from collections.abc import Callable
from random import Random
from typing import Any

from crash_points.world import Message, World
from lookalike.adapters.failing import Crash, FailingStores
from lookalike.core.ports import Stores
from lookalike.wiring import Services


class _Waiting(FailingStores):
    """Stores that wait before each call until it is their turn."""

    def __init__(self, stores: Stores, wait: Callable[[], None]) -> None:
        super().__init__(stores)
        self._wait = wait

    def call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._wait()
        return super().call(method, *args, **kwargs)


class Instance:
    """One function instance, in a thread that stands still when it is not its turn.

    Parameters
    ----------
    world
        Where it runs.
    invoke
        What it does with the messages that it is begun with, or without any; gives those that
        failed.
    """

    def __init__(
        self, world: World, invoke: Callable[[Services, list[Message]], list[Message]] | None = None
    ) -> None:
        self._invoke = invoke or world.invoke
        self._go, self._stands = threading.Semaphore(0), threading.Semaphore(0)
        self._system = world.system(_Waiting(world.stores, self._pass_turn).stores)
        self._thread: threading.Thread | None = None
        self._failed: list[Message] = []
        self._error: BaseException | None = None
        self._dies = False

    @property
    def is_idle(self) -> bool:
        return self._thread is None

    def begin(self, messages: list[Message]) -> None:
        """Invoke the function with a batch; it stands before its first call."""
        self._thread = threading.Thread(target=self._run, args=(messages,))
        self._thread.start()
        self._stands.acquire()

    def turn(self) -> list[Message]:
        """Let it make one call; gives the messages that failed when that was the last."""
        self._go.release()
        self._stands.acquire()
        if self._thread is not None and self._thread.name == "done":
            self._thread.join()
            self._thread = None
            if self._error is not None:
                raise self._error
            return self._failed
        return []

    def die(self) -> None:
        """Make no call any more; another process takes its place."""
        assert self._thread is not None
        self._dies = True
        self._go.release()
        self._thread.join()
        self._stands.acquire()
        self._thread, self._error, self._dies = None, None, False

    def _run(self, messages: list[Message]) -> None:
        try:
            self._pass_turn()
            self._failed = self._invoke(self._system, messages)
        except BaseException as error:
            self._error = error
        threading.current_thread().name = "done"
        self._stands.release()

    def _pass_turn(self) -> None:
        if not self._dies:
            self._stands.release()
            self._go.acquire()
        if self._dies:
            raise Crash


def interleave(world: World, changes: list[Callable[[], None]], seed: int) -> None:
    """Make changes one by one, their events 1 to 3 times, and deliver those to two instances."""
    random = Random(seed)
    instances = [Instance(world) for _ in range(2)]
    while changes or world.messages or not all(item.is_idle for item in instances):
        if changes and random.random() < 0.2:
            begun = len(world.messages)
            changes.pop(0)()
            world.messages += world.messages[begun:] * random.randint(0, 2)
            random.shuffle(world.messages)
        one = random.choice(instances)
        if not one.is_idle:
            world.messages += one.turn()
        elif world.messages:
            size = random.randint(1, 4)
            batch, world.messages = world.messages[:size], world.messages[size:]
            received = [Message(item.body, item.receives + 1) for item in batch]
            assert all(item.receives <= world.settings.max_receives for item in received)
            one.begin(received)
