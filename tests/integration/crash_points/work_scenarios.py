"""Scheduled work as use cases that are stopped everywhere: see `crash_points.scenarios`."""

from __future__ import annotations

from collections.abc import Callable

from crash_points.scenarios import Scenario
from crash_points.work import WORK, Shopper, check_work, do, tend
from crash_points.world import World
from lookalike.wiring import Services

PRODUCTS = 22
"""Enough for there to be groups, and no more."""


def stocked(world: World) -> None:
    """Products, some of them with two views."""
    for number in range(PRODUCTS):
        world.put(f"shop/p{number:02}/a.png", number, "red" if number % 2 else "blue")
    for number in range(4):
        world.put(f"shop/p{number:02}/b.png", 100 + number)
    world.deliver_all(world.system())
    world.wait(200)


def changed(world: World) -> None:
    """Products that came, went, and are others than they were."""
    for number in range(PRODUCTS, PRODUCTS + 4):
        world.put(f"shop/p{number:02}/a.png", number)
    world.put("shop/p05/a.png", 205)
    world.remove("shop/p00/a.png")  # its other view is its first one then
    world.remove("shop/p06/a.png")
    world.deliver_all(world.system())


def after(*jobs: str) -> Callable[[World], None]:
    """A stock that these jobs were done on, and that has changed since."""

    def prepare(world: World) -> None:
        stocked(world)
        tend(world, jobs)
        changed(world)
        world.wait(200)

    return prepare


def one(job: str) -> Callable[[World, Services], bool]:
    """A slice of a job, as the schedule has it."""
    return lambda world, system: do(world, system, job).finished


def tended(jobs: tuple[str, ...]) -> Callable[[World, Services], None]:
    """Minutes go by in which all is undisturbed."""

    def finish(world: World, system: Services) -> None:
        world.deliver_all(system)
        tend(world, jobs)

    return finish


def shopped(world: World) -> None:
    """Searches in two hours, with what came of them; one hour was counted before."""
    stocked(world)
    shopper = Shopper(world, world.system())
    for number in range(3):
        record = shopper.search(number)
        shopper.react(record, "click", 1)
        shopper.react(record, "buy" if number else "bad", 2)
    late = record
    world.wait(3700)
    do(world, world.system(**WORK), "rollup")
    shopper.search(4)
    shopper.react(late, "click", 3)
    world.wait(400)


def shop(world: World, system: Services) -> bool:
    """A search, and a click on it."""
    shopper = Shopper(world, system)
    shopper.react(shopper.search(1), "click", 1)
    return True


def scenario(
    prepare: Callable[[World], None], job: str, *kinds: str, jobs: tuple[str, ...] = ()
) -> Scenario:
    return Scenario(
        prepare, one(job), tended(jobs or (job,)), WORK, lambda world: check_work(world, kinds, job)
    )


WORK_SCENARIOS: dict[str, Scenario] = {
    "clusters": scenario(stocked, "recluster", "clusters"),
    "clusters again": scenario(after("recluster"), "recluster", "clusters"),
    "map": scenario(stocked, "project", "map", jobs=("recluster", "project")),
    "map again": scenario(after("recluster", "project"), "project", "map"),
    "calibration": scenario(stocked, "calibrate", "calibration"),
    "findings": scenario(stocked, "health", "findings"),
    "findings again": scenario(after("health"), "health", "findings"),
    "roll-up": scenario(shopped, "rollup", "figures"),
    "search and click": Scenario(
        stocked,
        shop,
        tended(("rollup",)),
        WORK,
        lambda world: check_work(world, ("figures",), "rollup"),
    ),
}
