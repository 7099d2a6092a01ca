"""The compact and reindex functions as somebody calls them by hand."""

from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chalicelib.compact import compact
from chalicelib.log import logger
from chalicelib.reindex import reindex
from lookalike import wiring
from lookalike.core.errors import InvalidRequest, NotFound, Unavailable
from lookalike.services.build_state import BuildState, ReindexReport
from lookalike.services.compact import CompactionReport

EVENT = Path(__file__).parent.parent / "events" / "schedule.json"


class FakeService:
    """Stands for both services; refuses what it was told to refuse."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.state = BuildState("shop", "g1", "e1", "announced", "g2", "e2")
        self.asked: list[tuple[object, ...]] = []

    def run(self, deadline: float, catalogue: str | None = None) -> Any:
        if self.error:
            raise self.error
        self.asked.append(("run", catalogue))
        return ReindexReport([self.state]) if self.state else CompactionReport()

    def ask(self, *asked: object) -> BuildState:
        if self.error:
            raise self.error
        self.asked.append(asked)
        return self.state


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> FakeService:
    fake = FakeService()
    services = SimpleNamespace(compaction=fake, reindex=fake)
    monkeypatch.setattr(wiring, "services", lambda: services)
    return fake


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(logger.registered_handler, "stream", stream)
    return stream


def by_hand(function: Any, **detail: object) -> Any:
    event = json.loads(EVENT.read_text(encoding="utf-8")) | {"detail": detail}
    return function(event, SimpleNamespace(get_remaining_time_in_millis=lambda: 900_000))


@pytest.mark.parametrize(
    ("function", "detail", "error"),
    [
        (compact, {"catalogue": ""}, NotFound("no catalogue")),
        (reindex, {"catalogue": "x"}, NotFound("no catalogue")),
        (reindex, {"action": "build", "encoder": "vgg"}, InvalidRequest("no encoder")),
    ],
)
def test_wrong_use_is_answered_and_is_one_warning(
    service: FakeService, log: io.StringIO, function: Any, detail: Any, error: Exception
) -> None:
    service.error = error
    said = {"errorType": type(error).__name__, "errorMessage": str(error)}
    assert by_hand(function, **detail) == said
    line = json.loads(log.getvalue())
    assert (line["level"], line["error"]) == ("WARNING", str(error))
    assert "exception" not in line


def test_an_action_that_there_is_not_is_refused(service: FakeService, log: io.StringIO) -> None:
    answer = by_hand(reindex, action="destroy")
    assert answer["errorType"] == "InvalidRequest" and "destroy" in answer["errorMessage"]
    assert service.asked == []
    assert json.loads(log.getvalue())["level"] == "WARNING"


@pytest.mark.parametrize("function", [compact, reindex])
def test_other_errors_fail(service: FakeService, function: Any) -> None:
    service.error = Unavailable("no bucket")
    with pytest.raises(Unavailable):
        by_hand(function)


def test_a_report_says_which_generation_was_asked_for(service: FakeService) -> None:
    report = by_hand(reindex, action="build", encoder="e2")
    assert report["asked"] == "g2"
    assert service.asked == [("build", None, "e2"), ("run", "shop")]
    service.state = BuildState("shop", "g1", "e1", "dropping", "g2", next="g3", next_encoder="e3")
    assert by_hand(reindex, action="build")["asked"] == "g3"
    assert by_hand(reindex, action="drop")["asked"] == ""
    assert by_hand(reindex)["asked"] == ""
