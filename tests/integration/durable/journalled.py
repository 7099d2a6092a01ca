"""A journal with moto beside it, and a second opinion on what moto has."""

from __future__ import annotations

import copy
import gc
import io
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import boto3
from botocore.config import Config
from moto import backends
from moto.core.common_models import BaseModel
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.dynamodb.models import DynamoDBBackend, dynamodb_backends
from moto.dynamodb.models.table import Table
from moto.moto_api._internal import moto_api_backend
from moto.s3 import notifications
from moto.s3.models import FakeBucket, FakeKey, FakeMultipart, S3Backend, s3_backends
from moto.s3.responses import S3Response
from moto.sqs.models import Queue, SQSBackend, sqs_backends

from local.aws import shims
from local.aws.durable_moto import Answer, DurableMoto
from local.aws.journal import Journal

REGION = "us-east-1"
HOST = "http://127.0.0.1:5000"
BUCKETS = ("plain-bucket", "versioned-bucket")
QUEUES = ("first", "second")
PATCHED = (
    *(backends, notifications, BaseModel, FakeKey, FakeBucket, FakeMultipart, S3Backend),
    *(S3Response, Queue, SQSBackend, Table, DynamoDBBackend),
)
UNKEPT = {
    *("lock", "body", "disposed", "acl", "multipart", "key", "_max_buffer_size", "_value_buffer"),
    *("_tick", "_time_progressed", "_transitions", "model_name", "user_id", "place"),
}
"""Of moto's own machinery, or written out below."""

Call = tuple[str, str, dict[str, Any]]
"""Service, method of boto3's client, parameters."""


@contextmanager
def shimmed_moto() -> Iterator[None]:
    """All shims for a while; then moto is as it was."""
    before = [(owner, dict(vars(owner))) for owner in PATCHED]
    shims.install()
    try:
        yield
    finally:
        moto_api_backend.reset()
        gc.collect()
        for owner, names in before:
            for name, value in names.items():
                # Objects that a failed test's traceback holds on to would warn of themselves.
                if vars(owner).get(name) is not value and name != "__del__":
                    setattr(owner, name, value)
            for name in set(vars(owner)) - set(names):
                delattr(owner, name)


class _Captured(Exception):
    """Carries a request out of boto3, which has signed it and would now send it."""

    def __init__(self, request: Any) -> None:
        super().__init__()
        self.request = request


class Requests:
    """What boto3 would send, as WSGI."""

    def __init__(self) -> None:
        self._clients: dict[str, Any] = {}
        for service in ("s3", "sqs", "dynamodb"):
            client = boto3.client(
                service,
                region_name=REGION,
                endpoint_url=HOST,
                aws_access_key_id="any",
                aws_secret_access_key="any",
                config=Config(retries={"total_max_attempts": 1}),
            )
            client.meta.events.register("before-send", _capture)
            self._clients[service] = client

    def __call__(self, call: Call) -> dict[str, Any]:
        service, action, fields = call
        try:
            getattr(self._clients[service], action)(**fields)
        except _Captured as captured:
            return _environ(captured.request)
        raise AssertionError("boto3 sent nothing")


def _capture(request: Any, **_: Any) -> None:
    raise _Captured(request)


def _environ(request: Any) -> dict[str, Any]:
    parts = urlsplit(request.url)
    body = request.body.read() if hasattr(request.body, "read") else request.body or b""
    body = body.encode() if isinstance(body, str) else bytes(body)
    headers = {
        f"HTTP_{name.upper().replace('-', '_')}": value.decode()
        if isinstance(value, bytes)
        else value
        for name, value in request.headers.items()
    }
    return {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote(parts.path, "latin-1"),
        "QUERY_STRING": parts.query,
        "RAW_URI": f"{parts.path}?{parts.query}" if parts.query else parts.path,
        "REQUEST_URI": f"{parts.path}?{parts.query}" if parts.query else parts.path,
        "REMOTE_ADDR": "127.0.0.1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "5000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        **headers,
        "HTTP_HOST": "127.0.0.1:5000",
        "CONTENT_TYPE": headers.get("HTTP_CONTENT_TYPE", ""),
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


class Cloud:
    """A local AWS whose process can be killed.

    Parameters
    ----------
    folder
        An empty folder for its journals.
    """

    requests: Requests | None = None

    def __init__(self, folder: Path) -> None:
        Cloud.requests = Cloud.requests or Requests()
        self._folder, self._starts = folder, 0
        self.path = folder / "aws.db"
        self._open()

    def _open(self) -> None:
        self.journal = Journal(self.path)
        # A process that is killed loses nothing that it has written, synced or not.
        self.journal.rows("PRAGMA synchronous = OFF")
        self.moto = DurableMoto(journal=self.journal)

    def crash(self) -> None:
        """Start again from the bytes that SIGKILL leaves: what was written, without a close."""
        self._starts += 1
        folder = self._folder / str(self._starts)
        folder.mkdir()
        for file in self.path.parent.glob("aws.db*"):
            shutil.copy(file, folder)
        self.journal.close()
        self.path = folder / "aws.db"
        self._open()

    def call(self, service: str, action: str, **fields: Any) -> Answer:
        return self.call_all([(service, action, fields)])[0]

    def call_all(self, calls: list[Call]) -> list[Answer]:
        assert self.requests is not None
        return self.moto.call_all([self.requests(call) for call in calls])

    def prepare(self) -> None:
        """Make buckets, queues and tables."""
        calls: list[Call] = [
            *(("s3", "create_bucket", {"Bucket": name}) for name in BUCKETS),
            versioning("versioned-bucket"),
            *(("sqs", "create_queue", {"QueueName": name}) for name in QUEUES),
            redrive("first", "second"),
            notify(BUCKETS[0], "first"),
            table("pairs", ("h", "HASH", "S"), ("r", "RANGE", "N")),
            table("singles", ("h", "HASH", "B")),
        ]
        assert [answer.status for answer in self.call_all(calls)] == [200] * len(calls)


def versioning(bucket: str) -> Call:
    status = {"Status": "Enabled"}
    return "s3", "put_bucket_versioning", {"Bucket": bucket, "VersioningConfiguration": status}


def notify(bucket: str, queue: str) -> Call:
    wanted = {"QueueArn": arn(queue), "Events": ["s3:ObjectCreated:*", "s3:ObjectRemoved:*"]}
    configuration = {"QueueConfigurations": [wanted]}
    fields = {"Bucket": bucket, "NotificationConfiguration": configuration}
    return "s3", "put_bucket_notification_configuration", fields


def redrive(queue: str, dead: str, count: int = 2) -> Call:
    policy = f'{{"deadLetterTargetArn": "{arn(dead)}", "maxReceiveCount": {count}}}'
    attributes = {"RedrivePolicy": policy, "VisibilityTimeout": "0"}
    return "sqs", "set_queue_attributes", {"QueueUrl": url(queue), "Attributes": attributes}


def table(name: str, *keys: tuple[str, str, str]) -> Call:
    return (
        "dynamodb",
        "create_table",
        {
            "TableName": name,
            "KeySchema": [{"AttributeName": key, "KeyType": kind} for key, kind, _ in keys],
            "AttributeDefinitions": [
                {"AttributeName": key, "AttributeType": kind} for key, _, kind in keys
            ],
            "BillingMode": "PAY_PER_REQUEST",
        },
    )


def arn(queue: str) -> str:
    return f"arn:aws:sqs:{REGION}:{DEFAULT_ACCOUNT_ID}:{queue}"


def url(queue: str) -> str:
    return f"{HOST}/{DEFAULT_ACCOUNT_ID}/{queue}"


def state() -> dict[str, Any]:
    """All that moto has, read without the code that keeps it."""
    s3 = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    found: dict[str, Any] = {}
    for bucket in s3.buckets.values():
        found["bucket", bucket.name] = (bucket.versioning_status, rules(bucket))
        for key, versions in bucket.keys.lists():
            found["object", bucket.name, key] = [version(s3, item) for item in versions]
        for upload in bucket.multiparts.values():
            parts = {number: version(s3, part) for number, part in upload.parts.items()}
            found["upload", bucket.name, upload.id] = (
                {**plain(upload), "parts": parts, "metadata": dict(upload.metadata.items())},
                repr_acl(upload.acl),
            )
    for name, kept in dynamodb_backends[DEFAULT_ACCOUNT_ID][REGION].tables.items():
        indexes = sorted(index.name for index in kept.global_indexes)
        found["table", name] = (kept.schema, kept.attr, kept.ttl, indexes)
        found["items", name] = [item.to_json() for item in kept.all_items()]
    for name, queue in sqs_backends[DEFAULT_ACCOUNT_ID][REGION].queues.items():
        attributes = dict(queue.attributes)
        attributes.pop("LastModifiedTimestamp")
        attributes.pop("CreatedTimestamp")
        found["queue", name] = (attributes, queue.tags)
        found["messages", name] = [plain(message) for message in queue._messages]
    return copy.deepcopy(found)


def plain(kept: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(kept).items() if name not in UNKEPT}


def version(s3: Any, item: Any) -> Any:
    if not hasattr(item, "contentsize"):
        return ("marker", plain(item), type(item.key).__name__ == "FakeDeleteMarker")
    multipart = item.multipart and [
        (item.multipart.id, number, part.etag, part.size)
        for number, part in item.multipart.parts.items()
    ]
    fields = {**plain(item), "_metadata": dict(item._metadata), "_etag": item.etag}
    return (fields, item.value, multipart, repr_acl(item.acl), s3.tagger.tags.get(item.arn))


def repr_acl(acl: Any) -> str:
    return repr(acl.grants) if acl else ""


def rules(bucket: Any) -> list[str]:
    configuration = bucket.notification_configuration
    return [rule.arn for rule in configuration.queue] if configuration else []
