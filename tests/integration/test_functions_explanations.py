"""The explanation endpoints as API Gateway calls them, with the default encoder."""

from __future__ import annotations

import base64
import copy
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from app import app
from lookalike import wiring
from lookalike.core.keys import map_key
from lookalike.http.openapi import document
from lookalike.services import explain
from lookalike.settings import Settings
from lookalike.wiring import Services, build_services

EVENTS = Path(__file__).parent.parent / "events"
ENCODER = "efficientnet-lite2"
JSON_PATH = "/explanations/{query_id}/{product_id}"
PICTURE_PATH = "/explanations/{query_id}/{product_id}/{picture}"
HOST = "https://abcdef1234.execute-api.us-east-1.amazonaws.com/api"
ODD = "a b%20👟"
ODD_KEY = f"shop/{ODD}/x.jpg"
# What API Gateway hands on if the client sends something that is not UTF-8, and what no one has.
ODD_IDS = ["nobody", "%FF", "%ED%A0%80", "%2F", "..%2f", "x" * 10_000, "%00", "%F0%9F%A5%BE", "%"]


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def image(self) -> Image.Image:
        image = Image.open(io.BytesIO(self.body))
        image.load()
        return image


def send(event: dict[str, Any]) -> Answer:
    """What a client gets: API Gateway decodes base64 for all, and sends text as it is."""
    answer = json.loads(json.dumps(app(event, None)))
    headers = {name.lower(): value for name, value in answer["headers"].items()}
    body = answer["body"].encode()
    if answer.get("isBase64Encoded"):
        body = base64.b64decode(body, validate=True)
    return Answer(answer["statusCode"], headers, body)


def event_of(url: str, **query: str) -> dict[str, Any]:
    """The event of a GET of one of the API's own URLs, or of a path below them."""
    event = json.loads((EVENTS / "api_explanation_picture.json").read_text())
    path = urlsplit(url).path.removeprefix("/api")
    names = ["query_id", "product_id", "picture"]
    values = path.removeprefix("/explanations/").split("/")
    resource = PICTURE_PATH if len(values) == 3 else JSON_PATH
    event["path"] = path
    event["resource"] = event["requestContext"]["resourcePath"] = resource
    event["pathParameters"] = dict(zip(names[: len(values)], values, strict=True))
    event["requestContext"]["path"] = f"/api{path}"
    event["multiValueQueryStringParameters"] = {k: [v] for k, v in query.items()} or None
    return event


def get(url: str, **query: str) -> Answer:
    return send(event_of(url, **query))


def assert_problem(answer: Answer, status: int) -> dict[str, Any]:
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert len(answer.body) < 2_000
    problem: dict[str, Any] = answer.json
    assert problem["status"] == status
    return problem


@pytest.fixture
def system(monkeypatch, model_dir, memory_stores, ids, photo) -> Services:
    settings = Settings(encoder=ENCODER, model_dir=str(model_dir), refresh_s=0)
    services = build_services(settings, memory_stores, ids)
    photos = {f"shop/boot-{number}/front.jpg": photo(number) for number in range(1, 5)}
    photos[ODD_KEY] = photo(9, size=(200, 160))
    for key, body in photos.items():
        memory_stores.images.put_object(key, body, "image/jpeg", {})
    assert services.ingest.reconcile(list(photos)) == {}
    monkeypatch.setattr(wiring, "services", lambda: services)
    return services


@pytest.fixture
def results(system, photo) -> dict[str, Any]:
    """Explanation URLs of a search's results by product."""
    event = json.loads((EVENTS / "api_search_image.json").read_text())
    body = base64.b64encode(photo(3, size=(120, 90))).decode()
    event |= {"body": body, "isBase64Encoded": True}
    event["multiValueQueryStringParameters"] = {"catalogue": ["shop"]}
    answer = send(event)
    assert answer.status == 200, answer.body
    return {item["product_id"]: item["explanation_url"] for item in answer.json["results"]}


def test_an_explanation_is_reached_from_a_result_and_adds_up(results) -> None:
    schema = {
        "$ref": "#/components/schemas/ExplanationAnswer",
        "components": copy.deepcopy(document()["components"]),
    }
    assert len(results) == 5
    for product_id, url in results.items():
        assert url.startswith(f"{HOST}/explanations/")
        assert url.endswith(f"/{quote(product_id, safe='')}")
        first, again = get(url), get(url)
        assert [item.headers["x-cache"] for item in (first, again)] == ["miss", "hit"]
        assert again.body == first.body
        assert first.headers["content-type"] == "application/json"
        assert first.headers["cache-control"] == "private, no-cache"
        assert "X-Cache" in first.headers["access-control-expose-headers"]
        answer = first.json
        Draft202012Validator(schema).validate(answer)
        assert answer["product_id"] == product_id
        for side in ("query", "result"):
            assert answer[side]["grid"] == [9, 9]
            total = np.sum(answer[side]["contributions"])
            assert total == pytest.approx(answer["score"], abs=1e-5)
        assert answer["overlays"] == {of: f"{url}/{of}.png" for of in ("query", "result", "pair")}


@pytest.mark.parametrize(
    "accept", ["*/*", None, "image/png", "image/webp,*/*;q=0.8", "text/html,image/png", "nonsense"]
)
def test_pictures_reach_every_client_as_bytes(results, accept) -> None:
    urls = get(results["boot-1"]).json["overlays"]
    for of, size in (("query", (120, 90)), ("result", (96, 128)), ("pair", None)):
        for kind, decoded in (("png", "PNG"), ("webp", "WEBP")):
            event = event_of(urls[of].replace(".png", f".{kind}"))
            for headers in (event["headers"], event["multiValueHeaders"]):
                headers.pop("Accept")
            if accept:
                event["headers"]["Accept"] = accept
                event["multiValueHeaders"]["Accept"] = [accept]
            first, again = send(event), send(event)
            assert (first.status, first.headers["content-type"]) == (200, f"image/{kind}")
            assert [item.headers["x-cache"] for item in (first, again)] == ["miss", "hit"]
            assert first.body == again.body
            assert first.image.format == decoded
            assert size is None or first.image.size == size


def test_a_recorded_request_of_a_browser(results) -> None:
    event = json.loads((EVENTS / "api_explanation_picture.json").read_text())
    query_id = urlsplit(results["boot-1"]).path.split("/")[3]
    event["pathParameters"]["query_id"] = query_id
    event["pathParameters"]["product_id"] = "boot%2D1"
    answer = send(event)
    assert answer.status == 200, answer.body
    assert answer.image.format == "WEBP" and answer.image.size == (48, 64)


def test_a_slash_at_the_end_changes_no_url(results) -> None:
    event = event_of(results["boot-1"])
    event["path"] += "/"
    event["requestContext"]["path"] += "/"
    assert send(event).json["overlays"] == get(results["boot-1"]).json["overlays"]


def test_a_large_picture_is_elsewhere(results, monkeypatch) -> None:
    monkeypatch.setattr(explain, "MAX_BODY_BYTES", 100)
    for expected in ("miss", "hit"):
        answer = get(results["boot-1"] + "/pair.png")
        assert (answer.status, answer.body) == (303, b"")
        assert answer.headers["x-cache"] == expected
        assert answer.headers["location"].startswith("memory:///explanations/")
        assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    ("path", "query", "status", "parameter"),
    [
        ("", {"part": "0"}, 422, "part"),
        ("", {"k": "1"}, 422, "k"),
        ("/query.gif", {}, 404, "picture"),
        ("/QUERY.png", {}, 404, "picture"),
        ("/query", {}, 404, "picture"),
        ("/.png", {}, 404, "picture"),
        ("/%FF.png", {}, 422, "picture"),
        ("/" + "q" * 5_000, {}, 404, "picture"),
        ("/query.png", {"map": "rainbow"}, 422, "map"),
        ("/query.png", {"map": ""}, 422, "map"),
        ("/query.png", {"part": "1"}, 422, "part"),
        ("/query.png", {"part": "-1"}, 422, "part"),
        ("/query.png", {"part": "9" * 400}, 422, "part"),
        ("/query.png", {"part": "x"}, 422, "part"),
        ("/pair.png", {"part": "7"}, 422, "part"),
        ("/query.png", {"max_side": "0"}, 422, "max_side"),
        ("/query.png", {"max_side": "1e9"}, 422, "max_side"),
        ("/query.png", {"max_side": "100000"}, 422, "max_side"),
        ("/query.png", {"quality": "3"}, 422, "quality"),
    ],
)
def test_bad_requests_are_one_problem_each(results, path, query, status, parameter) -> None:
    problem = assert_problem(get(results["boot-1"] + path, **query), status)
    assert problem["parameter"].startswith(parameter)


@pytest.mark.parametrize("tail", ["", "/pair.png"])
def test_ids_that_nobody_has(results, tail) -> None:
    *_, query_id, product_id = urlsplit(results["boot-1"]).path.split("/")
    for odd in ODD_IDS:
        for ids in ((query_id, odd), (odd, product_id)):
            answer = get("/explanations/" + "/".join(ids) + tail)
            not_text = odd in ("%FF", "%ED%A0%80")
            assert_problem(answer, 422 if not_text else 404)


def test_what_has_gone(results, system, photo) -> None:
    system.catalogue.delete("shop", "boot-2")
    for tail in ("", "/result.png"):
        assert "deleted" in assert_problem(get(results["boot-2"] + tail), 410)["detail"]
    assert get(results[ODD] + "/pair.webp").status == 200
    (view,) = system.stores.products.get_many([("shop", "boot-3")])["shop", "boot-3"].views.values()
    space = system.stores.lineages.get("shop").current.encoder
    system.stores.index.delete(map_key(space, view.key, view.etag))
    system.stores.images.put_object(view.key, photo(77), "image/jpeg", {})
    for tail in ("", "/result.png"):
        answer = get(results["boot-3"] + tail)
        assert_problem(answer, 503)
        assert int(answer.headers["retry-after"]) > 0


def test_a_real_map_that_is_missing_is_made_again(results, system) -> None:
    url = results["boot-4"]
    first = get(url).json
    for info in list(system.stores.index.list("maps/")) + list(
        system.stores.index.list("explanations/")
    ):
        system.stores.index.delete(info.key)
    again = get(url)
    assert again.headers["x-cache"] == "miss"
    assert again.json["score"] == first["score"]
    assert list(system.stores.index.list("maps/"))
    # A map that is kept has lost some digits to the one that was just made.
    before, after = (np.asarray(item["result"]["contributions"]) for item in (first, again.json))
    assert np.abs(before - after).max() < 1e-3
