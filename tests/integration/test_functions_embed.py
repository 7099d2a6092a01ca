"""The embed and sweep functions as Lambda calls them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from app import app
from chalicelib.embed import embed
from chalicelib.log import logger
from chalicelib.sweep import sweep
from lookalike import wiring
from lookalike.core.errors import Retry, Unavailable
from lookalike.core.types import Delivered
from lookalike.services.ingest_pass import Filed, Outcome, Report, Searchable
from lookalike.services.sweep import SweepReport

EVENTS = Path(__file__).parent.parent / "events"


def recorded(name: str, receives: int = 1) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))
    for record in event.get("Records", ()):
        record["attributes"]["ApproximateReceiveCount"] = str(receives)
    return event


class FakeDelivery:
    def __init__(self) -> None:
        self.retries: dict[str, Retry] = {}
        self.outcomes: list[Outcome] = []
        self.delivered: list[Sequence[Delivered]] = []

    def deliver(self, delivered: Sequence[Delivered], report: Report) -> dict[str, Retry]:
        self.delivered.append(delivered)
        for outcome in self.outcomes:
            report(outcome)
        return self.retries


@pytest.fixture
def delivery(monkeypatch) -> FakeDelivery:
    fake = FakeDelivery()
    services = SimpleNamespace(delivery=fake, settings=SimpleNamespace(max_receives=5))
    monkeypatch.setattr(wiring, "services", lambda: services)
    return fake


@pytest.fixture
def log(monkeypatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(logger.registered_handler, "stream", stream)
    return stream


def lines(log: io.StringIO) -> dict[str, dict[str, Any]]:
    found = (json.loads(line) for line in log.getvalue().splitlines())
    return {line["message"]: line for line in found}


def test_a_batch_is_one_delivery_of_every_key_once(delivery) -> None:
    assert embed(recorded("sqs_moto"), None) == {"batchItemFailures": []}
    keys = ["shop/boot 7/fr ont+%ü😀.jpg", "shop/boot-7/big.jpg"]
    assert delivery.delivered == [[Delivered(key) for key in keys]]


def test_messages_with_a_key_to_retry_come_back(delivery, log) -> None:
    event = recorded("sqs_moto")
    delivery.retries = {"shop/boot-7/big.jpg": Unavailable("S3 is slow")}
    named = [r["messageId"] for r in event["Records"] if "big.jpg" in r["body"]]
    answer = embed(event, None)
    assert [item["itemIdentifier"] for item in answer["batchItemFailures"]] == named
    line = lines(log)["object postponed"]
    assert (line["key"], line["error"]) == ("shop/boot-7/big.jpg", "S3 is slow")
    assert lines(log)["batch"]["Postponed"] == 1


def test_how_often_and_whether_for_the_last_time_is_passed_on(delivery) -> None:
    embed(recorded("sqs_s3_multipart_twice", receives=5), None)
    embed(recorded("sqs_lookalike_write_again", receives=2), None)
    assert delivery.delivered == [
        [Delivered("shop/boot-7/big.jpg", 5, is_last=True)],
        [Delivered("shop/boot-7/front.jpg", 2, write_again=True)],
    ]


def test_one_line_ties_an_upload_to_the_moment_it_became_searchable(
    delivery, log, monkeypatch
) -> None:
    event = recorded("sqs_s3_put")
    (record,) = event["Records"]
    key = "shop/boot 7/fr ont+%ü😀.jpg"
    delivery.outcomes = [Searchable(key, 1.25), Filed(key, "not-an-image"), Filed(key, "gave-up")]
    monkeypatch.setattr("time.time", lambda: 1736071203.5)
    # Through the app, whose middleware puts the invocation's id in each line.
    assert app.handler_map["embed"] is embed
    embed(event, SimpleNamespace(aws_request_id="invocation-1"))
    said = lines(log)
    for message in ("searchable", "failed", "gave up"):
        ids = {"upload_request_id": "C3D13FE58DE4C810", "message_id": record["messageId"]}
        ids |= {"key": key, "function_request_id": "invocation-1"}
        assert ids.items() <= said[message].items()
    assert said["searchable"]["Freshness"] == 1.25
    assert said["failed"]["FailuresFiled"] == said["gave up"]["GiveUps"] == 1
    assert said["batch"]["QueueAge"] == [3.5]


def test_a_message_that_is_not_understood_is_logged_and_fails_alone(delivery, log) -> None:
    event = recorded("sqs_not_understood")
    bad = event["Records"][0]["messageId"]
    assert embed(event, None) == {"batchItemFailures": [{"itemIdentifier": bad}]}
    assert delivery.delivered == [[Delivered("shop/good.jpg")]]
    line = lines(log)["message not understood"]
    assert (line["level"], line["message_id"]) == ("ERROR", bad)
    assert lines(log)["batch"]["UnreadableMessages"] == 1


def test_unexpected_errors_propagate(delivery, monkeypatch) -> None:
    def fail(*_: Any) -> dict[str, Retry]:
        raise ZeroDivisionError

    monkeypatch.setattr(delivery, "deliver", fail)
    with pytest.raises(ZeroDivisionError):
        embed(recorded("sqs_s3_put"), None)


def test_the_sweep_ends_before_its_time_is_over(monkeypatch, log) -> None:
    asked: list[tuple[float, str, bool]] = []

    def run(deadline: float, mode: str, *, is_short: bool) -> SweepReport:
        asked.append((deadline, mode, is_short))
        return SweepReport(3, 2, 1, 4, 5, 6, 7, 8, finished=True)

    monkeypatch.setattr(wiring, "services", lambda: SimpleNamespace(sweep=SimpleNamespace(run=run)))
    monkeypatch.setattr("time.time", lambda: 1000.0)
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: 300_000)
    report = {"objects": 3, "products": 2, "queued": 1, "lost": 8, "finished": True} | {
        "deleted_queries": 4,
        "deleted_explanations": 5,
        "deleted_thumbnails": 6,
        "deleted_maps": 7,
        "given_up": 0,
        "phase": "done",
    }
    event = recorded("schedule")
    assert sweep(event, context) == report
    for within_s in (5, 900):
        sweep(event | {"detail": {"mode": "anew", "within_s": within_s}}, context)
    assert asked == [(1290.0, "", False), (1005.0, "anew", True), (1290.0, "anew", False)]
    assert lines(log)["swept"]["SweepAskedAgain"] == 1
