"""Which records of moto the calls since the last commit have touched. One thread calls moto."""

from __future__ import annotations

from typing import Any, NamedTuple


class ObjectRecord(NamedTuple):
    """All versions of a key."""

    bucket: str
    key: str


class UploadRecord(NamedTuple):
    """A multipart upload in progress, without its parts."""

    bucket: str
    upload: str


class PartRecord(NamedTuple):
    """A part of a multipart upload in progress."""

    bucket: str
    upload: str
    number: int


class ItemRecord(NamedTuple):
    """An item of a table; the keys are moto's ``DynamoType``."""

    table: str
    hash_key: Any
    range_key: Any


class MessageRecord(NamedTuple):
    """A message of a queue."""

    queue: str
    message: str


Record = ObjectRecord | UploadRecord | PartRecord | ItemRecord | MessageRecord

_touched: dict[Record, None] = {}


def touch(record: Record) -> None:
    """Remember that a record may have changed, or may be gone."""
    _touched[record] = None


def take() -> list[Record]:
    """The records touched since the last call, in the order of their first touch."""
    records = list(_touched)
    _touched.clear()
    return records
