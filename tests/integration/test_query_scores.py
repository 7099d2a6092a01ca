"""What searches say of their scores and clusters: verdict, match, cluster, and what is logged."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from calibrated_shop import CATEGORIES, Hand, Shop, draw, foreign
from lookalike.core.errors import Unavailable
from lookalike.core.filters import parse_filter
from lookalike.core.search_index import SearchIndex
from lookalike.services import judge as module
from lookalike.services.judge import read_calibration
from lookalike.services.search_request import QueryInput, SearchRequest
from lookalike.settings import Settings
from lookalike.wiring import build_services

ENCODER = "efficientnet-lite0"
SPREAD = 8.0


@pytest.fixture
def shop(memory_stores, ids, toy_encoder_of, tmp_path) -> Shop:
    """40 calibrated products, in a base."""
    clock = Hand()
    settings = Settings(
        encoder=ENCODER,
        refresh_s=0,
        derived_refresh_s=0,
        head_rows=0,
        merge_segments=2,
        base_rows=20,
        cache_dir=str(tmp_path),
    )

    def make():
        return build_services(settings, memory_stores, ids, clock, toy_encoder_of)

    shop = Shop(memory_stores, make, clock, ids)
    shop.stock(10, spread=SPREAD)
    for _ in range(3):
        shop.clock.now += 2_000
        assert shop.services.compaction.run(float("inf")).finished
    shop.stock(20, spread=SPREAD)
    shop.calibrate()
    shop.services = shop.make()
    return shop


def logged(shop: Shop, response, eventually):
    def entry():
        found = shop.stores.log.recent(100, shop.clock.now)
        return next((item for item in found if item.query_id == response.query_id), None)

    return eventually(entry)


def test_a_photo_of_what_is_sold_matches(shop, eventually) -> None:
    response = shop.search(draw(1, 500, SPREAD))
    assert response.verdict == "match"
    matches = [item.match for item in response.results]
    assert matches == sorted(matches, reverse=True) and matches[0] > 0.5
    fitted = read_calibration(
        shop.stores.index, shop.stores.artifacts.current("shop")["calibration"]
    )
    scores = [item.score for item in response.results]
    assert matches == pytest.approx(fitted.score_map.match(scores), abs=1e-3)
    record = logged(shop, response, eventually)
    assert (record.verdict, record.match) == ("match", matches[0])


def test_a_foreign_photo_is_told_and_its_scores_say_nothing(shop, eventually) -> None:
    response = shop.search(foreign(0))
    assert response.verdict == "no_good_match"
    assert len(response.results) == 10
    assert {item.match for item in response.results} == {None}
    record = logged(shop, response, eventually)
    assert (record.verdict, record.match) == ("no_good_match", None)


def test_a_weak_best_result_is_of_low_confidence(shop) -> None:
    nothing = shop.search(draw(1, 500, SPREAD), filter=parse_filter({"category": "none"}))
    assert (nothing.verdict, nothing.results) == ("low_confidence", [])
    weak = shop.search(draw(1, 500, SPREAD), filter=parse_filter({"category": "hats"}))
    others = shop.search(
        draw(1, 500, SPREAD), filter=parse_filter({"not": {"category": CATEGORIES[1]}})
    )
    assert (weak.verdict, others.verdict) == ("match", "low_confidence")
    assert others.results[0].match < 0.5


def test_stored_products_are_never_foreign_and_a_photo_beside_them_neither(shop) -> None:
    request = SearchRequest("shop", (QueryInput(product_id="hats-1"),))
    assert shop.services.query.search(request).verdict == "match"
    both = replace(request, inputs=(*request.inputs, QueryInput(image=foreign(0))))
    assert shop.services.query.search(both).verdict != "no_good_match"
    photos = (QueryInput(image=foreign(0)), QueryInput(image=foreign(1)))
    verdicts = {
        shop.services.query.search(SearchRequest("shop", inputs)).verdict
        for inputs in (photos, (*photos, QueryInput(product_id="hats-1", weight=0)))
    }
    assert verdicts == {"no_good_match"}
    one_of_two = (QueryInput(image=foreign(0)), QueryInput(image=draw(0, 500, SPREAD)))
    found = shop.services.query.search(SearchRequest("shop", one_of_two))
    assert found.verdict != "no_good_match"


def test_a_search_repeated_is_judged_as_before_and_a_few_cells_of_it_are_not(shop) -> None:
    first = shop.search(foreign(0))
    again = SearchRequest("shop", (QueryInput(query_id=first.query_id),))
    assert shop.services.query.search(again).verdict == "no_good_match"
    cells = SearchRequest("shop", (QueryInput(query_id=first.query_id, cells=((3, 3), (3, 4))),))
    assert shop.services.query.search(cells).verdict in {"match", "low_confidence"}


def test_every_result_has_the_cluster_of_its_row_at_once(shop, eventually) -> None:
    shop.recluster(4)
    shop.services = shop.make()
    shop.upload({"shop/new.png": draw(2, 900, SPREAD)}, category="mugs")
    response = shop.search(draw(2, 901, SPREAD), k=100)
    assert len(response.results) == 81
    of_category: dict[str, set[str]] = {}
    for item in response.results:
        of_category.setdefault(item.category, set()).add(item.cluster)
    assert all(len(found) == 1 for found in of_category.values())
    assert len(set().union(*of_category.values())) == 4
    assert (
        next(item for item in response.results if item.product_id == "new").cluster
        in (of_category["mugs"])
    )
    assert logged(shop, response, eventually).cluster in of_category["mugs"]
    clusters = shop.services.catalogue._clusters.list("shop").clusters
    assert set().union(*of_category.values()) == {item.cluster_id for item in clusters}


def test_candidates_have_the_embedding_that_the_index_has(shop) -> None:
    lineage = shop.stores.lineages.get("shop")
    index: SearchIndex = shop.services.query._live_index.get(lineage.current)
    assert any(shard.base for shard in index.shards) and len(index.appended)
    query = index.embedding("shop/hats-3.png", _version(shop, "hats-3"))
    found = index.search(query, 100, nprobe=10)
    assert len({item.key for item in found}) == 80
    for item in found:
        assert item.embedding.dtype == np.float32
        assert item.score == pytest.approx(float(item.embedding @ query), abs=1e-5)
        assert item.embedding == pytest.approx(index.embedding(item.key, item.version), abs=1e-6)


def _version(shop: Shop, product_id: str) -> str:
    (view,) = shop.stores.products.get_many([("shop", product_id)])[
        ("shop", product_id)
    ].views.values()
    return view.version


@pytest.mark.parametrize("broken", ["table", "gone", "damaged"])
def test_what_cannot_be_read_is_unknown_and_no_error(shop, broken, monkeypatch, caplog) -> None:
    artifact = shop.stores.artifacts.current("shop")["calibration"]
    if broken == "table":
        monkeypatch.setattr(shop.stores.artifacts, "current", _unavailable)
    elif broken == "gone":
        shop.stores.index.delete(artifact.key)
    else:
        shop.stores.index.put(artifact.key, b"LKCA", "")
    response = shop.make().query.search(SearchRequest("shop", (QueryInput(image=draw(0, 1)),)))
    assert response.verdict is None and len(response.results) == 10
    assert "no new calibration of “shop”" in caplog.text


def _unavailable(catalogue: str):
    raise Unavailable("the table does not answer")


def test_what_was_read_once_stays_while_the_table_is_away(shop, monkeypatch) -> None:
    photo = draw(1, 500, SPREAD)
    assert shop.search(photo).verdict == "match"
    monkeypatch.setattr(shop.stores.artifacts, "current", _unavailable)
    for _ in range(3):
        shop.clock.now += 10
        assert shop.search(photo).verdict == "match"


def test_no_search_waits_long_for_the_first_read(shop, monkeypatch) -> None:
    held = threading.Event()
    read = shop.stores.index.get

    def slow(key: str, *args):
        if key.startswith("derived/calibration/"):
            assert held.wait(20)
        return read(key, *args)

    monkeypatch.setattr(shop.stores.index, "get", slow)
    monkeypatch.setattr(module, "FIRST_READ_S", 0.05)
    services = shop.make()
    request = SearchRequest("shop", (QueryInput(image=draw(1, 500, SPREAD)),))
    assert services.query.search(request).verdict is None
    held.set()
    lineage = shop.stores.lineages.get("shop")
    services.query._judge._reading["shop"].result(20)
    assert services.query._judge.calibration(lineage.current, "") is not None
    assert services.query.search(request).verdict == "match"


def test_an_index_of_nothing_is_judged_without_a_head(shop) -> None:
    for number in range(20):
        for category in CATEGORIES:
            shop.services.catalogue.delete("shop", f"{category}-{number}")
    response = shop.search(draw(1, 500, SPREAD))
    assert response.results == []
    assert response.verdict == "low_confidence"


@pytest.mark.parametrize("error", [ValueError("a record of newer code"), KeyError("key")])
def test_whatever_goes_wrong_searches_do_without(shop, error, monkeypatch, caplog) -> None:
    def current(catalogue: str):
        raise error

    photo = draw(1, 500, SPREAD)
    assert shop.search(photo).verdict == "match"
    monkeypatch.setattr(shop.stores.artifacts, "current", current)
    for services, verdict in ((shop.services, "match"), (shop.make(), None)):
        shop.clock.now += 10
        request = SearchRequest("shop", (QueryInput(image=photo),))
        found = services.query.search(request)
        assert (found.verdict, len(found.results)) == (verdict, 10)
    assert type(error) in {item.exc_info[0] for item in caplog.records if item.exc_info}


def test_calibration_and_clusters_share_one_wait_and_later_searches_have_none(
    shop, monkeypatch
) -> None:
    held = threading.Event()

    def hangs(catalogue: str):
        assert held.wait(20)
        raise Unavailable("no answer")

    monkeypatch.setattr(shop.stores.artifacts, "current", hangs)
    monkeypatch.setattr(module, "FIRST_READ_S", 0.3)
    services = shop.make()
    request = SearchRequest("shop", (QueryInput(image=draw(1, 500, SPREAD)),))
    first, second = (services.query.search(request).took_ms["judge"] for _ in range(2))
    held.set()
    assert 250 < first < 500 and second < 150
