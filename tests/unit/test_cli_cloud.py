from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from local.cli import cli
from local.commands.connection import connect
from local.commands.exits import Unreachable
from local.commands.upload_plan import PlannedFile
from local.state import FolderLock, State, write_state
from lookalike.core.keys import parse_key
from lookalike.core.ports import Stores
from lookalike.core.types import Counts, Failure, Generation, Lineage, Product, View


@dataclass
class Cloud:
    """Stores in memory behind the command, and a bucket whose text files are no images."""

    stores: Stores

    def put(self, file: PlannedFile) -> str:
        body = Path(file.path).read_bytes()
        etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
        parsed = parse_key(file.key)
        if body.startswith(b"text"):
            self.fail(file.key, etag)
        else:
            view = View(file.key, etag, "v", "s", 0, 8, 8, "t", 0.0, 0.0, dict(file.metadata or {}))
            product = Product(parsed.catalogue, parsed.product_id, "g", {file.key: view})
            self.stores.products.put(product)
        return etag

    def fail(self, key: str, etag: str = "e") -> None:
        catalogue = parse_key(key).catalogue
        if self.stores.lineages.get(catalogue) is None:
            self.stores.lineages.put(Lineage(catalogue, Generation(catalogue, "g", "e")))
        failure = Failure(catalogue, key, "not-an-image", "It is no image.", etag, 5.0, 2)
        self.stores.failures.put(failure)
        self.stores.counts.add(catalogue, Counts(failures=1))


class NoLetters:
    """A dead-letter queue that is empty; tests/unit/test_cli_failures.py has one that is not."""

    def __init__(self, url: str) -> None:
        assert url

    def take(self, limit: int) -> list[object]:
        return []

    def show(self, letters: Iterator[object]) -> None:
        assert not list(letters)

    retry = show


@pytest.fixture
def cloud(memory_stores: Stores, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cloud:
    made = Cloud(memory_stores)
    monkeypatch.setattr("lookalike.stores.aws_stores", lambda settings: memory_stores)
    monkeypatch.setattr("lookalike.adapters.dead_letters.DeadLetters", NoLetters)
    monkeypatch.setattr("local.commands.upload.bucket_put", lambda bucket: made.put)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("LOOKALIKE_INGEST_QUEUE_URL", "http://127.0.0.1:1/queue")
    monkeypatch.delenv("LOOKALIKE_API_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    return made


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "mug.jpg").write_bytes(b"pixels")
    (folder / "bad.jpg").write_bytes(b"text")
    (folder / "notes.txt").write_bytes(b"text")
    return folder


def test_upload_says_what_became_of_each_file(cloud: Cloud, photos: Path) -> None:
    result = run("upload", str(photos), "--catalogue", "shop", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert {name: report[name] for name in ("files", "uploaded", "searchable", "skipped")} == {
        "files": 2,
        "uploaded": 2,
        "searchable": 1,
        "skipped": 1,
    }
    (failed,) = report["failed"]
    assert (failed["key"], failed["reason"], failed["known"]) == (
        "shop/bad.jpg",
        "not-an-image",
        False,
    )
    again = run("upload", str(photos), "--catalogue", "shop")
    assert again.exit_code == 1
    assert "1 file already searchable, not sent again." in again.stdout
    assert "1 file failed (1 as before, not sent again)." in again.stdout
    assert "1 file skipped: not an image." in again.stdout
    assert "It is no image." in again.stdout
    assert " photos/bad.jpg " in again.stdout  # as seen from here
    assert run("upload", str(photos / "mug.jpg"), "--catalogue", "shop").exit_code == 0


def test_upload_without_waiting(cloud: Cloud, photos: Path) -> None:
    result = run("upload", str(photos / "mug.jpg"), "--no-wait")
    assert result.exit_code == 0
    assert "1 file uploaded" in result.stdout


def test_upload_of_nothing(cloud: Cloud, photos: Path) -> None:
    result = run("upload", str(photos / "notes.txt"))
    assert result.exit_code == 1
    assert "none of 1 file is an image" in result.output
    assert run("upload", str(photos / "absent")).exit_code == 2


def test_upload_with_metadata_that_describes_nothing_sends_nothing(
    cloud: Cloud, photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("file,title\nelsewhere/mug.jpg,Mug\n")
    result = run("upload", str(photos), "--metadata", "rows.csv")
    assert result.exit_code == 2
    assert "No row of rows.csv describes any of the files" in result.output
    assert not cloud.stores.products.page("default", 10)[0]


def test_failures_are_listed(cloud: Cloud) -> None:
    assert run("failures").output == "No failures.\n"
    for key in ("shop/b.jpg", "shop/a.jpg", "other/c.jpg"):
        cloud.fail(key)
    listed = json.loads(run("failures", "--json").output)
    assert [item["key"] for item in listed] == ["other/c.jpg", "shop/a.jpg", "shop/b.jpg"]
    assert listed[0]["reason"] == "not-an-image" and listed[0]["tries"] == 2
    one = json.loads(run("failures", "list", "--catalogue", "other", "--json").output)
    assert [item["key"] for item in one] == ["other/c.jpg"]
    assert "It is no image." in run("failures").output


def test_failures_are_tried_again(cloud: Cloud) -> None:
    assert run("failures", "retry").output == "No failures.\n"
    for key in ("shop/a.jpg", "shop/b.jpg", "other/c.jpg"):
        cloud.fail(key)
    assert run("failures", "retry", "--catalogue", "shop").exit_code == 0
    assert run("failures", "retry", "other/c.jpg").exit_code == 0
    assert [json.loads(body)["keys"] for body in cloud.stores.queue.bodies] == [
        ["shop/a.jpg", "shop/b.jpg"],
        ["other/c.jpg"],
    ]
    unknown = run("failures", "retry", "shop/a.jpg", "shop/nope.jpg")
    assert unknown.exit_code == 1 and "Nothing failed under shop/nope.jpg" in unknown.output
    assert len(cloud.stores.queue.bodies) == 2


def test_retrying_needs_the_queue(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOOKALIKE_INGEST_QUEUE_URL")
    result = run("failures", "retry")
    assert result.exit_code == 3 and "LOOKALIKE_INGEST_QUEUE_URL" in result.output


def test_functions_run_by_hand_in_a_local_cloud_only(cloud: Cloud) -> None:
    result = run("sweep")
    assert result.exit_code == 3 and "local cloud only" in result.output


TEMPLATE = {
    "Resources": {
        "ImagesBucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "the-photos"}},
        "IngestQueue": {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": "the-queue"}},
        "Sweep": {
            "Type": "AWS::Serverless::Function",
            "Properties": {
                "Handler": "app.sweep",
                "Environment": {
                    "Variables": {
                        "LOOKALIKE_IMAGES_BUCKET": {"Ref": "ImagesBucket"},
                        "LOOKALIKE_INGEST_QUEUE_URL": {"Ref": "IngestQueue"},
                    }
                },
            },
        },
    }
}


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[State]:
    """A state folder as a running local cloud leaves it; nothing answers."""
    data_dir = tmp_path / ".lookalike"
    lock = FolderLock(data_dir)
    lock.acquire()
    (tmp_path / "template.json").write_text(json.dumps(TEMPLATE))
    config = {
        "template": str(tmp_path / "template.json"),
        "parameters": {},
        "environment": {"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_REGION": "us-east-1"},
    }
    (data_dir / "host.json").write_text(json.dumps(config))
    state = State(
        data_dir=str(data_dir),
        api_url="http://127.0.0.1:1",
        aws_url="http://127.0.0.1:1",
        control_url="http://127.0.0.1:1",
        dashboard_url=None,
        started_at="2026-01-01T00:00:00+00:00",
        pids={},
    )
    write_state(data_dir, state)
    monkeypatch.setattr(os, "environ", {"AWS_PROFILE": "work", "AWS_SESSION_TOKEN": "x"})
    monkeypatch.chdir(tmp_path)
    yield state
    lock.release()


def test_a_running_local_cloud_is_found_through_its_folder(running: State) -> None:
    connection = connect(None)
    assert connection.local() == running
    settings = connection.settings()
    assert settings.images_bucket == "the-photos"
    assert settings.ingest_queue_url.endswith("/the-queue")
    # A profile of a real account would be looked up, and fail or, worse, be used.
    assert {name for name in os.environ if name.startswith("AWS_")} == {
        "AWS_ENDPOINT_URL",
        "AWS_REGION",
    }


def test_a_local_cloud_that_crashed_is_not_found(running: State, tmp_path: Path) -> None:
    other = tmp_path / "crashed"
    other.mkdir()
    for name in ("state.json", "lock"):
        (other / name).write_bytes((tmp_path / ".lookalike" / name).read_bytes())
    with pytest.raises(Unreachable, match="lookalike up"):
        connect(other)


def test_a_function_that_cannot_be_reached(running: State) -> None:
    result = run("sweep")
    assert result.exit_code == 3 and "does not answer" in result.output


SWEPT = {
    "objects": 9,
    "products": 5,
    "queued": 2,
    "deleted_queries": 3,
    "deleted_explanations": 4,
    "deleted_thumbnails": 1000,
    "deleted_maps": 6,
    "lost": 0,
    "given_up": 0,
    "phase": "done",
    "finished": True,
}


@pytest.mark.parametrize(
    ("outcome", "exit_code", "said"),
    [
        (
            {"error": None, "payload": SWEPT},
            0,
            "9 objects and 5 products compared; 2 differ and were queued.\n"
            "1,000 thumbnails and 6 feature maps that nothing needs deleted, 3 searches and "
            "4 explanations that have expired.\n",
        ),
        (
            {"error": None, "payload": SWEPT | {"lost": 1}},
            0,
            "2 differ and were queued, 1 of them missing in the index.",
        ),
        (
            {"error": None, "payload": SWEPT | {"given_up": 1}},
            0,
            "1 catalogues are too large for their index to be compared.",
        ),
        ({"error": "Unhandled", "payload": {"errorMessage": "no table"}}, 1, "failed: no table"),
    ],
)
def test_sweep(
    running: State,
    monkeypatch: pytest.MonkeyPatch,
    outcome: dict[str, object],
    exit_code: int,
    said: str,
) -> None:
    called: list[str] = []

    def invoke(state: State, function: str, payload: dict[str, object]) -> dict[str, object]:
        called.append(f"{function} {payload['source']}")
        return outcome

    monkeypatch.setattr("local.control.invoke", invoke)
    result = run("sweep")
    assert called == ["Sweep aws.events"]
    assert result.exit_code == exit_code and said in result.output
