"""What is asked can be followed through the logs by its id."""

from __future__ import annotations

import json
from typing import Any


def log(cloud: Any, function: str) -> list[dict[str, Any]]:
    """The structured lines of a function's log."""
    text = (cloud.data_dir / "logs" / f"{function}.log").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"')]


def test_an_upload_is_followed_until_it_is_searchable_or_failed(cloud, photo, eventually) -> None:
    def upload(key: str, body: bytes) -> str:
        answer = cloud.s3().put_object(Bucket="lookalike-images", Key=key, Body=body)
        request_id: str = answer["ResponseMetadata"]["RequestId"]
        return request_id

    asked = {
        upload("traced/one.jpg", photo(71)): "searchable",
        upload("traced/two.jpg", b"no image"): "failed",
    }
    assert len(asked) == 2

    def told() -> dict[str, dict[str, Any]]:
        lines = {
            line["upload_request_id"]: line
            for line in log(cloud, "Embed")
            if line.get("upload_request_id") in asked
        }
        return lines if lines.keys() == asked.keys() else {}

    lines = eventually(told, 30)
    for request_id, message in asked.items():
        line = lines[request_id]
        assert line["message"] == message
        assert line["message_id"]
        assert line["function_request_id"]
        # The line at the end of its batch tells how long it had waited.
        batch = eventually(lambda line=line: batch_of(line, log(cloud, "Embed")), 30)
        assert (len(batch), batch[0]["function_name"]) == (1, "lookalike-embed")
        assert len(batch[0]["QueueAge"]) >= 1
    searchable = next(line for line in lines.values() if line["message"] == "searchable")
    assert searchable["key"] == "traced/one.jpg"
    assert 0 < searchable["Freshness"] < 30


def batch_of(line: dict[str, Any], lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    run = line["function_request_id"]
    return [
        item for item in lines if item["message"] == "batch" and item["function_request_id"] == run
    ]


def test_a_search_is_followed_from_its_request_to_the_search_log(cloud, photo, eventually) -> None:
    key = "traced/three.jpg"
    cloud.s3().put_object(Bucket="lookalike-images", Key=key, Body=photo(72))
    path = "/products/three/similar?catalogue=traced"
    eventually(lambda: cloud.request("GET", path)[0] == 200, 30)
    _, answer = cloud.request("GET", path)
    query_id = answer["query_id"]
    lines = log(cloud, "APIHandler")
    searched = next(line for line in lines if line.get("query_id") == query_id)
    logged = next(line for line in lines if line.get("search", {}).get("query_id") == query_id)
    assert searched["request_id"] == logged["request_id"]
    assert searched["function_request_id"]
    assert searched["SearchLatency"] == answer["took_ms"]["total"]
    (answered,) = (
        line
        for line in lines
        if line["message"] == "answered" and line["request_id"] == searched["request_id"]
    )
    assert (answered["status"], answered["Answers2xx"]) == (200, 1)


def test_a_problem_names_the_request_that_the_log_tells_of(cloud) -> None:
    status, problem = cloud.request("GET", "/products/nobody-has-this?catalogue=nor-this")
    assert status == 404
    request_id = problem["instance"].removeprefix("urn:lookalike:request:")
    (answered,) = (
        line for line in log(cloud, "APIHandler") if line.get("request_id") == request_id
    )
    assert (answered["route"], answered["status"]) == ("GET /products/{product_id}", 404)
