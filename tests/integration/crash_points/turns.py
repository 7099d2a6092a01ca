"""Two functions at once, one call at a time: whose turn it is is drawn at every call to a store."""

from __future__ import annotations

import threading
from collections.abc import Callable
from random import Random
from typing import Any

from crash_points.world import Message, World
from lookalike.adapters.failing import FailingStores
from lookalike.core.ports import Stores


class _Waiting(FailingStores):
    """Stores that wait before each call until it is their turn."""

    def __init__(self, stores: Stores, wait: Callable[[], None]) -> None:
        super().__init__(stores)
        self._wait = wait

    def call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._wait()
        return super().call(method, *args, **kwargs)


class Instance:
    """One function instance, in a thread that stands still when it is not its turn."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._go, self._stands = threading.Semaphore(0), threading.Semaphore(0)
        self._system = world.system(_Waiting(world.stores, self._pass_turn).stores)
        self._thread: threading.Thread | None = None
        self._failed: list[Message] = []
        self._error: BaseException | None = None

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

    def _run(self, messages: list[Message]) -> None:
        self._pass_turn()
        try:
            self._failed = self._world.invoke(self._system, messages)
        except BaseException as error:
            self._error = error
        threading.current_thread().name = "done"
        self._stands.release()

    def _pass_turn(self) -> None:
        self._stands.release()
        self._go.acquire()


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
