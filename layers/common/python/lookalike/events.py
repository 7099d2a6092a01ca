"""Reads messages of the ingest queue: which object keys they name. Hints, never truth."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict
from urllib.parse import unquote_plus

import msgspec

from lookalike.core.types import Delivered

MAX_KEYS = 10
"""What a message may name. If it comes again each is tried alone: there is time for ten of them."""


class ItemFailure(TypedDict):
    """One message that must be delivered again."""

    itemIdentifier: str


class BatchResponse(TypedDict):
    """What Lambda wants to hear of a batch (``ReportBatchItemFailures``)."""

    batchItemFailures: list[ItemFailure]


@dataclass(frozen=True, slots=True)
class Message:
    """A message that was understood; if it ``is_last``, a failure makes it a dead letter.

    ``sent_at`` is in epoch seconds. ``uploads`` are the S3 request ids of what its keys tell of, as
    far as they are known. With ``write_again`` rows are to be written though nothing has changed.
    """

    message_id: str
    keys: tuple[str, ...]
    receives: int
    is_last: bool
    sent_at: float
    uploads: Mapping[str, str]
    write_again: bool


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
    def delivered(self) -> list[Delivered]:
        """Every key once, in the order in which messages name them; what any says counts."""
        found: dict[str, Delivered] = {}
        for message in self.messages:
            for key in message.keys:
                known = found.get(key, Delivered(key))
                found[key] = Delivered(
                    key,
                    max(known.receives, message.receives),
                    known.is_last or message.is_last,
                    known.write_again or message.write_again,
                )
        return list(found.values())

    def message_of(self, key: str) -> Message:
        """The last message that names a key: of several, it tells of the object as it is."""
        return next(message for message in reversed(self.messages) if key in message.keys)

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
            hint = read_hint(record["body"])
        except ValueError as error:
            unreadable.append(Unreadable(message_id, str(error)))
            continue
        attributes = record["attributes"]
        receives = int(attributes["ApproximateReceiveCount"])
        messages.append(
            Message(
                message_id,
                hint.keys,
                receives,
                receives >= max_receives,
                int(attributes["SentTimestamp"]) / 1000,
                hint.uploads,
                hint.write_again,
            )
        )
    return Batch(tuple(messages), tuple(unreadable))


def batch_response(message_ids: Iterable[str]) -> BatchResponse:
    """Report the messages that must be delivered again."""
    return {"batchItemFailures": [{"itemIdentifier": item} for item in message_ids]}


@dataclass(frozen=True, slots=True)
class Hint:
    """What one message says: object keys, the S3 request ids of their uploads, what is asked."""

    keys: tuple[str, ...]
    uploads: Mapping[str, str] = field(default_factory=dict)
    write_again: bool = False


def read_hint(body: str) -> Hint:
    """Read one message.

    Parameters
    ----------
    body
        An S3 event (its keys are URL-encoded, as S3 sends them), S3's test event (no keys), or
        ``{"keys": [...]}`` as Lookalike itself sends, perhaps with ``"write_again": true``.
        At most `MAX_KEYS` of them.

    Raises
    ------
    ValueError
        The body is anything else.
    """
    hint = _read(body)
    if len(hint.keys) > MAX_KEYS:
        raise ValueError(f"it names {len(hint.keys)} keys; send at most {MAX_KEYS} in a message")
    return hint


def _read(body: str) -> Hint:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object was expected, not {type(value).__name__}")
    if value.get("Event") == "s3:TestEvent":
        return Hint(())
    if isinstance(value.get("Records"), list):
        named = [(_key_of(record), _request_of(record)) for record in value["Records"]]
        return Hint(tuple(key for key, _ in named), {key: id_ for key, id_ in named if id_})
    keys = value.get("keys")
    if isinstance(keys, list) and all(isinstance(key, str) and key for key in keys):
        return Hint(tuple(keys), write_again=value.get("write_again") is True)
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


def _request_of(record: dict[str, Any]) -> str:
    """The id of the S3 request that an event tells of; empty when it does not say."""
    elements = record.get("responseElements")
    found = elements.get("x-amz-request-id") if isinstance(elements, dict) else None
    return found if isinstance(found, str) else ""
