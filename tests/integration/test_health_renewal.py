"""A catalogue is checked again when it has changed or its findings are lost, in bounded steps."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from health_shop import CATALOGUE, FOREVER, HealthShop, Photo, drawn, point
from lookalike.core.errors import Unavailable
from lookalike.services import health, health_compare, health_photos, live_embeddings


@pytest.fixture
def shop(memory_stores, clock, ids) -> HealthShop:
    made = HealthShop(memory_stores, clock, ids)
    made.open()
    made.put_groups({"hat": 15, "shoe": 15})
    return made


def hats(first: int, count: int, seed: int) -> list[Photo]:
    return [
        Photo(f"shop/hat-{n}/front.jpg", drawn(seed + n), point(0, n), {"category": "hat"})
        for n in range(first, first + count)
    ]


def altered(at: int) -> Callable[[bytes], bytes]:
    def alter(body: bytes) -> bytes:
        return bytes(byte ^ (place == at % len(body)) for place, byte in enumerate(body))

    return alter


@pytest.mark.parametrize(
    "damage", [None, altered(40), altered(-3), lambda body: body[:-1]], ids=str
)
def test_findings_that_are_lost_are_made_anew_in_a_quiet_catalogue(
    shop: HealthShop, damage: Callable[[bytes], bytes] | None
):
    shop.put([Photo("shop/scarf/a.jpg", drawn(5000), point(7, 1), {"category": "scarf"})])
    shop.check()
    assert len(shop.findings("thin-category")) == 1
    before = shop.stores.artifacts.current(CATALOGUE)["findings"]
    found = shop.stores.index.get(before.key, 2**30)
    assert found is not None
    shop.stores.index.delete(before.key)
    if damage:
        shop.stores.index.put(before.key, damage(found[1]), "")
    with pytest.raises(Unavailable):
        shop.findings("thin-category")
    shop.check()
    assert len(shop.findings("thin-category")) == 1
    assert shop.stores.artifacts.current(CATALOGUE)["findings"].serial == before.serial + 1


def test_facts_that_are_altered_are_written_again(shop: HealthShop):
    shop.check()
    facts = shop.stores.artifacts.current(CATALOGUE)["facts"]
    found = shop.stores.index.get(facts.key, 2**30)
    assert found is not None
    shop.stores.index.put(facts.key, b"LKHPbroken", "")
    shop.check(now=True)
    again = shop.stores.index.get(facts.key, 2**30)
    assert again is not None and again[1] == found[1]


def test_sound_findings_are_read_once(shop: HealthShop, monkeypatch: pytest.MonkeyPatch):
    shop.check()
    key = shop.stores.artifacts.current(CATALOGUE)["findings"].key
    read: list[str] = []
    true = shop.stores.index.get
    monkeypatch.setattr(shop.stores.index, "get", lambda k, n: read.append(k) or true(k, n))
    service = shop.service()
    for _ in range(3):
        assert service.run(FOREVER).finished
    assert read.count(key) == 1


def test_as_many_products_in_as_out_are_a_change(shop: HealthShop):
    shop.check()
    for number in range(2):
        shop.remove(f"hat-{number}")
    shop.put(hats(100, 2, 0))
    shop.check()
    assert shop.stores.artifacts.current(CATALOGUE)["findings"].serial == 1
    shop.remove("hat-5")
    shop.remove("hat-6")
    shop.put(hats(102, 2, 0))
    shop.check()
    assert shop.stores.artifacts.current(CATALOGUE)["findings"].serial == 2
    shop.check()
    assert shop.stores.artifacts.current(CATALOGUE)["findings"].serial == 2


def test_photos_that_are_overwritten_are_a_change(shop: HealthShop):
    shop.check()
    shop.put(hats(0, 3, 500))
    shop.check(wait_s=5)
    assert shop.stores.artifacts.current(CATALOGUE)["findings"].serial == 1, "they still arrive"
    shop.check()
    assert shop.stores.artifacts.current(CATALOGUE)["findings"].serial == 2


def test_files_that_cannot_be_read_are_said(shop: HealthShop):
    shop.put(hats(15, 5, 0))
    (key, *_) = [info.key for info in shop.stores.index.list("segments/")]
    shop.stores.index.put(key, b"broken", "")
    summary = shop.check()
    assert summary["unreadable_files"] == 1 and summary["views"] in (5, 30)


def test_the_cursor_is_written_when_it_is_time_to(
    shop: HealthShop, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(live_embeddings, "BLOCK_ROWS", 5)
    written: list[bytes] = []
    true = live_embeddings.RowsCursor.encode

    def encode(cursor: live_embeddings.RowsCursor) -> bytes:
        written.append(true(cursor))
        return written[-1]

    monkeypatch.setattr(live_embeddings.RowsCursor, "encode", encode)
    shop.clock.now += 1000
    assert shop.service().run(FOREVER).finished
    assert len(written) <= 1  # of six blocks


def test_a_slice_may_end_within_a_block_of_new_photos(
    shop: HealthShop, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(health_photos, "PHOTOS_AT_ONCE", 8)
    looked_at: list[int] = []
    true = health_photos.photo_facts

    def look(image: object, photo: int) -> object:
        looked_at.append(photo)
        shop.clock.now += 10
        return true(image, photo)

    monkeypatch.setattr(health_photos, "photo_facts", look)
    shop.clock.now += 1000
    for done in (8, 16):
        report = shop.service().run(shop.clock() + 60)
        assert not report.finished and len(looked_at) == done
    assert shop.check(wait_s=0)["views"] == 30
    assert len(looked_at) == len(set(looked_at)) == 30


def test_a_photo_that_many_products_have_is_compared_a_few_at_a_time(
    shop: HealthShop, monkeypatch: pytest.MonkeyPatch
):
    same = [
        Photo(f"shop/same-{n}/a.jpg", drawn(1), point(0, 1), {"category": "hat"}) for n in range(30)
    ]
    shop.put(same)
    monkeypatch.setattr(health, "ROWS_AT_ONCE", 10)
    at_once: list[int] = []
    true = health_compare.Comparison.copies

    def copies(comparison: health_compare.Comparison, start: int, end: int) -> object:
        found = true(comparison, start, end)
        at_once.append(len(found))
        return found

    monkeypatch.setattr(health_compare.Comparison, "copies", copies)
    shop.check()
    assert shop.groups() and max(at_once) <= 10
    (found,) = shop.findings("near-duplicate")
    assert found.evidence["products"] == 31
