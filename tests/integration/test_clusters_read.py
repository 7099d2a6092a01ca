"""Clusters as searches and people read them."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import numpy as np
import pytest

from crash_points.world import Inline
from lookalike.core.errors import InvalidRequest, NotFound, Unavailable
from lookalike.core.head import Head
from lookalike.services.clusters import Clusters
from recluster_shop import CATALOGUE, DIM, Shop, point

HEAD = Head.identity(DIM)


@pytest.fixture
def shop(memory_stores, clock, ids) -> Shop:
    made = Shop(memory_stores, clock, ids)
    made.open()
    for group in range(3):
        made.put_group(group, 20)
    made.recluster()
    return made


def test_a_given_name_is_kept_from_run_to_run(shop: Shop):
    clusters = shop.read()
    first = clusters.list(CATALOGUE).clusters[0]
    assert first.name == "" and not first.given, "there is no metadata"
    named = clusters.rename(CATALOGUE, first.cluster_id, "  Winter boots ")
    assert named.name == "Winter boots" and named.given
    shop.recluster(now=True)
    again = next(c for c in clusters.list(CATALOGUE).clusters if c.cluster_id == first.cluster_id)
    assert again.name == "Winter boots" and again.given
    back = clusters.rename(CATALOGUE, first.cluster_id, None)
    assert back.name == "" and not back.given


def test_what_cannot_be_named_is_refused(shop: Shop):
    clusters = shop.read()
    for name in ("", "  ", "x" * 81, "a\nb", "\u202e", "\u200b \u200d"):
        with pytest.raises(InvalidRequest) as refused:
            clusters.rename(CATALOGUE, "c1", name)
        assert refused.value.parameter == "name"
    with pytest.raises(NotFound) as missing:
        clusters.rename(CATALOGUE, "c99", "Boots")
    assert missing.value.parameter == "cluster_id"
    with pytest.raises(NotFound) as missing:
        clusters.members(CATALOGUE, "c99", 5)
    assert missing.value.parameter == "cluster"
    for call in (clusters.list, lambda name: clusters.members(name, "c1", 5)):
        with pytest.raises(NotFound) as missing:
            call("nowhere")


def test_searches_find_the_cluster_of_each_embedding(shop: Shop):
    finder = shop.read().finder(shop.generation, HEAD)
    assert finder is not None
    rows = np.stack([point(group, 99) for group in range(3)])
    where = shop.where()
    assert finder.ids(rows) == [where[f"g{group}-0"] for group in range(3)]
    assert shop.read().finder(shop.generation, Head.identity(DIM + 1)) is None


def test_clusters_are_renewed_behind_searches(shop: Shop):
    clusters = Clusters(shop.stores, 30.0, shop.clock, Inline())
    first = clusters.finder(shop.generation, HEAD)
    assert clusters.finder(shop.generation, HEAD) is first
    shop.recluster(now=True, wait_s=0)
    shop.clock.now += 40
    later = clusters.finder(shop.generation, HEAD)
    assert later is not first and later.clustering.serial == 2
    # As long as they are the same, nothing is read but the record that says so.
    shop.stores.index.delete(shop.stores.artifacts.current(CATALOGUE)["clusters"].key)
    shop.clock.now += 40
    assert clusters.finder(shop.generation, HEAD) is later


def test_no_search_waits_for_more_than_the_first_read(shop: Shop):
    with ThreadPoolExecutor(1) as pool:
        clusters = Clusters(shop.stores, 30.0, shop.clock, pool)
        clusters.warm(CATALOGUE)
        assert clusters.current(CATALOGUE).serial == 1
        shop.recluster(now=True, wait_s=40)
        gate = Event()
        pool.submit(gate.wait)  # nothing can be read until it opens
        assert clusters.current(CATALOGUE).serial == 1
        gate.set()
    assert clusters.current(CATALOGUE).serial == 2


def test_what_cannot_be_read_is_none_to_a_search_and_an_error_to_a_person(shop: Shop, caplog):
    key = shop.stores.artifacts.current(CATALOGUE)["clusters"].key
    body = bytearray(shop.stores.index.get(key, 10**9)[1])
    body[70] ^= 1
    shop.stores.index.put_object(key, bytes(body))
    clusters = shop.read()
    with caplog.at_level(logging.WARNING):
        assert clusters.current(CATALOGUE) is None
    assert key in caplog.text
    for call in (clusters.list, lambda name: clusters.members(name, "c1", 5)):
        with pytest.raises(Unavailable):
            call(CATALOGUE)


def test_few_catalogues_are_in_memory(shop: Shop):
    clusters = Clusters(shop.stores, 30.0, shop.clock, Inline())
    for number in range(50):
        assert clusters.current(f"catalogue-{number}") is None
    assert len(clusters._known) == len(clusters._reading) == 32


def test_a_table_that_hangs_holds_up_one_search_for_a_moment(shop: Shop):
    with ThreadPoolExecutor(1) as pool:
        clusters = Clusters(shop.stores, 30.0, shop.clock, pool)
        gate = Event()
        pool.submit(gate.wait)  # nothing can be read until it opens
        begun = time.monotonic()
        assert clusters.finder(shop.generation, HEAD, wait_s=0.05) is None
        for _ in range(5):
            assert clusters.finder(shop.generation, HEAD) is None, "these do not wait again"
        assert time.monotonic() - begun < 0.9
        gate.set()
    assert clusters.finder(shop.generation, HEAD) is not None


def test_whatever_goes_wrong_is_logged_and_what_was_known_stays(shop: Shop, caplog, monkeypatch):
    clusters = Clusters(shop.stores, 30.0, shop.clock, Inline())
    known = clusters.finder(shop.generation, HEAD)
    assert known is not None

    def defect(catalogue):
        raise KeyError("head_bytes")

    monkeypatch.setattr(shop.stores.artifacts, "current", defect)
    shop.clock.now += 40
    assert clusters.finder(shop.generation, HEAD) is known
    assert "Traceback" in caplog.text and "head_bytes" in caplog.text
    other = Clusters(shop.stores, 30.0, shop.clock, Inline())
    assert other.finder(shop.generation, HEAD) is None


def test_a_cluster_that_goes_while_it_is_named_is_not_found(shop: Shop, monkeypatch):
    clusters = shop.read()
    first = clusters.list(CATALOGUE).clusters[0].cluster_id
    put = shop.stores.cluster_names.put

    def and_gone(*args):
        put(*args)
        shop.stores.artifacts.remove(shop.stores.artifacts.current(CATALOGUE)["clusters"])

    monkeypatch.setattr(shop.stores.cluster_names, "put", and_gone)
    with pytest.raises(NotFound):
        clusters.rename(CATALOGUE, first, "Boots")
