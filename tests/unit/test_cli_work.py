"""``lookalike recluster`` and its like, ``clusters`` and what ``status`` says of work."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from local.cli import cli
from local.commands.connection import Connection
from local.commands.status import read_status
from local.commands.work_summary import in_words, jobs_of
from lookalike.core.clusters import Cluster, Clustering, encode_clusters
from lookalike.core.jobs import Artifact, Job, artifact_key
from lookalike.core.ports import Stores
from lookalike.core.types import Generation, Lineage


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def report(job: str, *catalogues: str, **changes: Any) -> dict[str, Any]:
    items = [
        {
            "catalogue": name,
            "job": job,
            "phase": "",
            "done": 9,
            "total": 9,
            "finished": True,
            "summary": {"made": 1_234},
        }
        for name in catalogues
    ]
    return {"catalogues": items, "postponed": {}, "finished": True} | changes


Asked = list[tuple[str, dict[str, Any]]]


@pytest.fixture
def shops(memory_stores: Stores) -> Stores:
    for name in ("shoes", "hats"):
        memory_stores.lineages.put(Lineage(name, Generation(name, "g1", "e")))
    return memory_stores


@pytest.fixture
def answers(shops: Stores, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Asked]:
    """A local cloud whose functions give prepared answers; tells what they were asked."""

    def prepare(*prepared: dict[str, Any]) -> Asked:
        asked: Asked = []
        waiting = list(prepared)

        def invoke(state: object, name: str, event: dict[str, Any]) -> dict[str, Any]:
            asked.append((name, event["detail"]))
            return {"error": None, "payload": waiting.pop(0)}

        found = SimpleNamespace(local=lambda: None, stores=lambda: shops)
        for module in ("functions", "work", "clusters"):
            monkeypatch.setattr(f"local.commands.{module}.connect", lambda data_dir: found)
        monkeypatch.setattr("local.control.invoke", invoke)
        monkeypatch.setattr("local.control.status", lambda state: {"functions": {}})
        monkeypatch.setattr("local.commands.work._PAUSE_S", 0.0)
        return asked

    return prepare


def test_each_catalogue_is_worked_on_until_it_is_finished(answers: Any) -> None:
    asked = answers(
        report("health", "hats", finished=False),
        report("health", "hats", finished=False),
        report("health", "hats"),
        report("health", "shoes"),
    )
    result = run("health")
    assert result.exit_code == 0, result.output
    hats, shoes = ({"job": "health", "catalogue": name} for name in ("hats", "shoes"))
    # Anew once; then it goes on.
    assert asked == [
        ("Health", hats | {"now": True}),
        ("Health", hats),
        ("Health", hats),
        ("Health", shoes | {"now": True}),
    ]
    assert result.stdout == "hats: made 1,234.\nshoes: made 1,234.\n"


def test_scores_are_calibrated_when_products_have_been_grouped(answers: Any) -> None:
    asked = answers(
        report("recluster", "hats", finished=False),
        report("recluster", "hats"),
        report("calibrate", "hats"),
    )
    result = run("recluster", "--catalogue", "hats", "--json")
    assert [detail["job"] for _, detail in asked] == ["recluster", "recluster", "calibrate"]
    assert [detail.get("now", False) for _, detail in asked] == [True, False, True]
    said = json.loads(result.stdout)
    assert [item["job"] for item in said["catalogues"]] == ["recluster", "calibrate"]
    assert said["postponed"] == {}


def test_the_log_is_added_up_for_all_at_once(answers: Any) -> None:
    asked = answers(report("rollup", "hats", "shoes"))
    assert run("rollup").exit_code == 0
    assert asked == [("Rollup", {"job": "rollup", "now": True})]


def test_what_cannot_go_on_fails_after_a_few_tries_and_keeps_nobody_waiting(answers: Any) -> None:
    stuck = report("project", finished=False, postponed={"hats": "a race\x1b"})
    asked = answers(*[stuck] * 5, report("project", "shoes"))
    result = run("project")
    assert result.exit_code == 1 and len(asked) == 6
    assert all("now" in detail for _, detail in asked)  # it never began
    assert "hats is left to the next run: a race�" in result.stderr
    assert result.stdout == "shoes: made 1,234.\n"


def test_a_catalogue_that_there_is_not(answers: Any) -> None:
    answers({"errorType": "NotFound", "errorMessage": "no catalogue “x”"})
    result = run("project", "--catalogue", "x")
    assert result.exit_code == 2 and "no catalogue “x”" in result.output


def test_nothing_was_uploaded_yet(memory_stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = SimpleNamespace(local=lambda: None, stores=lambda: memory_stores)
    for module in ("work", "clusters"):
        monkeypatch.setattr(f"local.commands.{module}.connect", lambda data_dir: empty)
    result = run("project")
    assert result.exit_code == 0 and result.stdout == "Nothing has been uploaded yet.\n"
    result = run("clusters")
    assert result.exit_code == 2 and "there is none yet" in result.output


def cluster(number: int, size: int, **changes: Any) -> Cluster:
    found = Cluster(f"c{number}", f"name {number}", ("red", "boot"), size, 0.8, 1e9, ("p1",))
    return replace(found, **changes)


def group(stores: Stores, catalogue: str, *clusters: Cluster) -> None:
    means = np.eye(len(clusters), 8, dtype=np.float32)
    made = Clustering(3, "e", "g1", 1e9, clusters, means)
    body, head_bytes = encode_clusters(made, [["p1"] for _ in clusters])
    key = artifact_key("clusters", catalogue, "x")
    stores.index.put(key, body, "application/octet-stream")
    summary = {"head_bytes": head_bytes, "clusters": len(clusters)}
    stores.artifacts.put(
        Artifact(catalogue, "clusters", key, "e", "g1", "", 1e9, 1e9, 3, 7, summary, arrivals=2)
    )


def test_clusters_are_listed_and_named(answers: Any, shops: Stores) -> None:
    answers()
    group(shops, "hats", cluster(1, 5), cluster(4, 1_200, name="\x1bhats"))
    listed = run("clusters", "--catalogue", "hats")
    assert listed.exit_code == 0, listed.output
    rows = [" ".join(line.split()) for line in listed.stdout.splitlines()]
    assert [row.split()[0] for row in rows if row.startswith("c")] == ["c4", "c1"]
    assert any(row.startswith("c4 �hats 1,200 0.80") and row.endswith("red, boot") for row in rows)

    named = run("clusters", "rename", "c1", "Winter", "--catalogue", "hats")
    assert named.stdout == "c1 of hats is called “Winter”.\n"
    fields = json.loads(run("clusters", "list", "--catalogue", "hats", "--json").stdout)
    assert [(item["name"], item["given"]) for item in fields["clusters"]] == [
        ("\x1bhats", False),
        ("Winter", True),
    ]
    back = json.loads(run("clusters", "rename", "c1", "--catalogue", "hats", "--json").stdout)
    assert (back["name"], back["given"]) == ("name 1", False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("list",), "Name a catalogue by --catalogue; there are hats, shoes."),
        (("list", "--catalogue", "x"), "no catalogue “x”"),
        (("rename", "c9", "A", "--catalogue", "hats"), "no cluster “c9”"),
        (("rename", "c1", "", "--catalogue", "hats"), "1 to 80 characters"),
    ],
)
def test_clusters_that_are_not_meant(
    answers: Any, shops: Stores, arguments: tuple[str, ...], said: str
) -> None:
    answers()
    group(shops, "hats", cluster(1, 5))
    result = run("clusters", *arguments)
    assert result.exit_code == 2 and said in result.output


def test_a_catalogue_without_clusters_says_what_makes_them(answers: Any) -> None:
    answers()
    result = run("clusters", "--catalogue", "shoes")
    assert result.exit_code == 0 and "`lookalike recluster` makes them" in result.stdout


def test_status_tells_how_far_work_is_and_what_it_has_made(
    shops: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    group(shops, "hats", cluster(1, 5))
    shops.jobs.put(Job("hats", "recluster", finished_at=1e9, took_s=2.25))
    shops.jobs.put(Job("hats", "health", "r1", "comparing photos", done=1_500, total=3_000))
    shops.jobs.put(Job("shoes", "project", finished_at=1e9, error="It died 5 times."))
    for question in ("_catalogues", "_queue"):
        monkeypatch.setattr(f"local.commands.status.{question}", lambda connection: None)
    connection = Connection("http://127.0.0.1:1", "", None)
    monkeypatch.setattr(Connection, "stores", lambda self: shops)
    monkeypatch.setattr("local.commands.status.connect", lambda data_dir: connection)
    (clusters, health, project) = read_status(connection)["work"]
    assert (clusters["job"], clusters["phase"], clusters["took_s"]) == ("recluster", "", 2.25)
    assert (clusters["products"], clusters["arrivals"]) == (7, 2)
    assert clusters["summary"]["clusters"] == 1
    assert (health["phase"], health["done"], health["total"]) == ("comparing photos", 1_500, 3_000)
    assert health["finished_at"] is health["made_at"] is None
    assert (project["catalogue"], project["error"]) == ("shoes", "It died 5 times.")
    result = run("status")
    rows = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "hats health comparing photos, 1,500 of 3,000" in rows
    (row,) = [row for row in rows if row.startswith("hats recluster")]
    assert "2.2 s" in row and row.endswith("; 2 came since")
    assert "shoes: the last project came to nothing: It died 5 times." in result.stderr


def test_a_catalogue_on_which_nothing_was_done_has_no_work(shops: Stores) -> None:
    assert jobs_of(shops, "hats") == []


KINDS = {"near-duplicate": 12, "wrong-category": 0, "outlier": 3, "low-quality": 0}
MAP = {"laid_out": 1_055, "method": "tsne", "trustworthiness": 0.9585, "moved": 0.027}
SCORES = {"relevance": "category", "queries": 1_000, "error": 0.0171, "error_before": 0.14}


@pytest.mark.parametrize(
    ("job", "summary", "said"),
    [
        ("project", {}, "nothing for project to do yet"),
        (
            "recluster",
            {"clusters": 24, "cohesion": 0.714, "kept": 23},
            "24 clusters, cohesion 0.71, 23 of them as before",
        ),
        ("recluster", {"clusters": 2, "cohesion": 0.7, "kept": 0}, "2 clusters, cohesion 0.70"),
        (
            "calibrate",
            SCORES,
            "scores calibrated on 1,000 searches by categories, off by 0.017 instead of 0.140",
        ),
        (
            "calibrate",
            {"relevance": "", "pairs": 0},
            "too little is known of good matches to calibrate scores",
        ),
        (
            "project",
            MAP | {"from_before": True},
            "1,055 products laid out by tsne, trustworthiness 0.959, moved by 2.7% of the map",
        ),
        (
            "project",
            MAP | {"from_before": False},
            "1,055 products laid out by tsne, trustworthiness 0.959",
        ),
        (
            "health",
            KINDS | {"never-shown": 0, "thin-category": 1},
            "12 near-duplicate, 3 outlier, 1 thin-category",
        ),
        ("health", dict.fromkeys([*KINDS, "never-shown", "thin-category"], 0), "nothing found"),
        (
            "rollup",
            {"hours": 2, "searches": 1_234},
            "1,234 searches of 2 hours counted",
        ),
        # What another version of the functions says of its work.
        (
            "recluster",
            {"new_field": 0.12345, "rows": 1_000_000, "whole": True, "how": "a\x1bb"},
            "new field 0.123, rows 1,000,000, whole yes, how a�b",
        ),
    ],
)
def test_what_was_made_is_said_in_words(job: str, summary: Any, said: str) -> None:
    assert in_words(job, summary) == said
