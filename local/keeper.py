"""Keeps moto's state in a journal: writes what was touched, and puts it back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.dynamodb.models import dynamodb_backends
from moto.s3.models import s3_backends
from moto.sqs.models import sqs_backends

from local import kept_items, kept_messages, kept_objects, touched
from local.aws_requests import Environ, Kind, environ_of_kept
from local.journal import Journal
from local.touched import ItemRecord, MessageRecord, ObjectRecord, PartRecord, UploadRecord

Send = Callable[[Environ], int]
"""Has moto serve a request; answers its status."""


class KeptCall(NamedTuple):
    """A request that was served and is to be kept itself."""

    kind: Kind
    resource: str
    request: bytes


class Keeper:
    """moto's state in a journal.

    Parameters
    ----------
    journal
        The open journal.
    send
        Has moto serve a kept request.
    """

    def __init__(self, journal: Journal, send: Send) -> None:
        self._journal = journal
        self._send = send
        self._objects = kept_objects.Objects(journal)
        self._items = kept_items.Items(journal)
        self._messages = kept_messages.Messages(journal)

    def commit(self, calls: Sequence[KeptCall]) -> None:
        """Write the calls and what has been touched; on any error, memory is as it was before.

        Raises
        ------
        Exception
            Nothing was written: the disk is full, or moto has something that cannot be written.
        """
        records = touched.take()
        if not records and not calls:
            return
        try:
            with self._journal.transaction():
                for call in calls:
                    self._keep(call)
                for record in records:
                    self._save(record)
        except BaseException:
            self._objects.settle(committed=False)
            if calls:
                self.load()
            else:
                for record in records:
                    self._put_back(record)
                touched.take()
            raise
        self._objects.settle(committed=True)

    def load(self) -> None:
        """Make moto's state what the journal has, and nothing else."""
        for backends in (s3_backends, dynamodb_backends, sqs_backends):
            for account in backends.values():
                account.reset()
        s3_backends.bucket_accounts.clear()
        self._replay()
        for queues in sqs_backends.values():
            for backend in queues.values():
                for queue in backend.queues.values():
                    queue._messages.clear()
        self._objects.load()
        self._items.load()
        self._messages.load()
        touched.take()

    def _keep(self, call: KeptCall) -> None:
        if call.kind is Kind.DELETES:
            self._journal.rows("DELETE FROM requests WHERE resource = ?", (call.resource,))
            return
        if call.kind is Kind.CHANGES:
            self._journal.rows("DELETE FROM requests WHERE request = ?", (call.request,))
        self._journal.rows(
            "INSERT OR IGNORE INTO requests (resource, at, request) VALUES (?, ?, ?)",
            (call.resource, time.time(), call.request),
        )

    def _replay(self) -> None:
        """Send the kept requests; again those that need what a later one makes."""
        waiting = self._journal.rows("SELECT request FROM requests ORDER BY id")
        while waiting:
            failed = [row for row in waiting if self._send(environ_of_kept(row[0])) >= 300]
            if len(failed) == len(waiting):
                break
            waiting = failed
        for resource, at in self._journal.rows(
            "SELECT resource, min(at) FROM requests GROUP BY resource"
        ):
            _set_creation(resource, at)

    def _save(self, record: touched.Record) -> None:
        match record:
            case ObjectRecord():
                self._objects.save_object(record)
            case UploadRecord():
                self._objects.save_upload(record)
            case PartRecord():
                self._objects.save_part(record)
            case ItemRecord():
                self._items.save(record)
            case MessageRecord():
                self._messages.save(record)

    def _put_back(self, record: touched.Record) -> None:
        match record:
            case ObjectRecord():
                self._objects.load_object(record)
            case UploadRecord(bucket, upload) | PartRecord(bucket, upload):
                self._objects.load_upload(UploadRecord(bucket, upload))
            case ItemRecord():
                self._items.load_item(record)
            case MessageRecord():
                self._messages.load_message(record)


def _set_creation(resource: str, at: float) -> None:
    service, _, name = resource.partition(":")
    region, _, name = name.rpartition(":")
    if service == "s3":
        bucket = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets.get(name)
        if bucket is not None:
            bucket.creation_date = datetime.fromtimestamp(at, UTC)
    elif service == "sqs":
        queue = sqs_backends[DEFAULT_ACCOUNT_ID][region].queues.get(name)
        if queue is not None:
            queue.created_timestamp = at
    elif name in (tables := dynamodb_backends[DEFAULT_ACCOUNT_ID][region].tables):
        tables[name].created_at = datetime.fromtimestamp(at, UTC).replace(tzinfo=None)
