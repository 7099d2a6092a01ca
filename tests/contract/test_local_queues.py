"""Queues that cost the same at every depth behave as moto's and AWS's do."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.sqs.models import Queue, SQSBackend, sqs_backends

from local.aws import queues


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    before = [(owner, dict(vars(owner))) for owner in (Queue, SQSBackend)]
    queues.keep_queues_fast()
    with mock_aws():
        yield
    for owner, names in before:
        for name, value in names.items():
            if vars(owner)[name] is not value:
                setattr(owner, name, value)
        for name in set(vars(owner)) - set(names):
            delattr(owner, name)


class Inbox:
    """One of our queues, through boto3."""

    def __init__(self, name: str = "inbox", **attributes: str) -> None:
        self._sqs: Any = boto3.client("sqs", region_name="us-east-1")
        self.url = self._sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        self.queue: Any = sqs_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].queues[name]

    def send(self, body: str, **options: Any) -> None:
        self._sqs.send_message(QueueUrl=self.url, MessageBody=body, **options)

    def receive(self, count: int = 10, **options: Any) -> list[Any]:
        answer = self._sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=count, **options)
        return list(answer.get("Messages", []))

    def show_after(self, message: Any, seconds: int) -> None:
        self._sqs.change_message_visibility(
            QueueUrl=self.url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=seconds
        )

    def delete(self, handle: str) -> None:
        self._sqs.delete_message(QueueUrl=self.url, ReceiptHandle=handle)

    def counts(self) -> tuple[int, int, int]:
        """Ready, in flight, delayed."""
        names = ["", "NotVisible", "Delayed"]
        wanted = [f"ApproximateNumberOfMessages{name}" for name in names]
        found = self._sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=wanted)
        ready, in_flight, delayed = (int(found["Attributes"][name]) for name in wanted)
        return ready, in_flight, delayed


def bodies(messages: list[Any]) -> list[str]:
    return [message["Body"] for message in messages]


def test_messages_are_ready_in_flight_or_delayed(monkeypatch: pytest.MonkeyPatch) -> None:
    inbox = Inbox(VisibilityTimeout="30")
    for body in "abc":
        inbox.send(body)
    inbox.send("later", DelaySeconds=900)
    assert inbox.counts() == (3, 0, 1)
    first, second = inbox.receive(2)
    assert bodies([first, second]) == ["a", "b"]
    assert inbox.counts() == (1, 2, 1)
    inbox.show_after(first, 0)
    assert bodies(inbox.receive()) == ["a", "c"]  # the oldest first, again
    inbox.delete(second["ReceiptHandle"])
    assert inbox.counts() == (0, 2, 1)
    an_hour_later = time.time() * 1000 + 3_600_000
    monkeypatch.setattr(queues, "unix_time_millis", lambda: an_hour_later)
    assert inbox.counts() == (3, 0, 0)
    assert sorted(bodies(inbox.receive())) == ["a", "c", "later"]


def test_no_timeout_means_the_next_call() -> None:
    inbox = Inbox()
    inbox.send("a")
    for _ in range(3):
        assert bodies(inbox.receive(VisibilityTimeout=0)) == ["a"]


def test_messages_end_with_their_retention() -> None:
    inbox = Inbox(MessageRetentionPeriod="60")
    inbox.send("old")
    for message in inbox.queue._messages:
        message.sent_timestamp -= 61_000
    inbox.send("new")
    assert bodies(inbox.receive()) == ["new"]
    assert len(inbox.queue._messages) == 1


def test_deleting_again_succeeds() -> None:
    inbox = Inbox()
    inbox.send("a")
    first = inbox.receive(VisibilityTimeout=0)[0]
    inbox.receive()
    inbox.delete(first["ReceiptHandle"])  # an older handle of the same message
    assert inbox.counts() == (0, 0, 0)
    inbox.delete(first["ReceiptHandle"])
    with pytest.raises(ClientError, match="ReceiptHandleIsInvalid"):
        inbox.delete("no handle")


def test_messages_die_after_their_receives() -> None:
    dead = Inbox("dead")
    policy = {"deadLetterTargetArn": dead.queue.queue_arn, "maxReceiveCount": 2}
    inbox = Inbox(RedrivePolicy=json.dumps(policy), VisibilityTimeout="0")
    inbox.send("a")
    assert [bodies(inbox.receive()) for _ in range(3)] == [["a"], ["a"], []]
    assert (len(inbox.queue._messages), bodies(dead.receive())) == (0, ["a"])


def test_a_message_that_is_shown_again_often_is_received_once() -> None:
    inbox = Inbox(VisibilityTimeout="30")
    inbox.send("a")
    message = inbox.receive()[0]
    for _ in range(3):
        inbox.show_after(message, 0)
    assert inbox.counts() == (1, 0, 0)
    again = inbox.receive(MessageSystemAttributeNames=["ApproximateReceiveCount"])
    assert [item["Attributes"]["ApproximateReceiveCount"] for item in again] == ["2"]
    assert inbox.counts() == (0, 1, 0)


def test_dead_letters_go_to_whatever_has_the_name() -> None:
    dead = Inbox("dead")
    policy = {"deadLetterTargetArn": dead.queue.queue_arn, "maxReceiveCount": 1}
    inbox = Inbox(RedrivePolicy=json.dumps(policy), VisibilityTimeout="0")
    inbox.send("a")
    inbox._sqs.delete_queue(QueueUrl=dead.url)
    assert [bodies(inbox.receive()) for _ in range(3)] == [["a"]] * 3  # nowhere to go
    dead = Inbox("dead")
    assert (bodies(inbox.receive()), bodies(dead.receive())) == ([], ["a"])
