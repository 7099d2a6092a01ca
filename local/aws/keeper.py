"""Keeps moto's state in a journal: writes what was touched, and puts it back."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.dynamodb.models import dynamodb_backends
from moto.s3.models import s3_backends
from moto.sqs.models import sqs_backends

from local.aws import kept_items, kept_messages, kept_objects, queues, touched
from local.aws.aws_requests import Environ, Kind, environ_of_kept, read_call
from local.aws.journal import Journal
from local.aws.touched import ItemRecord, MessageRecord, ObjectRecord, PartRecord, UploadRecord

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

    def commit(self, call: KeptCall | None = None) -> bool:
        """Write what has been touched, and a call.

        ``False`` when nothing was written, because the disk is full or moto has something that
        cannot be written; memory is then as it was before.

        Raises
        ------
        Exception
            Memory could not be made what it was before.
        """
        records = touched.take()
        if not records and call is None:
            return True
        try:
            with self._journal.transaction():
                if call is not None:
                    self._keep(call)
                for record in records:
                    self._save(record)
        except Exception:
            traceback.print_exc()
            self._objects.settle(committed=False)
            if call is not None:
                self.load()
            else:
                for record in records:
                    self._put_back(record)
                touched.take()
            return False
        self._objects.settle(committed=True)
        return True

    def load(self) -> None:
        """Make moto's state what the journal has, and nothing else."""
        for backends in (s3_backends, dynamodb_backends, sqs_backends):
            for account in backends.values():
                account.reset()
        s3_backends.bucket_accounts.clear()
        self._replay()
        for regions in sqs_backends.values():
            for backend in regions.values():
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
        """Send the kept requests in their order, first those that make something.

        One that fails has been overtaken, as the deletion of an index that was made anew.
        """
        environs = [
            environ_of_kept(row[0])
            for row in self._journal.rows("SELECT request FROM requests ORDER BY id")
        ]
        with queues.dead_letters_may_be_missing():
            for environ in sorted(environs, key=_configures):
                self._send_again(environ)
        for resource, at in self._journal.rows(
            "SELECT resource, min(at) FROM requests GROUP BY resource"
        ):
            _set_creation(resource, at)

    def _send_again(self, environ: Environ) -> None:
        what = environ.get("HTTP_X_AMZ_TARGET") or environ["QUERY_STRING"]
        try:
            status = str(self._send(environ))
        except Exception as error:  # moto's, of any kind
            status = repr(error)
        if not status.startswith("2"):
            print(f"left out: {environ['REQUEST_METHOD']} {environ['PATH_INFO']} {what}: {status}")

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


def find(resource: str) -> Any:
    """The bucket, queue or table of a call's resource as moto has it, or None."""
    service, _, name = resource.partition(":")
    if service == "s3":
        return s3_backends[DEFAULT_ACCOUNT_ID]["aws"].buckets.get(name)
    region, _, name = name.partition(":")
    if service == "sqs":
        return sqs_backends[DEFAULT_ACCOUNT_ID][region].queues.get(name)
    return dynamodb_backends[DEFAULT_ACCOUNT_ID][region].tables.get(name)


def _set_creation(resource: str, at: float) -> None:
    found = find(resource)
    if found is None:
        return
    moment = datetime.fromtimestamp(at, UTC)
    if resource.startswith("s3:"):
        found.creation_date = moment
    elif resource.startswith("sqs:"):
        found.created_timestamp = at
    else:
        found.created_at = moment.replace(tzinfo=None)


def _configures(environ: Environ) -> bool:
    body = environ["wsgi.input"].read()
    environ["wsgi.input"].seek(0)
    return read_call(environ, body).kind is not Kind.CREATES
