"""Clusters of a catalogue: made, kept, gone on with after a death, and never lacking a product."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lookalike.core.errors import NotFound
from lookalike.core.head import Head, encode_head, fit_head
from lookalike.core.jobs import artifact_key
from lookalike.core.keys import content_digest, head_key
from lookalike.core.types import Manifest
from lookalike.services import jobs, live_embeddings
from lookalike.services.live_embeddings import LiveRows
from recluster_shop import CATALOGUE, FOREVER, Shop, point


@pytest.fixture
def shop(memory_stores, clock, ids) -> Shop:
    made = Shop(memory_stores, clock, ids)
    made.open()
    return made


@pytest.fixture
def filled(shop: Shop) -> Shop:
    """Four groups of 25 products, which have words."""
    for group, word in enumerate(["boot", "hat", "scarf", "glove"]):
        shop.put_group(group, 25, title=f"Fine {word} for winter", category=f"{word}s")
    return shop


def test_each_group_becomes_a_cluster_with_every_product_in_one(filled: Shop):
    summary = filled.recluster()
    assert summary["clusters"] == 4 and summary["products"] == 100
    assert sorted(map(sorted, filled.groups().values())) == [["g0"], ["g1"], ["g2"], ["g3"]]
    assert set(filled.where()) == filled.live()
    clusters = filled.read().list(CATALOGUE)
    assert clusters.serial == 1 and [info.size for info in clusters.clusters] == [25] * 4
    for info in clusters.clusters:
        (group,) = filled.groups()[info.cluster_id]
        word = ["boot", "hat", "scarf", "glove"][int(group[1:])]
        assert word in info.name and "winter" not in info.name and "fine" not in info.words
        assert 0.9 < info.cohesion <= 1 and info.born_at > 0
        # The first face is the member nearest to the centroid.
        rows = np.stack([point(int(group[1:]), number) for number in range(25)])
        mean = rows.mean(axis=0)
        assert info.representatives[0] == f"{group}-{int((rows @ mean).argmax())}"
        assert len(set(info.representatives)) == 12


def test_nothing_is_done_when_nothing_is_due(filled: Shop):
    filled.recluster()
    before = filled.stores.artifacts.current(CATALOGUE), filled.stores.jobs.all(CATALOGUE)
    filled.recluster()
    assert (filled.stores.artifacts.current(CATALOGUE), filled.stores.jobs.all(CATALOGUE)) == before
    assert filled.recluster(now=True) and filled.read().list(CATALOGUE).serial == 2
    assert not list(filled.stores.index.list("work/"))


def test_few_products_are_not_clustered_unless_by_hand(shop: Shop):
    shop.put_group(0, 5)
    assert shop.recluster() == {}
    with pytest.raises(NotFound):
        shop.read().members(CATALOGUE, "c1", 10)
    assert shop.read().list(CATALOGUE).clusters == []
    assert shop.recluster(now=True)["clusters"] == 1
    assert set(shop.where()) == shop.live()
    for number in range(5):
        shop.remove(f"g0-{number}")
    assert shop.recluster(now=True) == {}, "of nothing there are no clusters"
    (job,) = shop.stores.jobs.all(CATALOGUE)
    assert not job.error and not job.phase


def test_who_stays_keeps_the_id_and_who_comes_gets_a_new_one(filled: Shop):
    filled.recluster()
    before = filled.where()
    born = {info.cluster_id: info.born_at for info in filled.read().list(CATALOGUE).clusters}
    filled.put_group(4, 150)
    for number in range(25):
        filled.remove(f"g2-{number}")
    summary = filled.recluster()
    after = filled.where()
    gone = {before[f"g2-{number}"] for number in range(25)}
    for id_ in ("g0-1", "g1-1", "g3-1"):
        assert after[id_] == before[id_]
    assert gone == {"c" + str(n) for n in range(1, 5)} - set(after.values())
    new = set(after.values()) - set(before.values())
    assert new and {int(name[1:]) for name in new} == set(range(5, 5 + len(new)))
    assert {after[f"g4-{number}"] for number in range(150)} == new
    assert summary["kept"] == 3 and summary["changed"] < 0.1
    for info in filled.read().list(CATALOGUE).clusters:
        assert (info.cluster_id in born) == (born.get(info.cluster_id) == info.born_at)


def test_arrivals_are_placed_at_once_and_deletions_leave(filled: Shop):
    filled.recluster()
    before = filled.where()
    filled.put_group(1, 3, first=25)
    filled.put({"shop/g0-7.jpg": (3, 90)})  # another photo of a product that was there
    filled.remove("g2-5")
    summary = filled.recluster(wait_s=1)
    assert summary["arrivals"] == 3, "too few for all to be made anew"
    after = filled.where()
    assert set(after) == filled.live()
    assert {after[f"g1-{number}"] for number in range(25, 28)} == {before["g1-1"]}
    assert after["g0-7"] == before["g3-1"]
    sizes = {info.cluster_id: info.size for info in filled.read().list(CATALOGUE).clusters}
    assert sizes[before["g1-1"]] == 28
    current = filled.stores.artifacts.current(CATALOGUE)["clusters"]
    filled.recluster(wait_s=200)  # what settles now was looked at again, and is the same
    settled = filled.stores.artifacts.current(CATALOGUE)["clusters"]
    assert settled.arrivals_key == current.arrivals_key and settled.through_at > current.through_at
    filled.recluster(wait_s=200)
    assert filled.stores.artifacts.current(CATALOGUE)["clusters"] == settled


def test_a_row_that_counts_only_later_is_not_missed(filled: Shop):
    filled.recluster()
    filled.put_group(1, 1, first=25)
    owner = (CATALOGUE, "g1-25")
    record = filled.stores.products.get_many([owner])[owner]
    filled.stores.products.delete(record)  # its segment is written, its record is not yet
    filled.put_group(1, 1, first=26)
    filled.recluster(wait_s=1)
    filled.stores.products.put(replace(record, revision=None))
    filled.recluster(wait_s=30)
    assert set(filled.where()) == filled.live()


def test_rows_that_compaction_moved_are_no_arrivals(filled: Shop):
    filled.recluster()
    filled.put_group(1, 1, first=25)
    filled.recluster(wait_s=200)
    entries, manifest = filled.stores.registry.read(filled.generation.scope)
    filled.put_group(0, 1, first=25)
    late = filled.clock.now
    # As if all had been merged into one run with the newest row's time.
    moved = [replace(entry, committed_at=late) for entry in entries]
    filled.stores.registry.remove(entries)
    for entry in moved:
        filled.stores.registry.add(entry)
    assert manifest.revision is None
    assert filled.recluster(wait_s=1)["arrivals"] == 2


def test_pages_of_members_are_whole_whatever_their_length(filled: Shop, monkeypatch):
    monkeypatch.setattr("lookalike.core.clusters.PAGE_IDS", 4)
    filled.recluster()
    filled.put_group(0, 3, first=100)
    filled.recluster(wait_s=1)
    whole = filled.members()
    for limit in (1, 3, 4, 5, 26):
        assert filled.members(limit) == whole
    assert max(map(len, whole.values())) == 28


def test_a_product_whose_first_view_goes_meanwhile_is_not_lost(filled: Shop, monkeypatch):
    """Its second view was met while the first one stood for it, and that one is met no more."""
    filled.put({"shop/pair/b.jpg": (0, 80)})
    filled.put({"shop/pair/a.jpg": (1, 80)})
    of_pair = LiveRows.blocks

    def second_view_first(rows, cursor, *, since=0.0):
        blocks = [block for block in of_pair(rows, cursor, since=since)]
        blocks.sort(key=lambda block: "shop/pair/b.jpg" not in block.keys)
        for block in blocks:
            if "shop/pair/a.jpg" not in block.keys:
                yield block
        job = filled.stores.jobs.get(CATALOGUE, "recluster")
        if job and job.phase == "assign":
            record = filled.stores.products.get_many([(CATALOGUE, "pair")])[CATALOGUE, "pair"]
            if "shop/pair/a.jpg" in record.views:
                filled.remove("pair", "shop/pair/a.jpg")

    monkeypatch.setattr(LiveRows, "blocks", second_view_first)
    filled.recluster(now=True)
    where = filled.where()
    assert set(where) == filled.live() and where["pair"] == where["g0-1"]


def test_a_run_goes_on_after_every_block(filled: Shop, monkeypatch):
    """Each slice ends as soon as it may; what comes out is what one slice makes."""
    filled.recluster()
    whole = filled.where(), filled.read().list(CATALOGUE).clusters
    monkeypatch.setattr(live_embeddings, "BLOCK_ROWS", 10)
    monkeypatch.setattr(jobs, "SAVE_EVERY_S", 0.0)
    slices, now, phases = 0, True, set()
    while True:
        report = filled.service().run(filled.clock.now + 8, now=now)
        now, slices = False, slices + 1
        job = filled.stores.jobs.get(CATALOGUE, "recluster")
        phases.add((job.phase, bool(job.cursor)))
        if report.finished:
            break
        assert slices < 100
    assert slices > 3 and {("sample", True), ("assign", True)} <= phases
    assert filled.where() == whole[0]
    again = filled.read().list(CATALOGUE)
    assert again.serial == 2 and again.clusters == whole[1]
    assert not list(filled.stores.index.list("work/"))


def test_working_objects_that_are_lost_cost_no_more_than_the_run(filled: Shop, monkeypatch):
    monkeypatch.setattr(live_embeddings, "BLOCK_ROWS", 10)
    for lose in ("state", "part"):
        for _ in range(40):
            filled.service().run(filled.clock.now + 9, now=True)
            found = [i.key for i in filled.stores.index.list("work/") if f"/{lose}-" in i.key]
            if found:
                break
        else:
            raise AssertionError(f"there never was a {lose}")
        for key in found:
            filled.stores.index.delete(key)
        filled.recluster()
        assert set(filled.where()) == filled.live()


def test_a_second_runner_takes_over_and_the_first_stops(filled: Shop, monkeypatch):
    monkeypatch.setattr(live_embeddings, "BLOCK_ROWS", 10)
    monkeypatch.setattr(jobs, "SAVE_EVERY_S", 0.0)
    filled.clock.now += 1000
    assert not filled.service().run(filled.clock.now + 20, now=True).finished
    put, second = filled.stores.jobs.put, []

    def between(job):
        if not second:
            second.append(True)
            assert filled.service().run(FOREVER).finished
        return put(job)

    monkeypatch.setattr(filled.stores.jobs, "put", between)
    report = filled.service().run(FOREVER)
    assert list(report.postponed) == [CATALOGUE] and not report.finished
    assert set(filled.where()) == filled.live() and filled.read().list(CATALOGUE).serial == 1


def test_one_that_died_behind_publishing_publishes_nothing_twice(filled: Shop, monkeypatch):
    filled.clock.now += 1000
    finish, died = jobs.Run.finish, []

    def die(run, error=""):
        if not died:
            died.append(True)
            raise RuntimeError("the process is gone")
        finish(run, error)

    monkeypatch.setattr(jobs.Run, "finish", die)
    with pytest.raises(RuntimeError):
        filled.service().run(FOREVER)
    made = filled.stores.artifacts.current(CATALOGUE)["clusters"]
    filled.recluster(wait_s=60)
    after = filled.stores.artifacts.current(CATALOGUE)["clusters"]
    assert died and after.key == made.key and after.serial == 1


def test_files_that_were_replaced_go_after_their_grace(filled: Shop):
    filled.recluster()
    first = filled.stores.artifacts.current(CATALOGUE)["clusters"].key
    filled.recluster(now=True, wait_s=10)
    keys = [info.key for info in filled.stores.index.list("derived/")]
    assert first in keys, "somebody may be reading it"
    filled.recluster(now=True)
    keys = [info.key for info in filled.stores.index.list("derived/")]
    assert first not in keys
    assert keys == sorted({filled.stores.artifacts.current(CATALOGUE)["clusters"].key, *keys})


@pytest.mark.parametrize("damage", ["gone", "altered"])
def test_clusters_that_are_lost_are_made_anew_with_new_ids(filled: Shop, damage: str):
    filled.recluster()
    key = filled.stores.artifacts.current(CATALOGUE)["clusters"].key
    if damage == "gone":
        filled.stores.index.delete(key)
    else:
        body = bytearray(filled.stores.index.get(key, 10**9)[1])
        body[100] ^= 1
        filled.stores.index.put_object(key, bytes(body))
    filled.recluster()
    assert set(filled.where()) == filled.live()
    # Nobody knows any more who they were, and no id ever means something else.
    assert {info.cluster_id for info in filled.read().list(CATALOGUE).clusters} == {
        f"c{number}" for number in range(5, 9)
    }


def test_another_encoder_finds_the_same_clusters_by_their_products(filled: Shop):
    filled.recluster()
    before = filled.where()
    other = replace(filled, space="b")
    other.open()
    for group in range(4):
        other.put_group(group, 25)
    head = Head.identity(16)
    assert filled.read().finder(other.generation, head) is None, "of the encoder before"
    summary = other.recluster(wait_s=1)  # at once, whatever the policy says
    assert other.where() == before and summary["kept"] == 4 and summary["changed"] == 0
    finder = other.read().finder(other.generation, head)
    assert finder.ids(np.stack([point(2, 3, "b"), point(0, 99, "b")])) == [
        before["g2-3"],
        before["g0-0"],
    ]


def test_the_number_of_clusters_can_be_set(filled: Shop):
    filled.recluster()
    before = filled.where()
    more = replace(filled, policy=replace(filled.policy, clusters=6))
    assert more.recluster()["clusters"] == 6
    kept = {cluster for cluster in more.where().values() if cluster in before.values()}
    assert len(kept) >= 3
    assert more.stores.artifacts.current(CATALOGUE)["clusters"].serial == 2
    more.recluster()
    assert more.stores.artifacts.current(CATALOGUE)["clusters"].serial == 2
    fewer = replace(filled, policy=replace(filled.policy, clusters=2))
    assert fewer.recluster()["clusters"] == 2


def test_clusters_hold_through_another_head(filled: Shop):
    filled.recluster()
    before = filled.where()
    raw = np.stack([point(group, number) for group in range(4) for number in range(25)])
    head = fit_head(raw, 6)
    data = encode_head(head)
    digest = content_digest(data)
    filled.stores.index.put(head_key(CATALOGUE, digest), data, "")
    filled.stores.registry.put_manifest(Manifest(filled.generation.scope, head=digest))
    finder = filled.read().finder(filled.generation, head)
    rows = [("g1-4", point(1, 4)), ("g3-9", point(3, 9))]
    found = finder.ids(head.project(np.stack([row for _, row in rows])))
    assert found == [before[id_] for id_, _ in rows]
    filled.put_group(3, 1, first=40)
    filled.recluster(wait_s=1)
    assert filled.where()["g3-40"] == before["g3-1"]


def test_keys_are_of_the_catalogue(filled: Shop):
    filled.recluster()
    made = filled.stores.artifacts.current(CATALOGUE)["clusters"]
    assert made.key.startswith(artifact_key("clusters", CATALOGUE, ""))


def test_what_had_hardly_come_is_no_arrival(shop: Shop):
    """Nothing says of rows that young that all of them were met; those that were are known."""
    for group in range(3):
        shop.put_group(group, 10)
    summary = shop.recluster(wait_s=30)  # quiet enough, and not settled yet
    assert summary["products"] == 30 and summary["arrivals"] == 0
    for _ in range(6):
        assert shop.recluster(wait_s=30)["arrivals"] == 0
    assert shop.read().list(CATALOGUE).serial == 1, "nothing has changed"


@pytest.mark.parametrize("damage", ["gone", "altered"])
def test_arrivals_that_are_lost_are_found_again(filled: Shop, damage: str):
    filled.recluster()
    filled.put_group(1, 3, first=25)
    filled.recluster(wait_s=1)
    key = filled.stores.artifacts.current(CATALOGUE)["clusters"].arrivals_key
    if damage == "gone":
        filled.stores.index.delete(key)
    else:
        filled.stores.index.put_object(key, b"nothing")
    filled.put_group(2, 1, first=25)
    filled.recluster()
    assert set(filled.where()) == filled.live()


def test_what_comes_while_clusters_are_made_is_in_one_at_the_end(filled: Shop, monkeypatch):
    blocks, came = LiveRows.blocks, []

    def with_company(rows, cursor, *, since=0.0):
        yield from blocks(rows, cursor, since=since)
        if len(came) < 2:
            came.append(filled.put_group(len(came), 2, first=40))

    monkeypatch.setattr(LiveRows, "blocks", with_company)
    filled.recluster(now=True)
    assert len(came) == 2 and set(filled.where()) == filled.live()


def test_who_clusters_are_is_not_lost_with_their_arrivals(filled: Shop):
    filled.recluster()
    before = filled.where()
    filled.put_group(1, 3, first=25)
    filled.recluster(wait_s=1)
    made = filled.stores.artifacts.current(CATALOGUE)["clusters"]
    filled.stores.index.delete(made.arrivals_key)
    summary = filled.recluster()
    after = filled.where()
    assert {id_: after[id_] for id_ in before} == before
    assert summary["arrivals"] == 0 and set(after) == filled.live()
