"""A catalogue is checked: what is wrong is found, in any slices, and told as long as it holds."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFilter

from health_shop import CATALOGUE, FOREVER, HealthShop, Photo, drawn, point
from lookalike.core import neighbours
from lookalike.core.errors import Conflict, InvalidRequest, NotFound
from lookalike.core.health import KINDS
from lookalike.core.jobs import Artifact, artifact_key
from lookalike.core.shown import product_hash, write_shown
from lookalike.services import (
    health,
    health_neighbours,
    health_photos,
    health_state,
    jobs,
    live_embeddings,
)


@pytest.fixture
def shop(memory_stores, clock, ids) -> HealthShop:
    made = HealthShop(memory_stores, clock, ids)
    made.open()
    made.put_groups({"hat": 30, "shoe": 30})
    return made


def view(product: str, image: Image.Image, group: int, number: int, category: str) -> Photo:
    attributes = {"category": category, "title": f"A {category}"}
    return Photo(f"shop/{product}/front.jpg", image, point(group, number), attributes)


def plant(shop: HealthShop) -> None:
    """One of each fault that photos can have."""
    blurred = drawn(77).filter(ImageFilter.GaussianBlur(14))
    dark = drawn(78).point(lambda level: int(level * 0.15))
    lonely = Photo("shop/lonely/a.jpg", drawn(80), -point(5, 1), {"category": "hat"})
    shop.put(
        [
            view("resaved", drawn(3).resize((200, 250)), 0, 3, "hat"),
            view("mirrored", drawn(4).transpose(Image.Transpose.FLIP_LEFT_RIGHT), 0, 4, "hat"),
            view("cropped", drawn(1005).crop((60, 80, 360, 455)), 1, 5, "shoe"),
            view("misplaced", drawn(76), 1, 40, "hat"),
            view("blurred", blurred, 0, 41, "hat"),
            view("dark", dark, 0, 42, "hat"),
            view("tiny", drawn(79).resize((80, 100)), 0, 43, "hat"),
            view("blank", Image.new("RGB", (400, 400), "white"), 0, 44, "hat"),
            view("scarf", drawn(81), 7, 1, "scarf"),
            lonely,
        ]
    )


def test_every_fault_is_found_and_nothing_else(shop: HealthShop):
    plant(shop)
    summary = shop.check()
    assert shop.groups() == {
        frozenset({"hat-3", "resaved"}),
        frozenset({"hat-4", "mirrored"}),
        frozenset({"shoe-5", "cropped"}),
    }
    assert {item.code for item in shop.findings("near-duplicate")} == {
        "same-photo",
        "mirrored",
        "cropped",
    }
    (misplaced,) = shop.findings("wrong-category")
    assert misplaced.products[0].product_id == "misplaced"
    assert misplaced.evidence["likely"] == "shoe"
    assert [item.products[0].product_id for item in shop.findings("outlier")] == ["lonely"]
    poor = {item.products[0].product_id: item.code for item in shop.findings("low-quality")}
    assert poor == {"blurred": "blurred", "dark": "dark", "tiny": "tiny", "blank": "near-blank"}
    (thin,) = shop.findings("thin-category")
    assert thin.evidence["category"] == "scarf" and thin.products == []
    counts = dict(zip(KINDS, (3, 1, 1, 4, 0, 1), strict=True))
    extent = {"products": 70, "arrivals": 0, "views": 70, "unreadable_files": 0}
    assert summary == {**counts, **extent}
    assert shop.read().summary(CATALOGUE).counts == counts
    shown = shop.findings("low-quality")[0].products[0]
    assert shown.title and shown.category == "hat" and "thumbnails/" in shown.views[0].thumbnail_url


def test_any_slices_end_in_the_same_findings(shop: HealthShop, monkeypatch: pytest.MonkeyPatch):
    plant(shop)
    shop.check()
    whole = {kind: shop.findings(kind) for kind in KINDS}
    monkeypatch.setattr(live_embeddings, "BLOCK_ROWS", 13)
    monkeypatch.setattr(health, "ROWS_AT_ONCE", 9)
    monkeypatch.setattr(health_neighbours, "MANY_ROWS", 20)
    monkeypatch.setattr(health_neighbours, "ROWS_AT_ONCE", 16)
    monkeypatch.setattr(neighbours, "_ROWS_A_LIST", 10)
    monkeypatch.setattr(jobs, "SAVE_EVERY_S", 0.0)
    saved = saves(monkeypatch)
    clock = shop.clock
    slices = 0
    while True:
        # Time goes on with every look at the clock: a slice ends after a few of them.
        report = Ticking(shop).service().run(clock() + 12, now=slices == 0)
        slices += 1
        assert not report.postponed and slices < 100
        if report.finished:
            break
    assert slices > 3
    assert {state.rounds for state in saved} == set(range(neighbours.ROUNDS + 1))
    assert {state.divided for state in saved} >= {0, 16, 32, 48, 64, 70}
    assert {state.list_next for state in saved} >= {0, 1, 2, 3}
    again = {kind: shop.findings(kind) for kind in KINDS}
    assert again == whole
    assert not list(shop.stores.index.list("work/"))


def saves(monkeypatch: pytest.MonkeyPatch) -> list[health_state.State]:
    """Every state that is saved from now on, as it is then."""
    saved: list[health_state.State] = []
    true = health.save_state

    def save(stores: object, run: object, state: health_state.State, **changes: object) -> None:
        saved.append(copy.deepcopy(state))
        true(stores, run, state, **changes)

    monkeypatch.setattr(health, "save_state", save)
    return saved


class Ticking(HealthShop):
    """The same shop, with a clock that goes on by a second whenever it is looked at."""

    def __init__(self, shop: HealthShop) -> None:
        super().__init__(shop.stores, self._tick, shop.ids)
        self._clock = shop.clock

    def _tick(self) -> float:
        self._clock.now += 1
        return self._clock.now


def test_a_slice_that_dies_is_gone_on_with(shop: HealthShop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jobs, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(health.Comparison, "copies", _dies)
    shop.clock.now += 1000
    with pytest.raises(RuntimeError):
        shop.service().run(FOREVER)
    assert shop.stores.jobs.get(CATALOGUE, "health").phase == "compare"
    monkeypatch.undo()
    looked_at = _count_looks(monkeypatch)
    shop.check(wait_s=0)
    assert shop.stores.jobs.get(CATALOGUE, "health").slices == 1
    assert looked_at == [], "the photos' facts were known"


def _dies(*_: object) -> None:
    raise RuntimeError("killed")


def _count_looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    looked_at: list[int] = []
    true = health_photos.photo_facts
    monkeypatch.setattr(
        health_photos,
        "photo_facts",
        lambda image, photo: looked_at.append(photo) or true(image, photo),
    )
    return looked_at


def test_lost_working_objects_begin_the_run_anew(shop: HealthShop, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(health.Comparison, "copies", _dies)
    shop.clock.now += 1000
    with pytest.raises(RuntimeError):
        shop.service().run(FOREVER)
    monkeypatch.undo()
    for info in list(shop.stores.index.list("work/")):
        if "/part-" in info.key:
            shop.stores.index.delete(info.key)
    assert shop.check(wait_s=0)["views"] == 60


def test_photos_are_looked_at_once(shop: HealthShop, monkeypatch: pytest.MonkeyPatch):
    looked_at = _count_looks(monkeypatch)
    shop.check()
    assert len(looked_at) == 60
    shop.put([view("new", drawn(90), 0, 60, "hat")])
    shop.check(now=True)
    assert len(looked_at) == 61
    shop.remove("new")
    shop.check(now=True)
    facts = shop.stores.artifacts.current(CATALOGUE)["facts"]
    assert len(looked_at) == 61 and facts.summary["photos"] == 60


def test_nothing_is_done_when_nothing_is_due(shop: HealthShop):
    shop.check()
    before = shop.stores.artifacts.current(CATALOGUE), shop.stores.jobs.all(CATALOGUE)
    shop.check()
    assert (shop.stores.artifacts.current(CATALOGUE), shop.stores.jobs.all(CATALOGUE)) == before
    shop.put_groups({"coat": 9})
    shop.check()
    assert shop.stores.artifacts.current(CATALOGUE)["findings"].serial == 2


def test_what_has_changed_since_is_left_out(shop: HealthShop):
    plant(shop)
    shop.check()
    shop.remove("resaved")
    shop.put([view("mirrored", drawn(95), 0, 4, "hat")])
    shop.put([view("misplaced", drawn(76), 1, 40, "shoe")])
    assert shop.groups() == {frozenset({"shoe-5", "cropped"})}
    assert shop.findings("wrong-category") == []


def test_a_photo_overwritten_while_it_is_read_is_no_copy_of_itself(
    shop: HealthShop, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(live_embeddings, "BLOCK_ROWS", 20)
    true = health.part_of

    def overwriting(block: live_embeddings.Block, photos: health_photos.PhotoFacts):
        if "shop/hat-3/front.jpg" in block.keys:
            shop.put([view("hat-3", drawn(3).resize((200, 250)), 0, 3, "hat")])
        return true(block, photos)

    monkeypatch.setattr(health, "part_of", overwriting)
    assert shop.check()["views"] == 60 and shop.groups() == set()


def test_products_that_no_search_has_shown(shop: HealthShop):
    def count_searches(shown: list[str], searches: int) -> None:
        body = write_shown(np.unique(np.asarray([product_hash(p) for p in shown], np.uint64)))
        before = shop.stores.artifacts.current(CATALOGUE).get("shown")
        now, key = shop.clock(), artifact_key("shown", CATALOGUE, str(searches))
        shop.stores.index.put(key, body, "")
        made = Artifact(
            CATALOGUE, "shown", key, "", "", "", now, now, 1, len(shown), {"searches": searches}
        )
        shop.stores.artifacts.put(replace(made, revision=before.revision if before else None))

    everything = [f"{category}-{n}" for category in ("hat", "shoe") for n in range(30)]
    shop.clock.now += 3 * 86_400
    count_searches(everything[1:], 200)
    assert shop.check()["never-shown"] == 1
    (found,) = shop.findings("never-shown")
    assert found.products[0].product_id == "hat-0" and found.evidence == {
        "searches": 200,
        "days": 3,
    }
    # Nothing has changed but what was searched: it is told a day later.
    shop.clock.now += 100
    count_searches(everything, 300)
    assert shop.check()["never-shown"] == 1
    assert shop.check(wait_s=86_400)["never-shown"] == 0


def test_thumbnails_that_are_gone_or_broken_are_no_obstacle(shop: HealthShop):
    names = [info.key for info in shop.stores.index.list("thumbnails/")]
    shop.stores.index.delete(names[0])
    shop.stores.index.put(names[1], b"RIFF\0\0\0\0WEBPbroken", "")
    assert shop.check()["views"] == 60
    assert shop.stores.artifacts.current(CATALOGUE)["facts"].summary["photos"] == 58


def test_two_runners_do_not_publish_twice(shop: HealthShop, monkeypatch: pytest.MonkeyPatch):
    shop.clock.now += 1000
    true = health.publish

    def overtaken(*args: object) -> object:
        monkeypatch.setattr(health, "publish", true)
        assert shop.service().run(FOREVER).finished
        return true(*args)

    monkeypatch.setattr(health, "publish", overtaken)
    report = shop.service().run(FOREVER)
    assert not report.finished and set(report.postponed) == {CATALOGUE}
    assert shop.stores.artifacts.current(CATALOGUE)["findings"].serial == 1


def test_pages_go_on_and_requests_are_checked(shop: HealthShop):
    plant(shop)
    read = shop.read()
    assert read.page(CATALOGUE, "outlier").made_at is None
    assert read.summary(CATALOGUE).counts == dict.fromkeys(KINDS, 0)
    shop.check()
    assert shop.findings("low-quality", limit=1) == shop.findings("low-quality", limit=100)
    assert len(shop.findings("low-quality", limit=3)) == 4
    for kind, limit, cursor in (("x", 5, None), ("outlier", 0, None), ("outlier", 101, None)):
        with pytest.raises(InvalidRequest):
            read.page(CATALOGUE, kind, limit, cursor)
    for cursor in ("-1", "x", "²", "9" * 20):
        with pytest.raises(InvalidRequest):
            read.page(CATALOGUE, "outlier", 5, cursor)
    assert read.page(CATALOGUE, "outlier", 5, "999999").findings == []
    with pytest.raises(NotFound):
        read.page("nowhere", "outlier")
    with pytest.raises(NotFound):
        shop.service().run(FOREVER, "nowhere")


def test_findings_that_others_replaced_are_read_anew(shop: HealthShop):
    plant(shop)
    shop.check()
    old = shop.stores.artifacts.current(CATALOGUE)["findings"]
    shop.check(now=True)
    new = shop.stores.artifacts.current(CATALOGUE)["findings"]
    assert new.key != old.key and shop.stores.index.head(old.key)  # it may still be read
    shop.check(now=True)
    assert shop.stores.index.head(new.key) and not shop.stores.index.head(old.key)
    with pytest.raises(Conflict):
        shop.stores.artifacts.put(old)
    assert len(shop.findings("low-quality")) == 4
