"""The sweep goes on where it stopped, asks no faster than is worked off, and mends the index."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest

from lookalike.adapters.failing import FailingStores
from lookalike.core.errors import Unavailable
from lookalike.core.keys import segment_key
from lookalike.core.ports import Stores
from lookalike.core.types import Delivered, Run, Shard
from lookalike.services.search_request import QueryInput, SearchRequest
from lookalike.services.sweep import INDEX_EVERY_S, Sweep, SweepReport
from lookalike.services.sweep_state import STATE_KEY
from lookalike.settings import Settings
from lookalike.wiring import Services, build_services

FOREVER = float("inf")
SPACE = "efficientnet-lite0-border-v1"


@dataclass
class Shop:
    """A catalogue on stores in memory with toy encoders; its queue is worked off when asked."""

    stores: Stores
    build: Callable[[Stores], Services]
    clock: Any
    backlogs: list[int] = field(default_factory=list)

    @functools.cached_property
    def services(self) -> Services:
        return self.build(self.stores)

    def put(self, *keys: str, photo: Callable[..., bytes], first: int = 0) -> None:
        for number, key in enumerate(keys, first):
            self.stores.images.put_object(key, photo(number, size=(24, 32)), "image/jpeg")

    def work_off(self) -> list[str]:
        """Deliver every message in the queue once; gives their keys."""
        bodies, self.stores.queue.bodies = self.stores.queue.bodies, []
        services, keys = self.services, []
        for body in map(json.loads, bodies):
            found = [Delivered(k, write_again=body.get("write_again", False)) for k in body["keys"]]
            assert services.delivery.deliver(found) == {}
            keys += body["keys"]
        return keys

    def pause(self, seconds: float) -> None:
        self.backlogs.append(self.stores.queue.backlog())
        self.work_off()
        self.clock.now += seconds

    def sweep(
        self,
        deadline: float = FOREVER,
        mode: str = "",
        backlog: int = 1000,
        stores: Stores | None = None,
    ) -> SweepReport:
        pool = self.services.sweep._pool
        made = Sweep(stores or self.stores, pool, self.clock, 86_400, backlog, self.pause)
        return made.run(deadline, mode)

    def found(self, photo: bytes) -> list[str]:
        request = SearchRequest("shop", (QueryInput(image=photo),), k=100)
        return [item.product_id for item in self.services.query.search(request).results]


@pytest.fixture
def new_shop(fresh_stores, clock, toy_encoder_of, ids, tmp_path) -> Callable[[], Shop]:
    settings = Settings(
        encoder="efficientnet-lite0", refresh_s=0, settle_s=0, cache_dir=str(tmp_path)
    )

    def build(stores: Stores) -> Services:
        return build_services(settings, stores, ids, clock, toy_encoder_of)

    return lambda: Shop(fresh_stores(), build, clock)


@pytest.fixture
def shop(new_shop) -> Shop:
    return new_shop()


def test_a_bucket_that_existed_before_becomes_searchable_by_the_sweep_alone(shop, photo):
    keys = [f"shop/p{number:03d}.jpg" for number in range(250)] + ["other/x.jpg", "bare.jpg"]
    shop.put(*keys, photo=photo)
    shop.stores.images.put_object("shop/bad.jpg", b"no photo")
    report = shop.sweep(backlog=40)
    assert (report.finished, report.objects, report.queued) == (True, 253, 253)
    assert max(shop.backlogs) <= 40 and len(shop.backlogs) > 5
    shop.work_off()
    assert {name: item.views for name, item in shop.stores.counts.all().items()} == {
        "default": 1,
        "other": 1,
        "shop": 250,
    }
    assert shop.found(photo(3, size=(24, 32)))[0] == "p003"
    assert shop.sweep(mode="anew").queued == 0


def test_a_sweep_asks_for_nothing_while_the_queue_is_full(shop, photo):
    shop.put(*(f"shop/p{number}.jpg" for number in range(5)), photo=photo)
    shop.stores.queue.send_keys(["shop/other.jpg"])
    shop.pause = lambda seconds: setattr(
        shop.clock, "now", shop.clock.now + seconds
    )  # nobody works
    report = shop.sweep(deadline=shop.clock.now + 60, backlog=1)
    assert not report.finished and report.queued == 0
    assert len(shop.stores.queue.bodies) == 1
    shop.stores.queue.bodies.clear()
    assert shop.sweep(backlog=9).queued == 5


@pytest.mark.parametrize("seconds", [3, 21])
def test_a_sweep_in_many_runs_finds_what_one_run_finds(new_shop, photo, seconds):
    asked = []
    for step in (FOREVER, seconds):
        shop = new_shop()
        shop.put(*(f"shop/p{number:03d}.jpg" for number in range(230)), photo=photo)
        shop.put(*(f"other/p{number:03d}.jpg" for number in range(120)), photo=photo)
        shop.sweep()
        shop.work_off()
        shop.put("shop/new.jpg", "shop/p005.jpg", photo=photo, first=900)
        for key in ("shop/p001.jpg", "shop/p200.jpg", "other/p119.jpg"):
            shop.stores.images.delete(key)
        runs, queued, seen, report = 0, 0, 0, SweepReport()
        while not report.finished:
            assert runs < 100, report
            report = shop.sweep(shop.clock.now + step, "anew" if not runs else "go-on")
            runs, queued, seen = runs + 1, queued + report.queued, seen + report.objects
        assert (runs == 1) == (step == FOREVER)
        assert (queued, seen) == (5, 348)
        asked.append(sorted(shop.work_off()))
        assert shop.sweep(mode="anew").queued == 0
        counts = shop.stores.counts.all()
        assert (counts["shop"].views, counts["other"].views) == (229, 119)
    assert asked[0] == asked[1]


def test_what_comes_and_goes_between_two_runs_is_asked_for_only_if_it_differs(shop, photo):
    shop.put(*(f"shop/p{number:03d}.jpg" for number in range(150)), photo=photo)
    shop.sweep()
    shop.work_off()
    report = shop.sweep(shop.clock.now + 3, "anew")
    assert report.phase == "objects" and report.objects == 100
    shop.put("shop/a.jpg", photo=photo, first=500)  # in front of where it goes on
    shop.services.ingest.reconcile(["shop/a.jpg"])
    report = shop.sweep()
    assert report.finished and report.queued == 0
    assert "shop/a.jpg" in [item.key for item in shop.stores.images.list("shop/")]


def test_a_run_that_was_taken_over_stops_and_the_sweep_is_finished_by_the_other(shop, photo):
    shop.put(*(f"shop/p{number:03d}.jpg" for number in range(150)), photo=photo)
    others: list[SweepReport] = []
    send = shop.stores.queue.send_keys

    def send_keys(keys: list[str], **flags: bool) -> None:
        send(keys, **flags)
        if not others:
            others.append(SweepReport())
            others.append(shop.sweep(mode="anew"))

    shop.stores.queue.send_keys = send_keys
    first = shop.sweep()
    assert others[1].finished and not first.finished
    assert shop.sweep(mode="go-on") == SweepReport(finished=True)
    shop.work_off()
    assert shop.stores.counts.all()["shop"].views == 150


@pytest.mark.parametrize("effective", [False, True])
def test_a_sweep_that_dies_at_any_call_is_finished_by_the_next(new_shop, photo, effective):
    for k in itertools.count(1):
        shop = new_shop()
        shop.put(*(f"shop/p{number}.jpg" for number in range(4)), photo=photo)
        shop.sweep()
        shop.work_off()
        lose_segment(shop, "shop/p1.jpg")
        shop.put("shop/new.jpg", photo=photo, first=50)
        shop.stores.images.delete("shop/p0.jpg")
        shop.clock.now += INDEX_EVERY_S
        failing = FailingStores(shop.stores, k, effective=effective)
        if failing.survives(partial(shop.sweep, stores=failing.stores)):
            break
        assert shop.sweep().finished
        shop.work_off()
        assert sorted(shop.found(photo(1, size=(24, 32)))) == ["new", "p1", "p2", "p3"], k
        counts = shop.stores.counts.all()["shop"]
        assert shop.sweep(mode="anew").queued == 0
        assert shop.stores.counts.all()["shop"].views == 4 and counts.views == 4
    assert k > 15


def test_a_state_that_cannot_be_read_is_begun_anew(shop, photo):
    shop.put("shop/a.jpg", photo=photo)
    for body in (b"no state", b"\x80", b""):
        shop.stores.index.put_object(STATE_KEY, body)
        assert shop.sweep().finished
        assert shop.work_off() == (["shop/a.jpg"] if body == b"no state" else [])


def test_a_store_that_cannot_be_reached_stops_the_run_and_not_the_sweep(shop, photo, monkeypatch):
    shop.put(*(f"shop/p{number:03d}.jpg" for number in range(150)), photo=photo)
    counts = shop.stores.counts

    def unreachable() -> None:
        raise Unavailable("throttled")

    monkeypatch.setattr(counts, "all", unreachable)
    with pytest.raises(Unavailable):
        shop.sweep()
    monkeypatch.undo()
    report = shop.sweep()
    assert report.finished and report.objects == 0


def segment_of(shop: Shop, key: str) -> str:
    (product,) = shop.stores.products.get_many([("shop", key[5:-4])]).values()
    return segment_key("shop", product.views[key].segment)


def lose_segment(shop: Shop, key: str) -> None:
    shop.stores.index.delete(segment_of(shop, key))


def alter_segment(shop: Shop, key: str) -> None:
    name = segment_of(shop, key)
    body = bytearray(shop.stores.index.get(name, 10**6)[1])
    body[len(body) // 2] ^= 1
    shop.stores.index.put_object(name, bytes(body))


def lose_entry(shop: Shop, key: str) -> None:
    entries, _ = shop.stores.registry.read(f"shop/{SPACE}")
    name = segment_of(shop, key)
    shop.stores.registry.remove([e for e in entries if segment_key("shop", e.digest) == name])


def compact(shop: Shop) -> None:
    shop.clock.now += 1000
    settings = replace(shop.services.settings, merge_segments=2, base_rows=2, flat_rows=10)
    made = build_services(settings, shop.stores, lambda: "", shop.clock, None)
    report = made.compaction.run(FOREVER)
    assert report.finished and not report.unreadable


def merge(shop: Shop) -> Run:
    compact(shop)
    _, manifest = shop.stores.registry.read(f"shop/{SPACE}")
    (shard,) = manifest.shards
    assert shard.base
    return shard.covered[0]


def lose_run(shop: Shop, key: str) -> None:
    shop.stores.index.delete(segment_key("shop", merge(shop).digest))


def forget_run(shop: Shop, key: str) -> None:
    merge(shop)
    _, manifest = shop.stores.registry.read(f"shop/{SPACE}")
    shop.stores.registry.put_manifest(replace(manifest, shards=(Shard(),)))


@pytest.mark.parametrize(
    ("damage", "lost"),
    [(lose_segment, 1), (alter_segment, 1), (lose_entry, 1), (lose_run, 4), (forget_run, 4)],
)
def test_what_the_index_has_lost_is_written_again(shop, photo, damage, lost):
    keys = [f"shop/p{number}.jpg" for number in range(4)]
    shop.put(*keys, photo=photo)
    for key in keys:  # a segment each
        shop.services.ingest.reconcile([key])
    assert shop.sweep().finished
    damage(shop, keys[1])
    assert shop.services.ingest.reconcile(keys) == {}, "as events would have it, all is well"
    report = shop.sweep(mode="anew")
    assert (report.queued, report.lost) == (lost, lost)
    shop.work_off()
    assert sorted(shop.found(photo(1, size=(24, 32)))) == ["p0", "p1", "p2", "p3"]
    assert shop.found(photo(1, size=(24, 32)))[0] == "p1"
    assert shop.sweep().lost == 0
    assert shop.stores.counts.all()["shop"].views == 4
    entries, manifest = shop.stores.registry.read(f"shop/{SPACE}")
    named = {segment_key("shop", e.digest) for e in entries}
    named |= {segment_key("shop", run.digest) for s in manifest.shards for run in s.runs}
    there = {info.key for info in shop.stores.index.list("segments/")}
    assert named - manifest.replaced.keys() <= there, "what cannot be read is not named any more"
    compact(shop)


def test_the_index_is_compared_now_and_then_and_whenever_it_was_not_right(shop, photo):
    shop.put("shop/a.jpg", photo=photo)
    shop.services.ingest.reconcile(["shop/a.jpg"])
    assert shop.sweep().lost == 0
    lose_segment(shop, "shop/a.jpg")
    assert shop.sweep().lost == 0
    shop.clock.now += INDEX_EVERY_S
    assert [shop.sweep().lost for _ in range(2)] == [1, 1]
    shop.work_off()
    assert [shop.sweep().lost for _ in range(3)] == [0, 0, 0]


def test_a_catalogue_that_is_too_large_to_compare_does_not_hold_up_the_sweep(shop, photo, caplog):
    shop.put("shop/a.jpg", photo=photo)
    shop.services.ingest.reconcile(["shop/a.jpg"])
    page = shop.stores.products.page

    def slow(catalogue: str, limit: int, after: str = "") -> Any:
        shop.clock.now += 500 * (limit == 500)
        return page(catalogue, limit, after)

    shop.stores.products.page = slow
    reports = [shop.sweep(shop.clock.now + 300) for _ in range(2)]
    assert [report.phase for report in reports] == ["index", "index"] or reports[1].finished
    assert "takes too long" in caplog.text
    assert shop.sweep(shop.clock.now + 300).finished
