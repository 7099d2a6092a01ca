"""``lookalike search --explain``: its files, its columns, and what cannot be explained."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from local.cli import cli

HOSTILE = "../..\\boot/7: ü"
HOSTILE_PATH = "..%2F..%5Cboot%2F7%3A%20%C3%BC"
HOSTILE_NAME = "..%2F..%5Cboot%2F7%3A %C3%BC"


@dataclass
class FakeApi:
    """Answers what the test puts there, by method and path; a string is a redirect."""

    url: str = ""
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeApi]:
    fake = FakeApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.do_GET()

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            fake.asked.append(path)
            status, answer = fake.answers[path]
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            if status == 303:
                self.send_header("Location", answer)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        fake.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("LOOKALIKE_API_URL", fake.url)
        monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
        fake.answers["/search"] = (200, found(fake.url, HOSTILE, "mug"))
        for path, foreground in ((HOSTILE_PATH, 0.924), ("mug", None)):
            fake.answers[f"/explanations/01J/{path}"] = (200, explanation(foreground))
            fake.answers[f"/explanations/01J/{path}/pair.png"] = (200, path.encode())
        yield fake
        server.shutdown()
        thread.join()


def found(url: str, *products: str) -> dict[str, Any]:
    return {
        "query_id": "01J",
        "took_ms": {"encode": 20.0, "total": 22.0},
        "results": [
            {
                "rank": rank,
                "product_id": product,
                "view": "front",
                "score": 1 - rank / 10,
                "title": "",
                "category": "",
                "explanation_url": f"{url}/explanations/01J/{rank}",
            }
            for rank, product in enumerate(products, 1)
        ],
    }


def explanation(foreground: float | None, trusted: bool | None = False) -> dict[str, Any]:
    return {
        "score": 0.9,
        "foreground_share": foreground,
        "trust": {"better_than_chance": trusted if foreground is None else True},
        "matches": [] if foreground is None else [{"share": 0.314}, {"share": 0.2}],
    }


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["search", *arguments, "--explain", "why"])


def test_each_result_gets_a_picture_and_its_numbers(api: FakeApi) -> None:
    result = run("boot-7")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in Path("why").iterdir()) == [
        f"01-{HOSTILE_NAME}.json",
        f"01-{HOSTILE_NAME}.png",
        "02-mug.json",
        "02-mug.png",
    ]
    assert Path("why/02-mug.png").read_bytes() == b"mug"
    assert json.loads(Path("why/02-mug.json").read_text()) == explanation(None)
    first, second = (line for line in result.output.splitlines() if "front" in line)
    assert "92 %" in first and " better than chance" in first and "31 % of the score" in first
    assert "–" in second and "no better than chance" in second
    assert "Explanations are in why." in result.output


def test_a_badge_that_cannot_be_given_is_left_open(api: FakeApi) -> None:
    api.answers["/explanations/01J/mug"] = (200, explanation(None, trusted=None))
    (row,) = (line for line in run("boot-7").output.splitlines() if " mug " in line)
    assert row.count("–") == 3 and "chance" not in row  # nor a match


def test_an_image_is_explained_like_a_product(api: FakeApi) -> None:
    Path("photo.png").write_bytes(b"pixels")
    assert run("photo.png").exit_code == 0
    assert len(list(Path("why").iterdir())) == 4


def test_json_has_the_explanations(api: FakeApi) -> None:
    result = run("boot-7", "--json")
    answer = json.loads(result.stdout)
    assert [item["explanation"] for item in answer["results"]] == [
        explanation(0.924),
        explanation(None),
    ]


def test_a_large_picture_comes_from_the_bucket(api: FakeApi) -> None:
    api.answers["/explanations/01J/mug/pair.png"] = (303, f"{api.url}/bucket")
    api.answers["/bucket"] = (200, b"large")
    assert run("boot-7").exit_code == 0
    assert Path("why/02-mug.png").read_bytes() == b"large"


@pytest.mark.parametrize("status", [404, 410])
def test_what_left_meanwhile_is_said_and_the_rest_is_explained(api: FakeApi, status: int) -> None:
    problem = {"title": "Gone", "detail": "The product was deleted.", "status": status}
    api.answers[f"/explanations/01J/{HOSTILE_PATH}"] = (status, problem)
    result = run("boot-7")
    assert result.exit_code == 1
    assert "Gone: The product was deleted." in result.stderr
    assert [path.name for path in sorted(Path("why").iterdir())] == ["02-mug.json", "02-mug.png"]


def test_a_search_of_which_nothing_is_kept(api: FakeApi) -> None:
    for item in api.answers["/search"][1]["results"]:
        item["explanation_url"] = None
    result = run("boot-7")
    assert result.exit_code == 1
    assert "LOOKALIKE_QUERY_RETENTION_S" in result.output
    assert api.asked == ["/search"] and not Path("why").exists()


def test_an_api_that_fails_ends_the_command(api: FakeApi) -> None:
    api.answers["/explanations/01J/mug/pair.png"] = (503, {"title": "Busy"})
    result = run("boot-7")
    assert result.exit_code == 3 and "Busy" in result.output


def test_nothing_found_leaves_no_folder(api: FakeApi) -> None:
    api.answers["/search"] = (200, found(api.url))
    assert run("boot-7").exit_code == 1
    assert not Path("why").exists()


def test_a_folder_that_cannot_be_written(api: FakeApi) -> None:
    Path("file").write_bytes(b"")
    result = CliRunner().invoke(cli, ["search", "boot-7", "--explain", "file/why"])
    assert result.exit_code == 2 and "cannot be written" in result.output
    assert run("boot-7").exit_code == 0
    result = CliRunner().invoke(cli, ["search", "boot-7", "--explain", "file"])
    assert result.exit_code == 2 and "is a file" in result.output
