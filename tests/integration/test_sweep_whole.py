"""The sweep goes on where it stopped, and asks no faster than is worked off."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import msgspec
import pytest

from lookalike.adapters.failing import FailingStores
from lookalike.core.errors import Unavailable
from lookalike.core.types import Counts
from lookalike.services.sweep import INDEX_EVERY_S, SweepReport
from lookalike.services.sweep_state import STATE_KEY, SweepState
from sweep_shop import FOREVER, Shop, lose_segment, shops


@pytest.fixture
def new_shop(fresh_stores, clock, toy_encoder_of, ids, tmp_path) -> Callable[[], Shop]:
    return shops(fresh_stores, clock, toy_encoder_of, ids, tmp_path)


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


@pytest.mark.parametrize("step", [FOREVER, 1])
def test_counts_are_set_right_however_many_runs_a_catalogue_takes(shop, photo, step):
    keys = [f"shop/p{number:03d}.jpg" for number in range(230)]
    shop.put(*keys, photo=photo)
    shop.stores.images.put_object("shop/bad.jpg", b"no photo")
    shop.services.ingest.reconcile([*keys, "shop/bad.jpg"])
    right = shop.stores.counts.all()["shop"]
    shop.stores.counts.set("shop", Counts(7, 7, 7))
    runs, report = 0, SweepReport()
    while not report.finished:
        report = shop.sweep(shop.clock.now + step, "go-on" if runs else "anew")
        runs += 1
        assert runs < 100
    assert (runs > 6) == (step == 1)
    assert shop.stores.counts.all()["shop"] == right == Counts(230, 230, 1)


@pytest.mark.parametrize(
    "state",
    [
        SweepState(0.0, phase="embeddings"),
        SweepState(0.0, in_bucket=b"abc"),
        SweepState(0.0, phase="maps", needed=bytes(12)),
        SweepState(0.0, version=99),
    ],
)
def test_a_state_that_makes_no_sense_is_begun_anew(shop, photo, state):
    shop.put("shop/a.jpg", photo=photo)
    shop.stores.index.put_object(STATE_KEY, msgspec.msgpack.encode(state))
    report = shop.sweep()
    assert (report.finished, report.objects, report.queued) == (True, 1, 1)


def test_notes_of_tries_go_when_they_are_a_day_old(shop):
    shop.stores.index.put_object("tried/old", b"1")
    shop.clock.now += 80_000
    shop.stores.index.put_object("tried/young", b"1")
    shop.clock.now += 10_000
    shop.sweep()
    assert [info.key for info in shop.stores.index.list("tried/")] == ["tried/young"]
