"""``lookalike failures`` on a dead-letter queue of moto's, and ``lookalike sweep`` in many runs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from click.testing import CliRunner, Result
from moto import mock_aws

from local.cli import cli
from lookalike.adapters.aws import forget_clients
from lookalike.adapters.dead_letters import DeadLetters
from lookalike.core.ports import Stores
from lookalike.core.types import Counts, Failure

KEYS = '{"keys": ["shop/%s.jpg"]}'


class Queues:
    """The ingest queue with its dead-letter queue, and failures in memory."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self._sqs = boto3.client("sqs")
        self.dead = self._sqs.create_queue(QueueName="dead")["QueueUrl"]
        arn = self._sqs.get_queue_attributes(QueueUrl=self.dead, AttributeNames=["QueueArn"])
        policy = {
            "deadLetterTargetArn": arn["Attributes"]["QueueArn"],
            "maxReceiveCount": "5",
        }
        self.ingest = self._sqs.create_queue(
            QueueName="ingest", Attributes={"RedrivePolicy": json.dumps(policy)}
        )["QueueUrl"]

    def die(self, *bodies: str) -> list[str]:
        sent = (self._sqs.send_message(QueueUrl=self.dead, MessageBody=body) for body in bodies)
        return [item["MessageId"] for item in sent]

    def fail(self, name: str) -> None:
        key = f"shop/{name}.jpg"
        self.stores.failures.put(Failure("shop", key, "gave-up", "It kept failing.", "e", 5.0, 2))
        self.stores.counts.add("shop", Counts(failures=1))

    def bodies(self, url: str) -> list[str]:
        """What anybody can receive of a queue."""
        found = []
        while messages := self._sqs.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=5
        ).get("Messages"):
            found += messages
        for item in found:
            self._sqs.change_message_visibility(
                QueueUrl=url, ReceiptHandle=item["ReceiptHandle"], VisibilityTimeout=0
            )
        return sorted(item["Body"] for item in found)


@pytest.fixture
def queues(memory_stores, monkeypatch, tmp_path) -> Iterator[Queues]:
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "LOOKALIKE_API_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("LOOKALIKE_API_URL", "http://127.0.0.1:1")
    monkeypatch.setattr("lookalike.stores.aws_stores", lambda settings: memory_stores)
    monkeypatch.chdir(tmp_path)
    with mock_aws():
        forget_clients()
        made = Queues(memory_stores)
        monkeypatch.setenv("LOOKALIKE_INGEST_QUEUE_URL", made.ingest)
        yield made
    forget_clients()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def listed(*arguments: str) -> dict[str, str]:
    result = run("failures", "list", "--json", *arguments)
    assert result.exit_code == 0, result.output
    return {item["key"]: item["reason"] for item in json.loads(result.stdout)}


def test_dead_letters_that_tell_of_nothing_else_are_listed_and_stay(queues):
    queues.fail("a")
    bodies = ["not JSON", KEYS % "a", KEYS % "b"]
    unreadable, *_ = queues.die(*bodies)
    expected = {"shop/a.jpg": "gave-up", unreadable: "unreadable-message"}
    expected["shop/b.jpg"] = "dead-letter"
    assert listed() == listed() == expected
    assert listed("--catalogue", "shop") == {
        "shop/a.jpg": "gave-up",
        "shop/b.jpg": "dead-letter",
    }
    assert listed("--catalogue", "other") == {}
    assert queues.bodies(queues.dead) == sorted(bodies)
    shown = run("failures").output
    assert "not JSON" in shown and " 5 " in shown


def test_retrying_all_empties_the_dead_letter_queue(queues):
    queues.fail("a")
    queues.fail("c")
    bodies = ["not JSON", KEYS % "a", KEYS % "b", *(KEYS % f"n{number}" for number in range(25))]
    queues.die(*bodies)
    result = run("failures", "retry")
    assert result.exit_code == 0 and "29 queued" in result.output
    assert queues.bodies(queues.dead) == []
    assert queues.bodies(queues.ingest) == sorted(bodies)
    assert [json.loads(body)["keys"] for body in queues.stores.queue.bodies] == [["shop/c.jpg"]]


def test_retrying_one_leaves_the_others_where_they_are(queues):
    queues.fail("a")
    unreadable, _, _, _ = queues.die("not JSON", KEYS % "a", KEYS % "a", KEYS % "b")
    assert run("failures", "retry", "shop/a.jpg").exit_code == 0
    assert queues.bodies(queues.ingest) == [KEYS % "a"] * 2
    assert queues.stores.queue.bodies == []
    assert queues.bodies(queues.dead) == sorted(["not JSON", KEYS % "b"])
    unknown = run("failures", "retry", "shop/x.jpg")
    assert unknown.exit_code == 1 and "Nothing failed under shop/x.jpg" in unknown.output
    assert len(queues.bodies(queues.dead)) == 2
    assert run("failures", "retry", unreadable).exit_code == 0
    assert queues.bodies(queues.dead) == [KEYS % "b"]


def test_what_cannot_be_read_can_be_discarded(queues):
    unreadable, readable = queues.die("not JSON", KEYS % "b")
    assert run("failures", "discard", readable).exit_code == 1
    assert len(queues.bodies(queues.dead)) == 2
    result = run("failures", "discard", unreadable)
    assert result.exit_code == 0 and "1 deleted" in result.output
    assert queues.bodies(queues.dead) == [KEYS % "b"]


def test_a_dead_letter_is_taken_out_only_when_it_was_sent(queues, monkeypatch):
    queues.die(KEYS % "a")
    letters = DeadLetters(queues.ingest)
    (taken,) = letters.take(10)
    monkeypatch.setattr(letters, "_ingest_url", f"{queues.ingest}-gone")
    with pytest.raises(Exception, match="sending to the ingest queue"):
        letters.retry([taken])
    letters.show([taken])
    assert queues.bodies(queues.dead) == [KEYS % "a"]


def test_a_sweep_by_hand_goes_on_until_it_is_finished(monkeypatch):
    asked: list[Any] = []
    report = {"objects": 5, "products": 2, "queued": 1, "lost": 1, "deleted_queries": 0}
    report |= {"deleted_explanations": 0, "deleted_thumbnails": 3, "deleted_maps": 0, "given_up": 0}

    def run_function(data_dir: Any, name: str, detail: dict[str, Any], **_: Any) -> Any:
        asked.append((detail["mode"], detail.get("within_s")))
        phase = ("objects", "index", "done")[len(asked) - 1]
        return report | {"phase": phase, "finished": phase == "done"}

    monkeypatch.setattr("local.commands.functions.run_function", run_function)
    result = run("sweep")
    assert result.exit_code == 0 and asked == [("anew", 5), ("go-on", 5), ("go-on", None)]
    assert (
        "15 objects and 6 products compared; 3 differ and were queued, 3 of them" in result.output
    )
    assert "9 thumbnails" in result.output
