"""An object that kills the process goes to the dead letters alone; contention does not at all."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from lookalike.adapters.failing import Crash
from lookalike.core.errors import Conflict, Retry, Unavailable
from lookalike.core.ports import Stores
from lookalike.core.types import Delivered, Product
from lookalike.services import observe
from lookalike.services.delivery import Delivery
from lookalike.services.failures import NOTE_AGE_S, GivingUp
from lookalike.services.ingest_pass import Filed, Outcome, Searchable
from lookalike.settings import Settings
from lookalike.wiring import Services, build_services

MAX_RECEIVES = 5
POISON = b"kills the process"


@dataclass
class Queue:
    """An SQS queue with its dead letters: a batch that dies comes again whole."""

    services: Callable[[], Services]
    rng: random.Random
    receives: dict[str, int] = field(default_factory=dict)
    dead: list[str] = field(default_factory=list)
    deaths: int = 0
    outcomes: list[Outcome] = field(default_factory=list)

    def send(self, *keys: str) -> None:
        self.receives.update(dict.fromkeys(keys, 0))

    def work_off(self) -> None:
        while self.receives:
            batch = self.rng.sample(sorted(self.receives), min(10, len(self.receives)))
            delivered = []
            for key in batch:
                self.receives[key] += 1
                times = self.receives[key]
                delivered.append(Delivered(key, times, times >= MAX_RECEIVES))
            try:
                retries: Any = self.services().delivery.deliver(delivered, self.outcomes.append)
            except Crash:
                self.deaths += 1
                retries = batch
            for key in batch:
                if key not in retries:
                    del self.receives[key]
                elif self.receives[key] >= MAX_RECEIVES:
                    del self.receives[key]
                    self.dead.append(key)


@pytest.fixture
def services(memory_stores, clock, toy_encoder_of, ids, monkeypatch) -> Callable[[], Services]:
    decode = observe.decode

    def deadly(data: bytes, *args: Any, **kwargs: Any) -> Any:
        if data.startswith(POISON):
            raise Crash
        return decode(data, *args, **kwargs)

    monkeypatch.setattr(observe, "decode", deadly)
    settings = Settings(encoder="efficientnet-lite0", refresh_s=0, settle_s=0)
    made = build_services(settings, memory_stores, ids, clock, toy_encoder_of)
    return lambda: made


def live(stores: Stores) -> list[str]:
    products, _ = stores.products.page("shop", 1000)
    return sorted(key for product in products for key in product.views)


@pytest.mark.parametrize(("poisons", "seed"), [(1, 1), (1, 2), (2, 3), (2, 4), (3, 5), (3, 6)])
def test_what_kills_the_process_takes_no_neighbour_along(
    services, memory_stores, photo, poisons, seed
):
    good = [f"shop/p{number:02d}.jpg" for number in range(25)]
    bad = [f"shop/p{number:02d}x.jpg" for number in range(poisons)]
    for number, key in enumerate(good):
        memory_stores.images.put_object(key, photo(number, size=(24, 32)))
    for number, key in enumerate(bad):
        memory_stores.images.put_object(key, POISON + bytes([number]))
    queue = Queue(services, random.Random(seed))
    queue.send(*good, *bad)
    queue.work_off()
    # Beside three of them a message may be used up by their deaths; its photo is searchable.
    assert sorted(queue.dead) == bad or poisons > 2
    failures, _ = memory_stores.failures.page("shop", 100)
    assert [(item.key, item.reason) for item in failures] == [(key, "gave-up") for key in bad]
    assert live(memory_stores) == good
    counts = memory_stores.counts.all()["shop"]
    assert (counts.views, counts.failures) == (len(good), len(bad))
    assert queue.deaths <= MAX_RECEIVES * poisons

    # Mended and tried again, they leave nothing behind.
    for key in bad:
        memory_stores.images.put_object(key, photo(99, size=(24, 32)))
    queue.send(*bad)
    queue.work_off()
    assert live(memory_stores) == sorted([*good, *bad])
    assert memory_stores.failures.page("shop", 100)[0] == []
    assert memory_stores.counts.all()["shop"].failures == 0


@dataclass
class FakeIngest:
    """Indexes nothing; dies at what is bad, and once after so many calls if it is told to."""

    bad: set[str] = field(default_factory=set)
    dies_after: int | None = None
    tried: list[list[str]] = field(default_factory=list)
    done: set[str] = field(default_factory=set)

    def reconcile(self, keys: list[str], **_: Any) -> dict[str, Retry]:
        if not keys:
            return {}
        self.tried.append(list(keys))
        if self.dies_after is not None and len(self.tried) > self.dies_after:
            self.dies_after = None
            raise Crash
        if self.bad & set(keys):
            raise Crash
        self.done |= set(keys)
        return {}


def faked(stores: Stores, clock: Any, bad: Iterable[str] = ()) -> tuple[FakeIngest, Delivery]:
    ingest = FakeIngest(set(bad))
    return ingest, Delivery(ingest, GivingUp(stores, clock))


KEYS = [f"shop/p{number}.jpg" for number in range(10)]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_of_ten_that_always_come_together_only_those_that_kill_fail(fresh_stores, clock, count):
    """Wherever they are. Four cannot be told apart with five deliveries."""
    for bad in itertools.combinations(KEYS, count):
        stores = fresh_stores()
        for key in KEYS:
            stores.images.put_object(key, b"photo")
        ingest, delivery = faked(stores, clock, bad)
        again, deaths = KEYS, 0
        for receives in range(1, MAX_RECEIVES + 1):
            try:
                batch = [Delivered(key, receives, receives == MAX_RECEIVES) for key in again]
                again = list(delivery.deliver(batch))
            except Crash:
                deaths += 1
        assert sorted(again) == sorted(bad)
        assert ingest.done == set(KEYS) - set(bad)
        assert deaths < MAX_RECEIVES


@pytest.mark.parametrize("again_at", [3, 5])
def test_what_was_killed_from_outside_has_its_turn_in_company(memory_stores, clock, again_at):
    x, *others = KEYS
    for key in KEYS:
        memory_stores.images.put_object(key, b"photo")
    ingest, delivery = faked(memory_stores, clock)
    for receives in (1, 2):
        ingest.dies_after = len(ingest.tried)
        with pytest.raises(Crash):
            delivery.deliver([Delivered(x, receives)])
    assert delivery.deliver([Delivered(x, again_at, again_at == 5), *map(Delivered, others)]) == {}
    assert ingest.tried[-2:] == [others, [x]], "last"
    assert list(memory_stores.index.list("tried/")) == []


def test_a_suspect_is_not_tried_beside_what_comes_for_the_last_time(memory_stores, clock):
    x, y, z, *_ = KEYS
    for key in KEYS:
        memory_stores.images.put_object(key, b"photo")
    ingest, delivery = faked(memory_stores, clock, [x])
    with pytest.raises(Crash):
        delivery.deliver([Delivered(x, 2)])
    batch = [Delivered(x, 3), Delivered(y, 5, is_last=True), Delivered(z)]
    assert list(delivery.deliver(batch)) == [x]
    assert ingest.tried[1:] == [[y], [z]], "and that comes first"


def test_suspects_are_tried_in_order_of_what_is_known_against_them(memory_stores, clock):
    x, y, *_ = KEYS
    for key in KEYS:
        memory_stores.images.put_object(key, b"photo")
    ingest, delivery = faked(memory_stores, clock, [x])
    for _ in range(2):
        with pytest.raises(Crash):
            delivery.deliver([Delivered(x, 2)])
    ingest.dies_after = len(ingest.tried)
    with pytest.raises(Crash):
        delivery.deliver([Delivered(y, 2)])
    with pytest.raises(Crash):
        delivery.deliver([Delivered(x, 4), Delivered(y, 3)])
    assert ingest.tried[-2:] == [[y], [x]] and ingest.done == {y}
    ingest.dies_after = len(ingest.tried)
    with pytest.raises(Crash):
        delivery.deliver([Delivered(y, 4)])
    with pytest.raises(Crash):
        delivery.deliver([Delivered(y, 4), Delivered(x, 5, is_last=True)])
    assert ingest.tried[-1] == [x], "what does not come again has its turn"


def test_notes_are_of_one_version_and_of_one_day(memory_stores, clock):
    x, y, *_ = KEYS
    images, index = memory_stores.images, memory_stores.index
    images.put_object(x, b"photo")
    images.put_object(y, b"photo")
    ingest, delivery = faked(memory_stores, clock, [x])
    with pytest.raises(Crash):
        delivery.deliver([Delivered(x, 2)])
    assert len(list(index.list("tried/"))) == 1
    ingest.bad.clear()
    together = [Delivered(x, 2), Delivered(y, 5, is_last=True)]
    assert list(delivery.deliver(together)) == [x]
    clock.now += NOTE_AGE_S
    assert list(delivery.deliver(together)) == []
    reconcile = ingest.reconcile

    def overwritten(keys: list[str], **options: Any) -> dict[str, Retry]:
        images.put_object(x, b"another photo" if keys else b"photo")
        return reconcile(keys, **options)

    ingest.reconcile = overwritten
    assert list(delivery.deliver([Delivered(x, 2)])) == []
    assert list(index.list("tried/")) == [], "the note of what it was before is taken back, too"


def test_notes_are_no_failures_of_any_catalogue(memory_stores, clock):
    memory_stores.images.put_object("~tried/x.jpg", b"photo")
    _, delivery = faked(memory_stores, clock, ["~tried/x.jpg"])
    with pytest.raises(Crash):
        delivery.deliver([Delivered("~tried/x.jpg", 2)])
    assert memory_stores.failures.page("~tried", 9) == ([], None)
    assert len(list(memory_stores.index.list("tried/"))) == 1


def test_a_note_that_cannot_be_read_postpones_its_key_alone(memory_stores, clock, monkeypatch):
    x, y, *_ = KEYS
    for key in KEYS:
        memory_stores.images.put_object(key, b"photo")
    ingest, delivery = faked(memory_stores, clock)
    list_ = memory_stores.images.list

    def throttled(prefix: str, after: str = "") -> Any:
        if prefix == x:
            raise Unavailable("throttled")
        return list_(prefix, after)

    monkeypatch.setattr(memory_stores.images, "list", throttled)
    assert list(delivery.deliver([Delivered(x, 2), Delivered(y, 2)])) == [x]
    assert ingest.done == {y}


def test_a_store_that_is_down_for_a_while_leaves_no_failure_behind(
    services, memory_stores, photo, monkeypatch
):
    keys = [f"shop/p{number}.jpg" for number in range(4)]
    for number, key in enumerate(keys):
        memory_stores.images.put_object(key, photo(number, size=(24, 32)))

    def unreachable(product: Product) -> None:
        raise Unavailable("throttled")

    monkeypatch.setattr(memory_stores.products, "put", unreachable)
    for receives in (1, 2, 3, 4):
        again = services().delivery.deliver([Delivered(key, receives) for key in keys])
        assert sorted(again) == keys
        assert memory_stores.failures.page("shop", 100)[0] == [], "not while it is tried again"
    monkeypatch.undo()
    last: list[Outcome] = []
    delivered = [Delivered(key, 5, is_last=True) for key in keys]
    assert services().delivery.deliver(delivered, last.append) == {}
    assert live(memory_stores) == keys and memory_stores.failures.page("shop", 100)[0] == []
    assert memory_stores.counts.all()["shop"].failures == 0
    assert all(isinstance(item, Searchable) for item in last) and len(last) == 4


def test_the_last_try_that_fails_leaves_a_failure_and_tells_of_it(
    services, memory_stores, photo, monkeypatch
):
    memory_stores.images.put_object("shop/a.jpg", photo(0))

    def unreachable(product: Product) -> None:
        raise Unavailable("throttled")

    monkeypatch.setattr(memory_stores.products, "put", unreachable)
    told: list[Outcome] = []
    last = [Delivered("shop/a.jpg", 5, is_last=True)]
    assert list(services().delivery.deliver(last, told.append)) == ["shop/a.jpg"]
    assert told == [Filed("shop/a.jpg", "gave-up")]
    assert [item.key for item in memory_stores.failures.page("shop", 100)[0]] == ["shop/a.jpg"]


def test_losing_every_race_to_somebody_who_did_the_same_is_no_failure(
    services, memory_stores, photo, monkeypatch
):
    memory_stores.images.put_object("shop/a.jpg", photo(0))
    put, rivals = memory_stores.products.put, []

    def too_late(product: Product) -> Product:
        if len(rivals) == 7:  # in the last pass somebody else writes the same record
            put(product)
        rivals.append(product)
        raise Conflict("changed meanwhile")

    monkeypatch.setattr(memory_stores.products, "put", too_late)
    assert services().ingest.reconcile(["shop/a.jpg"]) == {}
    assert len(rivals) == 8 and live(memory_stores) == ["shop/a.jpg"]
    memory_stores.images.put_object("shop/b.jpg", photo(1))
    assert list(services().ingest.reconcile(["shop/b.jpg"])) == ["shop/b.jpg"]


def test_what_became_searchable_is_told_with_its_age_and_only_once(
    services, memory_stores, photo, clock
):
    images, told = memory_stores.images, []
    images.put_object("shop/a.jpg", photo(0))
    images.put_object("shop/bad.jpg", b"no photo")
    uploaded_at = images.head("shop/a.jpg").last_modified
    clock.now += 7
    ingest = services().ingest
    ingest.reconcile(["shop/a.jpg", "shop/bad.jpg"], report=told.append)
    (searchable,) = (item for item in told if isinstance(item, Searchable))
    assert searchable.key == "shop/a.jpg"
    assert 7 < searchable.freshness_s <= clock.now - uploaded_at
    assert Filed("shop/bad.jpg", "not-an-image") in told and len(told) == 2
    told.clear()
    images.put_object("shop/a.jpg", photo(0), metadata={"price": "5"})
    ingest.reconcile(["shop/a.jpg"], report=told.append)
    ingest.reconcile(["shop/a.jpg"], write_again=["shop/a.jpg"], report=told.append)
    assert told == []
    images.put_object("shop/a.jpg", photo(1))
    ingest.reconcile(["shop/a.jpg"], report=told.append)
    assert [type(item) for item in told] == [Searchable]
