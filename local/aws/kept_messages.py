"""Keeps the messages of moto's SQS queues, with how often and until when each is in flight."""

from __future__ import annotations

import itertools
from typing import Any

from moto.sqs.models import Message, sqs_backends

from local.aws import queues
from local.aws.journal import Journal, decode_state, encode_state
from local.aws.touched import MessageRecord

_FIELDS = (
    *("body", "message_attributes", "system_attributes", "receipt_handle", "_old_receipt_handles"),
    *("sender_id", "sent_timestamp", "approximate_first_receive_timestamp"),
    *("approximate_receive_count", "deduplication_id", "group_id", "sequence_number"),
    *("visible_at", "delayed_until", "sequence"),
)


class Messages:
    """Messages between moto and the journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def save(self, record: MessageRecord) -> None:
        """Write what moto has of a message."""
        queue = _queue(record.queue)
        message = queue._messages.get(record.message) if queue is not None else None
        if message is None:
            self._journal.rows("DELETE FROM messages WHERE arn = ? AND message = ?", record)
            return
        state = encode_state({name: getattr(message, name) for name in _FIELDS})
        self._journal.rows(
            "INSERT OR REPLACE INTO messages VALUES (?, ?, ?, ?)",
            (*record, message.sequence, state),
        )

    def load(self) -> None:
        """Put everything that the journal has into moto's queues."""
        last = 0
        for arn, message, number, state in self._journal.rows(
            "SELECT arn, message, sequence, state FROM messages ORDER BY sequence"
        ):
            last = number
            if (queue := _queue(arn)) is not None:
                queue._messages.append(_message(message, state))
        queues.sequence = itertools.count(last + 1)

    def load_message(self, record: MessageRecord) -> None:
        """Put what the journal has of a message into moto."""
        queue = _queue(record.queue)
        if queue is None:
            return
        if (message := queue._messages.get(record.message)) is not None:
            queue._messages.remove(message)
        for (state,) in self._journal.rows(
            "SELECT state FROM messages WHERE arn = ? AND message = ?", record
        ):
            queue._messages.append(_message(record.message, state))


def _queue(arn: str) -> Any:
    _, _, _, region, account, name = arn.split(":")
    return sqs_backends[account][region].queues.get(name)


def _message(message_id: str, state: str) -> Any:
    message: Any = Message.__new__(Message)
    message.id = message_id
    for name, value in decode_state(state).items():
        setattr(message, name, value)
    return message
