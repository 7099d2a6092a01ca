"""The map of a catalogue: laid out, kept, gone on with after a death, lacking no product."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from lookalike.core.clusters import product_hash
from lookalike.core.errors import NotFound
from lookalike.core.head import encode_head, fit_head
from lookalike.core.keys import content_digest, head_key, segment_key
from lookalike.core.types import Manifest
from lookalike.services import live_embeddings
from lookalike.services.map_files import open_map
from lookalike.services.map_reader import MapReader
from project_shop import ProjectShop, groups_apart
from recluster_shop import CATALOGUE, FOREVER, point


@pytest.fixture
def shop(memory_stores, clock, ids) -> ProjectShop:
    made = ProjectShop(memory_stores, clock, ids)
    made.open()
    return made


@pytest.fixture
def filled(shop: ProjectShop) -> ProjectShop:
    """Three groups of 20 products."""
    for group, word in enumerate(["boot", "hat", "scarf"]):
        shop.put_group(group, 20, title=f"Fine {word}", category=f"{word}s")
    return shop


def test_products_that_look_alike_lie_together(filled: ProjectShop):
    summary = filled.project()
    places = filled.on_map()
    assert set(places) == filled.live() and groups_apart(places)
    assert summary["products"] == summary["laid_out"] == 60 and summary["method"] == "tsne"
    assert summary["trustworthiness"] > 0.8 and not summary["from_before"]
    found = filled.map()
    assert found.artifact.serial == 1 and not found.points.placed.any()
    at = np.stack([found.points.x, found.points.y], axis=1)
    assert np.sqrt((at**2).sum(axis=1).mean()) == pytest.approx(1, abs=1e-3)
    details = MapReader(filled.stores).details(found, 7)
    assert found.points.product[7] == product_hash(details.product_id)
    group = int(details.product_id[1])
    assert details.title == "Fine " + ["boot", "hat", "scarf"][group]
    assert found.points.category[7] == ["boots", "hats", "scarfs"][group]
    assert details.view == details.product_id and found.points.cluster[7] == ""
    assert not list(filled.stores.index.list("work/"))


def test_nothing_is_done_when_nothing_is_due(filled: ProjectShop):
    filled.project()
    before = filled.stores.artifacts.current(CATALOGUE), filled.stores.jobs.all(CATALOGUE)
    filled.project()
    assert (filled.stores.artifacts.current(CATALOGUE), filled.stores.jobs.all(CATALOGUE)) == before
    assert filled.project(now=True) and filled.map().artifact.serial == 2
    with pytest.raises(NotFound):
        filled.map_service().run(FOREVER, "elsewhere")


def test_a_map_that_is_made_anew_stays_recognisable(filled: ProjectShop):
    filled.project()
    before = filled.on_map()
    for group in range(3):
        filled.put_group(group, 4, first=20)
    summary = filled.project()
    assert filled.map().artifact.serial == 2 and summary["from_before"] and summary["arrivals"] == 0
    after = filled.on_map()
    assert set(after) == filled.live() and len(after) == 72 and groups_apart(after)
    moved = [np.hypot(*np.subtract(after[id_], before[id_])) for id_ in before]
    assert np.mean(moved) < 0.25 and summary["moved"] == pytest.approx(np.mean(moved), rel=0.2)


def test_arrivals_are_placed_at_once(filled: ProjectShop):
    filled.project()
    before = filled.on_map()
    filled.put_group(1, 3, first=20, title="New", category="new hats")
    filled.put({"shop/g0-0.jpg": (2, 40)})  # a photo of another group over an old one
    summary = filled.project(wait_s=1)
    assert summary["arrivals"] == 3 and filled.map().artifact.serial == 1
    after = filled.on_map()
    assert set(after) == filled.live()
    stayed = [id_ for id_ in before if id_ != "g0-0"]
    assert all(after[id_] == before[id_] for id_ in stayed)
    found = filled.map()
    assert (
        int(found.points.placed.sum()) == 4 and list(found.points.category).count("new hats") == 3
    )
    centres = {
        group: np.mean([before[id_] for id_ in before if id_.startswith(group)], axis=0)
        for group in ("g0", "g1", "g2")
    }

    def nearest(id_: str) -> str:
        return min(centres, key=lambda name: float(np.hypot(*(centres[name] - after[id_]))))

    assert [nearest(f"g1-{n}") for n in (20, 21, 22)] == ["g1"] * 3 and nearest("g0-0") == "g2"
    # Once more, and both are in the file of arrivals.
    filled.put_group(2, 1, first=20)
    filled.put({"shop/g0-0.jpg": (1, 41)})
    assert filled.project(wait_s=1)["arrivals"] == 4
    assert set(filled.on_map()) == filled.live()
    current = filled.stores.artifacts.current(CATALOGUE)
    filled.project(wait_s=100)
    filled.project(wait_s=1)
    rested = filled.stores.artifacts.current(CATALOGUE)
    assert rested["map"].arrivals_key == current["map"].arrivals_key
    filled.project(wait_s=1)
    assert filled.stores.artifacts.current(CATALOGUE) == rested, "nothing came, yet it is written"


def test_new_words_do_not_move_a_product(filled: ProjectShop):
    filled.project()
    before = filled.on_map()
    filled.put({"shop/g1-3.jpg": (1, 3)}, title="Renamed")
    filled.project(wait_s=1)
    found = filled.map()
    (number,) = np.flatnonzero(found.points.product == product_hash("g1-3"))
    assert MapReader(filled.stores).details(found, int(number)).title == "Renamed"
    assert filled.on_map()["g1-3"] == before["g1-3"] and not found.points.placed[number]


def test_beyond_a_setting_a_sample_is_laid_out_and_the_rest_is_placed(filled: ProjectShop):
    summary = filled.project(map_rows=36)
    assert summary["laid_out"] == 36 and summary["products"] == 60
    assert int(filled.map().points.placed.sum()) == 24
    places = filled.on_map()
    assert set(places) == filled.live() and groups_apart(places)
    # The same are drawn again, so that the map stays.
    laid = filled.map().points.product[~filled.map().points.placed]
    filled.put_group(0, 12, first=20)
    assert filled.project(map_rows=36)["from_before"]
    again = filled.map().points.product[~filled.map().points.placed]
    assert len(np.intersect1d(laid, again)) >= 25


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_a_handful_of_products_gets_a_map_by_hand_alone(shop: ProjectShop, method: str):
    shop.project()
    assert shop.project(now=True) == {}
    assert shop.stores.jobs.get(CATALOGUE, "project").error == "", "it is an outcome"
    for count in (1, 2, 5):
        shop.put_group(count, count)
        assert shop.project(map_method=method) is not None
        assert shop.project(now=True, map_method=method)["method"] == "pca"
        assert set(shop.on_map()) == shop.live()


def test_products_that_are_all_alike_have_places_of_their_own(shop: ProjectShop):
    shop.put({f"shop/p{n}.jpg": (0, 0) for n in range(30)})
    shop.project()
    places = shop.on_map()
    assert len(set(places.values())) == 30 and np.isfinite(list(places.values())).all()


def test_a_product_stands_where_its_first_view_does_and_has_one_place(filled: ProjectShop):
    filled.put({f"shop/multi-{n}/{view}.jpg": (n % 3, 50 + n) for n in range(6) for view in "ba"})
    filled.project()
    assert set(filled.on_map()) == filled.live()
    found = filled.map()
    (number,) = np.flatnonzero(found.points.product == product_hash("multi-3"))
    assert MapReader(filled.stores).details(found, int(number)).view == "a"
    filled.put({"shop/multi-3/0.jpg": (1, 70)})
    filled.project(wait_s=1)
    found = filled.map()
    (number,) = np.flatnonzero(found.points.product == product_hash("multi-3"))
    assert MapReader(filled.stores).details(found, int(number)).view == "0"


def test_a_first_view_that_goes_while_rows_are_read_takes_no_product_off_the_map(
    filled: ProjectShop, monkeypatch: pytest.MonkeyPatch
):
    # Each in a file of its own, in an order of which some have the second view first.
    for view in "ba":
        for n in range(6):
            filled.put({f"shop/pair-{n}/{view}.jpg": (0, 60 + n)})
    monkeypatch.setattr(live_embeddings, "BLOCK_ROWS", 5)
    read = live_embeddings.LiveRows.blocks

    def blocks(self, cursor, *, since=0.0):
        for block in read(self, cursor, since=since):
            yield block
            for n in range(6):
                owner = (CATALOGUE, f"pair-{n}")
                if f"shop/pair-{n}/b.jpg" in block.keys and (
                    len(filled.stores.products.get_many([owner])[owner].views) == 2
                ):
                    filled.remove(f"pair-{n}", f"shop/pair-{n}/a.jpg")

    monkeypatch.setattr(live_embeddings.LiveRows, "blocks", blocks)
    filled.project()
    assert set(filled.on_map()) == filled.live()


def test_what_was_deleted_leaves_with_the_next_map(filled: ProjectShop):
    filled.project()
    for number in range(8):
        filled.remove(f"g0-{number}")
    summary = filled.project()
    assert summary["products"] == 52 and set(filled.on_map()) == filled.live()


def test_points_have_the_clusters_that_there_are(filled: ProjectShop):
    filled.recluster()
    filled.project()
    where = filled.where()
    found = filled.map()
    reader = MapReader(filled.stores)
    for number, cluster in enumerate(found.points.cluster):
        assert where[reader.details(found, number).product_id] == cluster
    filled.put_group(1, 1, first=30)
    filled.recluster(wait_s=1)
    filled.project(wait_s=1)
    found = filled.map()
    (number,) = np.flatnonzero(found.points.product == product_hash("g1-30"))
    assert found.points.cluster[number] == filled.where()["g1-30"]
    # Clusters that are made anew colour the map anew.
    filled.recluster(now=True)
    filled.project(wait_s=0)
    assert filled.map().artifact.serial == 2 and filled.map().artifact.summary["clusters"] == 2


def test_the_map_waits_for_clusters_that_are_due_but_not_for_ever(filled: ProjectShop):
    filled.project(wait_s=30)
    assert not filled.stores.artifacts.current(CATALOGUE)
    filled.recluster(wait_s=0)
    filled.project(wait_s=150)
    assert set(filled.stores.artifacts.current(CATALOGUE)) == {"clusters", "map"}
    filled.put_group(0, 15, first=20)
    filled.project(wait_s=30)
    assert filled.map().artifact.serial == 1
    filled.project(wait_s=200)
    assert filled.map().artifact.serial == 2


def new_head(shop: ProjectShop) -> None:
    rows = np.stack([point(group, number) for group in range(3) for number in range(20)])
    body = encode_head(fit_head(rows, 6))
    digest = content_digest(body)
    shop.stores.index.put(head_key(CATALOGUE, digest), body, "")
    _, manifest = shop.stores.registry.read(shop.generation.scope)
    shop.stores.registry.put_manifest(
        replace(manifest or Manifest(shop.generation.scope), head=digest)
    )


def test_a_new_head_makes_a_new_map_like_the_one_before(filled: ProjectShop):
    filled.project()
    before = filled.on_map()
    new_head(filled)
    filled.put_group(0, 1, first=30)
    summary = filled.project(wait_s=1)
    assert filled.map().artifact.serial == 2 and summary["from_before"]
    after = filled.on_map()
    assert set(after) == filled.live() and groups_apart(after)
    moved = [np.hypot(*np.subtract(after[id_], before[id_])) for id_ in before]
    assert np.mean(moved) < 0.4


def test_another_space_makes_a_new_map(filled: ProjectShop):
    filled.project()
    filled.space = "b"
    filled.open()
    for group in range(3):
        filled.put_group(group, 20)
    filled.project(wait_s=1)
    assert filled.map().artifact.encoder == "b" and filled.map().artifact.serial == 2
    assert set(filled.on_map()) == filled.live() and groups_apart(filled.on_map())


@pytest.mark.parametrize("where", ["key", "arrivals_key"])
@pytest.mark.parametrize("harm", ["altered", "lost"])
def test_a_map_that_is_damaged_is_made_anew(filled: ProjectShop, where: str, harm: str):
    filled.project()
    filled.put_group(1, 1, first=30)
    filled.project(wait_s=1)
    made = filled.stores.artifacts.current(CATALOGUE)["map"]
    key = getattr(made, where)
    _, body = filled.stores.index.get(key, 10**9)
    if harm == "altered":
        filled.stores.index.put(key, body[: len(body) // 2], "")
    else:
        filled.stores.index.delete(key)
    filled.put_group(1, 1, first=31)
    filled.project(wait_s=1)
    assert filled.map().artifact.serial == 2 and set(filled.on_map()) == filled.live()


def test_umap_that_is_not_installed_says_so_and_rests(
    filled: ProjectShop, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "umap", None)
    filled.project(map_method="umap")
    job = filled.stores.jobs.get(CATALOGUE, "project")
    assert "lookalike[umap]" in job.error and not job.phase
    filled.project(map_method="umap", wait_s=10)
    assert filled.stores.jobs.get(CATALOGUE, "project") == job, "it tries again at once"
    with pytest.raises(ValueError, match="none of tsne, pca, umap"):
        filled.map_service(map_method="t-sne").run(FOREVER)


def test_old_maps_are_deleted_after_a_grace(filled: ProjectShop):
    for _ in range(3):
        filled.project(now=True)
    keys = {info.key for info in filled.stores.index.list("derived/map/")}
    current = filled.stores.artifacts.current(CATALOGUE)["map"]
    assert current.key in keys and len(keys) <= 2


@pytest.mark.parametrize("what", ["map", "details", "arrivals"])
def test_a_map_that_is_lost_in_a_quiet_catalogue_is_made_anew(filled: ProjectShop, what: str):
    filled.project()
    filled.put_group(1, 1, first=60)
    filled.project(wait_s=1)
    service = filled.map_service()
    for _ in range(2):
        filled.clock.now += 500
        assert service.run(FOREVER).finished
    made = filled.map().artifact
    key = made.arrivals_key if what == "arrivals" else made.key
    if what == "details":
        (part,) = open_map(filled.stores.index, key).head.details
        body = bytearray(filled.stores.index.get(key, 10**9)[1])
        body[part.start + 9] ^= 1
        filled.stores.index.put_object(key, bytes(body))
    else:
        filled.stores.index.delete(key)
    reads = []
    read = filled.stores.index.get_range
    filled.stores.index.get_range = lambda *args: reads.append(args) or read(*args)
    assert service.run(FOREVER).finished and not reads, "it was looked at lately"
    filled.clock.now += 400
    for _ in range(3):
        service.run(FOREVER)
    assert filled.map().artifact.serial == made.serial + 1
    assert set(filled.on_map()) == filled.live()


def test_a_catalogue_without_products_has_no_map(filled: ProjectShop, caplog):
    filled.project()
    for id_ in sorted(filled.live())[5:]:
        filled.remove(id_)
    assert filled.project()["products"] == 5
    for id_ in filled.live():
        filled.remove(id_)
    assert filled.project() == {} and MapReader(filled.stores).read(CATALOGUE) is None
    assert not filled.stores.jobs.get(CATALOGUE, "project").error and "ERROR" not in caplog.text
    filled.put_group(1, 30)
    filled.project()
    assert set(filled.on_map()) == filled.live()


def test_the_summary_of_a_map_counts_files_that_cannot_be_read(filled: ProjectShop):
    assert filled.project()["unreadable_files"] == 0
    entries, _ = filled.stores.registry.read(filled.generation.scope)
    filled.stores.index.put_object(segment_key(CATALOGUE, entries[0].digest), b"nothing")
    assert filled.project(now=True)["unreadable_files"] == 1
