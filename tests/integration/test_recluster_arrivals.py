"""What comes, changes and goes between and while clusters are made: counted once, never lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lookalike.core.head import Head
from lookalike.core.keys import segment_key
from lookalike.services import jobs, live_embeddings, recluster
from lookalike.services.live_embeddings import LiveRows
from recluster_shop import CATALOGUE, DIM, FOREVER, Shop, point


@pytest.fixture
def shop(memory_stores, clock, ids) -> Shop:
    """Four groups of 25 products."""
    made = Shop(memory_stores, clock, ids)
    made.open()
    for group in range(4):
        made.put_group(group, 25)
    return made


def empty(shop: Shop) -> None:
    for id_ in shop.live():
        shop.remove(id_)


def stopped_behind(phase: str, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run by hand whose process dies when it has saved that ``phase`` begins."""
    save = jobs.Run.save

    def dying(run, **changes):
        save(run, **changes)
        if changes.get("phase") == phase:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(jobs.Run, "save", dying)
        with pytest.raises(KeyboardInterrupt):
            shop.service().run(FOREVER, now=True)


@pytest.mark.parametrize("had_clusters", [False, True])
def test_a_catalogue_that_is_emptied_while_a_run_is_under_way_has_no_clusters(
    shop: Shop, monkeypatch, had_clusters: bool
):
    if had_clusters:
        shop.recluster()
    stopped_behind("assign", shop, monkeypatch)
    empty(shop)
    assert shop.recluster() == {}
    assert "clusters" not in shop.stores.artifacts.current(CATALOGUE)
    (job,) = shop.stores.jobs.all(CATALOGUE)
    assert not job.phase and not job.error, "it is an outcome"
    assert shop.read().finder(shop.generation, Head.identity(DIM)) is None
    shop.put_group(1, 30)
    assert shop.recluster()["clusters"] >= 1 and set(shop.where()) == shop.live()


def test_a_catalogue_that_shrinks_loses_its_clusters_and_a_given_name_is_of_no_other(shop: Shop):
    shop.recluster()
    shop.read().rename(CATALOGUE, "c3", "Scarves")
    for id_ in sorted(shop.live())[3:]:
        shop.remove(id_)
    assert shop.recluster()["products"] == 3
    empty(shop)
    assert shop.recluster() == {}
    shop.put_group(1, 30)
    shop.recluster()
    assert "Scarves" not in {info.name for info in shop.read().list(CATALOGUE).clusters}


def test_clusters_of_nothing_break_no_search_and_are_made_anew(shop: Shop, monkeypatch):
    """An earlier version of the program could publish them."""
    shop.recluster()
    made = shop.stores.artifacts.current(CATALOGUE)["clusters"]
    read = recluster.written

    def of_nothing(stores, found, members, job, setting):
        return read(stores, found, [[] for _ in members], job, setting)

    with monkeypatch.context() as patch:
        patch.setattr(recluster, "written", of_nothing)
        shop.recluster(now=True)
    assert shop.stores.artifacts.current(CATALOGUE)["clusters"].summary["clusters"] == 0
    assert shop.read().finder(shop.generation, Head.identity(DIM)) is None
    shop.put_group(1, 1, first=25)
    assert shop.recluster()["clusters"] == made.summary["clusters"]
    assert set(shop.where()) == shop.live()


def test_placing_ends_with_the_slice_and_goes_on_with_the_next(shop: Shop, monkeypatch):
    shop.policy = replace(shop.policy, renew_share=9.0)
    shop.recluster()
    for number in range(12):
        shop.put_group(1, 2, first=100 + 2 * number)
    read, looked = LiveRows._live, []

    def slow(rows, segment, numbers):
        looked.extend((segment.keys[number], segment.versions[number]) for number in numbers)
        shop.clock.now += 60 if numbers else 0
        return read(rows, segment, numbers)

    monkeypatch.setattr(LiveRows, "_live", slow)
    placed = []
    for _ in range(9):
        begun = shop.clock.now
        shop.service().run(begun + 130)
        assert shop.clock.now - begun < 300
        placed.append(shop.stores.artifacts.current(CATALOGUE)["clusters"].arrivals)
        if placed[-1] == 24:
            break
    assert 0 < placed[0] < 24 and placed[-1] == 24
    assert placed == sorted(set(placed)), "each slice takes it further"
    again = len(looked) - len(set(looked))
    assert again <= 2 * len(placed), "but for the block at which a slice ends"
    monkeypatch.setattr(LiveRows, "_live", read)
    shop.clock.now += 1000
    shop.service().run(FOREVER)
    assert set(shop.where()) == shop.live()


def test_what_was_in_a_cluster_is_in_one_whenever_anybody_looks(shop: Shop, monkeypatch):
    """Also what came while the next clusters are made, and was placed in the ones before."""
    shop.recluster()
    stopped_behind("publish", shop, monkeypatch)
    shop.put_group(2, 1, first=50)
    put, seen = shop.stores.artifacts.put, []

    def looking(artifact):
        written = put(artifact)
        seen.append((artifact.serial, set(shop.where())))
        return written

    monkeypatch.setattr(shop.stores.artifacts, "put", looking)
    shop.recluster(wait_s=1)
    assert [serial for serial, _ in seen] == [1, 2]
    assert all("g2-50" in where for _, where in seen)


def test_publishing_is_put_off_when_there_is_no_time_to_place_what_came(shop: Shop, monkeypatch):
    shop.recluster()
    stopped_behind("assign", shop, monkeypatch)
    for number in range(3):
        shop.put_group(2, 1, first=50 + number)
    written, ends = recluster.written, []

    def late(*args):
        ends.append(shop.clock.now)
        shop.clock.now += 10_000
        return written(*args)

    monkeypatch.setattr(recluster, "written", late)
    report = shop.service().run(shop.clock.now + 5_000)
    assert not report.finished and shop.read().list(CATALOGUE).serial == 1
    # A slice that has nothing else to do publishes what it had time for.
    report = shop.service().run(shop.clock.now + 5_000)
    assert report.finished and shop.read().list(CATALOGUE).serial == 2 and len(ends) == 2
    shop.recluster(wait_s=1)
    assert set(shop.where()) == shop.live()


def test_another_photo_of_a_product_counts_once(shop: Shop):
    shop.recluster()
    shop.put({f"shop/g0-{number}.jpg": (1, 200 + number) for number in range(6)})
    summary = shop.recluster()
    made = shop.stores.artifacts.current(CATALOGUE)["clusters"]
    assert made.serial == 1, "six of a hundred have changed, and nobody came or went"
    assert (summary["arrivals"], summary["overwritten"]) == (0, 6)
    shop.put({f"shop/g0-{number}.jpg": (1, 300 + number) for number in range(6)})
    assert shop.recluster()["overwritten"] == 6, "whose photo changes twice counts once, too"
    shop.put({f"shop/g0-{number}.jpg": (1, 300 + number) for number in range(6, 12)})
    shop.recluster()
    assert shop.stores.artifacts.current(CATALOGUE)["clusters"].serial == 2


def test_a_photo_that_is_changed_and_changed_back_is_where_it_was(shop: Shop):
    shop.recluster(wait_s=30)  # so lately that nothing has settled
    before = shop.where()
    shop.put({"shop/g0-1.jpg": (1, 1)})
    shop.recluster(wait_s=1)
    assert shop.where()["g0-1"] == before["g1-1"]
    shop.put({"shop/g0-1.jpg": (0, 1)})
    shop.recluster(wait_s=1)
    assert shop.where() == before


@pytest.mark.parametrize("setting", [-1, 1_001])
def test_more_clusters_than_there_can_be_are_refused(shop: Shop, setting: int):
    refused = replace(shop, policy=replace(shop.policy, clusters=setting))
    with pytest.raises(ValueError, match="LOOKALIKE_CLUSTERS"):
        refused.recluster()


def test_the_summary_counts_files_that_cannot_be_read(shop: Shop, monkeypatch):
    assert shop.recluster()["unreadable_files"] == 0
    entries, _ = shop.stores.registry.read(shop.generation.scope)
    shop.stores.index.put_object(segment_key(CATALOGUE, entries[0].digest), b"nothing")
    monkeypatch.setattr(live_embeddings, "BLOCK_ROWS", 10)
    now = True
    for _ in range(100):  # whichever slice meets it
        report = shop.service().run(shop.clock.now + 12, now=now)
        now = False
        if report.finished:
            break
    assert shop.read().list(CATALOGUE).serial == 2
    assert report.catalogues[0].summary["unreadable_files"] == 1


def test_a_finished_run_has_done_all_that_there_was(shop: Shop):
    shop.put({"shop/g0-1.jpg": (0, 90)})  # a row that counts no more
    shop.recluster()
    job = shop.stores.jobs.get(CATALOGUE, "recluster")
    assert job.done == job.total == 100


def test_k_means_that_dies_costs_no_reading(shop: Shop, monkeypatch):
    def dies(*args, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(recluster, "plan_clusters", dies)
        with pytest.raises(KeyboardInterrupt):
            shop.service().run(FOREVER, now=True)
    blocks, phases = LiveRows._block, []

    def watched(rows, segment, live):
        phases.append(shop.stores.jobs.get(CATALOGUE, "recluster").phase)
        return blocks(rows, segment, live)

    monkeypatch.setattr(LiveRows, "_block", watched)
    shop.recluster()
    assert "sample" not in phases and set(shop.where()) == shop.live()
    rows = np.stack([point(group, 3) for group in range(4)])
    finder = shop.read().finder(shop.generation, Head.identity(DIM))
    assert len(set(finder.ids(rows))) == 4
