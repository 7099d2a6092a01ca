"""What configures buckets, queues and tables is there again, in whatever order it came."""

from __future__ import annotations

import json
from typing import Any

import pytest

from durable.journalled import BUCKETS, Call, Cloud, arn, state, url
from local.aws.queues import Messages

INDEX = {
    "IndexName": "by-g",
    "KeySchema": [{"AttributeName": "g", "KeyType": "HASH"}],
    "Projection": {"ProjectionType": "ALL"},
}
CREATE, DELETE = {"Create": INDEX}, {"Delete": {"IndexName": "by-g"}}


def index(update: dict[str, Any]) -> Call:
    definitions = [("h", "S"), ("r", "N"), ("g", "S")]
    fields = {
        "TableName": "pairs",
        "AttributeDefinitions": [
            {"AttributeName": name, "AttributeType": kind} for name, kind in definitions
        ],
        "GlobalSecondaryIndexUpdates": [update],
    }
    return "dynamodb", "update_table", fields


def redrive(queue: str, dead: str, count: int) -> Call:
    policy = json.dumps({"deadLetterTargetArn": arn(dead), "maxReceiveCount": count})
    fields = {"QueueUrl": url(queue), "Attributes": {"RedrivePolicy": policy}}
    return "sqs", "set_queue_attributes", fields


def queue(action: str, name: str) -> Call:
    return (
        "sqs",
        action,
        {"QueueName": name} if action == "create_queue" else {"QueueUrl": url(name)},
    )


HISTORIES: dict[str, list[Call]] = {
    "an index made, ended and made again": [index(CREATE), index(DELETE), index(CREATE)],
    "an index made and ended twice": [index(CREATE), index(DELETE)] * 2,
    "dead letters elsewhere, and what had them made anew": [
        *(queue("create_queue", name) for name in ("dead", "dead-2")),
        redrive("first", "dead", 5),
        redrive("first", "dead-2", 3),
        queue("delete_queue", "dead"),
        queue("create_queue", "dead"),
    ],
    "dead letters that lead nowhere": [
        queue("create_queue", "dead"),
        redrive("first", "dead", 5),
        queue("delete_queue", "dead"),
    ],
    "a queue made with dead letters that lead nowhere": [
        queue("create_queue", "dead"),
        (
            "sqs",
            "create_queue",
            {
                "QueueName": "third",
                "Attributes": {
                    "RedrivePolicy": json.dumps(
                        {"deadLetterTargetArn": arn("dead"), "maxReceiveCount": 2}
                    )
                },
            },
        ),
        queue("delete_queue", "dead"),
    ],
}


@pytest.mark.parametrize("name", HISTORIES)
@pytest.mark.parametrize("each", [True, False], ids=["restarted often", "restarted once"])
def test_configuration_survives(cloud: Cloud, name: str, each: bool) -> None:
    message = {"QueueUrl": url("first"), "MessageBody": "acknowledged"}
    assert cloud.call("sqs", "send_message", **message).status == 200
    for call in HISTORIES[name]:
        assert cloud.call_all([call])[0].status == 200
        if each:
            cloud.crash()
    before = state()
    cloud.crash()
    assert state() == before
    assert before["messages", "first"]


@pytest.mark.parametrize(
    "call",
    [
        ("s3", "create_bucket", {"Bucket": "half-made", "ACL": "nonsense"}),
        ("s3", "create_bucket", {"Bucket": BUCKETS[0], "ACL": "nonsense"}),
        redrive("second", "nowhere", 3),
        index(DELETE),
    ],
    ids=lambda call: call[1],
)
def test_of_a_configuring_call_that_fails_nothing_stays(cloud: Cloud, call: Call) -> None:
    before = state()
    put = ("s3", "put_object", {"Bucket": BUCKETS[1], "Key": "k", "Body": b"x"})
    after = ("s3", "put_object", {"Bucket": "half-made", "Key": "k", "Body": b"x"})
    answers = cloud.call_all([put, call, after])
    assert [answer.status < 300 for answer in answers] == [True, False, False]
    now = state()
    assert now.pop(("object", BUCKETS[1], "k"))
    assert now == before
    before = state()
    cloud.crash()
    assert state() == before


def test_what_cannot_be_read_harms_nobody_else(cloud: Cloud) -> None:
    assert cloud.requests is not None
    odd = cloud.requests(("s3", "create_bucket", {"Bucket": "odd"}))
    odd["HTTP_X_AMZ_NOTE"] = "\udcff"  # as aiohttp gives a header that is no UTF-8
    deep = cloud.requests(("sqs", "create_queue", {"QueueName": "deep"}))
    deep["wsgi.input"].write(b"[" * 100_000)
    deep["wsgi.input"].seek(0)
    good = cloud.requests(("s3", "create_bucket", {"Bucket": "good"}))
    answers = cloud.moto.call_all([odd, deep, good])
    assert [answer.status for answer in answers] == [400, 400, 200]
    before = state()
    assert ("bucket", "odd") not in before
    cloud.crash()
    assert state() == before


def test_a_bucket_in_the_host_s_name_is_that_in_the_path(cloud: Cloud) -> None:
    assert cloud.requests is not None
    for host in (f"{BUCKETS[0]}.s3.amazonaws.com", f"{BUCKETS[0]}.localhost:5000"):
        put = cloud.requests(("s3", "put_object", {"Bucket": BUCKETS[0], "Key": "k", "Body": b"x"}))
        for name in ("PATH_INFO", "RAW_URI", "REQUEST_URI"):
            put[name] = "/k"
        put["HTTP_HOST"] = host
        requests = cloud.journal.rows("SELECT count(*) FROM requests")
        assert cloud.moto.call(put).status == 200
        assert cloud.journal.rows("SELECT count(*) FROM requests") == requests
        named = {"Bucket": BUCKETS[0], "Key": "k"}
        assert cloud.call("s3", "get_object", **named).body == b"x"
        assert cloud.call("s3", "delete_object", **named).status == 204
        cloud.crash()
        assert cloud.call("s3", "get_object", **named).status == 404


def test_memory_that_cannot_be_put_back_is_an_end(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("broken")

    pages = cloud.journal.rows("PRAGMA page_count")[0][0]
    cloud.journal.rows(f"PRAGMA max_page_count = {pages}")
    with monkeypatch.context() as patched:
        patched.setattr(Messages, "remove", fail)
        with pytest.raises(RuntimeError, match="broken"):
            for _ in range(100):
                cloud.call("sqs", "send_message", QueueUrl=url("first"), MessageBody="x" * 9_000)
