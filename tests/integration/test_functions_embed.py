"""The embed and sweep functions as Lambda calls them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chalicelib.embed import embed
from chalicelib.log import logger
from chalicelib.sweep import sweep
from lookalike import wiring
from lookalike.core.errors import Retry, Unavailable
from lookalike.services.sweep import SweepReport

EVENTS = Path(__file__).parent.parent / "events"


def recorded(name: str, receives: int = 1) -> dict[str, Any]:
    event: dict[str, Any] = json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))
    for record in event.get("Records", ()):
        record["attributes"]["ApproximateReceiveCount"] = str(receives)
    return event


class FakeIngest:
    def __init__(self, retries: dict[str, Retry] | None = None) -> None:
        self.retries = retries or {}
        self.reconciled: list[Sequence[str]] = []
        self.calls: list[tuple[str, list[str]]] = []

    def reconcile(self, keys: Sequence[str]) -> dict[str, Retry]:
        self.reconciled.append(keys)
        self.calls.append(("reconcile", list(keys)))
        return self.retries

    def give_up(self, keys: Sequence[str]) -> None:
        self.calls.append(("give up", list(keys)))


@pytest.fixture
def ingest(monkeypatch) -> FakeIngest:
    fake = FakeIngest()
    services = SimpleNamespace(ingest=fake, settings=SimpleNamespace(max_receives=5))
    monkeypatch.setattr(wiring, "services", lambda: services)
    return fake


@pytest.fixture
def log(monkeypatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(logger.registered_handler, "stream", stream)
    return stream


def test_a_batch_is_one_reconcile_of_every_key_once(ingest) -> None:
    assert embed(recorded("sqs_moto"), None) == {"batchItemFailures": []}
    assert ingest.reconciled == [["shop/boot 7/fr ont+%ü😀.jpg", "shop/boot-7/big.jpg"]]


def test_messages_with_a_key_to_retry_come_back(ingest, log) -> None:
    event = recorded("sqs_moto")
    ingest.retries = {"shop/boot-7/big.jpg": Unavailable("S3 is slow")}
    named = [r["messageId"] for r in event["Records"] if "big.jpg" in r["body"]]
    answer = embed(event, None)
    assert [item["itemIdentifier"] for item in answer["batchItemFailures"]] == named
    assert ingest.calls[0] == ("give up", [])
    line = json.loads(log.getvalue())
    assert (line["key"], line["error"]) == ("shop/boot-7/big.jpg", "S3 is slow")


def test_the_last_receive_files_a_failure_and_still_goes_to_the_dead_letters(ingest) -> None:
    event = recorded("sqs_s3_multipart_twice", receives=5)
    ingest.retries = {"shop/boot-7/big.jpg": Unavailable("S3 is slow")}
    assert len(embed(event, None)["batchItemFailures"]) == 2
    # Before the try: one that kills the process must not take the failure record along.
    first, second = ingest.calls
    assert first == ("give up", ["shop/boot-7/big.jpg"])
    assert second == ("reconcile", ["shop/boot-7/big.jpg"])


def test_a_message_that_is_not_understood_is_logged_and_fails_alone(ingest, log) -> None:
    event = recorded("sqs_not_understood")
    bad = event["Records"][0]["messageId"]
    assert embed(event, None) == {"batchItemFailures": [{"itemIdentifier": bad}]}
    assert ingest.reconciled == [["shop/good.jpg"]]
    line = json.loads(log.getvalue())
    assert (line["level"], line["message_id"]) == ("ERROR", bad)


def test_unexpected_errors_propagate(ingest, monkeypatch) -> None:
    def fail(keys: Sequence[str]) -> dict[str, Retry]:
        raise ZeroDivisionError

    monkeypatch.setattr(ingest, "reconcile", fail)
    with pytest.raises(ZeroDivisionError):
        embed(recorded("sqs_s3_put"), None)


def test_the_sweep_ends_before_its_time_is_over(monkeypatch) -> None:
    deadlines: list[float] = []

    def run(deadline: float) -> SweepReport:
        deadlines.append(deadline)
        return SweepReport(3, 2, 1, 4, 5, 6, 7, finished=True)

    monkeypatch.setattr(wiring, "services", lambda: SimpleNamespace(sweep=SimpleNamespace(run=run)))
    monkeypatch.setattr("time.time", lambda: 1000.0)
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: 300_000)
    report = {"objects": 3, "products": 2, "queued": 1, "finished": True} | {
        "deleted_queries": 4,
        "deleted_explanations": 5,
        "deleted_thumbnails": 6,
        "deleted_maps": 7,
    }
    assert sweep(recorded("schedule"), context) == report
    assert deadlines == [1290.0]
