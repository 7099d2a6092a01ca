from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner, Result

from local.cli import cli
from local.commands.api import MAX_BODY_BYTES


@dataclass
class FakeApi:
    """An API that records requests and gives the answers that the test puts there."""

    url: str = ""
    requests: list[tuple[str, dict[str, list[str]], str, bytes]] = field(default_factory=list)
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeApi]:
    fake = FakeApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            url = urlsplit(self.path)
            kind = self.headers.get("Content-Type", "")
            fake.requests.append((url.path, parse_qs(url.query), kind, body))
            status, answer = fake.answers[url.path]
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        fake.url = f"http://127.0.0.1:{server.server_port}"
        fake.answers["/search"] = (200, answer_of("boot-7", "mug"))
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("LOOKALIKE_API_URL", fake.url)
        monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
        yield fake
        server.shutdown()
        thread.join()


def answer_of(*products: str, category: str = "shoes") -> dict[str, Any]:
    return {
        "query_id": "01J",
        "generation": "1",
        "verdict": "low_confidence",
        "took_ms": {"encode": 20.0, "search": 1.5, "total": 22.0},
        "results": [
            {
                "rank": rank,
                "product_id": product,
                "view": "front",
                "score": 1 - rank / 10,
                "match": 0.97 if rank == 1 else None,
                "title": f"The \x1b[31m{product}",
                "category": category,
            }
            for rank, product in enumerate(products, 1)
        ],
    }


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["search", *arguments])


def test_an_image_is_sent_as_it_is(api: FakeApi, tmp_path: Path) -> None:
    Path("photo.png").write_bytes(b"pixels")
    result = run("photo.png", "-k", "3", "--catalogue", "shop", "--filter", "price<=50")
    assert result.exit_code == 0, result.output
    ((path, query, kind, body),) = api.requests
    assert (path, kind, body) == ("/search", "image/png", b"pixels")
    assert query == {"k": ["3"], "catalogue": ["shop"], "filter": ["price<=50"]}
    rows = [line.split() for line in result.output.splitlines() if "front" in line]
    assert [row[:6] for row in rows] == [
        ["1", "0.900", "97", "%", "boot-7", "front"],
        ["2", "0.800", "–", "mug", "front", "The"],
    ]
    assert "None of these is likely to be a good match." in result.output
    assert "\x1b" not in result.output  # a title must not command the terminal
    assert "22 ms (encode 20.0, search 1.5)" in result.output


def test_what_is_no_file_is_a_product(api: FakeApi) -> None:
    assert run("boot-7", "--min-score", "0.5").exit_code == 0
    ((_, query, kind, body),) = api.requests
    assert (kind, json.loads(body)) == ("application/json", {"product_id": "boot-7"})
    assert query["min_score"] == ["0.5"]


def test_a_filter_is_passed_on_and_exact_is_asked_for(api: FakeApi) -> None:
    text = 'brand=acme AND NOT (price>50 OR "on sale"=true)'
    assert run("boot-7", "--filter", text, "--exact").exit_code == 0
    assert run("boot-7").exit_code == 0
    assert api.requests[0][1] == {"k": ["10"], "catalogue": ["default"]} | {
        "filter": [text],
        "exact": ["true"],
    }
    assert "exact" not in api.requests[1][1] and "filter" not in api.requests[1][1]


def test_a_part_of_an_earlier_search(api: FakeApi) -> None:
    assert run("--like-query", "Q", "--cells", "3,3;3,4").exit_code == 0
    assert run("--like-query", "Q", "--crop", "0,0,.5,1").exit_code == 0
    assert run("--like-query", "Q").exit_code == 0
    assert [json.loads(body) for _, _, _, body in api.requests] == [
        {"query_id": "Q", "cells": [[3, 3], [3, 4]]},
        {"query_id": "Q", "crop": [0, 0, 0.5, 1]},
        {"query_id": "Q"},
    ]


def test_a_crop_goes_along_in_a_form(api: FakeApi) -> None:
    Path("photo.jpg").write_bytes(b"pixels")
    assert run("photo.jpg", "--crop", "0.25,0,.5,1").exit_code == 0
    ((_, _, kind, body),) = api.requests
    assert kind.startswith("multipart/form-data")
    assert b"pixels" in body and b"0.25,0.0,0.5,1.0" in body


def test_a_large_image_is_uploaded_first(api: FakeApi) -> None:
    form = {"upload_key": "KEY", "url": f"{api.url}/bucket", "fields": {"key": "uploads/KEY"}}
    api.answers["/uploads"] = (201, form | {"max_bytes": 25_000_000})
    api.answers["/bucket"] = (204, b"")
    Path("large.jpg").write_bytes(b"x" * (MAX_BODY_BYTES + 1))
    assert run("large.jpg", "--crop", "1,2,3,4").exit_code == 0
    paths = [request[0] for request in api.requests]
    assert paths == ["/uploads", "/bucket", "/search"]
    assert b"uploads/KEY" in api.requests[1][3] and len(api.requests[1][3]) > MAX_BODY_BYTES
    assert json.loads(api.requests[2][3]) == {"upload_key": "KEY", "crop": [1, 2, 3, 4]}


def test_an_image_that_is_larger_than_any_upload(api: FakeApi) -> None:
    api.answers["/uploads"] = (201, {"upload_key": "K", "url": "", "fields": {}, "max_bytes": 9})
    Path("large.jpg").write_bytes(b"x" * (MAX_BODY_BYTES + 1))
    result = run("large.jpg")
    assert result.exit_code == 2
    assert "a search takes at most 0.0 MB" in result.output


def test_json_is_the_apis_answer(api: FakeApi) -> None:
    result = run("boot-7", "--json")
    assert json.loads(result.output) == answer_of("boot-7", "mug")


def test_nothing_found(api: FakeApi) -> None:
    api.answers["/search"] = (200, answer_of())
    result = run("boot-7")
    assert (result.exit_code, result.output) == (1, "Nothing found.\n")


@pytest.mark.parametrize(
    ("status", "exit_code"), [(404, 1), (413, 2), (415, 2), (422, 2), (500, 3), (503, 3)]
)
def test_a_problem_is_said_and_has_its_exit_code(api: FakeApi, status: int, exit_code: int) -> None:
    problem = {"title": "Not found", "detail": "There is no product “x”.", "status": status}
    api.answers["/search"] = (status, problem)
    result = run("x")
    assert result.exit_code == exit_code
    assert "Not found: There is no product “x”." in result.output


def test_an_answer_that_is_not_ours(api: FakeApi) -> None:
    api.answers["/search"] = (502, b"<html>bad gateway")
    result = run("x")
    assert result.exit_code == 3 and "HTTP 502: <html>bad gateway" in result.output
    api.answers["/search"] = (200, b"<html>hello")
    assert run("x").exit_code == 3


def test_nobody_answers(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as closed:
        port = closed.server_port
    monkeypatch.setenv("LOOKALIKE_API_URL", f"http://127.0.0.1:{port}")
    result = run("x")
    assert result.exit_code == 3 and "cannot be reached" in result.output


def test_nothing_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOOKALIKE_API_URL", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    result = run("x")
    assert result.exit_code == 3
    assert "start it with `lookalike up`" in result.output


def test_a_named_state_folder_is_not_replaced_by_the_environment(
    api: FakeApi, tmp_path: Path
) -> None:
    result = run("x", "--data-dir", str(tmp_path / "other"))
    assert result.exit_code == 3 and "other" in result.output
    assert not api.requests


@pytest.mark.parametrize(
    "arguments",
    [
        ("x", "--crop", "0,0,1,1"),
        ("x", "--crop", "1,2,3"),
        ("x", "--crop", "nan,0,1,1"),
        ("",),
        (".",),
        ("x", "--wrong"),
        ("x", "--like-query", "Q"),
        ("x", "--cells", "1,2"),
        ("--cells", "1,2"),
        ("--like-query", "Q", "--cells", "1;2"),
        ("--like-query", "Q", "--cells", "1,2;"),
        ("--like-query", "Q", "--cells", "1,a"),
        ("-k", "3"),
    ],
)
def test_wrong_use(api: FakeApi, arguments: tuple[str, ...]) -> None:
    assert run(*arguments).exit_code == 2
    assert not api.requests


def test_an_id_that_is_too_long_for_a_files_name_is_a_product(api: FakeApi) -> None:
    assert run("a" * 300).exit_code == 0
    assert json.loads(api.requests[0][3]) == {"product_id": "a" * 300}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("\udcff",), "There is no file �, and a product's id is text in UTF-8."),
        (("x", "--filter", "a=\udcff"), "'--filter': “a=�” is not text in UTF-8."),
        (("x", "--catalogue", "\udcff"), "'--catalogue': “�” is not text in UTF-8."),
        (("x", "--crop", "\udcff"), "'--crop': “�” is not text in UTF-8."),
        (("\udcff", "--crop", "0,0,1,1"), "there is no file �."),
    ],
)
def test_arguments_that_are_not_utf8(api: FakeApi, arguments: tuple[str, ...], says: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, says in result.output) == (2, True), result.output
    assert not api.requests


@pytest.mark.parametrize("crop", [(), ("--crop", "0,0,1,1")])
def test_an_images_name_may_be_any_bytes(api: FakeApi, crop: tuple[str, ...]) -> None:
    Path("\udcff.png").write_bytes(b"pixels")
    assert run("\udcff.png", *crop).exit_code == 0
    assert b"pixels" in api.requests[0][3]


MANIFEST = """file,split,product_id,category
catalogue/a.jpg,catalogue,boot-1,shoes
catalogue/b.jpg,catalogue,boot-2,shoes
catalogue/c.jpg,catalogue,mug-1,mugs
queries/q1.jpg,queries,boot-9,shoes
queries/q2.jpg,queries,mug-9,mugs
queries/q3.jpg,queries,hat-9,hats
"""


def test_eval(api: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "queries").mkdir()
    for name in ("q1", "q2"):
        (tmp_path / "queries" / f"{name}.jpg").write_bytes(name.encode())
    (tmp_path / "manifest.csv").write_text(MANIFEST)
    answer = answer_of("mug-1", "boot-1")
    # The first says its category itself, of the second only the manifest knows it.
    answer["results"][0]["category"] = "mugs"
    answer["results"][1]["category"] = None
    api.answers["/search"] = (200, answer)
    result = CliRunner().invoke(cli, ["eval", "manifest.csv", "-k", "2", "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.output)
    # shoes: 0 1 of R = 2 → P@1 0, P@2 1/2, AP@2 (1/2)/2. mugs: 1 0 of R = 1 → 1, 1/2, 1.
    assert found["categories"]["shoes"] == {
        "queries": 1,
        "precision_at_1": 0.0,
        "precision_at_k": 0.5,
        "map_at_k": 0.25,
        "map_at_k_of_found": 0.5,
    }
    assert found["all"] == {
        "queries": 2,
        "precision_at_1": 0.5,
        "precision_at_k": 0.5,
        "map_at_k": 0.625,
        "map_at_k_of_found": 0.75,
    }
    assert found["queries_without_relevant_products"] == 1
    assert (found["exact"], found["generations"]) == (False, ["1"])
    assert found["latency_ms"]["stages"]["encode"] == {"p50": 20.0, "p95": 20.0}
    assert {request[3] for request in api.requests} == {b"q1", b"q2"}
    assert [request[1]["exact"] for request in api.requests] == [["false"]] * 2
    command = ["eval", "manifest.csv", "-k", "2", "--parallel", "2", "--exact"]
    table = CliRunner().invoke(cli, command)
    assert table.exit_code == 0, table.output
    assert sum(request[1].get("exact") == ["true"] for request in api.requests) == 2
    assert ["all", "2", "50.0", "%", "50.0", "%", "62.5", "%", "75.0", "%"] in [
        line.split() for line in table.output.splitlines()
    ]


def test_eval_of_a_manifest_that_is_none(api: FakeApi, tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("file,split\n")
    result = CliRunner().invoke(cli, ["eval", "manifest.csv"])
    assert result.exit_code == 2 and "no column product_id, category" in result.output
    (tmp_path / "manifest.csv").write_text(MANIFEST)
    result = CliRunner().invoke(cli, ["eval", "manifest.csv"])
    assert result.exit_code == 2 and "q1.jpg cannot be read" in result.output
