"""The HTTP API as API Gateway calls it: events in, answers out, on stores in memory."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from app import app
from chalicelib.log import logger
from lookalike import wiring
from lookalike.core.errors import Unavailable
from lookalike.settings import Settings
from lookalike.wiring import Services, build_services

EVENTS = Path(__file__).parent.parent / "events"
ENCODER = "efficientnet-lite0"  # the quickest


def recorded(name: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))
    return event


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def send(event: dict[str, Any]) -> Answer:
    answer = app(event, None)
    headers = {name.lower(): value for name, value in answer["headers"].items()}
    assert not answer.get("isBase64Encoded")
    assert isinstance(answer["body"], str)
    return Answer(answer["statusCode"], headers, answer["body"])


def call(
    method: str,
    resource: str,
    *,
    body: bytes | None = None,
    content_type: str = "",
    query: dict[str, list[str]] | None = None,
    **path: str,
) -> Answer:
    event = recorded("api_product_escaped")
    event["requestContext"] |= {"resourcePath": resource, "httpMethod": method}
    event["pathParameters"] = {name: quote(value, safe="") for name, value in path.items()} or None
    event["requestContext"]["path"] = "/api" + resource.format(**event["pathParameters"] or {})
    event["multiValueQueryStringParameters"] = query
    if content_type:
        event["headers"]["Content-Type"] = content_type
    if body is not None:
        event |= {"body": base64.b64encode(body).decode(), "isBase64Encoded": True}
    return send(event)


def assert_problem(answer: Answer, status: int, kind: str) -> dict[str, Any]:
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    problem: dict[str, Any] = answer.json
    assert (problem["status"], problem["type"]) == (status, f"urn:lookalike:problem:{kind}")
    assert problem["instance"].endswith("c6af9ac6-7b61-11e6-9a41-93e8deadbeef")
    return problem


@pytest.fixture
def system(monkeypatch, model_dir, memory_stores, ids, photo) -> Services:
    """A catalogue of shoes that cost 10, 20, 30 … and one file that is no image."""
    settings = Settings(encoder=ENCODER, model_dir=str(model_dir), refresh_s=0)
    services = build_services(settings, memory_stores, ids)
    keys = [f"shop/boot-{number}/front.jpg" for number in range(1, 8)]
    for number, key in enumerate(keys, 1):
        metadata = {"title": f"Boot {number}", "category": "shoes", "price": str(number * 10)}
        memory_stores.images.put_object(key, photo(number), "image/jpeg", metadata)
    memory_stores.images.put_object("my shop/a b%20👟/x.jpg", photo(9), "image/jpeg", {})
    memory_stores.images.put_object("shop/broken.jpg", b"no image", "image/jpeg", {})
    assert services.ingest.reconcile([*keys, "my shop/a b%20👟/x.jpg", "shop/broken.jpg"]) == {}
    monkeypatch.setattr(wiring, "services", lambda: services)
    return services


def product_ids(answer: Answer) -> list[str]:
    assert answer.status == 200, answer.text
    return [result["product_id"] for result in answer.json["results"]]


def test_a_raw_image_finds_itself(system, photo) -> None:
    answer = call(
        "POST", "/search", body=photo(3), content_type="image/jpeg", query={"catalogue": ["shop"]}
    )
    assert product_ids(answer)[0] == "boot-3"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["access-control-allow-origin"] == "*"
    result = answer.json["results"][0]
    assert (result["rank"], result["view"], result["title"]) == (1, "front", "Boot 3")
    assert result["score"] == pytest.approx(1, abs=1e-3)
    assert answer.json["took_ms"]["total"] > 0


def test_a_form_with_an_image_and_a_product(system) -> None:
    request = recorded("api_search_form")
    request["multiValueQueryStringParameters"] = {"catalogue": ["shop"]}
    found = product_ids(send(request))
    assert len(found) == 4
    assert "boot-7" not in found  # it was searched with


def test_a_filter_in_the_query(system) -> None:
    request = recorded("api_search_image")
    request["multiValueQueryStringParameters"] |= {"filter": ["category=shoes,price<=20"]}
    assert sorted(product_ids(send(request))) == ["boot-1", "boot-2"]


def test_json_with_stored_products(system) -> None:
    body = {"product_id": ["boot-1", "boot-2"], "weights": [1, 0.5], "not_like": ["boot-3"], "k": 9}
    answer = call(
        "POST",
        "/search",
        body=json.dumps(body).encode(),
        content_type="application/json; charset=utf-8",
        query={"catalogue": ["shop"]},
    )
    assert sorted(product_ids(answer)) == ["boot-4", "boot-5", "boot-6", "boot-7"]


def test_explanation_urls_are_absolute_below_the_stage(system, photo) -> None:
    query = {"catalogue": ["shop"]}
    answer = call("POST", "/search", body=photo(3), content_type="image/jpeg", query=query).json
    base = "https://abcdef1234.execute-api.us-east-1.amazonaws.com/api/explanations"
    assert [item["explanation_url"] for item in answer["results"]] == [
        f"{base}/{answer['query_id']}/{item['product_id']}" for item in answer["results"]
    ]
    assert answer["explanations_expire_at"] > 1_700_000_000
    similar = call(
        "GET",
        "/products/{product_id}/similar",
        product_id="boot-1",
        query={"catalogue": ["shop"], "explain": ["false"]},
    ).json
    assert {item["explanation_url"] for item in similar["results"]} == {None}
    assert similar["explanations_expire_at"] is None


def test_a_part_of_an_earlier_search(system, photo) -> None:
    query = {"catalogue": ["shop"]}
    sent = call("POST", "/search", body=photo(3), content_type="image/jpeg", query=query)
    query_id = sent.json["query_id"]

    def region(**body: Any) -> Answer:
        data = json.dumps({"query_id": query_id, **body}).encode()
        return call("POST", "/search", body=data, content_type="application/json", query=query)

    assert product_ids(region()) == product_ids(sent)
    assert len(product_ids(region(cells=[[3, 3], [3, 4]], k=3))) == 3
    assert len(product_ids(region(crop=[0.25, 0.25, 0.5, 0.5], k=3))) == 3
    for body, parameter in (
        ({"cells": [[7, 0]]}, "cells"),
        ({"cells": [[0, 0]], "crop": [0, 0, 1, 1]}, "cells"),
        ({"crop": [0, 0, 1, 1], "catalogue": "my shop"}, "catalogue"),
    ):
        assert assert_problem(region(**body), 422, "invalid-request")["parameter"] == parameter
    assert_problem(region(query_id="01JD9Y3V5Q4ZP0GQ3B0V9F4K7M"), 410, "gone")
    assert_problem(region(query_id="nothing"), 404, "not-found")


def test_similar(system) -> None:
    answer = call(
        "GET",
        "/products/{product_id}/similar",
        product_id="boot-1",
        query={"catalogue": ["shop"], "k": ["2"]},
    )
    assert len(product_ids(answer)) == 2
    assert "boot-1" not in product_ids(answer)


def test_names_with_spaces_percent_and_emoji_are_decoded_once(system) -> None:
    request = recorded("api_product_escaped")  # the URL holds a%20b%2520👟
    answer = send(request)
    assert answer.status == 200, answer.text
    assert answer.json["product_id"] == "a b%20👟"
    assert answer.json["views"][0]["view"] == "x"


def test_products_page_by_page(system) -> None:
    seen: list[str] = []
    cursor: list[str] | None = None
    for _ in range(5):
        query = {"catalogue": ["shop"], "limit": ["2"], **({"cursor": cursor} if cursor else {})}
        page = call("GET", "/products", query=query).json
        seen += [product["product_id"] for product in page["products"]]
        if page["cursor"] is None:
            break
        cursor = [page["cursor"]]
    assert seen == [f"boot-{number}" for number in range(1, 8)]


def test_failures_have_a_reason(system) -> None:
    page = call("GET", "/products", query={"catalogue": ["shop"], "status": ["failed"]}).json
    failure = next(item for item in page["failures"] if item["key"] == "shop/broken.jpg")
    assert failure["reason"] == "not-an-image"
    assert failure["detail"]


def test_a_deleted_product_is_gone(system, photo) -> None:
    query = {"catalogue": ["shop"]}
    answer = call("DELETE", "/products/{product_id}", product_id="boot-3", query=query)
    assert (answer.status, answer.text) == (204, "")
    again = call("DELETE", "/products/{product_id}", product_id="boot-3", query=query)
    assert_problem(again, 404, "not-found")
    found = call("POST", "/search", body=photo(3), content_type="image/jpeg", query=query)
    assert "boot-3" not in product_ids(found)


def test_upload_health_stats(system) -> None:
    upload = call("POST", "/uploads")
    assert upload.status == 201
    assert set(upload.json) == {"upload_key", "url", "fields", "max_bytes", "expires_at"}
    assert call("GET", "/health").json["status"] == "ok"
    stats = {item["catalogue"]: item for item in call("GET", "/stats").json["catalogues"]}
    assert (stats["shop"]["products"], stats["shop"]["failures"]) == (7, 1)
    for path in ("/health", "/stats"):
        assert_problem(call("GET", path, query={"x": ["1"]}), 422, "invalid-request")


@pytest.mark.parametrize(
    ("body", "content_type", "query", "status", "kind"),
    [
        (b"{", "application/json", {}, 400, "malformed-body"),
        (b'{"image": "%"}', "application/json", {}, 400, "malformed-body"),
        (b"x", "multipart/form-data; boundary=B", {}, 400, "malformed-body"),
        (b"x", "text/plain", {}, 415, "unsupported-media"),
        (b"no image", "image/jpeg", {}, 415, "unusable-image"),
        (b'{"product_id": "boot-1", "k": 0}', "application/json", {}, 422, "invalid-request"),
        (b'{"product_id": "a"}', "application/json", {"k": ["100000"]}, 422, "invalid-request"),
        (b'{"product_id": "boot-1", "x": 0}', "application/json", {}, 422, "invalid-request"),
        (b'{"product_id": "nobody"}', "application/json", {}, 404, "not-found"),
        (b'{"upload_key": "../x"}', "application/json", {}, 404, "not-found"),
        (b'{"product_id": "boot-1"}', "application/json", {"catalogue": ["?"]}, 404, "not-found"),
    ],
)
def test_bad_requests_are_one_problem_each(
    system,
    body: bytes,
    content_type: str,
    query: dict[str, list[str]],
    status: int,
    kind: str,
) -> None:
    answer = call(
        "POST",
        "/search",
        body=body,
        content_type=content_type,
        query={"catalogue": ["shop"], **query},
    )
    problem = assert_problem(answer, status, kind)
    assert answer.headers["access-control-allow-origin"] == "*"
    if b'"k": 0' in body or "k" in query:
        assert "from 1 to 100" in problem["detail"]
    if kind == "unusable-image":
        assert problem["reason"] == "not-an-image"


def test_a_truncated_photo_is_unusable(system, photo) -> None:
    query = {"catalogue": ["shop"]}
    answer = call("POST", "/search", body=photo(1)[:300], content_type="image/jpeg", query=query)
    assert assert_problem(answer, 422, "unusable-image")["reason"] == "corrupt-image"


def test_a_wrong_method_is_told_which_are_right(system) -> None:
    answer = call("PUT", "/search", body=b"")
    assert_problem(answer, 405, "method-not-allowed")
    assert answer.headers["allow"] == "POST"
    answer = call("POST", "/products/{product_id}", product_id="a", content_type="image/png")
    assert_problem(answer, 405, "method-not-allowed")
    assert sorted(answer.headers["allow"].split(", ")) == ["DELETE", "GET"]


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise error

    return fail


def test_an_unreachable_store_is_503_and_says_when_to_come_back(system, monkeypatch) -> None:
    monkeypatch.setattr(system.catalogue, "stats", raising(Unavailable("arn:aws:secret")))
    answer = call("GET", "/stats")
    assert_problem(answer, 503, "unavailable")
    assert answer.headers["retry-after"] == "1"
    assert "secret" not in answer.text


def test_an_unexpected_error_is_500_logged_with_its_stack(system, monkeypatch) -> None:
    log = io.StringIO()
    monkeypatch.setattr(logger.registered_handler, "stream", log)
    monkeypatch.setattr(system.catalogue, "stats", raising(ZeroDivisionError("secret")))
    answer = call("GET", "/stats")
    assert_problem(answer, 500, "internal-error")
    assert "secret" not in answer.text
    line, answered = map(json.loads, log.getvalue().splitlines())
    assert (answered["status"], answered["Answers5xx"]) == (500, 1)
    assert line["request_id"] == answered["request_id"]
    assert (line["level"], line["request_id"]) == ("ERROR", "c6af9ac6-7b61-11e6-9a41-93e8deadbeef")
    assert "ZeroDivisionError: secret" in line["exception"]


def test_the_root_leads_to_the_documentation_below_the_stage() -> None:
    answer = call("GET", "/")
    assert (answer.status, answer.headers["location"]) == (302, "/api/docs")


def test_the_documentation_needs_nothing_from_elsewhere() -> None:
    answer = call("GET", "/docs", content_type="text/plain")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    elsewhere = answer.text.replace("http://www.w3.org/2000/svg", "")  # a name, never fetched
    assert "http://" not in elsewhere and "https://" not in elsewhere
    assert "innerHTML" not in answer.text


def test_the_description_is_served() -> None:
    answer = call("GET", "/openapi.json")
    assert answer.json["openapi"] == "3.1.0"
    assert answer.json["servers"] == [{"url": "."}]
