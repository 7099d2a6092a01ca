"""Scheduled work beside uploads, deletions, compaction and generations that are exchanged."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from crash_points.clouds import MemoryCloud, copied
from crash_points.promises import check_now
from crash_points.turns import Instance
from crash_points.work import (
    JOBS,
    WORK,
    Shopper,
    artifacts,
    check_readable,
    check_work,
    do,
    small_slices,
    tend,
)
from crash_points.work_scenarios import changed, stocked
from crash_points.world import CATALOGUE, FOREVER, SETTLE_S, Clock, Message, World
from crash_points.world import toys_and_no_threads as toys
from lookalike.core.errors import Conflict, InvalidRequest, Retry
from lookalike.wiring import Services

KINDS = ("clusters", "map", "calibration", "findings", "figures")
BUILDS = {"another encoder": {}, "a head": {"head_rows": 4}, "shards": {"shard_rows": 9}}


class Shop:
    """A catalogue that is looked after by one process while another does what is scheduled.

    Which of the two makes its next call to a store is drawn; either may die at any.
    """

    def __init__(self, world: World, build: str, seed: int) -> None:
        self._world = world
        self._random = Random(seed)
        self._worker, self._keeper = Instance(world, self._work), Instance(world, self._tend)
        self._is_encoder = build == "another encoder"
        self._step = ""
        self.met: Counter[str] = Counter()

    def live_through(self) -> None:
        steps = [
            "compact",
            "begin",
            *["build"] * 4,
            "compact",
            "roll back",
            "begin",
            *["build"] * 3,
        ]
        changes = {self._random.randrange(len(steps)), self._random.randrange(len(steps))}
        for number, step in enumerate(steps):
            if number in changes:
                changed(self._world)
                Shopper(self._world, self._world.system()).search(number)
            self._step = step
            self._keeper.begin([])
            while not self._keeper.is_idle:
                self._turn()
            for _ in range(self._random.randint(0, 40)):
                self._turn()
            self._world.wait(self._random.choice([1, SETTLE_S]))
        while not self._worker.is_idle:
            self._turn()

    def _turn(self) -> None:
        if self._worker.is_idle:
            self._worker.begin([])
        chosen = self._random.choice([self._worker, self._keeper])
        if chosen.is_idle:
            chosen = self._worker
        chosen.die() if self._random.random() < 0.005 else chosen.turn()
        check_readable(self._world)

    def _work(self, system: Services, _: list[Message]) -> list[Message]:
        job = self._random.choice(JOBS)
        with suppress(Retry):
            report = do(self._world, system, job, now=self._random.random() < 0.4)
            self.met[f"{job} {'done' if report.finished else 'goes on'}"] += 1
        return []

    def _tend(self, system: Services, _: list[Message]) -> list[Message]:
        with suppress(InvalidRequest, Conflict, Retry):
            match self._step:
                case "compact":
                    system.compaction.run(FOREVER, CATALOGUE)
                case "begin":
                    system.reindex.begin(CATALOGUE, self._other() if self._is_encoder else None)
                case "build":
                    system.reindex.run(FOREVER, CATALOGUE)
                case "roll back":
                    system.reindex.roll_back(CATALOGUE)
                    self.met["rolled back"] += 1
        return []

    def _other(self) -> str:
        lineage = self._world.stores.lineages.get(CATALOGUE)
        assert lineage is not None
        return "toy-a" if lineage.current.encoder.startswith("toy-b") else "toy-b"


def live_through(world: World, build: str, seed: int) -> Counter[str]:
    stocked(world)
    if seed % 2:
        tend(world)
    shop = Shop(world, build, seed)
    shop.live_through()
    world.wait(3600)  # the roll-up rests for as long as it was frozen, some times over
    with suppress(InvalidRequest, Conflict):
        world.system().reindex.run(FOREVER, CATALOGUE)
    lineage = world.stores.lineages.get(CATALOGUE)
    assert lineage is not None
    shop.met["exchanged"] += lineage.serial > 1
    check_now(world, world.system())
    tend(world)
    made = artifacts(world)
    current = lineage.current
    for kind in ("clusters", "map", "calibration", "findings"):
        assert made[kind].encoder == current.encoder, f"{kind} are of {made[kind].encoder}"
    calibration = made["calibration"]
    head = world.stores.registry.read(current.scope)[1].head
    assert (calibration.generation, calibration.head) == (current.generation, head)
    check_work(world, KINDS, *JOBS)
    return shop.met


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize(
    "seeds", [[1], pytest.param([0, *range(2, 6)], marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_what_is_made_is_of_what_is_current(
    build: str, seeds: list[int], memory_stores: Any, toy_encoder_of: Any, tmp_path: Path
) -> None:
    met: Counter[str] = Counter()
    with toys(), small_slices():
        for seed in seeds:
            clock = Clock()
            world = World(
                MemoryCloud(copied(memory_stores), clock), clock, toy_encoder_of, tmp_path
            )
            world.settings = replace(world.settings, **WORK, **BUILDS[build])
            try:
                met += live_through(world, build, seed)
            except Exception as error:
                raise AssertionError(f"history {seed}") from error
    assert met["exchanged"], met
