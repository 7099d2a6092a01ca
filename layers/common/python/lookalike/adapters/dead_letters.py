"""The dead-letter queue of the ingest queue: what is in it, and another try.

SQS cannot be looked into: messages are received, which hides them for a while, and shown again.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from lookalike.adapters.aws import aws_errors, client
from lookalike.core.errors import Unavailable

_AT_ONCE = 10  # SQS's limit
_HIDDEN_S = 60
_EMPTY_ANSWERS = 3  # a short poll asks some of the queue's hosts only

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message: its ``receipt`` names it while it is hidden. ``sent_at`` in epoch seconds."""

    message_id: str
    body: str
    sent_at: float
    receipt: str


class DeadLetters:
    """The queue that the ingest queue's redrive policy names.

    Parameters
    ----------
    ingest_queue_url
        The ingest queue.
    """

    def __init__(self, ingest_queue_url: str) -> None:
        self._sqs = client("sqs")
        self._ingest_url = ingest_queue_url
        with aws_errors("asking for the dead-letter queue"):
            answer = self._sqs.get_queue_attributes(
                QueueUrl=ingest_queue_url, AttributeNames=["RedrivePolicy"]
            )
            arn = json.loads(answer["Attributes"]["RedrivePolicy"])["deadLetterTargetArn"]
            self._url = self._sqs.get_queue_url(QueueName=arn.rpartition(":")[2])["QueueUrl"]

    def take(self, limit: int) -> list[DeadLetter]:
        """Up to ``limit`` messages, hidden from others for a minute or until `show`."""
        found: dict[str, DeadLetter] = {}
        empty = 0
        while len(found) < limit and empty < _EMPTY_ANSWERS:
            with aws_errors("reading the dead letters"):
                answer = self._sqs.receive_message(
                    QueueUrl=self._url,
                    MaxNumberOfMessages=min(_AT_ONCE, limit - len(found)),
                    VisibilityTimeout=_HIDDEN_S,
                    WaitTimeSeconds=0,
                    AttributeNames=["SentTimestamp"],
                )
            messages = answer.get("Messages", [])
            empty = 0 if messages else empty + 1
            for item in messages:
                sent_at = int(item["Attributes"]["SentTimestamp"]) / 1000
                found[item["MessageId"]] = DeadLetter(
                    item["MessageId"], item["Body"], sent_at, item["ReceiptHandle"]
                )
        return list(found.values())

    def show(self, letters: Iterable[DeadLetter]) -> None:
        """Let others see messages again."""
        for few in _few(letters):
            entries = _numbered({"ReceiptHandle": i.receipt, "VisibilityTimeout": 0} for i in few)
            with aws_errors("showing dead letters again"):
                self._sqs.change_message_visibility_batch(QueueUrl=self._url, Entries=entries)

    def retry(self, letters: Iterable[DeadLetter]) -> None:
        """Send messages to the ingest queue as they are, then take them out of this one."""
        for few in _few(letters):
            entries = _numbered({"MessageBody": item.body} for item in few)
            with aws_errors("sending to the ingest queue"):
                answer = self._sqs.send_message_batch(QueueUrl=self._ingest_url, Entries=entries)
            _check(answer)
            self.delete(few)

    def delete(self, letters: Iterable[DeadLetter]) -> None:
        """Take messages out for good."""
        for few in _few(letters):
            entries = _numbered({"ReceiptHandle": item.receipt} for item in few)
            with aws_errors("deleting dead letters"):
                answer = self._sqs.delete_message_batch(QueueUrl=self._url, Entries=entries)
            _check(answer)


def _few(items: Iterable[T]) -> Iterator[list[T]]:
    """As many at a time as one call takes."""
    rest = iter(items)
    while few := list(itertools.islice(rest, _AT_ONCE)):
        yield few


def _numbered(entries: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"Id": str(number), **entry} for number, entry in enumerate(entries)]


def _check(answer: dict[str, Any]) -> None:
    if failed := answer.get("Failed"):
        raise Unavailable(f"{len(failed)} messages were refused: {failed[0].get('Message')}")
