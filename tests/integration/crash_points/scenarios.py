"""The use cases. A new one goes into `SCENARIOS`, and is stopped everywhere from then on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from crash_points.promises import check_answer, check_promises
from crash_points.world import CATALOGUE, FOREVER, SETTLE_S, Message, World, draw
from lookalike.core.errors import NotFound
from lookalike.services.explanation_pictures import PictureRequest
from lookalike.services.search_request import QueryInput, SearchRequest
from lookalike.wiring import Services


@dataclass(frozen=True)
class Scenario:
    """One use case.

    ``prepare`` brings a world to where it begins. ``run`` is what is stopped: one delivery, one
    scheduled run or one request; it says whether that was all, and else comes again, as it does
    when it raises `Retry`. ``finish`` is what then happens undisturbed, ``check`` what holds then.
    """

    prepare: Callable[[World], None]
    run: Callable[[World, Services], bool]
    finish: Callable[[World, Services], None] = World.deliver_all
    settings: Mapping[str, Any] = field(default_factory=dict)
    check: Callable[[World], None] = check_promises


def stock(world: World, *numbers: int, system: Services | None = None) -> None:
    """Upload photos, a product each, one after another."""
    system = system or world.system()
    for number in numbers:
        world.put(f"shop/p{number}.png", number)
        world.deliver_all(system)


# Events.


def upload(world: World) -> None:
    world.put("shop/boot/front.png", 1, "red")
    world.put("shop/boot/side.png", 2)
    world.put("shop/hat.png", 3)


def overwrite(world: World) -> None:
    stock(world, 1, 2)
    world.put("shop/p1.png", 7)
    world.put("shop/p2.png", 2)  # the same photo, at another time


def delete(world: World) -> None:
    world.put("shop/boot/front.png", 1)
    world.put("shop/boot/side.png", 2)
    stock(world, 3, 4)
    world.remove("shop/boot/side.png")
    world.remove("shop/p3.png")


def describe(world: World) -> None:
    world.put("shop/boot/front.png", 1)
    world.put("shop/boot/side.png", 2)
    stock(world, 3)
    world.put("shop/p3.png", 3, "blue")
    world.describe("boot", '{"title": "Boot", "price": 3}')


def describe_merged(world: World) -> None:
    """The rows that the metadata is of have been moved by compaction."""
    world.put("shop/boot/front.png", 1)
    stock(world, 3, 4)
    world.system().compaction.run(FOREVER)
    world.describe("boot", '{"title": "Boot", "price": 3}')


def one_is_bad(world: World) -> None:
    world.put("shop/mended.png", None)
    stock(world, 1)
    world.put("shop/boot/front.png", 2)
    world.put("shop/bad.png", None)
    world.put("shop/mended.png", 5)
    world.put("shop/p1.png", None)


def beside_a_build(world: World) -> None:
    stock(world, 1, 2)
    world.system().reindex.begin(CATALOGUE, "toy-b")
    world.put("shop/p1.png", 7)
    world.put("shop/p3.png", 3)
    world.remove("shop/p2.png")


def beside_a_kept_one(world: World) -> None:
    swapped(world)
    world.put("shop/p3.png", 8)
    world.put("shop/p8.png", 3)
    world.remove("shop/p4.png")


def once_more(world: World) -> None:
    """All was delivered before, but for once, without success."""
    one_is_bad(world)
    last = world.settings.max_receives - 1
    world.messages = [Message(item.body, last) for item in world.messages]


def last_delivery(world: World, system: Services) -> bool:
    """After this the messages are dead letters, whatever came of it."""
    return not world.messages or world.deliver(system)


def swept_up(world: World, system: Services) -> None:
    """What nobody delivers any more is asked for by the sweep; failures are retried by hand."""
    failures, _ = world.stores.failures.page(CATALOGUE, 100)
    world.dead.clear()
    world.sweep(system)
    for item in failures:
        world.tell(item.key)
    world.deliver_all(system)


def boot_and_others(world: World) -> None:
    world.put("shop/boot/front.png", 1)
    world.put("shop/boot/side.png", 2)
    world.describe("boot", '{"title": "Boot"}')
    stock(world, 3, 4)


def request_deletion(world: World, system: Services) -> bool:
    """Whoever asked asks again until it is done, or there is no such product."""
    gone = ["shop/boot/front.png", "shop/boot/side.png", "shop/boot/product.json"]
    for key in gone:
        world.bucket.pop(key, None)
        world.tell(key)  # once more than need be, if it is asked for again
    with suppress(NotFound):
        system.catalogue.delete(CATALOGUE, "boot")
    return True


# Schedules.


def compact(world: World, system: Services) -> bool:
    report = system.compaction.run(FOREVER, CATALOGUE)
    assert not report.unreadable
    return report.finished


def appended(world: World) -> None:
    stock(world, 1, 2, 3)
    world.put("shop/p1.png", 7)
    world.remove("shop/p2.png")


def with_a_base(world: World) -> None:
    """A base with dead rows, replaced files that may go, an orphan, fresh runs and segments."""
    stock(world, *range(1, 6))
    system = world.system()
    system.compaction.run(FOREVER)
    world.put("shop/p1.png", 9)
    world.remove("shop/p2.png")
    world.deliver_all(system)
    world.stores.index.put("segments/shop/orphan.seg", b"of a step that was cut short", "")
    world.wait(5000)
    stock(world, *range(6, 10), system=system)


def reindex(world: World, system: Services) -> bool:
    report = system.reindex.run(FOREVER, CATALOGUE)
    return not report.postponed


def built(world: World, system: Services) -> None:
    world.deliver_all(system)
    world.reindex(system)
    lineage = world.stores.lineages.get(CATALOGUE)
    assert lineage is not None and lineage.serial > 1


def asked_for(encoder: str | None) -> Callable[[World], None]:
    """A new generation, announced; what began before has ended."""

    def prepare(world: World) -> None:
        stock(world, *range(1, 6))
        world.system().compaction.run(FOREVER)
        world.system().reindex.begin(CATALOGUE, encoder)
        stock(world, 6)
        world.put("shop/p1.png", 9)
        world.remove("shop/p2.png")
        world.wait(SETTLE_S + 10)

    return prepare


def split(world: World) -> None:
    """More rows than the one shard is meant for."""
    stock(world, *range(1, 9))
    world.system().compaction.run(FOREVER)


def announced_and_built(world: World, system: Services) -> bool:
    first = reindex(world, system)
    world.wait(SETTLE_S + 10)
    return reindex(world, system) and first


def swapped(world: World) -> None:
    """A generation of another encoder is current, and the one before it is kept."""
    asked_for("toy-b")(world)
    world.deliver_all(world.system())
    world.reindex(world.system())
    stock(world, 7)


def request(action: str) -> Callable[[World, Services], bool]:
    def run(world: World, system: Services) -> bool:
        getattr(system.reindex, action)(CATALOGUE)
        return True

    return run


def build(world: World, system: Services) -> bool:
    return request("begin")(world, system) and reindex(world, system)


def dropped(world: World, system: Services) -> None:
    world.deliver_all(system)
    world.wait(SETTLE_S + 10)
    system.reindex.run(FOREVER, CATALOGUE)
    lineage = world.stores.lineages.get(CATALOGUE)
    assert lineage is not None and lineage.beside is None


def drop(world: World) -> None:
    swapped(world)
    world.system().reindex.drop(CATALOGUE)
    world.wait(SETTLE_S + 10)


def drifted(world: World) -> None:
    """No event told of anything; counts are off; what is derived has outlived its photos."""
    stock(world, 1, 2, 3, 4)
    check_answer(world, world.system(), seed=1, explain=True)
    world.put("shop/p1.png", 9)
    world.put("shop/bad.png", None)
    world.deliver_all(world.system())
    world.wait(2 * 86_400)
    world.put("shop/p2.png", 7)
    world.put("shop/new.png", 5)
    world.remove("shop/p3.png")
    world.remove("shop/bad.png")
    world.stores.counts.set(CATALOGUE, world.stores.counts.all()[CATALOGUE].__class__(9, 9, 9))
    world.messages.clear()


def sweep(world: World, system: Services) -> bool:
    return system.sweep.run(FOREVER).finished


# Requests.


def searchable(world: World) -> None:
    stock(world, *range(1, 6))
    world.system().compaction.run(FOREVER)
    stock(world, 6)


def search(world: World, system: Services) -> bool:
    check_answer(world, system, seed=1, explain=True)
    return True


def searched(world: World, system: Services) -> None:
    """A search that nothing disturbs is in the log."""
    query_id = check_answer(world, system, seed=1, explain=True)
    assert world.stores.log.get(query_id, world.clock()) is not None


def explainable(world: World) -> None:
    searchable(world)
    world.query_id = check_answer(world, world.system(), seed=1, explain=True)


def explain(world: World, system: Services) -> bool:
    wanted = PictureRequest("result", "webp", max_side=32)
    answer = system.explanations.explanation(world.query_id, "p3").answer
    assert np.isclose(np.sum(answer.result.contributions), answer.score, atol=1e-4)
    assert system.explanations.picture(world.query_id, "p3", wanted).body
    return True


def explained(world: World, system: Services) -> None:
    explain(world, system)
    assert system.explanations.explanation(world.query_id, "p3").hit


def similar(world: World, system: Services) -> bool:
    request = SearchRequest(CATALOGUE, (QueryInput(product_id="p3"), QueryInput(image=draw(1))))
    found = [item.product_id for item in system.query.search(request).results]
    assert sorted(found) == ["p1", "p2", "p4", "p5", "p6"]
    return True


HEAD = {"head_rows": 4}
SPLIT = {"shard_rows": 4}

SCENARIOS: dict[str, Scenario] = {
    "upload": Scenario(upload, World.deliver),
    "overwrite": Scenario(overwrite, World.deliver),
    "delete": Scenario(delete, World.deliver),
    "metadata": Scenario(describe, World.deliver),
    "metadata of moved rows": Scenario(describe_merged, World.deliver),
    "one bad image": Scenario(one_is_bad, World.deliver),
    "events beside a build": Scenario(beside_a_build, World.deliver),
    "events beside a kept generation": Scenario(beside_a_kept_one, World.deliver),
    "last delivery": Scenario(once_more, last_delivery, swept_up),
    "deletion by request": Scenario(boot_and_others, request_deletion),
    "merge": Scenario(appended, compact),
    "base": Scenario(with_a_base, compact),
    "shard split": Scenario(split, announced_and_built, built, SPLIT),
    "new head": Scenario(asked_for(None), reindex, built, HEAD),
    "new encoder": Scenario(asked_for("toy-b"), reindex, built),
    "request for a build": Scenario(searchable, build, built),
    "rollback": Scenario(swapped, request("roll_back")),
    "drop": Scenario(drop, reindex, dropped),
    "sweep": Scenario(drifted, sweep, swept_up),
    "search": Scenario(searchable, search, searched),
    "similar": Scenario(searchable, similar, searched),
    "explanation": Scenario(explainable, explain, explained),
}
