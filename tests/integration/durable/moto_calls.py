"""Calls of every kind that changes something, and strategies that draw them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.sqs.models import sqs_backends

from durable.journalled import BUCKETS, QUEUES, REGION, Call, url
from local.aws.journal import CHUNK_BYTES


def handle(queue: str, number: int) -> str:
    handles = [
        message.receipt_handle
        for message in sqs_backends[DEFAULT_ACCOUNT_ID][REGION].queues[queue]._messages
        if message.receipt_handle
    ]
    return handles[number % len(handles)] if handles else "x" * 185


def upload_id(bucket: str, number: int) -> tuple[str, str]:
    uploads = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[bucket].multiparts
    found = sorted((upload.key_name, name) for name, upload in uploads.items())
    return found[number % len(found)] if found else ("none", "none")


buckets = st.sampled_from(BUCKETS)
queues = st.sampled_from(QUEUES)
names = st.sampled_from(["a", "b/c d", "\N{SNOWMAN}+%41", "..", "k" * 900])
bodies = st.sampled_from([b"", b"x", bytes(range(256)) * 100, b"y" * (CHUNK_BYTES + 1)])
numbers = st.integers(0, 3)
attributes = st.dictionaries(
    st.sampled_from(["v", "w"]),
    st.sampled_from(
        [
            {"S": "\N{SNOWMAN}"},
            {"N": "1.50"},
            {"B": b"\0\xff"},
            {"NS": ["1", "2"]},
            {"BS": [b"\1", b"\2"]},
            {"L": [{"M": {"deep": {"B": b"z"}, "n": {"NULL": True}}}, {"BOOL": False}]},
        ]
    ),
)
Step = tuple[str, tuple[Any, ...]]
VALUES: dict[str, st.SearchStrategy[tuple[Any, ...]]] = {
    "put": st.tuples(buckets, names, bodies),
    "copy": st.tuples(buckets, names, buckets, names),
    "delete": st.tuples(buckets, names),
    "delete version": st.tuples(names, numbers),
    "delete many": st.tuples(buckets, st.lists(names, min_size=1, unique=True)),
    "tag": st.tuples(buckets, names, st.sampled_from(["put", "delete"])),
    "acl": st.tuples(buckets, names),
    "begin upload": st.tuples(buckets, names),
    "put part": st.tuples(buckets, numbers, st.integers(1, 2), bodies),
    "copy part": st.tuples(buckets, numbers, names),
    "complete upload": st.tuples(buckets, numbers),
    "abort upload": st.tuples(buckets, numbers),
    "put item": st.tuples(st.sampled_from("ab"), st.sampled_from(["1", "1.0", "-2"]), attributes),
    "put single": st.tuples(st.sampled_from([b"\0", b"\xff"]), attributes),
    "update item": st.tuples(st.sampled_from("ab"), st.sampled_from(["1", "3"])),
    "delete item": st.tuples(st.sampled_from("ab"), st.sampled_from(["1", "1.00", "3"])),
    "write batch": st.tuples(st.sampled_from("ab"), attributes),
    "transact": st.tuples(st.sampled_from("ab"), st.booleans()),
    "send": st.tuples(queues, st.sampled_from(["x", "\N{SNOWMAN}"]), st.sampled_from([0, 900])),
    "receive": st.tuples(queues, st.integers(1, 10), st.sampled_from([0, 30])),
    "delete message": st.tuples(queues, numbers),
    "show again": st.tuples(queues, numbers, st.sampled_from([0, 60])),
    "purge": st.tuples(queues),
    "tag queue": st.tuples(queues, st.sampled_from("ab")),
    "lifetime": st.tuples(st.booleans()),
}


def call_of(step: Step) -> Call:
    """The call of a step; handles, uploads and versions are taken from what moto has now."""
    name, values = step
    call: Call = MAKERS[name](*values)
    return call


def s3(action: str, bucket: str, key: str, **fields: Any) -> Call:
    return "s3", action, {"Bucket": bucket, "Key": key, **fields}


def of_upload(action: str, bucket: str, number: int, **fields: Any) -> Any:
    key, upload = upload_id(bucket, number)
    return s3(action, bucket, key, UploadId=upload, **fields)


def of_item(action: str, **fields: Any) -> Any:
    return "dynamodb", action, {"TableName": "pairs", **fields}


def of_message(action: str, queue: str, number: int, **fields: Any) -> Any:
    return "sqs", action, {"QueueUrl": url(queue), "ReceiptHandle": handle(queue, number), **fields}


def delete_version(key: str, number: int) -> Any:
    kept = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[BUCKETS[1]].keys.getlist(key, [])
    version_id = kept[number % len(kept)].version_id if kept else "none"
    return s3("delete_object", BUCKETS[1], key, VersionId=version_id)


def complete(bucket: str, number: int) -> Any:
    _, upload = upload_id(bucket, number)
    kept = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets[bucket].multiparts.get(upload)
    parts = [
        {"PartNumber": part, "ETag": kept.parts[part].etag}
        for part in (kept.partlist if kept else [])
    ]
    return of_upload("complete_multipart_upload", bucket, number, MultipartUpload={"Parts": parts})


def transact(first: str, fails: bool) -> Any:
    condition = {"ConditionExpression": "attribute_exists(nothing)"} if fails else {}
    put = {"TableName": "pairs", "Item": {"h": {"S": first}, "r": {"N": "7"}}}
    check = {"TableName": "pairs", "Item": {"h": {"S": first}, "r": {"N": "8"}}, **condition}
    return "dynamodb", "transact_write_items", {"TransactItems": [{"Put": put}, {"Put": check}]}


MAKERS: dict[str, Any] = {
    "put": lambda bucket, key, body: s3(
        "put_object", bucket, key, Body=body, Metadata={"m": "1"}, Tagging="t=1"
    ),
    "copy": lambda bucket, key, source, from_key: s3(
        "copy_object", bucket, key, CopySource={"Bucket": source, "Key": from_key}
    ),
    "delete": lambda bucket, key: s3("delete_object", bucket, key),
    "delete version": delete_version,
    "delete many": lambda bucket, keys: (
        "s3",
        "delete_objects",
        {"Bucket": bucket, "Delete": {"Objects": [{"Key": key} for key in keys]}},
    ),
    "tag": lambda bucket, key, verb: s3(
        f"{verb}_object_tagging",
        bucket,
        key,
        **({"Tagging": {"TagSet": [{"Key": "t", "Value": "2"}]}} if verb == "put" else {}),
    ),
    "acl": lambda bucket, key: s3("put_object_acl", bucket, key, ACL="public-read"),
    "begin upload": lambda bucket, key: s3(
        "create_multipart_upload", bucket, key, Metadata={"m": "2"}
    ),
    "put part": lambda bucket, number, part, body: of_upload(
        "upload_part", bucket, number, PartNumber=part, Body=body
    ),
    "copy part": lambda bucket, number, key: of_upload(
        "upload_part_copy",
        bucket,
        number,
        PartNumber=3,
        CopySource={"Bucket": BUCKETS[0], "Key": key},
    ),
    "complete upload": complete,
    "abort upload": lambda bucket, number: of_upload("abort_multipart_upload", bucket, number),
    "put item": lambda first, second, values: of_item(
        "put_item", Item={"h": {"S": first}, "r": {"N": second}, **values}
    ),
    "put single": lambda key, values: (
        "dynamodb",
        "put_item",
        {"TableName": "singles", "Item": {"h": {"B": key}, **values}},
    ),
    "update item": lambda first, second: of_item(
        "update_item",
        Key={"h": {"S": first}, "r": {"N": second}},
        UpdateExpression="SET n = if_not_exists(n, :zero) + :one REMOVE v",
        ExpressionAttributeValues={":zero": {"N": "0"}, ":one": {"N": "1"}},
    ),
    "delete item": lambda first, second: of_item(
        "delete_item", Key={"h": {"S": first}, "r": {"N": second}}
    ),
    "write batch": lambda first, values: (
        "dynamodb",
        "batch_write_item",
        {
            "RequestItems": {
                "pairs": [
                    {"PutRequest": {"Item": {"h": {"S": first}, "r": {"N": "5"}, **values}}},
                    {"DeleteRequest": {"Key": {"h": {"S": first}, "r": {"N": "1"}}}},
                ]
            }
        },
    ),
    "transact": transact,
    "send": lambda queue, text, delay: (
        "sqs",
        "send_message",
        {
            "QueueUrl": url(queue),
            "MessageBody": text,
            "DelaySeconds": delay,
            "MessageAttributes": {"a": {"DataType": "Binary", "BinaryValue": b"\0\xff"}},
        },
    ),
    "receive": lambda queue, count, visibility: (
        "sqs",
        "receive_message",
        {
            "QueueUrl": url(queue),
            "MaxNumberOfMessages": count,
            "VisibilityTimeout": visibility,
            "MessageAttributeNames": ["All"],
        },
    ),
    "delete message": lambda queue, number: of_message("delete_message", queue, number),
    "show again": lambda queue, number, seconds: of_message(
        "change_message_visibility", queue, number, VisibilityTimeout=seconds
    ),
    "purge": lambda queue: ("sqs", "purge_queue", {"QueueUrl": url(queue)}),
    "tag queue": lambda queue, value: (
        "sqs",
        "tag_queue",
        {"QueueUrl": url(queue), "Tags": {"t": value}},
    ),
    "lifetime": lambda enabled: (
        "dynamodb",
        "update_time_to_live",
        {
            "TableName": "pairs",
            "TimeToLiveSpecification": {"AttributeName": "e", "Enabled": enabled},
        },
    ),
}

steps = st.sampled_from(sorted(VALUES)).flatmap(lambda name: st.tuples(st.just(name), VALUES[name]))
