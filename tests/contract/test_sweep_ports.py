"""What the sweep needs of bucket and queue, in memory and on AWS as moto plays it."""

from __future__ import annotations

import boto3
import pytest
from moto import mock_aws

from lookalike.adapters.aws import forget_clients
from lookalike.adapters.memory import MemoryObjectStore, MemoryQueue
from lookalike.adapters.s3 import S3ObjectStore
from lookalike.adapters.sqs import SqsQueue
from lookalike.core.errors import Conflict


@pytest.fixture(params=["memory", "aws"])
def ports(request, clock, monkeypatch):
    if request.param == "memory":
        yield MemoryObjectStore(clock), MemoryQueue()
        return
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr("lookalike.adapters.signed.SignedRequests.send", lambda *_, **__: None)
    with mock_aws():
        forget_clients()
        boto3.client("s3").create_bucket(Bucket="index")
        url = boto3.client("sqs").create_queue(QueueName="ingest")["QueueUrl"]
        yield S3ObjectStore("index"), SqsQueue(url)
    forget_clients()


def test_an_object_is_replaced_only_as_it_was(ports):
    bucket, _ = ports
    first = bucket.replace("sweep/state", b"1", "x/y", None)
    for etag in (None, "0" * 32):
        with pytest.raises(Conflict):
            bucket.replace("sweep/state", b"no", "x/y", etag)
    second = bucket.replace("sweep/state", b"2", "x/y", first)
    with pytest.raises(Conflict):
        bucket.replace("sweep/state", b"no", "x/y", first)
    info, body = bucket.get("sweep/state", 10)
    assert (body, info.etag) == (b"2", second) and first != second
    bucket.delete("sweep/state")
    with pytest.raises(Conflict):
        bucket.replace("sweep/state", b"no", "x/y", second)


def test_a_listing_goes_on_behind_a_key(ports):
    bucket, _ = ports
    keys = ["a/1", "a/2", "a/2/x", "a/ü", "a/\U0001f45f", "b"]
    for key in keys:
        bucket.put(key, b"", "x/y")
    for prefix in ("", "a/"):
        everything = [info.key for info in bucket.list(prefix)]
        assert everything == [key for key in sorted(keys, key=str.encode) if key.startswith(prefix)]
        for number, key in enumerate(everything):
            assert [i.key for i in bucket.list(prefix, key)] == everything[number + 1 :]
    assert [info.key for info in bucket.list("a/", "a/1x")] == ["a/2", "a/2/x", "a/ü", "a/👟"]


def test_the_queue_tells_how_much_waits(ports):
    _, queue = ports
    assert queue.backlog() == 0
    queue.send_keys([f"shop/{number}.jpg" for number in range(23)])
    queue.send_keys(["shop/x.jpg"], write_again=True)
    assert queue.backlog() == 24
