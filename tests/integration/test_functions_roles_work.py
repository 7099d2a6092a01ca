"""Every AWS call of scheduled work is one that its function's role allows, and no less."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from chalicelib.compact import compact
from chalicelib.health import health
from chalicelib.project import project
from chalicelib.recluster import recluster
from chalicelib.reindex import reindex
from chalicelib.rollup import rollup
from infra.build import build_template
from lookalike import wiring
from lookalike.core.errors import Unavailable
from lookalike.core.rollups import RollupState, last_to_purge
from lookalike.core.search_hours import HOUR_S, hour_of, shard_of
from lookalike.services import rollup as rollup_module
from roles_world import (
    Cloud,
    await_logged,
    by_hand,
    embed_now,
    forget_services,
    http,
    make_small,
    open_cloud,
)

DAY_S = 86_400.0
FUNCTIONS = {
    "ReclusterRole": recluster,
    "ProjectRole": project,
    "HealthRole": health,
    "RollupRole": rollup,
}


@dataclass
class Shop:
    """A catalogue of 24 products; ``calls`` are what each function asked for, by its role."""

    cloud: Cloud
    photo: Any
    calls: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def add(self, *numbers: int) -> None:
        bucket = self.cloud.resolve.name("ImagesBucket")
        keys = [f"shop/p{number}.jpg" for number in numbers]
        for number, key in zip(numbers, keys, strict=True):
            category = {"category": ("boot", "hat")[number % 2]}
            body = self.photo(number)
            boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=body, Metadata=category)
        for start in range(0, len(keys), 10):
            embed_now(*keys[start : start + 10])

    def empty(self) -> None:
        s3, bucket = boto3.client("s3"), self.cloud.resolve.name("ImagesBucket")
        keys = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]]
        for key in keys:
            s3.delete_object(Bucket=bucket, Key=key)
        for start in range(0, len(keys), 10):
            embed_now(*keys[start : start + 10])

    def work_to_the_end(self, role: str) -> None:
        """What was current before the last goes at the next, and all of it with the products."""
        assert finished(self.work(role, now=True))
        assert finished(self.work(role, now=True))
        assert finished(self.work(role))
        self.empty()
        self.work(role, now=True)

    def work(self, role: str, **detail: object) -> Any:
        """Run a function as another process would, which has read nothing yet."""
        forget_services()
        self.cloud.calls.clear()
        report = by_hand(FUNCTIONS[role], **detail)
        self.calls.setdefault(role, []).extend(self.cloud.calls)
        return report

    def search_and_click(self, product_id: str = "p3") -> str:
        shop = {"catalogue": ["shop"]}
        found = json.loads(http("POST", "/search", shop, json.dumps({"product_id": product_id})))
        said = {"query_id": found["query_id"], "event": "click", "rank": 1}
        said["product_id"] = found["results"][0]["product_id"]
        query_id: str = found["query_id"]
        await_logged(query_id)
        http("POST", "/feedback", {}, json.dumps(said))
        return query_id

    def check(self, role: str) -> None:
        self.cloud.calls = self.calls[role]
        self.cloud.check(role)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    built = build_template(tmp_path_factory.mktemp("template"))
    document: dict[str, Any] = json.loads(built.read_text(encoding="utf-8"))
    return document


@pytest.fixture
def shop(
    template: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photo: Any
) -> Iterator[Shop]:
    with open_cloud(template, tmp_path, monkeypatch) as cloud:
        make_small(monkeypatch, QUIET_S=0, GRACE_S=0, MAP_METHOD="pca")
        made = Shop(cloud, photo)
        made.add(*range(24))
        yield made


def finished(report: Any) -> bool:
    """Whether all was done, and came to something."""
    return report["finished"] and all(item["summary"] for item in report["catalogues"])


def test_clusters_and_calibrations(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch, MERGE_SEGMENTS=1, BASE_ROWS=2, HEAD_ROWS=4)
    by_hand(reindex)
    by_hand(compact)
    # So few rows would be searched by themselves, without the index.
    monkeypatch.setattr("lookalike.services.calibrate_sample.SAMPLE_ROWS", 12)
    assert finished(shop.work("ReclusterRole"))
    shop.search_and_click()
    by_hand(rollup)
    shop.add(30, 31)  # they join a cluster; then both are made anew, out of other products
    assert finished(shop.work("ReclusterRole"))
    shop.work_to_the_end("ReclusterRole")
    shop.check("ReclusterRole")


def test_maps(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch, HEAD_ROWS=4)
    by_hand(reindex)
    by_hand(recluster, job="recluster")
    assert finished(shop.work("ProjectRole"))
    shop.add(30)  # it is placed; then the map is made anew
    assert finished(shop.work("ProjectRole"))
    shop.work_to_the_end("ProjectRole")
    shop.check("ProjectRole")


def test_health(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch, HEAD_ROWS=4)
    by_hand(reindex)
    by_hand(recluster, job="recluster")
    shop.search_and_click()
    by_hand(rollup)
    assert finished(shop.work("HealthRole"))
    shop.add(30)
    shop.work_to_the_end("HealthRole")
    shop.check("HealthRole")


def dying(*arguments: Any) -> Iterator[tuple[int, str]]:
    """Reading an hour, until something does not answer."""
    for place in READ_HOUR(*arguments):
        yield place
        raise Unavailable("the table does not answer")


READ_HOUR = rollup_module.read_hour


def test_roll_ups(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    by_hand(recluster, job="recluster")
    query_id = shop.search_and_click()
    stores, now = wiring.services().stores, time.time()
    # Entries of an hour that has long expired, and one that nothing more is written to.
    record = stores.log.get(query_id, now)
    ((entry,), _) = stores.feedback.page(hour_of(query_id), shard_of(query_id), "", 10, now)
    retention_s = wiring.services().settings.search_retention_days * DAY_S
    expired = last_to_purge(retention_s, now)
    at = ulid_at(expired * HOUR_S)
    assert record is not None
    stores.log.write(replace(record, query_id=at))
    stores.feedback.put(replace(entry, query_id=at))
    stores.rollups.put_state(RollupState(purged=expired))
    stores.rollups.touch(hour_of(query_id) - 1, now - HOUR_S)

    monkeypatch.setattr(rollup_module, "SAVE_EVERY_S", -1.0)
    monkeypatch.setattr("lookalike.services.rollup_sums._GRACE_S", -1.0)
    with monkeypatch.context() as patch:
        patch.setattr(rollup_module, "read_hour", dying)
        assert shop.work("RollupRole")["postponed"]
    assert finished(shop.work("RollupRole"))
    for number in (30, 31):  # others are shown, and what was current before the last goes
        shop.add(number)
        shop.search_and_click(f"p{number}")
        assert finished(shop.work("RollupRole", now=True))
    shop.check("RollupRole")


def ulid_at(epoch_s: float) -> str:
    from ulid import ULID

    return str(ULID.from_timestamp(epoch_s + 1.0))
