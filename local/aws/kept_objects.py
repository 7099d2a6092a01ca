"""Keeps moto's S3 objects: every version with its metadata, and multipart uploads in progress."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from moto.s3.models import (
    FakeBucket,
    FakeKey,
    FakeMultipart,
    MultipartDict,
    S3Backend,
    s3_backends,
)
from moto.s3.utils import _VersionedKeyStore

from local.aws.bodies import Body, keep_bodies
from local.aws.journal import Journal, decode_state, decode_text, encode_state, encode_text
from local.aws.object_states import (
    forget_tags,
    marker_of,
    object_of,
    upload_of,
    upload_state,
    version_state,
)
from local.aws.touched import ObjectRecord, PartRecord, UploadRecord, touch

_CHANGERS = (
    *("put_object_acl", "put_object_legal_hold", "put_object_retention"),
    *("delete_object_tagging", "restore_object"),
)
"""Methods of moto that change an object in its place; each is given a bucket and a key."""


class _Keys(_VersionedKeyStore):
    """A bucket's keys; says which are touched."""

    def __init__(self, bucket: str) -> None:
        super().__init__()
        self._bucket = bucket

    def __setitem__(self, key: str, value: Any) -> None:
        touch(ObjectRecord(self._bucket, key))
        super().__setitem__(key, value)

    def setlist(self, key: str, list_: Any) -> None:
        touch(ObjectRecord(self._bucket, key))
        forget_tags(self.getlist(key, []), list_)
        super().setlist(key, list_)

    def pop(self, key: str) -> None:  # type: ignore[override]
        touch(ObjectRecord(self._bucket, key))
        forget_tags(self.getlist(key, []), [])
        dict.pop(self, key)


class _Uploads(MultipartDict):
    """A bucket's multipart uploads in progress; says which are touched."""

    def __init__(self, bucket: str) -> None:
        super().__init__()
        self._bucket = bucket

    def __setitem__(self, upload: str, multipart: Any) -> None:
        multipart.bucket_name = self._bucket
        touch(UploadRecord(self._bucket, upload))
        super().__setitem__(upload, multipart)

    def __delitem__(self, upload: str) -> None:
        touch(UploadRecord(self._bucket, upload))
        dict.__delitem__(self, upload)


def track() -> None:
    """Let moto say which objects and uploads it touches."""
    keep_bodies()
    make_bucket, set_part = FakeBucket.__init__, FakeMultipart.set_part
    delete_bucket = S3Backend.delete_bucket

    def make_tracked_bucket(self: Any, *args: Any, **kwargs: Any) -> None:
        make_bucket(self, *args, **kwargs)
        self.keys = _Keys(self.name)
        self.multiparts = _Uploads(self.name)

    def set_tracked_part(self: Any, part_id: int, value: bytes) -> FakeKey:
        part = set_part(self, part_id, value)
        touch(PartRecord(self.bucket_name, self.id, part_id))
        return part

    def delete_tracked_bucket(self: Any, bucket_name: str) -> Any:
        for upload in list(self.get_bucket(bucket_name).multiparts):
            touch(UploadRecord(bucket_name, upload))
        return delete_bucket(self, bucket_name)

    for name in _CHANGERS:
        setattr(S3Backend, name, _touching(getattr(S3Backend, name)))
    tag = S3Backend.put_object_tagging

    def put_tracked_tags(self: Any, key: FakeKey, tags: Any) -> FakeKey:
        touch(ObjectRecord(str(key.bucket_name), key.name))
        return tag(self, key, tags)

    S3Backend.put_object_tagging = put_tracked_tags  # type: ignore[method-assign]
    FakeBucket.__init__ = make_tracked_bucket  # type: ignore[method-assign]
    FakeMultipart.set_part = set_tracked_part  # type: ignore[method-assign]
    S3Backend.delete_bucket = delete_tracked_bucket  # type: ignore[method-assign]


def _touching(change: Callable[..., Any]) -> Callable[..., Any]:
    def touch_and_change(
        self: Any, bucket_name: str, key_name: str, *args: Any, **kwargs: Any
    ) -> Any:
        touch(ObjectRecord(bucket_name, key_name))
        return change(self, bucket_name, key_name, *args, **kwargs)

    return touch_and_change


class Objects:
    """Objects and uploads between moto and the journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._written: list[Body] = []

    def save_object(self, record: ObjectRecord) -> None:
        """Write what moto has of a key."""
        bucket = _bucket(record.bucket)
        versions = bucket.keys.getlist(record.key, []) if bucket else []
        name = (record.bucket, encode_text(record.key))
        where = "FROM versions WHERE bucket = ? AND key = ?"
        rows = self._journal.rows(f"SELECT position, body, state {where}", name)
        stored = {position: (body, state) for position, body, state in rows}
        freed = {body for body, _ in stored.values()}
        for position, version in enumerate(versions):
            body = self._write_body(version) if isinstance(version, FakeKey) else None
            freed.discard(body)
            row = (body, encode_state(version_state(version)))
            if stored.pop(position, None) != row:
                self._journal.rows(
                    "INSERT OR REPLACE INTO versions VALUES (?, ?, ?, ?, ?)",
                    (*name, position, *row),
                )
        for position in stored:
            self._journal.rows(f"DELETE {where} AND position = ?", (*name, position))
        self._free(freed)

    def save_upload(self, record: UploadRecord) -> None:
        """Write what moto has of an upload; its parts go with it."""
        bucket = _bucket(record.bucket)
        upload = bucket.multiparts.get(record.upload) if bucket else None
        if upload is not None:
            state = encode_state(upload_state(upload))
            self._journal.rows("INSERT OR REPLACE INTO uploads VALUES (?, ?, ?)", (*record, state))
            return
        freed = self._journal.rows("SELECT body FROM parts WHERE bucket = ? AND upload = ?", record)
        self._journal.rows("DELETE FROM parts WHERE bucket = ? AND upload = ?", record)
        self._journal.rows("DELETE FROM uploads WHERE bucket = ? AND upload = ?", record)
        self._free(row[0] for row in freed)

    def save_part(self, record: PartRecord) -> None:
        """Write what moto has of a part."""
        bucket = _bucket(record.bucket)
        upload = bucket.multiparts.get(record.upload) if bucket else None
        if upload is None:
            return  # its upload is touched too
        part = upload.parts[record.number]
        freed = self._journal.rows(
            "SELECT body FROM parts WHERE bucket = ? AND upload = ? AND number = ?", record
        )
        body = self._write_body(part)
        self._journal.rows(
            "INSERT OR REPLACE INTO parts VALUES (?, ?, ?, ?, ?)",
            (*record, body, encode_state(version_state(part))),
        )
        self._free(row[0] for row in freed if row[0] != body)

    def settle(self, *, committed: bool) -> None:
        """End a transaction: let go of the contents that the journal now has."""
        if committed:
            for body in self._written:
                body.forget()
        self._written.clear()

    def load(self) -> None:
        """Put everything that the journal has into moto's buckets."""
        name: tuple[Any, ...] = ()
        versions: list[Any] = []
        for bucket, key, body, state in self._journal.rows(
            "SELECT bucket, key, body, state FROM versions ORDER BY bucket, key, position"
        ):
            if name != (bucket, key):
                self._put(name, versions)
                name, versions = (bucket, key), []
            versions.append(self._version(decode_text(key), body, state))
        self._put(name, versions)
        for row in self._journal.rows("SELECT bucket, upload FROM uploads"):
            self.load_upload(UploadRecord(*row))

    def load_object(self, record: ObjectRecord) -> None:
        """Put what the journal has of a key into moto."""
        key = encode_text(record.key)
        rows = self._journal.rows(
            "SELECT body, state FROM versions WHERE bucket = ? AND key = ? ORDER BY position",
            (record.bucket, key),
        )
        self._put((record.bucket, key), [self._version(record.key, *row) for row in rows])

    def load_upload(self, record: UploadRecord) -> None:
        """Put what the journal has of an upload into moto, with its parts."""
        bucket = _bucket(record.bucket)
        if bucket is None:
            return
        dict.pop(bucket.multiparts, record.upload, None)
        for (state,) in self._journal.rows(
            "SELECT state FROM uploads WHERE bucket = ? AND upload = ?", record
        ):
            upload = upload_of(record.bucket, decode_state(state))
            for number, body, part in self._journal.rows(
                "SELECT number, body, state FROM parts WHERE bucket = ? AND upload = ?"
                " ORDER BY number",
                record,
            ):
                upload.parts[number] = self._version(number, body, part)
                upload.partlist.append(number)
            dict.__setitem__(bucket.multiparts, record.upload, upload)

    def _put(self, name: tuple[Any, ...], versions: list[Any]) -> None:
        bucket = _bucket(name[0]) if name else None
        if bucket is None:
            return
        key = decode_text(name[1])
        if versions:
            dict.__setitem__(bucket.keys, key, versions)
        else:
            dict.pop(bucket.keys, key, None)

    def _version(self, name: Any, body: int | None, state: str) -> Any:
        fields = decode_state(state)
        if "marker_of_marker" in fields:
            return marker_of(name, fields)
        version = object_of(name, fields)
        version.body = Body(journal=self._journal, number=body, size=version.contentsize)
        return version

    def _write_body(self, version: Any) -> int | None:
        body: Body = version.body
        if body.write(self._journal):
            self._written.append(body)
        return body.number

    def _free(self, bodies: Iterable[int | None]) -> None:
        for body in bodies:
            if body is not None:
                self._journal.delete_body(body)


def _bucket(name: str) -> Any:
    partition, account = s3_backends.bucket_accounts.get(name, ("", ""))
    return s3_backends[account][partition].buckets.get(name) if account else None
