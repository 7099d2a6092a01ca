from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.events import MAX_KEYS, Batch, Hint, batch_response, read_batch, read_hint

EVENTS = Path(__file__).parent.parent / "events"


def recorded(name: str) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))
    return event


def keys_of(batch: Batch) -> list[str]:
    return [item.key for item in batch.delivered]


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
    assert keys_of(read_batch(recorded(name), 5)) == keys


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
    (delivered,) = read_batch(event, 5).delivered
    assert (delivered.receives, delivered.is_last) == (receives, last)


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
        read_hint(body)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_key_survives_the_encoding_of_s3(key: str) -> None:
    body = json.dumps({"Records": [{"s3": {"object": {"key": quote_plus(key)}}}]})
    assert read_hint(body) == Hint((key,))


def test_of_several_messages_about_a_key_each_counts() -> None:
    event = recorded("sqs_s3_multipart_twice")
    event["Records"][1]["body"] = '{"keys": ["shop/boot-7/big.jpg"], "write_again": true}'
    event["Records"][0]["attributes"]["ApproximateReceiveCount"] = "3"
    (delivered,) = read_batch(event, 5).delivered
    assert (delivered.receives, delivered.write_again) == (3, True)


@pytest.mark.parametrize("asked", ["false", '"true"', "1", "null"])
def test_rows_are_written_again_only_if_that_is_asked(asked: str) -> None:
    assert not read_hint(f'{{"keys": ["a.jpg"], "write_again": {asked}}}').write_again


def test_a_message_knows_its_upload_and_when_it_was_sent() -> None:
    batch = read_batch(recorded("sqs_s3_put"), 5)
    (key,) = keys_of(batch)
    message = batch.message_of(key)
    assert (message.uploads, message.sent_at) == ({key: "C3D13FE58DE4C810"}, 1736071200.0)


@pytest.mark.parametrize("elements", [None, 7, {}, {"x-amz-request-id": 7}])
def test_a_message_that_does_not_tell_its_upload_is_understood(elements: object) -> None:
    record = {"s3": {"object": {"key": "a.jpg"}}, "responseElements": elements}
    assert read_hint(json.dumps({"Records": [record]})) == Hint(("a.jpg",))


def test_a_message_of_more_keys_than_there_is_time_for_is_not_understood() -> None:
    keys = [f"shop/{number}.jpg" for number in range(MAX_KEYS + 1)]
    assert len(read_hint(json.dumps({"keys": keys[1:]})).keys) == MAX_KEYS
    with pytest.raises(ValueError, match="at most 10"):
        read_hint(json.dumps({"keys": keys}))
