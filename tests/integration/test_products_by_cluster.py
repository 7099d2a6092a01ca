"""Clusters over HTTP: their list, their products page by page, their names."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from calibrated_shop import Hand, Shop, draw
from chalicelib import catalogue as products_route
from chalicelib import clusters as clusters_route
from lookalike import wiring
from lookalike.core.access import ANYBODY, Caller
from lookalike.core.errors import Forbidden, InvalidRequest, NotFound, Reject
from lookalike.http.message import HttpRequest
from lookalike.settings import Settings
from lookalike.wiring import build_services

ENCODER = "efficientnet-lite0"


@pytest.fixture
def shop(memory_stores, ids, toy_encoder_of, tmp_path, monkeypatch) -> Shop:
    clock = Hand()
    settings = Settings(
        encoder=ENCODER, refresh_s=0, derived_refresh_s=0, head_rows=0, cache_dir=str(tmp_path)
    )

    def make():
        return build_services(settings, memory_stores, ids, clock, toy_encoder_of)

    shop = Shop(memory_stores, make, clock, ids)
    shop.stock(8, spread=8.0)
    shop.recluster(4)
    clusters = shop.services.catalogue._clusters
    services = SimpleNamespace(catalogue=shop.services.catalogue, clusters=clusters)
    monkeypatch.setattr(wiring, "services", lambda: services)
    return shop


def ask(view: Callable[..., Any], **fields: Any) -> Any:
    """Call a route's view as `chalicelib.api` does."""
    query = {name: [str(value)] for name, value in fields.pop("query", {}).items()}
    query.setdefault("catalogue", ["shop"])
    return view(HttpRequest(query=query, **fields))


def of_cluster(cluster_id: str, limit: int = 3) -> list[str]:
    """Ids of a cluster's products, all pages."""
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = ask(products_route.products, query={"cluster": cluster_id, "limit": limit} | cursor)
        found += [item.product_id for item in page.products]
        if page.cursor is None:
            return found
        cursor = {"cursor": page.cursor}


def test_every_product_is_on_the_pages_of_one_cluster(shop) -> None:
    listed = ask(clusters_route.clusters)
    assert [item.size for item in listed.clusters] == [8] * 4
    pages = {item.cluster_id: of_cluster(item.cluster_id) for item in listed.clusters}
    everything = [product_id for ids in pages.values() for product_id in ids]
    assert len(everything) == len(set(everything)) == 32
    for ids in pages.values():
        assert ids == sorted(ids)
        assert len({item.split("-")[0] for item in ids}) == 1
    # A search says the same.
    for result in shop.search(draw(0, 1, 8.0), k=100).results:
        assert result.product_id in pages[result.cluster]


def test_products_that_have_left_are_not_listed(shop) -> None:
    (cluster_id,) = {
        item.cluster
        for item in shop.search(draw(1, 1, 8.0), k=100).results
        if item.category == "hats"
    }
    shop.services.catalogue.delete("shop", "hats-3")
    assert of_cluster(cluster_id) == [f"hats-{number}" for number in range(8) if number != 3]


def test_a_name_is_given_kept_and_taken_back(shop) -> None:
    (first, *_) = ask(clusters_route.clusters).clusters

    def rename(name: object, cluster_id: str = first.cluster_id) -> Any:
        return ask(
            clusters_route.rename,
            path_parameters={"cluster_id": cluster_id},
            body=json.dumps({"name": name}).encode(),
            content_type="application/json",
        )

    assert rename("Warm “things” 👟").name == "Warm “things” 👟"
    shop.recluster(4)
    (again,) = (
        item
        for item in ask(clusters_route.clusters).clusters
        if item.cluster_id == first.cluster_id
    )
    assert (again.name, again.given) == ("Warm “things” 👟", True)
    assert (rename(None).name, rename(None).given) == (first.name, False)
    for name in ("", "x" * 81, "a\nb", 7):
        with pytest.raises(InvalidRequest) as error:
            rename(name)
        assert error.value.parameter == "name"
    with pytest.raises(NotFound):
        rename("x", "c99")


@pytest.mark.parametrize(
    ("query", "expected", "parameter"),
    [
        ({"cluster": "c99"}, NotFound, "cluster"),
        ({"cluster": "c1", "catalogue": "nowhere"}, NotFound, "catalogue"),
        ({"cluster": "c1", "status": "failed"}, InvalidRequest, "cluster"),
        ({"cluster": "c1", "cursor": "?"}, InvalidRequest, "cursor"),
        ({"cluster": "x" * 65}, InvalidRequest, "cluster"),
    ],
)
def test_what_is_not_there_is_said(
    shop, query: dict[str, str], expected: type[Reject], parameter: str
) -> None:
    with pytest.raises(expected) as error:
        ask(products_route.products, query=query)
    assert error.value.parameter == parameter


def test_keys_open_the_clusters_of_their_catalogues_alone(shop) -> None:
    stranger = Caller("key", frozenset({"other"}))
    assert ANYBODY.sees("shop") and not stranger.sees("shop")
    views: list[tuple[Callable[..., Any], dict[str, Any]]] = [
        (clusters_route.clusters, {}),
        (products_route.products, {"query": {"cluster": "c1"}}),
        (
            clusters_route.rename,
            {
                "path_parameters": {"cluster_id": "c1"},
                "body": b'{"name": "x"}',
                "content_type": "application/json",
            },
        ),
    ]
    for view, fields in views:
        with pytest.raises(Forbidden):
            ask(view, caller=stranger, **fields)
