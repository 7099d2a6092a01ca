"""Events that come once to three times, in any order, to two functions at once."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest

from crash_points.clouds import MemoryCloud, copied
from crash_points.promises import check_answers, check_promises
from crash_points.turns import interleave
from crash_points.world import CATALOGUE, FOREVER, Clock, World, toys_and_no_threads

KEYS = ["shop/boot/front.png", "shop/boot/side.png", "shop/hat.png"]
TOYS = ["toy-a", "toy-b"]


def live_through(world: World, seed: int) -> None:
    """A shop with some stock, or none, a build beside it or not, and ten changes."""
    random = Random(seed)
    for key in random.sample(KEYS, random.randint(0, len(KEYS))):
        world.put(key, random.randint(0, 9), random.choice(["red", ""]))
    world.deliver_all(world.system())
    if world.bucket and random.random() < 0.5:
        world.system().compaction.run(FOREVER)
        world.system().reindex.begin(CATALOGUE, random.choice(TOYS))
    changes = []
    for _ in range(10):
        key = random.choice(KEYS)
        match random.randint(0, 5):
            case 0:
                changes.append(partial(world.remove, key))
            case 1:
                changes.append(partial(world.describe, "boot", f'{{"price": {random.random()}}}'))
            case 2 | 3:
                changes.append(partial(world.put, key, None))
            case _:
                kind = random.choice(["red", "blue", ""])
                changes.append(partial(world.put, key, random.randint(0, 9), kind))
    interleave(world, changes, seed)
    check_promises(world)


@pytest.mark.parametrize("seeds", [range(20), pytest.param(range(20, 200), marks=pytest.mark.slow)])
def test_any_order_and_repetition_ends_in_what_the_bucket_holds(
    seeds, memory_stores, toy_encoder_of, tmp_path
):
    with toys_and_no_threads():
        for seed in seeds:
            clock = Clock()
            cloud = MemoryCloud(copied(memory_stores), clock)
            try:
                live_through(World(cloud, clock, toy_encoder_of, tmp_path), seed)
            except Exception as error:
                raise AssertionError(f"history {seed}") from error


def test_a_product_that_changes_never_leaves_the_answers(memory_stores, toy_encoder_of, tmp_path):
    """A function that asked the registry just before the change knows the old row only."""
    with toys_and_no_threads():
        clock = Clock()
        world = World(MemoryCloud(copied(memory_stores), clock), clock, toy_encoder_of, tmp_path)
        for number in range(3):
            world.put(f"shop/p{number}.png", number)
        world.put("shop/p1/side.png", 7)
        world.deliver_all(world.system())
        searching = world.system(refresh_s=3600.0)
        check_answers(world, searching)
        world.put("shop/p1.png", 1, "red")
        world.put("shop/p2.png", 9)
        world.deliver_all(world.system())
        check_answers(world, searching)
