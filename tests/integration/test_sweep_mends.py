"""The sweep finds what the index bucket has lost, and has it made again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lookalike.core.keys import segment_key
from lookalike.services.sweep import INDEX_EVERY_S, SweepReport
from sweep_shop import (
    FOREVER,
    SPACE,
    Shop,
    alter_segment,
    compact,
    forget_run,
    lose_entry,
    lose_run,
    lose_segment,
    shops,
)


@pytest.fixture
def new_shop(fresh_stores, clock, toy_encoder_of, ids, tmp_path) -> Callable[[], Shop]:
    return shops(fresh_stores, clock, toy_encoder_of, ids, tmp_path)


@pytest.fixture
def shop(new_shop) -> Shop:
    return new_shop()


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
    assert [report.given_up for report in reports] == [0, 1]
    assert shop.sweep(shop.clock.now + 300).finished


@pytest.mark.parametrize("folder", ["thumbnails", "maps"])
def test_a_thumbnail_or_a_map_that_is_lost_is_made_again(shop, photo, folder):
    keys = [f"shop/p{number}.jpg" for number in range(3)]
    shop.put(*keys, photo=photo)
    shop.stores.images.put_object("shop/bad.jpg", b"no photo")
    shop.services.ingest.reconcile([*keys, "shop/bad.jpg"])
    assert shop.sweep().queued == 0
    there = [info.key for info in shop.stores.index.list(f"{folder}/")]
    assert len(there) == 3
    shop.stores.index.delete(there[1])
    assert shop.sweep().queued == 0, "only with the comparison of the index"
    looked_at, list_ = [], shop.stores.index.list

    def listed(prefix: str, after: str = "") -> Any:
        looked_at.extend([prefix] * (prefix in there))
        return list_(prefix, after)

    shop.stores.index.list = listed
    runs, queued, report = 0, 0, SweepReport()
    while not report.finished:  # what was listed is known in the next run
        step = FOREVER if report.phase == "index" else 3
        report = shop.sweep(shop.clock.now + step, "go-on" if runs else "anew", is_short=True)
        runs, queued = runs + 1, queued + report.queued
        assert runs < 50
    assert runs > 3 and queued == 1
    assert looked_at == there[1:2]
    assert len(shop.work_off()) == 1
    assert [info.key for info in shop.stores.index.list(f"{folder}/")] == there
    assert [shop.sweep().queued for _ in range(2)] == [0, 0]
    assert shop.stores.counts.all()["shop"].views == 3


def test_a_sweep_in_short_runs_gives_no_catalogue_up(shop, photo):
    shop.put("shop/a.jpg", photo=photo)
    shop.services.ingest.reconcile(["shop/a.jpg"])
    lose_segment(shop, "shop/a.jpg")
    page = shop.stores.products.page

    def slow(catalogue: str, limit: int, after: str = "") -> Any:
        shop.clock.now += 50 * (limit == 500)
        return page(catalogue, limit, after)

    shop.stores.products.page = slow
    for number in range(8):
        report = shop.sweep(shop.clock.now + 30, "go-on" if number else "anew", is_short=True)
        assert not report.finished and report.queued == 0
    assert report.phase == "index"
    report = shop.sweep(shop.clock.now + 300, "go-on")
    assert (report.finished, report.lost, report.given_up) == (True, 1, 0)


def test_what_is_uploaded_anew_while_the_index_is_compared_is_not_missing(shop, photo, caplog):
    keys = ["shop/a.jpg", "shop/b.jpg"]
    shop.put(*keys, photo=photo)
    shop.services.ingest.reconcile(keys)
    page, changed = shop.stores.products.page, []

    def busy(catalogue: str, limit: int, after: str = "") -> Any:
        found = page(catalogue, limit, after)
        if limit == 500 and not changed:
            changed.append(True)
            for number, key in enumerate(keys, 50):
                shop.put(key, photo=photo, first=number)
                shop.services.ingest.reconcile([key])
            compact(shop)
        return found

    shop.stores.products.page = busy
    assert shop.sweep().lost == 0 and changed
    assert "lacks" not in caplog.text
    changed.clear()
    shop.clock.now += 900
    assert shop.sweep().lost == 0 and not changed, "the next comparison is hours away"


def test_what_an_earlier_run_found_wrong_is_compared_again_by_the_next_sweep(shop, photo):
    for catalogue in ("shop", "zoo"):
        shop.put(f"{catalogue}/a.jpg", photo=photo)
        shop.services.ingest.reconcile([f"{catalogue}/a.jpg"])
    lose_segment(shop, "shop/a.jpg")
    all_pages, runs, report = shop.stores.products.page, 0, SweepReport()

    def slow(catalogue: str, limit: int, after: str = "") -> Any:
        shop.clock.now += 50 * (limit == 500)
        return all_pages(catalogue, limit, after)

    shop.stores.products.page = slow
    while not report.finished:
        report = shop.sweep(shop.clock.now + 120, "go-on" if runs else "anew")
        runs += 1
    assert runs > 1, "the catalogues were compared in two runs"
    shop.stores.products.page = all_pages
    assert shop.stores.queue.backlog() == 1
    shop.stores.queue.bodies.clear()  # nobody got the message
    assert shop.sweep().lost == 1
