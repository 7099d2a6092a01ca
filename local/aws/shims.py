"""Where moto 5.2.5 differs from AWS in what Lookalike relies on: one function a difference.

Every shim has a test in ``tests/contract/test_moto_shims.py`` that shows moto without it, and that
fails when moto changes. What is checked on requests is in ``presigned.py`` and ``bucket_cors.py``.
"""

from __future__ import annotations

import contextvars
import os
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote_plus

from moto import backends
from moto.core.common_models import BaseModel
from moto.s3 import notifications
from moto.s3.models import S3Backend
from moto.sqs.models import Queue

from local.aws import kept_items, kept_objects
from local.aws.queues import keep_queues_fast

_completing_multipart = contextvars.ContextVar("completing_multipart", default=False)
_arrivals = 0
_last_sequencer = 0
_request_id = ""


def install() -> None:
    """Apply every shim to the moto of this process."""
    for shim in (
        remember_services,
        complete_s3_events,
        announce_multipart_once,
        announce_delete_markers,
        forget_instances,
        keep_queues_fast,
        count_arrivals,
        kept_objects.track,
        kept_items.track,
    ):
        shim()


def arrivals() -> int:
    """How many messages any queue has received so far; long polls wait for it to change."""
    return _arrivals


def remember_services() -> None:
    """Remember what moto lists from disk on every request: half of the time of a small PUT."""
    services = tuple(backends.list_of_moto_modules())
    backends.list_of_moto_modules = lambda: services


def complete_s3_events() -> None:
    """Events lack ``sequencer`` and ``versionId`` and encode ``/`` in keys; deletions carry a size.

    The shape is that of AWS's documentation of the notification message structure, version 2.1.
    """
    original: Callable[..., dict[str, Any]] = notifications._get_s3_event

    def event(event_name: str, bucket: Any, key: Any, notification_id: str) -> dict[str, Any]:
        source = key
        while not hasattr(source, "etag"):
            # A delete marker, of a delete marker perhaps; moto's own event needs the object's ETag.
            source = source.key
        body = original(event_name, bucket, source, notification_id)
        record = body["Records"][0]
        described = record["s3"]["object"]
        described["key"] = quote_plus(key.name, safe="/")
        described["sequencer"] = _next_sequencer()
        if bucket.is_versioned:
            described["versionId"] = key.version_id
        if record["eventName"].startswith("ObjectRemoved:"):
            described.pop("size")
            described.pop("eTag")
        record["s3"]["bucket"]["ownerIdentity"] = {"principalId": "local"}
        record["userIdentity"] = {"principalId": "AWS:local"}
        record["requestParameters"] = {"sourceIPAddress": "127.0.0.1"}
        record["responseElements"] = {"x-amz-request-id": _request_id}
        return body

    notifications._get_s3_event = event


def begin_request() -> str:
    """Name a request to S3: its events have the same id as its answer, which moto gives none."""
    global _request_id
    _request_id = os.urandom(8).hex().upper()
    return _request_id


def _next_sequencer() -> str:
    """Hexadecimal, ordered by time for every key, never twice."""
    global _last_sequencer
    _last_sequencer = max(_last_sequencer + 1, time.time_ns())
    return f"{_last_sequencer:016X}"


def announce_multipart_once() -> None:
    """A multipart upload fires ``Put`` beside ``CompleteMultipartUpload``."""
    complete, send = S3Backend.complete_multipart_upload, notifications.send_event

    def complete_multipart_upload(self: Any, *args: Any, **kwargs: Any) -> Any:
        token = _completing_multipart.set(True)
        try:
            return complete(self, *args, **kwargs)
        finally:
            _completing_multipart.reset(token)

    def send_event(account_id: str, event_name: Any, bucket: Any, key: Any) -> None:
        put = notifications.S3NotificationEvent.OBJECT_CREATED_PUT_EVENT
        if not (_completing_multipart.get() and event_name == put):
            send(account_id, event_name, bucket, key)

    S3Backend.complete_multipart_upload = complete_multipart_upload  # type: ignore[method-assign]
    notifications.send_event = send_event


def announce_delete_markers() -> None:
    """Deleting in a versioned bucket fires nothing until the last version is gone."""
    original = S3Backend._set_delete_marker

    def set_delete_marker(self: Any, bucket_name: str, key_name: str) -> Any:
        marker = original(self, bucket_name, key_name)
        notifications.send_event(
            self.account_id,
            notifications.S3NotificationEvent.OBJECT_REMOVED_DELETE_MARKER_CREATED_EVENT,
            self.get_bucket(bucket_name),
            marker,
        )
        return marker

    S3Backend._set_delete_marker = set_delete_marker  # type: ignore[method-assign]


def forget_instances() -> None:
    """Moto lists every object, item and message it ever made, and so lets go of none."""
    BaseModel.__new__ = lambda cls, *args, **kwargs: object.__new__(cls)  # type: ignore[method-assign]


def count_arrivals() -> None:
    """A long poll in moto holds its thread; ours waits outside and must learn of new messages."""
    original = Queue.add_message

    def add_message(self: Any, message: Any) -> None:
        global _arrivals
        original(self, message)
        _arrivals += 1

    Queue.add_message = add_message  # type: ignore[method-assign]
