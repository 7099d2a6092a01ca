"""What clients read is what undecorated moto answers, also after a restart."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moto.moto_api._internal import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app

from durable.journalled import BUCKETS, Call, Cloud, Requests, shimmed_moto, table, url, versioning
from durable.moto_calls import call_of, handle, upload_id

Sender = Callable[[Call], tuple[int, bytes]]

PLAIN, VERSIONED = BUCKETS
_VARYING = re.compile(
    rb"[0-9a-f]{8}-[0-9a-f-]{27}"  # ids of versions and messages
    rb"|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z"
    rb"|(?<=<RequestId>)[^<]+|(?<=<HostId>)[^<]+|(?<=<UploadId>)[^<]+"
    rb"|[0-9]{10,13}(\.[0-9]+)?"  # moments in seconds and in milliseconds
    rb'|(?<="ReceiptHandle": ")[^"]+'
)
"""What differs between two runs of the same calls."""


def s3(action: str, bucket: str = PLAIN, **fields: Any) -> Call:
    return "s3", action, {"Bucket": bucket, **fields}


def of_queue(action: str, queue: str = "second", **fields: Any) -> Call:
    return "sqs", action, {"QueueUrl": url(queue), **fields}


def of_table(action: str, **fields: Any) -> Call:
    return "dynamodb", action, {"TableName": "pairs", **fields}


MADE: list[Call] = [
    *(s3("create_bucket", bucket) for bucket in BUCKETS),
    versioning(VERSIONED),
    *(("sqs", "create_queue", {"QueueName": name}) for name in ("first", "second")),
    table("pairs", ("h", "HASH", "S"), ("r", "RANGE", "N")),
]
STEPS: list[tuple[str, tuple[Any, ...]]] = [
    *(("put", (bucket, key, b"0123456789")) for bucket in BUCKETS for key in ("a", "b/c", "b/d")),
    ("put", (VERSIONED, "a", b"again")),
    ("delete", (VERSIONED, "b/c")),
    ("acl", (PLAIN, "a")),
    ("copy", (PLAIN, "copy", PLAIN, "a")),
    ("begin upload", (PLAIN, "parts")),
    ("put part", (PLAIN, 0, 1, b"part")),
    ("put item", ("a", "1", {"v": {"S": "x"}})),
    ("put item", ("a", "2", {"w": {"NS": ["1", "2"]}})),
    ("put item", ("b", "1", {})),
    *(("send", ("second", body, 0)) for body in "xyz"),
]
SELECT = {
    "KeyConditionExpression": "h = :a",
    "ExpressionAttributeValues": {":a": {"S": "a"}},
}
KEY = {"h": {"S": "a"}, "r": {"N": "1"}}
READS: list[Call | Callable[[], Call]] = [
    ("s3", "list_buckets", {}),
    *(
        s3(action, bucket)
        for bucket in BUCKETS
        for action in (
            *("head_bucket", "list_objects", "list_objects_v2", "list_object_versions"),
            *("get_bucket_location", "get_bucket_versioning", "get_bucket_acl"),
            *("list_multipart_uploads", "get_bucket_tagging", "get_bucket_cors"),
        )
    ),
    s3("list_object_versions", VERSIONED, Prefix="b/", MaxKeys=1),
    s3("list_objects_v2", Prefix="b", Delimiter="/"),
    *(
        s3(action, bucket, Key=key)
        for bucket in BUCKETS
        for key in ("a", "b/c", "none")
        for action in ("get_object", "head_object", "get_object_tagging", "get_object_acl")
    ),
    s3("get_object", Key="a", Range="bytes=2-4"),
    s3("get_object", Key="a", Range="bytes=20-"),
    s3("get_object", Key="a", IfNoneMatch='"781e5e245d69b566979b86e28d23f2c7"'),
    s3("get_object_attributes", Key="a", ObjectAttributes=["ETag", "ObjectSize"]),
    lambda: s3("list_parts", Key="parts", UploadId=upload_id(PLAIN, 0)[1]),
    ("dynamodb", "list_tables", {}),
    *(of_table(action) for action in ("describe_table", "describe_time_to_live", "scan")),
    of_table("scan", Select="COUNT"),
    of_table("scan", Limit=1),
    of_table("get_item", Key=KEY, ConsistentRead=True),
    of_table("get_item", Key=KEY, ProjectionExpression="v"),
    of_table("get_item", Key={**KEY, "r": {"N": "9"}}),
    of_table("query", **SELECT),
    of_table("query", **SELECT, ScanIndexForward=False, Limit=1),
    ("dynamodb", "batch_get_item", {"RequestItems": {"pairs": {"Keys": [KEY]}}}),
    ("dynamodb", "transact_get_items", {"TransactItems": [{"Get": of_table("", Key=KEY)[2]}]}),
    ("sqs", "list_queues", {"QueueNamePrefix": "sec"}),
    ("sqs", "get_queue_url", {"QueueName": "second"}),
    of_queue("list_queue_tags"),
    of_queue("list_dead_letter_source_queues"),
    of_queue("receive_message", MaxNumberOfMessages=2, AttributeNames=["All"]),
    of_queue("get_queue_attributes", AttributeNames=["All"]),
    lambda: of_queue(
        "change_message_visibility", ReceiptHandle=handle("second", 0), VisibilityTimeout=0
    ),
    of_queue("receive_message", MaxNumberOfMessages=2, AttributeNames=["All"]),
    of_queue("receive_message", "none"),
]


@contextmanager
def undecorated(requests: Requests) -> Iterator[Sender]:
    app = DomainDispatcherApplication(create_backend_app)
    moto_api_backend.reset()

    def send(call: Call) -> tuple[int, bytes]:
        started: list[str] = []
        body = b"".join(app(requests(call), lambda status, *_: started.append(status)))
        return int(started[0][:3]), body

    yield send
    moto_api_backend.reset()


def answers(send: Sender, restart: Callable[[], None]) -> list[tuple[int, bytes]]:
    for call in MADE:
        assert send(call)[0] == 200, call
    for step in STEPS:
        assert send(call_of(step))[0] < 300, step
    restart()
    found = []
    for read in READS:
        status, body = send(read() if callable(read) else read)
        found.append((status, _VARYING.sub(b"?", body)))
    return found


def test_reads_answer_as_undecorated_moto(tmp_path: Path) -> None:
    requests = Requests()
    with undecorated(requests) as send:
        expected = answers(send, lambda: None)
    for number, restarts in enumerate((False, True)):
        with shimmed_moto():
            folder = tmp_path / str(number)
            folder.mkdir()
            cloud = Cloud(folder)

            def ours(call: Call, cloud: Cloud = cloud) -> tuple[int, bytes]:
                answer = cloud.call_all([call])[0]
                return answer.status, answer.body

            found = answers(ours, cloud.crash if restarts else lambda: None)
            cloud.journal.close()
        for read, mine, its in zip(READS, found, expected, strict=True):
            assert mine == its, read
    assert {status for status, _ in expected} == {200, 206, 304, 400, 404, 416}
