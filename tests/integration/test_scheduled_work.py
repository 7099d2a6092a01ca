"""Scheduled work, stopped at every call to a port in every way, is made good by the next slice."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from random import Random

import pytest

from crash_points.clouds import MemoryCloud, copied
from crash_points.points import Points, Tally, WirePoints
from crash_points.turns import Instance
from crash_points.wire import moto_in_process
from crash_points.work import WORK, check_work, do, small_slices, tend
from crash_points.work_scenarios import WORK_SCENARIOS, changed, shopped, stocked
from crash_points.world import Clock, Message, World, toys_and_no_threads
from lookalike.core.errors import Retry
from lookalike.wiring import Services

# One fault is tried at a call, another at the next; and at which calls: each so manieth.
FEW = pytest.param(8, id="few")
MANY = pytest.param(1, id="many", marks=pytest.mark.slow)
DEAR = 3
"""How many times fewer calls of a check for findings, which takes longest, are tried."""


@pytest.mark.parametrize("every", [FEW, MANY])
@pytest.mark.parametrize("name", WORK_SCENARIOS)
def test_every_point_is_survived(
    name, every, memory_stores, toy_encoder_of, tmp_path, record_property
):
    tally = Tally()
    with toys_and_no_threads(), small_slices():
        points = Points(WORK_SCENARIOS[name], memory_stores, toy_encoder_of, tmp_path, 1)
        step = every * DEAR if name.startswith("findings") else every
        for point, attempt in list(points.all())[::step]:
            tally.note(point, attempt)
    record_property("points", tally.tried)
    assert tally.tried and not tally.lost, f"{tally}"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clusters", "map", "roll-up", "search and click"])
def test_requests_may_fail(name, memory_stores, toy_encoder_of, tmp_path):
    tally = Tally()
    with toys_and_no_threads(), small_slices(), moto_in_process(Clock()) as cloud:
        scenario = WORK_SCENARIOS[name]
        points = WirePoints(scenario, memory_stores, toy_encoder_of, tmp_path, cloud, 1)
        for point, attempt in list(points.all())[::7]:
            tally.note(point, attempt)
    assert tally.tried and not tally.lost, f"{tally}"


def runners(world: World, job: str, seed: int) -> None:
    """Two runners of one job, call by call, which die now and then, beside uploads."""
    random = Random(seed)

    def run(system: Services, _: list[Message]) -> list[Message]:
        with suppress(Retry):
            do(world, system, job, now=random.random() < 0.3)
        return []

    instances = [Instance(world, run) for _ in range(2)]
    changes = [partial(changed, world)]
    for _ in range(3):
        for item in instances:
            item.begin([])
        while not all(item.is_idle for item in instances):
            item = random.choice([item for item in instances if not item.is_idle])
            item.die() if random.random() < 0.01 else item.turn()
            if changes and random.random() < 0.02:
                changes.pop()()
        world.wait(45)
    tend(world, (job,))


@pytest.mark.parametrize("job", ["recluster", "project", "health", "calibrate", "rollup"])
@pytest.mark.parametrize(
    "seeds", [range(3), pytest.param(range(3, 15), marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_two_runners_at_once_make_one_result(job, seeds, memory_stores, toy_encoder_of, tmp_path):
    kinds = {"recluster": "clusters", "project": "map", "health": "findings"}
    kind = kinds.get(job, "calibration" if job == "calibrate" else "figures")
    with toys_and_no_threads(), small_slices():
        for seed in seeds:
            clock = Clock()
            cloud = MemoryCloud(copied(memory_stores), clock)
            world = World(cloud, clock, toy_encoder_of, tmp_path)
            world.settings = replace(world.settings, **WORK)
            (shopped if job == "rollup" else stocked)(world)
            try:
                runners(world, job, seed)
                check_work(world, (kind,), job)
            except Exception as error:
                raise AssertionError(f"history {seed}") from error
