from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.events import batch_response, keys_of, read_batch

EVENTS = Path(__file__).parent.parent / "events"


def recorded(name: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))
    return event


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("sqs_s3_put", ["shop/boot 7/fr ont+%ü😀.jpg"]),
        ("sqs_s3_delete", ["shop/boot-7/front.jpg"]),
        ("sqs_s3_multipart_twice", ["shop/boot-7/big.jpg"]),
        ("sqs_s3_test_event", []),
        ("sqs_lookalike_keys", ["shop/boot-7/front.jpg", "shop/boot 7/ü+%.jpg"]),
        ("sqs_moto", ["shop/boot 7/fr ont+%ü😀.jpg", "shop/boot-7/big.jpg"]),
        ("sqs_not_understood", ["shop/good.jpg"]),
    ],
)
def test_recorded_events_name_each_key_once(name: str, keys: list[str]) -> None:
    assert read_batch(recorded(name), 5).keys == keys


def test_a_message_that_is_not_understood_fails_alone_and_says_why() -> None:
    event = recorded("sqs_not_understood")
    batch = read_batch(event, 5)
    bad, good = (record["messageId"] for record in event["Records"])
    assert batch.failed(()) == [bad]
    assert batch.failed({"shop/good.jpg"}) == [good, bad]
    assert "not JSON" in batch.unreadable[0].error


def test_one_failed_key_fails_every_message_that_names_it() -> None:
    event = recorded("sqs_s3_multipart_twice")
    ids = [record["messageId"] for record in event["Records"]]
    batch = read_batch(event, 5)
    assert batch.failed({"shop/boot-7/big.jpg": "later"}) == ids
    assert batch_response(ids) == {"batchItemFailures": [{"itemIdentifier": id_} for id_ in ids]}
    assert batch_response(batch.failed(())) == {"batchItemFailures": []}


@pytest.mark.parametrize(("receives", "last"), [(1, False), (4, False), (5, True), (9, True)])
def test_a_message_at_its_last_receive_is_known(receives: int, last: bool) -> None:
    event = recorded("sqs_s3_put")
    event["Records"][0]["attributes"]["ApproximateReceiveCount"] = str(receives)
    batch = read_batch(event, 5)
    assert batch.last_chances == (batch.keys if last else [])


@pytest.mark.parametrize(
    "body",
    [
        "",
        "hello",
        "[]",
        "null",
        "{}",
        '{"keys": "a.jpg"}',
        '{"keys": [1]}',
        '{"keys": [""]}',
        '{"Records": [{}]}',
        '{"Records": [{"s3": {"object": {"key": ""}}}]}',
        '{"Records": [{"s3": {"object": {"key": "%FF.jpg"}}}]}',
        '{"Records": [7]}',
        "[" * 100_000,
    ],
)
def test_anything_else_is_refused(body: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        keys_of(body)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_key_survives_the_encoding_of_s3(key: str) -> None:
    body = json.dumps({"Records": [{"s3": {"object": {"key": quote_plus(key)}}}]})
    assert keys_of(body) == [key]
