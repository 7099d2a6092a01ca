"""Reads messages of the ingest queue: which object keys they name. Hints, never truth."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict
from urllib.parse import unquote_plus

import msgspec


class ItemFailure(TypedDict):
    """One message that must be delivered again."""

    itemIdentifier: str


class BatchResponse(TypedDict):
    """What Lambda wants to hear of a batch (``ReportBatchItemFailures``)."""

    batchItemFailures: list[ItemFailure]


@dataclass(frozen=True, slots=True)
class Message:
    """A message that was understood; if it ``is_last``, a failure makes it a dead letter."""

    message_id: str
    keys: tuple[str, ...]
    is_last: bool


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A message that was not understood, and why."""

    message_id: str
    error: str


@dataclass(frozen=True, slots=True)
class Batch:
    """The messages of one invocation."""

    messages: tuple[Message, ...]
    unreadable: tuple[Unreadable, ...]

    @property
    def keys(self) -> list[str]:
        """Every key once, in the order in which messages name them."""
        return list(dict.fromkeys(key for message in self.messages for key in message.keys))

    @property
    def last_chances(self) -> list[str]:
        """Keys of messages that will not be delivered again, each once."""
        last = (message.keys for message in self.messages if message.is_last)
        return list(dict.fromkeys(key for keys in last for key in keys))

    def failed(self, keys: Collection[str]) -> list[str]:
        """Ids of the messages that name any of ``keys``, and of those that were not understood."""
        named = [m.message_id for m in self.messages if any(key in keys for key in m.keys)]
        return named + [message.message_id for message in self.unreadable]


def read_batch(event: Mapping[str, Any], max_receives: int) -> Batch:
    """Read the event that Lambda makes of a batch of SQS messages.

    Parameters
    ----------
    event
        The SQS event; each record has ``messageId``, ``body`` and ``attributes``.
    max_receives
        After how many receives a message goes to the dead-letter queue.
    """
    messages: list[Message] = []
    unreadable: list[Unreadable] = []
    for record in event["Records"]:
        message_id = record["messageId"]
        try:
            keys = tuple(keys_of(record["body"]))
        except ValueError as error:
            unreadable.append(Unreadable(message_id, str(error)))
            continue
        receives = int(record.get("attributes", {}).get("ApproximateReceiveCount", 1))
        messages.append(Message(message_id, keys, receives >= max_receives))
    return Batch(tuple(messages), tuple(unreadable))


def batch_response(message_ids: Iterable[str]) -> BatchResponse:
    """Report the messages that must be delivered again."""
    return {"batchItemFailures": [{"itemIdentifier": item} for item in message_ids]}


def keys_of(body: str) -> list[str]:
    """The object keys that one message names.

    Parameters
    ----------
    body
        An S3 event (its keys are URL-encoded, as S3 sends them), S3's test event (no keys), or
        ``{"keys": [...]}`` as Lookalike itself sends.

    Raises
    ------
    ValueError
        The body is anything else.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object was expected, not {type(value).__name__}")
    if value.get("Event") == "s3:TestEvent":
        return []
    if isinstance(value.get("Records"), list):
        return [_key_of(record) for record in value["Records"]]
    keys = value.get("keys")
    if isinstance(keys, list) and all(isinstance(key, str) and key for key in keys):
        return keys
    raise ValueError(f"neither an S3 event nor a list of keys; it has {sorted(value)[:10]}")


def _key_of(record: object) -> str:
    try:
        key = record["s3"]["object"]["key"]  # type: ignore[index]
    except (KeyError, TypeError, IndexError):
        raise ValueError("a record of the event names no object") from None
    if not isinstance(key, str) or not key:
        raise ValueError("a record of the event names no object")
    # Strict, since a replaced character would name another object.
    return unquote_plus(key, errors="strict")
