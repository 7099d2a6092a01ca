"""Every route for every kind of key, and that one catalogue's key learns nothing of another."""

from __future__ import annotations

import base64
import itertools
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from access_world import (
    MINE,
    MY_IDS,
    NOW,
    THEIR_IDS,
    THEIRS,
    Answer,
    Asked,
    Json,
    Shop,
    World,
    open_shop,
)
from lookalike.adapters.memory import MemoryObjectStore
from lookalike.core.ports import Stores
from lookalike.http.openapi import document
from lookalike.services.access import ApiKeys
from lookalike.services.uploads import upload_object_key
from lookalike.settings import Settings
from lookalike.wiring import build_services

EXAMPLES = int(os.environ.get("ACCESS_EXAMPLES", "20"))
"""Random sequences of 15 to 30 requests, each sent to two systems."""


@pytest.fixture
def world(
    fresh_stores: Callable[[], Stores], toy_encoder_of: Any, tmp_path: Path
) -> Callable[[], World]:
    def make() -> World:
        made: World
        stores = replace(
            fresh_stores(),
            images=MemoryObjectStore(lambda: NOW),
            index=MemoryObjectStore(lambda: NOW),
        )
        chosen = Settings(
            require_api_key=True, refresh_s=0, derived_refresh_s=0, cache_dir=str(tmp_path)
        )
        services = build_services(
            chosen, stores, lambda: next(made.ids), lambda: made.now, toy_encoder_of
        )
        made = World(services, iter(()))
        return made

    return make


# What to ask each route of a shop, and how a key of another catalogue is answered: None where no
# catalogue is named, so that the answer is of its own.
ROUTES: dict[tuple[str, str], tuple[Callable[[Shop], Asked], int | None]] = {
    ("POST", "/search"): (
        lambda shop: Asked(
            "POST",
            "/search",
            query={"catalogue": shop.catalogue},
            body={"product_id": shop.products[0]},
        ),
        403,
    ),
    ("GET", "/products/{product_id}/similar"): (
        lambda shop: Asked(
            "GET",
            "/products/{product_id}/similar",
            {"product_id": shop.products[0]},
            {"catalogue": shop.catalogue},
        ),
        403,
    ),
    ("POST", "/uploads"): (lambda shop: Asked("POST", "/uploads"), None),
    ("GET", "/explanations/{query_id}/{product_id}"): (
        lambda shop: Asked(
            "GET",
            "/explanations/{query_id}/{product_id}",
            {"query_id": shop.query_id, "product_id": shop.products[1]},
        ),
        404,
    ),
    ("GET", "/explanations/{query_id}/{product_id}/{picture}"): (
        lambda shop: Asked(
            "GET",
            "/explanations/{query_id}/{product_id}/{picture}",
            {"query_id": shop.query_id, "product_id": shop.products[1], "picture": "query.png"},
        ),
        404,
    ),
    ("GET", "/products"): (
        lambda shop: Asked("GET", "/products", query={"catalogue": shop.catalogue}),
        403,
    ),
    ("GET", "/products/{product_id}"): (
        lambda shop: Asked(
            "GET",
            "/products/{product_id}",
            {"product_id": shop.products[0]},
            {"catalogue": shop.catalogue},
        ),
        403,
    ),
    ("DELETE", "/products/{product_id}"): (
        lambda shop: Asked(
            "DELETE",
            "/products/{product_id}",
            {"product_id": shop.products[3]},
            {"catalogue": shop.catalogue},
        ),
        403,
    ),
    ("POST", "/feedback"): (
        lambda shop: Asked(
            "POST",
            "/feedback",
            body={
                "query_id": shop.query_id,
                "product_id": shop.products[0],
                "event": "click",
                "rank": 1,
            },
        ),
        404,
    ),
    ("GET", "/clusters"): (
        lambda shop: Asked("GET", "/clusters", query={"catalogue": shop.catalogue}),
        403,
    ),
    ("GET", "/findings"): (
        lambda shop: Asked("GET", "/findings", query={"catalogue": shop.catalogue}),
        403,
    ),
    ("PATCH", "/clusters/{cluster_id}"): (
        lambda shop: Asked(
            "PATCH",
            "/clusters/{cluster_id}",
            {"cluster_id": "c1"},
            {"catalogue": shop.catalogue},
            {"name": "Mine"},
        ),
        403,
    ),
    ("GET", "/stats"): (lambda shop: Asked("GET", "/stats"), None),
    ("GET", "/health"): (lambda shop: Asked("GET", "/health"), None),
    ("GET", "/openapi.json"): (lambda shop: Asked("GET", "/openapi.json"), None),
    ("GET", "/docs"): (lambda shop: Asked("GET", "/docs"), None),
    ("GET", "/"): (lambda shop: Asked("GET", "/"), None),
}
OPERATIONS = {
    (method.upper(), path): operation
    for path, methods in document()["paths"].items()
    for method, operation in methods.items()
}
OPEN = {("GET", path) for path in ("/health", "/openapi.json", "/docs", "/")}
WRITING = {("DELETE", "/products/{product_id}"), ("PATCH", "/clusters/{cluster_id}")}


def test_every_route_has_a_rule_and_says_it() -> None:
    assert set(ROUTES) == set(OPERATIONS)
    assert document()["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"
    for route, operation in OPERATIONS.items():
        assert operation["security"] == ([] if route in OPEN else [{"apiKey": []}])
        assert ({"401", "403", "429"} <= set(operation["responses"])) == (route not in OPEN)


def kinds(world: World) -> dict[str, str | None]:
    """Keys of every kind for requests about the catalogue `MINE`."""
    valid = world.key(MINE)
    revoked = world.key(MINE, write=True)
    ApiKeys(world.stores.api_keys, lambda: world.now).revoke(revoked.split("_")[1])
    spent = world.key(MINE, write=True, rate=1)
    assert world.ask(Asked("GET", "/stats"), spent).status == 200
    return {
        "none": None,
        "nonsense": "nonsense",
        "unknown": f"lk_{'0' * 12}_{'A' * 43}",
        "wrong secret": valid[:-43] + "A" * 43,
        "revoked": revoked,
        "expired": world.key(MINE, write=True, expires_in_s=0),
        "spent": spent,
        "reader": valid,
        "writer": world.key(MINE, write=True),
        "reader of all": world.key(),
        "writer of all": world.key(write=True),
        "writer of two": world.key("third", MINE, write=True),
        "reader of another": world.key(THEIRS),
        "writer of another": world.key(THEIRS, write=True),
        "writer of none": world.key("third", write=True),
    }


def expected(route: tuple[str, str], kind: str) -> int:
    """The one answer that is right."""
    (success,) = [int(status) for status in OPERATIONS[route]["responses"] if int(status) < 303]
    if route in OPEN:
        return success
    if kind in {"none", "nonsense", "unknown", "wrong secret", "revoked", "expired"}:
        return 401
    if kind == "spent":
        return 429
    if route in WRITING and kind.startswith("reader"):
        return 403
    foreign = ROUTES[route][1]
    if foreign is not None and kind.endswith((" another", " none")):
        return foreign
    return success


@pytest.mark.parametrize("route", OPERATIONS, ids=" ".join)
def test_every_route_with_every_kind_of_key(
    route: tuple[str, str], world: Callable[[], World], photo: Any
) -> None:
    place = world()
    shop = open_shop(place, MINE, MY_IDS, photo, 1)
    place.services.recluster.run(float("inf"), MINE, now=True)
    for kind, key in kinds(place).items():
        answer = place.ask(ROUTES[route][0](shop), key)
        wanted = expected(route, kind)
        if kind != "writer" and route in WRITING and wanted == 204:
            wanted = 404  # deleted by the writer
        assert answer.status == wanted, (kind, answer.body)
        assert answer.headers["access-control-allow-origin"] == "*"
        if answer.status < 400:
            continue
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json["status"] == wanted
        assert ("www-authenticate" in answer.headers) == (wanted == 401)
        if wanted == 429:
            assert answer.headers["retry-after"] == "60"
            assert answer.json["type"] == "urn:lookalike:problem:throttled"


def test_a_method_that_is_not_there_needs_no_key(world: Callable[[], World]) -> None:
    assert world().ask(Asked("PUT", "/search"), None).status == 405


def test_where_no_key_is_needed_everybody_sees_all(
    world: Callable[[], World], photo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = world()
    shops = [
        open_shop(place, MINE, MY_IDS, photo, 1),
        open_shop(place, THEIRS, THEIR_IDS, photo, 50),
    ]
    place.ids = iter(MY_IDS[100:])
    place.services.access._required = False
    for shop, key in itertools.product(shops, (None, "nonsense")):
        for route, (asked, _) in ROUTES.items():
            if route not in WRITING:
                assert place.ask(asked(shop), key).status < 400


def test_counts_are_the_callers_own(world: Callable[[], World], photo: Any) -> None:
    place = world()
    mine = open_shop(place, MINE, MY_IDS, photo, 1)
    theirs = open_shop(place, THEIRS, THEIR_IDS, photo, 50)

    def seen(key: str) -> list[str]:
        stats = place.ask(Asked("GET", "/stats"), key).json
        return [item["catalogue"] for item in stats["catalogues"]]

    assert (seen(mine.key), seen(theirs.key)) == ([MINE], [THEIRS])
    assert seen(place.key()) == [MINE, THEIRS]
    assert "catalogues" not in place.ask(Asked("GET", "/health"), None).json


def test_an_upload_is_for_the_key_that_asked_for_it(world: Callable[[], World], photo: Any) -> None:
    place = world()
    shop = open_shop(place, MINE, MY_IDS, photo, 1)
    key_id = shop.key.split("_")[1]
    form = place.ask(Asked("POST", "/uploads"), shop.key).json
    assert form["fields"]["key"] == f"uploads/{key_id}/{form['upload_key']}"
    search = Asked(
        "POST", "/search", query={"catalogue": MINE}, body={"upload_key": shop.upload_key}
    )
    assert place.ask(search, shop.key).status == 200
    for other in (place.key(MINE), place.key()):
        assert place.ask(search, other).status == 404
    named = replace(search, body={"upload_key": f"{key_id}/{shop.upload_key}"})
    assert place.ask(named, place.key(MINE)).status == 404
    assert upload_object_key(shop.upload_key) == f"uploads/{shop.upload_key}"  # where keys are off


# One catalogue's key must get the same answers whether or not the other catalogue is there.

CATALOGUES = st.sampled_from([*[MINE] * 6, THEIRS, "default", "nobody", f"{THEIRS}/x"])
PRODUCTS = st.sampled_from(
    [f"{MINE}-p0", f"{MINE}-p1", f"{THEIRS}-p0", f"{THEIRS}-p1", THEIRS, f"../{THEIRS}/{THEIRS}-p0"]
)
CURSORS = [
    base64.urlsafe_b64encode(text.encode()).decode()
    for text in (f"{MINE}-p1", f"{THEIRS}-p1", f"{THEIRS}/{THEIRS}-p0/front.jpg", "", "\uffff")
]
PICTURES = st.sampled_from(["query.png", "result.png", "pair.webp"])
QUERY_IDS = st.sampled_from([MY_IDS[0], THEIR_IDS[0], MY_IDS[-1]])
UPLOADS = st.sampled_from(
    [MY_IDS[1], THEIR_IDS[1], THEIR_IDS[1], f"{THEIRS}/{THEIR_IDS[1]}", f"../{THEIR_IDS[1]}"]
)
SHORT = st.fixed_dictionaries({}, optional={"k": st.sampled_from(["1", "9"])})


def asked_of_products(method: str, resource: str, query: st.SearchStrategy[Json]) -> Any:
    return st.builds(
        lambda product, catalogue, query: Asked(
            method, resource, {"product_id": product}, {"catalogue": catalogue, **query}
        ),
        PRODUCTS,
        CATALOGUES,
        query,
    )


BODIES = st.one_of(
    st.fixed_dictionaries(
        {"product_id": PRODUCTS}, optional={"not_like": st.lists(PRODUCTS, max_size=2)}
    ),
    st.fixed_dictionaries({"query_id": QUERY_IDS}, optional={"cells": st.just([[1, 1], [2, 1]])}),
    st.fixed_dictionaries({"upload_key": UPLOADS}),
    st.fixed_dictionaries({"product_id": PRODUCTS, "query_id": QUERY_IDS}),
)
REQUESTS = st.one_of(
    st.builds(
        lambda body, catalogue, query: Asked(
            "POST", "/search", query={"catalogue": catalogue, **query}, body=body
        ),
        BODIES,
        CATALOGUES,
        SHORT,
    ),
    asked_of_products("GET", "/products/{product_id}/similar", SHORT),
    asked_of_products("GET", "/products/{product_id}", st.just({})),
    asked_of_products("DELETE", "/products/{product_id}", st.just({})),
    st.builds(
        lambda catalogue, query: Asked("GET", "/products", query={"catalogue": catalogue, **query}),
        CATALOGUES,
        st.fixed_dictionaries(
            {},
            optional={
                "cursor": st.sampled_from(CURSORS),
                "limit": st.sampled_from(["1", "100"]),
                "status": st.sampled_from(["live", "failed"]),
            },
        ),
    ),
    st.builds(
        lambda query_id, product: Asked(
            "GET",
            "/explanations/{query_id}/{product_id}",
            {"query_id": query_id, "product_id": product},
        ),
        QUERY_IDS,
        PRODUCTS,
    ),
    st.builds(
        lambda query_id, product, picture: Asked(
            "GET",
            "/explanations/{query_id}/{product_id}/{picture}",
            {"query_id": query_id, "product_id": product, "picture": picture},
        ),
        QUERY_IDS,
        PRODUCTS,
        PICTURES,
    ),
    st.sampled_from([Asked("GET", "/stats"), Asked("POST", "/uploads"), Asked("GET", "/health")]),
)


def without_times(answer: Answer) -> tuple[int, dict[str, str], Any]:
    if answer.headers.get("content-type") != "application/json":
        return answer.status, answer.headers, answer.body
    body = answer.json
    for name in ("took_ms",):
        body.pop(name, None)
    return answer.status, answer.headers, body


def holdings(world: World, catalogue: str) -> Any:
    """Everything of a catalogue that a request could change."""
    products, _ = world.stores.products.page(catalogue, 100)
    failures, _ = world.stores.failures.page(catalogue, 100)
    counts = world.stores.counts.all()[catalogue]
    objects = [info.etag for info in world.stores.images.list(f"{catalogue}/")]
    return products, failures, counts, objects


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(asked=st.lists(REQUESTS, min_size=15, max_size=30))
def test_a_key_learns_nothing_of_another_catalogue(
    asked: list[Asked], world: Callable[[], World], photo: Any
) -> None:
    shared, alone = world(), world()
    open_shop(shared, THEIRS, THEIR_IDS, photo, 50)
    mine = [open_shop(place, MINE, MY_IDS, photo, 1) for place in (shared, alone)]
    before = holdings(shared, THEIRS)
    for request in asked:
        there, here = (
            without_times(place.ask(request, shop.key))
            for place, shop in zip((shared, alone), mine, strict=True)
        )
        own = [shop.key.split("_")[1] for shop in mine]
        assert json.loads(json.dumps(there, default=repr).replace(own[0], own[1])) == json.loads(
            json.dumps(here, default=repr)
        ), request
    assert holdings(shared, THEIRS) == before
