"""The functions of scheduled work, as schedules and people call them."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from chalicelib.health import health
from chalicelib.log import logger
from chalicelib.project import project
from chalicelib.recluster import recluster
from chalicelib.rollup import rollup
from lookalike import wiring, wiring_project
from lookalike.core.errors import NotFound, Unavailable
from lookalike.services.jobs import CatalogueReport, WorkReport

EVENT = Path(__file__).parent.parent / "events" / "schedule.json"
FUNCTIONS = {"recluster": recluster, "project": project, "health": health, "rollup": rollup}


class FakeWork:
    """One service; what it is asked is noted in ``asked``, which the others share."""

    def __init__(self, job: Any, asked: list[tuple[Any, ...]]) -> None:
        self.job = job
        self.asked = asked
        self.report = WorkReport([CatalogueReport("shop", job, "", 5, 5, True, {"made": 1})])
        self.error: Exception | None = None

    def run(self, deadline: float, catalogue: str | None = None, *, now: bool = False) -> Any:
        self.asked.append((self.job, round(deadline - time.time()), catalogue, now))
        if self.error:
            raise self.error
        return self.report


class Works(dict[str, FakeWork]):
    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []
        jobs = ("recluster", "calibrate", "project", "health", "rollup")
        super().__init__({job: FakeWork(job, self.asked) for job in jobs})


@pytest.fixture
def works(monkeypatch: pytest.MonkeyPatch) -> Works:
    made = Works()
    monkeypatch.setattr(wiring, "services", lambda: SimpleNamespace(**made))
    monkeypatch.setattr(wiring_project, "project", lambda: made["project"])
    return made


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(logger.registered_handler, "stream", stream)
    return stream


def call(name: str, **detail: object) -> Any:
    event = json.loads(EVENT.read_text(encoding="utf-8")) | {"detail": detail}
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: 900_000)
    return FUNCTIONS[name](event, context)


@pytest.mark.parametrize("name", ["project", "health", "rollup"])
def test_a_schedule_does_what_is_due_within_the_functions_time(
    works: Works, log: io.StringIO, name: str
) -> None:
    report = call(name)
    assert works.asked == [(name, 870, None, False)]
    (item,) = report["catalogues"]
    assert (item["catalogue"], item["job"], item["summary"]) == ("shop", name, {"made": 1})
    assert report["finished"] is True
    line = json.loads(log.getvalue())
    assert (line["RunFinished"], line["CataloguesPostponed"]) == (1, 0)
    assert line["report"] == report


def test_scores_are_calibrated_after_products_are_grouped(works: Works, log: io.StringIO) -> None:
    works["recluster"].report = WorkReport([], {"shop": "a race"}, False)
    report = call("recluster")
    assert [asked[0] for asked in works.asked] == ["recluster", "calibrate"]
    assert [item["job"] for item in report["catalogues"]] == ["calibrate"]
    assert (report["postponed"], report["finished"]) == ({"shop": "a race"}, False)
    line = json.loads(log.getvalue())
    assert (line["RunFinished"], line["CataloguesPostponed"]) == (0, 1)


def test_by_hand_one_job_is_done_anew_on_one_catalogue(works: Works) -> None:
    call("recluster", job="calibrate", catalogue="shop", now=True)
    call("health", catalogue="shop")
    assert works.asked == [("calibrate", 870, "shop", True), ("health", 870, "shop", False)]


@pytest.mark.parametrize("now", ["yes", 1, None])
def test_only_true_is_now(works: Works, now: object) -> None:
    call("health", now=now)
    assert works.asked == [("health", 870, None, False)]


def test_wrong_use_is_answered_and_is_one_warning(works: Works, log: io.StringIO) -> None:
    works["health"].error = NotFound("no catalogue", parameter="catalogue")
    assert call("health", catalogue="x") == {
        "errorType": "NotFound",
        "errorMessage": "no catalogue",
    }
    answer = call("recluster", job="compact")
    assert answer["errorType"] == "InvalidRequest"
    assert "compact” is none of recluster, calibrate" in answer["errorMessage"]
    assert [json.loads(line)["level"] for line in log.getvalue().splitlines()] == ["WARNING"] * 2


@pytest.mark.parametrize("name", FUNCTIONS)
def test_other_errors_fail(works: Works, name: str) -> None:
    works[name].error = Unavailable("no bucket")
    with pytest.raises(Unavailable):
        call(name)
