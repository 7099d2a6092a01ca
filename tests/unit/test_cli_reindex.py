from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from local.cli import cli
from local.commands.status import build_line
from local.control import ControlError
from lookalike.core.types import Build, Generation, Lineage

FIRST, SECOND = "lite0-border-v1", "lite1-border-v1-g2"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def report(phase: str, **changes: Any) -> dict[str, Any]:
    state = {
        "catalogue": "shop",
        "generation": SECOND if phase == "kept" else FIRST,
        "encoder": "e",
        "phase": phase,
        "beside": FIRST if phase == "kept" else SECOND,
        "beside_encoder": "e",
        "done": 5,
        "total": 9,
        "skipped": 0,
        "next": "",
        "next_encoder": "",
    }
    told = {"postponed": changes.pop("postponed", {}), "asked": changes.pop("asked", SECOND)}
    return {"catalogues": [state | changes], **told}


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, dict[str, Any]]]]:
    """A local cloud whose functions give prepared answers; tells what they were asked."""

    def prepare(*prepared: Any) -> list[tuple[str, dict[str, Any]]]:
        asked: list[tuple[str, dict[str, Any]]] = []
        waiting = list(prepared)

        def invoke(state: object, name: str, event: dict[str, Any]) -> dict[str, Any]:
            asked.append((name, event["detail"]))
            answer = waiting.pop(0)
            if isinstance(answer, Exception):
                raise answer
            if "errorType" in answer and answer["errorType"] not in {"NotFound", "InvalidRequest"}:
                return {"error": "Unhandled", "payload": answer}
            return {"error": None, "payload": answer}

        first = Generation("shop", FIRST, "e")
        beside = Build(Generation("shop", SECOND, "e"), "filling", 0.0, 0.0, done=5, total=9)
        lineages = SimpleNamespace(get=lambda catalogue: Lineage(catalogue, first, beside))
        found = SimpleNamespace(
            local=lambda: None, stores=lambda: SimpleNamespace(lineages=lineages)
        )
        for module in ("functions", "reindex"):
            monkeypatch.setattr(f"local.commands.{module}.connect", lambda data_dir: found)
        monkeypatch.setattr("local.control.invoke", invoke)
        monkeypatch.setattr("local.control.status", lambda state: {"functions": {}})
        monkeypatch.setattr("local.commands.reindex._PAUSE_S", 0.0)
        return asked

    return prepare


def test_reindex_waits_until_the_new_generation_is_in_use(answers: Any) -> None:
    phases = ("announced", "announced", "filling", "compacting", "kept")
    asked = answers(*map(report, phases))
    result = run("reindex", "--catalogue", "shop", "--encoder", "efficientnet-lite1")
    assert result.exit_code == 0, result.output
    assert asked[0] == (
        "Reindex",
        {"action": "build", "catalogue": "shop", "encoder": "efficientnet-lite1"},
    )
    assert asked[1:] == [("Reindex", {"catalogue": "shop"})] * 4
    assert f"shop uses {SECOND}; {FIRST} is kept for a rollback." in result.output


def test_reindex_after_an_old_generation_has_gone(answers: Any) -> None:
    third = report("kept", generation="g3", beside=SECOND)
    waiting = report("dropping", beside=FIRST, next="g3", next_encoder="lite3", asked="g3")
    asked = answers(waiting, waiting, report("announced", beside="g3"), third, waiting)
    result = run("reindex", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["generation"] == "g3"
    assert len(asked) == 4
    result = run("reindex", "--no-wait")
    said = f"{FIRST} is being dropped; a new generation in lite3 follows."
    assert result.exit_code == 0 and said in result.output


def test_a_build_that_is_swapped_in_at_once_needs_no_waiting(answers: Any) -> None:
    asked = answers(report("kept"))
    result = run("reindex")
    assert result.exit_code == 0 and f"shop uses {SECOND};" in result.output
    assert len(asked) == 1


def test_another_generation_than_was_asked_for_is_no_success(answers: Any) -> None:
    waiting = report("dropping", beside=FIRST, next="g3", next_encoder="lite3", asked="g3")
    answers(waiting, report("kept", generation="g4", beside=FIRST))
    result = run("reindex", "--encoder", "efficientnet-lite3")
    assert result.exit_code == 1 and "build of g3 was given up; shop uses g4" in result.output


def test_reindex_need_not_wait(answers: Any) -> None:
    assert len(answers(report("announced"))) == 0
    result = run("reindex", "--no-wait")
    assert result.exit_code == 0
    assert f"{SECOND} is waiting for uploads under way" in result.output


@pytest.mark.parametrize("option", ["--rollback", "--drop"])
def test_rollback_and_drop_do_not_wait(answers: Any, option: str) -> None:
    asked = answers(report("dropping"))
    assert run("reindex", option).exit_code == 0
    assert asked == [("Reindex", {"action": option.removeprefix("--")})]


def test_one_thing_at_a_time() -> None:
    result = run("reindex", "--rollback", "--drop")
    assert result.exit_code == 2 and "Choose one" in result.output


def test_a_build_that_is_given_up_or_cannot_go_on_fails(answers: Any) -> None:
    answers(report("filling"), report("dropping"))
    result = run("reindex")
    assert result.exit_code == 1 and "given up" in result.output
    stuck = report("filling", postponed={"shop": "no answer"})
    answers(report("filling"), *[stuck] * 5)
    result = run("reindex")
    assert result.exit_code == 1 and "cannot go on: no answer" in result.output


@pytest.mark.parametrize(
    ("answer", "exit_code", "said"),
    [
        ({"errorType": "NotFound", "errorMessage": "no shop"}, 2, "no shop"),
        ({"errorType": "InvalidRequest", "errorMessage": "no vgg"}, 2, "no vgg"),
        ({"errorType": "Unavailable", "errorMessage": "model build"}, 3, "model build"),
        ({"errorType": "KeyError", "errorMessage": "x"}, 1, "Reindex failed: x"),
        (ControlError("gone"), 3, "gone"),
    ],
)
def test_errors_of_the_function_have_exit_codes(
    answers: Any, answer: Any, exit_code: int, said: str
) -> None:
    answers(answer)
    result = run("reindex")
    assert result.exit_code == exit_code and said in result.output


def test_an_empty_name_is_not_every_catalogue(answers: Any) -> None:
    asked = answers({"errorType": "NotFound", "errorMessage": "no catalogue “”"})
    result = run("compact", "--catalogue", "")
    assert result.exit_code == 2 and "no catalogue “”" in result.output
    assert asked == [("Compact", {"catalogue": ""})]


COMPACTED: dict[str, Any] = {
    "merged_segments": 1200,
    "merged_rows": 5,
    "bases": 1,
    "dropped_rows": 2,
    "deleted_objects": 3,
    "orphans": 0,
    "unreadable": [],
    "postponed": {},
    "finished": True,
}


def test_compact_says_what_it_did(answers: Any) -> None:
    asked = answers(COMPACTED, COMPACTED)
    result = run("compact", "--catalogue", "shop")
    assert result.exit_code == 0 and "1,200 segments with 5 rows merged" in result.output
    assert json.loads(run("compact", "--json").stdout) == COMPACTED
    assert asked == [("Compact", {"catalogue": "shop"}), ("Compact", {})]


@pytest.mark.parametrize(("busy", "said"), [(1, True), (0, False)])
def test_a_function_that_is_running_already_is_waited_for(
    answers: Any, monkeypatch: pytest.MonkeyPatch, busy: int, said: bool
) -> None:
    asked = answers(COMPACTED)
    pools = {"Compact": {"busy": busy, "max_workers": 1}}
    monkeypatch.setattr("local.control.status", lambda state: {"functions": pools})
    result = run("compact", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout) == COMPACTED
    assert ("running already" in result.stderr) is said
    assert asked == [("Compact", {})]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"unreadable": ["segments/shop/x.seg"]}, "x.seg cannot be read; `lookalike reindex`"),
        ({"unreadable": ["bases/shop/x.base"]}, "x.base cannot be read; it is built anew"),
        ({"postponed": {"shop": "a race"}, "finished": False}, "shop is left to the next run"),
        ({"finished": False}, "Time ran out"),
    ],
)
def test_compact_fails_when_something_is_left(
    answers: Any, changes: dict[str, Any], said: str
) -> None:
    answers(COMPACTED | changes)
    result = run("compact")
    assert result.exit_code == 1 and said in result.output


def test_status_says_how_far_a_build_is() -> None:
    build = {
        "generation": SECOND,
        "phase": "filling",
        "done": 1500,
        "total": 3000,
        "skipped": 2,
        "changed_at": 0.0,
        "next_encoder": "",
    }
    line = build_line("shop", build)
    assert f"shop: {SECOND} is taking over what is there, 1,500 of 3,000 photos (2" in line
    assert "photos" not in build_line("shop", build | {"phase": "kept"})
    line = build_line("shop", build | {"phase": "dropping", "next_encoder": "lite3"})
    assert line.endswith("; a new generation in lite3 follows.")
