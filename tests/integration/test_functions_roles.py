"""Every AWS call that a function makes is one that its role in the template allows, and no less."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from chalicelib.compact import compact
from chalicelib.health import health
from chalicelib.recluster import recluster
from chalicelib.reindex import reindex
from chalicelib.sweep import sweep
from infra.build import build_template
from lookalike import wiring
from roles_world import (
    EVENTS,
    NEEDED_BESIDE,
    Cloud,
    Resolver,
    await_logged,
    by_hand,
    embed_now,
    embed_what_is_queued,
    empty,
    folder_of,
    http,
    make_small,
    open_cloud,
    throttled,
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    built = build_template(tmp_path_factory.mktemp("template"))
    document: dict[str, Any] = json.loads(built.read_text(encoding="utf-8"))
    return document


@pytest.fixture
def cloud(
    template: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cloud]:
    with open_cloud(template, tmp_path, monkeypatch) as found:
        yield found


@pytest.mark.parametrize("role", NEEDED_BESIDE)
def test_a_call_too_many_and_an_action_too_many_are_both_found(
    template: dict[str, Any], role: str
) -> None:
    cloud = Cloud(Resolver(template))
    every = [(action, pattern.replace("*", "x")) for action, pattern in cloud.allowed(role)]
    cloud.calls = list(every)
    cloud.check(role)
    cloud.calls = [*every, ("dynamodb:Scan", cloud.resolve.arn("ProductsTable"))]
    with pytest.raises(AssertionError, match="does not allow dynamodb:Scan"):
        cloud.check(role)
    found = 0
    for left_out in every:
        cloud.calls = [call for call in every if call != left_out]
        try:
            cloud.check(role)
        except AssertionError as error:
            found += "allows what nothing does" in str(error)
    beside = [
        (action, pattern)
        for action, pattern in cloud.allowed(role)
        if {action, f"{action} {folder_of(pattern)}"} & NEEDED_BESIDE[role].keys()
    ]
    assert found == len(every) - len(beside) > 0


def test_no_function_does_more_than_its_role_allows(
    cloud: Cloud, photo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3, shop = boto3.client("s3"), {"catalogue": ["shop"]}
    bucket, index = (cloud.resolve.name(name) for name in ("ImagesBucket", "IndexBucket"))

    # Embed: new, broken, with new metadata (its row is copied, or made of its map), mended, gone,
    # coming again.
    for key, body in {"a.jpg": photo(1), "b.jpg": photo(2), "c.jpg": b"no image"}.items():
        s3.put_object(Bucket=bucket, Key=f"shop/{key}", Body=body)
    embed_now("shop/a.jpg", "shop/b.jpg", "shop/c.jpg")
    s3.put_object(Bucket=bucket, Key="shop/a/product.json", Body=b'{"title": "A"}')
    s3.put_object(Bucket=bucket, Key="shop/c.jpg", Body=photo(3))
    embed_now("shop/a/product.json", "shop/c.jpg")
    empty(cloud, "segments/")
    s3.put_object(Bucket=bucket, Key="shop/a/product.json", Body=b'{"title": "A boot"}')
    embed_now("shop/a/product.json")
    s3.delete_object(Bucket=bucket, Key="shop/c.jpg")
    embed_now("shop/c.jpg", "shop/never.jpg")
    embed_now("shop/a.jpg", receives=2)
    cloud.check("EmbedRole")

    # Sweep: photos of which no event told that they came or went, one whose segment is lost, what
    # was derived of those that are gone; then the registry lets go of the lost segment.
    for folder in ("queries", "explanations", "tried"):
        s3.put_object(Bucket=index, Key=f"{folder}/old", Body=b"old")
    monkeypatch.setenv("LOOKALIKE_QUERY_RETENTION_S", "0")
    monkeypatch.setattr("lookalike.services.sweep.DERIVED_AGE_S", -60.0)
    monkeypatch.setattr("lookalike.services.sweep.NOTE_AGE_S", -60.0)
    wiring.services.cache_clear()
    s3.put_object(Bucket=bucket, Key="shop/d.jpg", Body=photo(4))
    s3.put_object(Bucket=bucket, Key="shop/e.jpg", Body=b"no image")
    s3.put_object(Bucket=bucket, Key="shop/f.jpg", Body=photo(6))
    embed_now("shop/f.jpg")
    s3.delete_object(Bucket=bucket, Key="shop/f.jpg")
    cloud.calls.clear()
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: 300_000)
    report = sweep(json.loads((EVENTS / "schedule.json").read_text()), context)
    deleted = ("queries", "explanations", "thumbnails", "maps")
    assert report["queued"] == 4
    embed_what_is_queued(cloud)
    assert sweep(json.loads((EVENTS / "schedule.json").read_text()), context)["queued"] == 0
    assert [report[f"deleted_{name}"] for name in deleted] == [1, 1, 1, 1]
    cloud.check("SweepRole")
    monkeypatch.delenv("LOOKALIKE_QUERY_RETENTION_S")

    # Query: every route that reaches AWS. The index has a head, a base and a segment; the product
    # to delete has a document that failed.
    make_small(monkeypatch, MERGE_SEGMENTS=1, BASE_ROWS=1, HEAD_ROWS=2)
    assert by_hand(reindex)["catalogues"][0]["phase"] == "kept"
    for function in (recluster, health):
        assert by_hand(function, now=True)["finished"]
    s3.put_object(Bucket=bucket, Key="shop/a/product.json", Body=b"{")
    embed_now("shop/a/product.json")
    s3.put_object(Bucket=bucket, Key="shop/d.jpg", Body=photo(5))
    embed_now("shop/d.jpg")
    services = wiring.services()
    cloud.calls.clear()
    http("POST", "/search", shop, '{"product_id": "a"}')
    form = json.loads(http("POST", "/uploads", {}))
    s3.put_object(Bucket=index, Key=form["fields"]["key"], Body=photo(2))
    search = http("POST", "/search", shop, json.dumps({"upload_key": form["upload_key"]}))
    query_id = json.loads(search)["query_id"]
    http("POST", "/search", shop, json.dumps({"query_id": query_id, "cells": [[3, 3]]}))
    await_logged(query_id)
    product_id = json.loads(search)["results"][0]["product_id"]
    click = {"query_id": query_id, "product_id": product_id, "event": "click", "rank": 1}
    http("POST", "/feedback", {}, json.dumps(click))
    cluster_id = json.loads(http("GET", "/clusters", shop))["clusters"][0]["cluster_id"]
    for name in ("Boots", None):
        body = json.dumps({"name": name})
        http("PATCH", "/clusters/{cluster_id}", shop, body, cluster_id=cluster_id)
    http("GET", "/products", shop | {"cluster": [cluster_id]})
    http("GET", "/findings", shop | {"kind": ["low-quality"]})
    with monkeypatch.context() as patch:  # what a search that fails has kept is taken back
        patch.setattr(services.query, "_result", throttled)
        http("POST", "/search", shop, '{"product_id": "a"}', status=503)
    empty(cloud, "maps/")
    explained = "/explanations/{query_id}/{product_id}"
    http("GET", explained, {}, query_id=query_id)
    http("GET", f"{explained}/{{picture}}", {}, query_id=query_id, picture="pair.png")
    http("GET", "/products/{product_id}/similar", shop)
    http("GET", "/products/{product_id}", shop)
    http("GET", "/products", shop)
    http("GET", "/products", shop | {"status": ["failed"]})
    http("GET", "/stats", {})
    http("GET", "/health", {})
    http("POST", "/uploads", {})
    http("DELETE", "/products/{product_id}", shop)
    http("GET", explained, {}, status=410, query_id=query_id)
    cloud.check("QueryRole")


def test_no_function_that_tends_the_index_does_more_than_its_role_allows(
    cloud: Cloud, photo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small(monkeypatch, MERGE_SEGMENTS=1, BASE_ROWS=2, HEAD_ROWS=4)
    s3, stores = boto3.client("s3"), wiring.services().stores
    bucket, index = (cloud.resolve.name(name) for name in ("ImagesBucket", "IndexBucket"))
    for first in (0, 2, 4):
        keys = [f"shop/p{number}.jpg" for number in (first, first + 1)]
        for number, key in enumerate(keys):
            s3.put_object(Bucket=bucket, Key=key, Body=photo(first + number))
        embed_now(*keys)

    # Reindex: a head, by itself, and photos of a segment that was lost.
    lost = s3.list_objects_v2(Bucket=index, Prefix="segments/")["Contents"][0]["Key"]
    s3.delete_object(Bucket=index, Key=lost)
    cloud.calls.clear()
    assert by_hand(reindex)["catalogues"][0]["phase"] == "kept"
    assert by_hand(reindex, action="rollback", catalogue="shop")["postponed"] == {}
    assert by_hand(reindex, action="rollback", catalogue="shop")["postponed"] == {}
    cloud.check("ReindexRole")

    # Compact: rows of another product, and a file of each kind whose grace is over.
    s3.put_object(Bucket=bucket, Key="shop/q.jpg", Body=photo(7))
    s3.put_object(Bucket=bucket, Key="shop/r.jpg", Body=photo(8))
    embed_now("shop/q.jpg", "shop/r.jpg")
    lineage = stores.lineages.get("shop")
    assert lineage is not None
    _, manifest = stores.registry.read(lineage.current.scope)
    old = dict.fromkeys(("segments/shop/0.seg", "bases/shop/0.base", "heads/shop/0.head"), 1.0)
    stores.registry.put_manifest(replace(manifest, replaced=old))
    wiring.services.cache_clear()  # another process, which has read nothing yet
    cloud.calls.clear()
    report = by_hand(compact, catalogue="shop")
    assert report["finished"] and report["bases"] and report["deleted_objects"] == len(old)
    cloud.check("CompactRole")
