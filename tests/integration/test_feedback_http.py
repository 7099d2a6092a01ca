"""From a search through a click to the figures: as API Gateway calls it, on stores in memory."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from app import app
from lookalike import wiring
from lookalike.adapters.memory import memory_stores_of
from lookalike.services.search_request import QueryInput, SearchRequest
from lookalike.settings import Settings
from lookalike.wiring import build_services
from search_log.simulated import START, ulid

EVENT = Path(__file__).parent.parent / "events" / "api_product_escaped.json"


class World:
    def __init__(self, photo, encoder_of) -> None:
        self.now = START
        rng = random.Random(0)
        self.stores = memory_stores_of(self.clock)
        self.services = build_services(
            Settings(refresh_s=0), self.stores, lambda: ulid(self.now, rng), self.clock, encoder_of
        )
        keys = [f"shop/boot-{number}/front.jpg" for number in range(1, 6)]
        for number, key in enumerate(keys, 1):
            self.stores.images.put_object(key, photo(number), "image/jpeg", {})
        assert self.services.ingest.reconcile(keys) == {}

    def clock(self) -> float:
        return self.now


@pytest.fixture
def world(monkeypatch, photo, toy_encoder_of) -> World:
    world = World(photo, toy_encoder_of)
    monkeypatch.setattr(wiring, "services", lambda: world.services)
    return world


def send(**body: Any) -> dict[str, Any]:
    event = json.loads(EVENT.read_text(encoding="utf-8"))
    event["requestContext"] |= {
        "resourcePath": "/feedback",
        "httpMethod": "POST",
        "path": "/api/feedback",
    }
    event |= {"pathParameters": None, "multiValueQueryStringParameters": None}
    event |= {"body": json.dumps(body), "isBase64Encoded": False}
    event["headers"]["Content-Type"] = "application/json"
    return app(event, None)


def test_a_click_shows_in_the_figures(world, photo, eventually):
    request = SearchRequest("shop", (QueryInput(image=photo(3)),), k=3, explain=False)
    answer = world.services.query.search(request)
    eventually(lambda: world.stores.log.get(answer.query_id, world.now))  # written beside it
    second = answer.results[1].product_id
    said = {"query_id": answer.query_id, "product_id": second, "event": "click", "rank": 2}
    for _ in range(2):
        sent = send(**said)
        assert (sent["statusCode"], sent["body"]) == (204, "")
    for changed, status in (
        ({"rank": 1}, 422),
        ({"product_id": "nobody"}, 422),
        ({"event": "like"}, 422),
        ({"query_id": "0" * 25 + "1"}, 410),
        ({"query_id": ulid(START, random.Random(5))}, 404),
        ({"query_id": "\ud800"}, 400),
    ):
        refused = send(**(said | changed))
        assert refused["statusCode"] == status, refused
        assert json.loads(refused["body"])["status"] == status
    world.now += 200
    assert world.services.rollup.run(world.now + 800, "shop").finished
    (figures,) = world.services.analytics.series("shop", "hour", 0, world.now)
    assert (figures.searches, figures.clicks, figures.mean_click_position) == (1, 1, 2.0)
    assert (figures.mrr, figures.click_through) == (0.5, 1.0)
    (judged,) = world.services.analytics.judged("shop", 10)
    assert judged.gains == {second: 1} and judged.record.query_id == answer.query_id
