"""Stops a scenario at every call, in every way, and looks at what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from crash_points.clouds import MemoryCloud, copied
from crash_points.scenarios import Scenario
from crash_points.wire import WIRE_FAULTS, MotoCloud
from crash_points.world import CATALOGUE, Clock, Cloud, World
from lookalike.adapters.failing import FAULTS, Crash, FailingStores, Fault
from lookalike.core.errors import Retry
from lookalike.core.ports import Stores
from lookalike.wiring import Services

_DELIVERIES = 6


@dataclass
class Tally:
    """How many points were tried, and which were not survived."""

    tried: int = 0
    lost: dict[str, list[str]] = field(default_factory=dict)

    def note(self, point: str, attempt: Callable[[], None]) -> None:
        self.tried += 1
        try:
            attempt()
        except Exception as error:
            self.lost.setdefault(repr(error)[:600], []).append(point)

    def __str__(self) -> str:
        lost = sum(map(len, self.lost.values()))
        why = [f"{error}: {len(at)} times, first {at[0]}" for error, at in self.lost.items()]
        return "\n".join([f"{self.tried} points tried, {lost} not survived", *why])


class Points:
    """The points of one scenario on stores in memory.

    Parameters
    ----------
    share
        So many faults are tried at each call, others at the next; 0 for all.
    """

    faults: Sequence[Any] = FAULTS

    def __init__(
        self,
        scenario: Scenario,
        stores: Stores,
        toys: Callable[[str], Any],
        folder: Path,
        share: int = 0,
    ) -> None:
        self.scenario = scenario
        self._share = share
        self.empty = stores
        self.clock = Clock()
        self.prepared = World(self.cloud(), self.clock, toys, folder)
        scenario.prepare(self.prepared)

    def cloud(self) -> Cloud:
        """Where the scenario is prepared."""
        return MemoryCloud(copied(self.empty), self.clock)

    def world(self) -> World:
        """The scenario's beginning, to be used up."""
        return self.prepared.at(self.prepared.cloud.copied)

    def calls(self) -> list[str]:
        """The calls of a run that nothing disturbs."""
        world = self.world()
        failing = FailingStores(world.stores)
        assert self.run(world, world.system(failing.stores, **self.scenario.settings))
        return failing.names

    def all(self) -> Iterator[tuple[str, Callable[[], None]]]:
        """Every point: what it is called, and what tries it."""
        for number, name in enumerate(self.calls(), 1):
            for fault in self.chosen(number, [item for item in self.faults if item.befalls(name)]):
                attempt = partial(self.attempt, number, fault)
                yield f"{fault.name}, call {number} ({name})", attempt

    def chosen(self, number: int, faults: list[Any]) -> list[Any]:
        """All of them, or as many as there is time for, others at each call."""
        first = number * self._share
        return [faults[(first + more) % len(faults)] for more in range(self._share)] or faults

    def attempt(self, number: int, fault: Fault) -> None:
        """Run into one fault, then do again what the cloud would do again, and check."""
        world = self.world()
        failing = FailingStores.with_fault(world.stores, number, fault)
        self.run_again(world, failing.stores, failing.mend)
        self.finish(world)
        self.scenario.check(world)

    def run_again(self, world: World, failing: Stores, mend: Callable[[], None]) -> None:
        """One delivery that fails, and others until all is done."""
        options = self.scenario.settings
        system, done = world.system(failing, **options), False
        try:
            done = self.run(world, system)
        except Crash:
            system = world.system(**options)
        # A process that has lived through errors goes on; the errors are over.
        mend()
        for _ in range(_DELIVERIES):
            if done:
                break
            world.wait(30)
            done = self.run(world, system)
        assert done, "never done"

    def finish(self, world: World) -> None:
        """What then happens undisturbed."""
        self.scenario.finish(world, world.system(**self.scenario.settings))

    def run(self, world: World, system: Services) -> bool:
        """One delivery; whether that was all."""
        try:
            return self.scenario.run(world, system)
        except Retry:
            return False


class WirePoints(Points):
    """The points of one scenario on moto: every HTTP request of the adapters.

    Parameters
    ----------
    cloud
        An empty one.
    """

    faults = WIRE_FAULTS

    def __init__(
        self,
        scenario: Scenario,
        stores: Stores,
        toys: Callable[[str], Any],
        folder: Path,
        cloud: MotoCloud,
        share: int = 0,
    ) -> None:
        self._moto = cloud
        super().__init__(scenario, stores, toys, folder, share)
        self._content = cloud.content()

    def cloud(self) -> Cloud:
        """Where the scenario is prepared."""
        self._moto.wire.clock = self.clock
        return self._moto

    def world(self) -> World:
        """The scenario's beginning, to be used up."""
        return self.prepared.at(partial(self._moto.restored, self._content))

    def calls(self) -> list[str]:
        """The requests of a run that nothing disturbs."""
        world, wire = self.world(), self._moto.wire
        wire.names.clear()
        assert self.run(world, world.system(**self.scenario.settings))
        return list(wire.names)

    def attempt(self, number: int, fault: Any) -> None:
        """Run into one fault, then do again what the cloud would do again, and check."""
        world, wire = self.world(), self._moto.wire
        wire.arm(number, fault)
        try:
            self.run_again(world, world.stores, wire.mend)
        finally:
            wire.mend()
        # What is left disturbs nothing and is not disturbed, so that it need not take its time.
        world.cloud = self._moto.in_memory(copied(self.empty), CATALOGUE, world.clock)
        self.finish(world)
        self.scenario.check(world)
