"""Each test shows moto without the shim first: when moto changes, it fails and the shim can go."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from moto import backends, mock_aws
from moto.core.common_models import BaseModel
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_api._internal import moto_api_backend
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.s3 import notifications
from moto.s3.models import FakeKey, S3Backend, s3_backends
from moto.sqs.models import Message, Queue, SQSBackend
from werkzeug.test import Client, TestResponse

from local.aws import presigned, shims
from local.aws.durable_moto import DurableMoto

BUCKET = "shim-bucket"
HOST = "http://127.0.0.1:5000"
PATCHED = [
    (backends, "list_of_moto_modules"),
    (notifications, "_get_s3_event"),
    (notifications, "send_event"),
    (S3Backend, "complete_multipart_upload"),
    (S3Backend, "_set_delete_marker"),
    (BaseModel, "__new__"),
    *((Queue, name) for name in ("__init__", "add_message", "delete_message")),
    *(
        (Queue, f"approximate_number_of_messages{name}")
        for name in ("", "_delayed", "_not_visible")
    ),
    *((SQSBackend, name) for name in ("receive_message", "change_message_visibility")),
    *((SQSBackend, name) for name in ("purge_queue", "delete_queue")),
    (Queue, "_setup_dlq"),
]


@pytest.fixture(autouse=True)
def unpatch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what a shim does to moto when the test is over."""
    for owner, name in PATCHED:
        monkeypatch.setattr(owner, name, vars(owner)[name])
    monkeypatch.setattr(Queue, "dead_letter_queue", None, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)


@pytest.fixture
def aws() -> Iterator[None]:
    with mock_aws():
        yield


class Events:
    """A bucket that notifies a queue, and the events that arrive there."""

    def __init__(self, *, versioned: bool = False) -> None:
        self.s3: Any = boto3.client("s3", region_name="us-east-1")
        self._sqs: Any = boto3.client("sqs", region_name="us-east-1")
        self._url = self._sqs.create_queue(QueueName="shim-queue")["QueueUrl"]
        self.s3.create_bucket(Bucket=BUCKET)
        if versioned:
            self.s3.put_bucket_versioning(
                Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"}
            )
        arn = f"arn:aws:sqs:us-east-1:{DEFAULT_ACCOUNT_ID}:shim-queue"
        self.s3.put_bucket_notification_configuration(
            Bucket=BUCKET,
            NotificationConfiguration={
                "QueueConfigurations": [
                    {"QueueArn": arn, "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
                ]
            },
        )
        self.first = self._bodies()

    def _bodies(self) -> list[Any]:
        found = []
        while batch := self._sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=10).get(
            "Messages"
        ):
            for message in batch:
                found.append(json.loads(message["Body"]))
                self._sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
        return found

    def records(self) -> list[Any]:
        return [record for body in self._bodies() for record in body["Records"]]

    def upload_in_parts(self, key: str) -> None:
        upload = self.s3.create_multipart_upload(Bucket=BUCKET, Key=key)["UploadId"]
        named = {"Bucket": BUCKET, "Key": key, "UploadId": upload}
        etag = self.s3.upload_part(**named, PartNumber=1, Body=b"part")["ETag"]
        self.s3.complete_multipart_upload(
            **named, MultipartUpload={"Parts": [{"ETag": etag, "PartNumber": 1}]}
        )


def test_a_new_notification_begins_with_a_test_event(aws: None) -> None:
    # As on AWS, so there is no shim; what reads the queue must know it.
    assert [body["Event"] for body in Events().first] == ["s3:TestEvent"]


def test_complete_s3_events(aws: None) -> None:
    events = Events()
    events.s3.put_object(Bucket=BUCKET, Key="c/p 1/é+.jpg", Body=b"12")
    described = events.records()[0]["s3"]["object"]
    assert "sequencer" not in described
    assert described["key"] == "c%2Fp+1%2F%C3%A9%2B.jpg"

    shims.complete_s3_events()
    events.s3.put_object(Bucket=BUCKET, Key="c/p 1/é+.jpg", Body=b"12")
    events.s3.put_object(Bucket=BUCKET, Key="second", Body=b"")
    events.s3.delete_object(Bucket=BUCKET, Key="second")
    put, second, deleted = events.records()
    assert put["s3"]["object"]["key"] == "c/p+1/%C3%A9%2B.jpg"
    assert put["s3"]["object"]["size"] == 2
    assert deleted["eventName"] == "ObjectRemoved:Delete"
    assert set(deleted["s3"]["object"]) == {"key", "sequencer"}
    order = [item["s3"]["object"]["sequencer"] for item in (put, second, deleted)]
    assert order == sorted(set(order))
    assert all(re.fullmatch("[0-9A-F]{16}", item) for item in order)


def test_complete_s3_events_names_versions(aws: None) -> None:
    events = Events(versioned=True)
    events.s3.put_object(Bucket=BUCKET, Key="k", Body=b"1")
    assert "versionId" not in events.records()[0]["s3"]["object"]
    shims.complete_s3_events()
    version = events.s3.put_object(Bucket=BUCKET, Key="k", Body=b"2")["VersionId"]
    assert events.records()[0]["s3"]["object"]["versionId"] == version


def test_announce_multipart_once(aws: None) -> None:
    events = Events()
    events.upload_in_parts("k")
    assert [item["eventName"] for item in events.records()] == [
        "ObjectCreated:Put",
        "ObjectCreated:CompleteMultipartUpload",
    ]
    shims.announce_multipart_once()
    events.upload_in_parts("k")
    events.s3.put_object(Bucket=BUCKET, Key="other", Body=b"")
    assert [item["eventName"] for item in events.records()] == [
        "ObjectCreated:CompleteMultipartUpload",
        "ObjectCreated:Put",
    ]


def test_announce_delete_markers(aws: None) -> None:
    events = Events(versioned=True)
    events.s3.put_object(Bucket=BUCKET, Key="k", Body=b"1")
    events.records()
    events.s3.delete_object(Bucket=BUCKET, Key="k")
    assert events.records() == []

    shims.complete_s3_events()
    shims.announce_delete_markers()
    events.s3.put_object(Bucket=BUCKET, Key="k", Body=b"1")
    marker = events.s3.delete_object(Bucket=BUCKET, Key="k")["VersionId"]
    events.s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": "k"}]})
    records = events.records()[1:]
    assert [item["eventName"] for item in records] == ["ObjectRemoved:DeleteMarkerCreated"] * 2
    assert records[0]["s3"]["object"]["versionId"] == marker


def test_queues_are_fast_at_every_depth(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []
    visible = Message.visible.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(
        Message, "visible", property(lambda self: looked.append(1) or visible(self))
    )
    sqs: Any = boto3.client("sqs", region_name="us-east-1")

    def looks_of_one_round(name: str) -> int:
        url = sqs.create_queue(QueueName=name)["QueueUrl"]
        for start in range(0, 100, 10):
            entries = [{"Id": str(start + i), "MessageBody": "x"} for i in range(10)]
            sqs.send_message_batch(QueueUrl=url, Entries=entries)
        looked.clear()
        sqs.send_message(QueueUrl=url, MessageBody="x")
        message = sqs.receive_message(QueueUrl=url)["Messages"][0]
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return len(looked)

    assert looks_of_one_round("of-moto") > 100
    shims.keep_queues_fast()
    assert looks_of_one_round("of-ours") == 0


def test_forget_instances(aws: None) -> None:
    s3: Any = boto3.client("s3", region_name="us-east-1")
    s3.create_bucket(Bucket=BUCKET)

    def remembered() -> int:
        before = len(FakeKey.instances_tracked)  # type: ignore[attr-defined]
        s3.put_object(Bucket=BUCKET, Key="k", Body=b"")
        return len(FakeKey.instances_tracked) - before  # type: ignore[attr-defined]

    assert remembered() == 1
    shims.forget_instances()
    assert remembered() == 0


def test_count_arrivals(aws: None) -> None:
    shims.count_arrivals()
    events = Events()
    before = shims.arrivals()
    events.s3.put_object(Bucket=BUCKET, Key="k", Body=b"1")
    assert shims.arrivals() == before + 1
    events.s3.get_object(Bucket=BUCKET, Key="k")
    assert shims.arrivals() == before + 1


def test_remember_services(aws: None) -> None:
    listed = backends.list_of_moto_modules()
    assert not isinstance(listed, tuple)  # a generator that reads the disk at every call
    known = list(listed)
    shims.remember_services()
    assert backends.list_of_moto_modules() is backends.list_of_moto_modules()
    assert list(backends.list_of_moto_modules()) == known


class Http:
    """A WSGI application called over HTTP, and presigned requests for it."""

    def __init__(self, application: Any) -> None:
        self._client = Client(application)
        self.signer: Any = boto3.client("s3", region_name="us-east-1", endpoint_url=HOST)

    def send(self, method: str, url: str, **options: Any) -> TestResponse:
        parts = urlsplit(url)
        return self._client.open(
            parts.path, method=method, base_url=HOST, query_string=parts.query, **options
        )

    def put(self, key: str, body: bytes) -> None:
        url = self.signer.generate_presigned_url(
            "put_object", Params={"Bucket": BUCKET, "Key": key}
        )
        assert self.send("PUT", url, data=body).status_code == 200

    def post(self, form: dict[str, Any], body: bytes, **fields: str) -> int:
        data = {**form["fields"], **fields, "file": (io.BytesIO(body), "photo.jpg")}
        return self.send("POST", form["url"], data=data).status_code


@pytest.fixture
def plain() -> Iterator[Http]:
    yield from _served(DomainDispatcherApplication(create_backend_app))


@pytest.fixture
def ours() -> Iterator[Http]:
    yield from _served(DurableMoto())


def _served(application: Any) -> Iterator[Http]:
    moto_api_backend.reset()
    served = Http(application)
    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].create_bucket(BUCKET, "us-east-1")
    yield served
    moto_api_backend.reset()


@pytest.mark.parametrize("version", ["s3", "s3v4"])
def test_expired_presigned_urls_are_refused(plain: Http, version: str) -> None:
    signer: Any = boto3.client(
        "s3", region_name="us-east-1", endpoint_url=HOST, config=Config(signature_version=version)
    )
    plain.put("k", b"photo")
    named = {"Params": {"Bucket": BUCKET, "Key": "k"}}
    expired = signer.generate_presigned_url("get_object", **named, ExpiresIn=-60)
    fresh = signer.generate_presigned_url("get_object", **named, ExpiresIn=60)
    assert plain.send("GET", expired).status_code == 200

    checked = Http(DurableMoto())
    answer = checked.send("GET", expired)
    assert answer.status_code == 403
    assert b"<Code>AccessDenied</Code><Message>Request has expired</Message>" in answer.data
    assert checked.send("GET", fresh).data == b"photo"


FORMS: list[tuple[str, Callable[[Http, dict[str, Any]], int], int]] = [
    ("as agreed", lambda http, form: http.post(form, b"x" * 100), 204),
    ("too large", lambda http, form: http.post(form, b"x" * 101), 400),
    ("too small", lambda http, form: http.post(form, b""), 400),
    ("other key", lambda http, form: http.post(form, b"x", key="elsewhere"), 403),
    ("other type", lambda http, form: http.post(form, b"x", **{"Content-Type": "text/html"}), 403),
    ("extra field", lambda http, form: http.post(form, b"x", acl="public-read"), 403),
    ("ignored field", lambda http, form: http.post(form, b"x", **{"x-ignore-me": "1"}), 204),
    ("broken policy", lambda http, form: http.post(form, b"x", policy="!"), 400),
]


@pytest.mark.parametrize(("name", "send", "status"), FORMS, ids=[form[0] for form in FORMS])
def test_presigned_forms_are_enforced(
    plain: Http, name: str, send: Callable[[Http, dict[str, Any]], int], status: int
) -> None:
    form = plain.signer.generate_presigned_post(
        BUCKET,
        "uploads/one",
        Fields={"Content-Type": "image/jpeg"},
        Conditions=[["content-length-range", 1, 100], ["starts-with", "$Content-Type", "image/"]],
        ExpiresIn=60,
    )
    assert send(plain, form) == 204  # moto enforces nothing
    assert send(Http(DurableMoto()), form) == status


def test_expired_presigned_forms_are_refused(plain: Http) -> None:
    form = plain.signer.generate_presigned_post(BUCKET, "k", ExpiresIn=-60)
    assert plain.post(form, b"x") == 204
    assert Http(DurableMoto()).post(form, b"x") == 403


def test_presigned_forms_keep_the_object(ours: Http) -> None:
    form = ours.signer.generate_presigned_post(BUCKET, "uploads/one", ExpiresIn=60)
    body = bytes(range(256)) * 1000
    assert ours.post(form, body) == 204
    url = ours.signer.generate_presigned_url(
        "get_object", Params={"Bucket": BUCKET, "Key": "uploads/one"}
    )
    assert ours.send("GET", url).data == body


def test_cross_origin_answers_follow_the_buckets_rules(plain: Http) -> None:
    named = {"Bucket": BUCKET, "Key": "k"}
    rules: list[dict[str, Any]] = [
        {"AllowedMethod": ["PUT"], "AllowedOrigin": ["https://admin.example"]},
        {
            "AllowedMethod": ["GET", "POST"],
            "AllowedOrigin": ["*"],
            "AllowedHeader": ["x-*"],
            "ExposeHeader": ["ETag"],
            "MaxAgeSeconds": "60",
        },
    ]
    plain.put("k", b"photo")
    url = plain.signer.generate_presigned_url("get_object", Params=named)
    shop = {"Origin": "https://shop.example"}
    asks = {**shop, "Access-Control-Request-Method": "POST"}
    checked = Http(DurableMoto())
    assert "Access-Control-Allow-Origin" not in checked.send("GET", url, headers=shop).headers
    assert checked.send("OPTIONS", url, headers=asks).status_code == 403

    s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_bucket_cors(BUCKET, rules)
    got = checked.send("GET", url, headers=shop)
    assert got.headers["Access-Control-Allow-Origin"] == "*"
    assert got.headers["Access-Control-Expose-Headers"] == "ETag"
    assert "Access-Control-Allow-Origin" not in checked.send("GET", url).headers
    allowed = checked.send(
        "OPTIONS", url, headers={**asks, "Access-Control-Request-Headers": "X-One, x-two"}
    )
    assert allowed.status_code == 200
    assert allowed.headers["Access-Control-Allow-Headers"] == "x-one, x-two"
    assert allowed.headers["Access-Control-Max-Age"] == "60"
    refused = checked.send("OPTIONS", url, headers={**asks, "Access-Control-Request-Headers": "a"})
    assert refused.status_code == 403
    # moto refuses a preflight of the shop because of the admin's rule.
    assert plain.send("OPTIONS", url, headers=asks).status_code == 403


def test_time_to_live_deletes_nothing(aws: None) -> None:
    # Known and left: readers must filter on expires_at themselves, as on AWS, where it is late.
    dynamodb: Any = boto3.client("dynamodb", region_name="us-east-1")
    dynamodb.create_table(
        TableName="t",
        KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    dynamodb.update_time_to_live(
        TableName="t", TimeToLiveSpecification={"AttributeName": "e", "Enabled": True}
    )
    dynamodb.put_item(
        TableName="t", Item={"k": {"S": "1"}, "e": {"N": str(int(time.time()) - 10**6)}}
    )
    assert "Item" in dynamodb.get_item(TableName="t", Key={"k": {"S": "1"}})


def test_refusals_escape_what_they_quote() -> None:
    body = presigned.Refusal(403, "AccessDenied", "a <b> & c").body()
    assert b"<Message>a &lt;b&gt; &amp; c</Message>" in body
