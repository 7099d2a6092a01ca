"""What a start says when it cannot be, and what those find who come at once."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from local import cloud, logs
from local.aws.journal import Journal
from local.ports import free_port
from local.state import FolderLock, find_running
from local.supervisor import Child, Supervisor

PROJECT = Path(__file__).resolve().parent / "local_project"


def options(folder: Path) -> cloud.Options:
    return cloud.Options(
        data_dir=folder / "state",
        api_port=free_port(),
        aws_port=free_port(),
        workers=1,
        dashboard=False,
        template=PROJECT / "template.json",
        functions_dir=PROJECT / "functions",
        parameters={"Seen": str(folder / "seen")},
    )


def test_a_journal_of_a_newer_version_is_one_sentence(tmp_path: Path) -> None:
    chosen = options(tmp_path)
    chosen.data_dir.mkdir()
    path = chosen.data_dir / cloud.JOURNAL_NAME
    Journal(path).close()
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 999")
    newer.close()
    steps: list[str] = []
    with pytest.raises(cloud.StartError, match="written by a newer Lookalike"):
        cloud.up(chosen, steps.append)
    assert steps == []  # nothing was started


def test_a_folder_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no folder")
    with pytest.raises(cloud.StartError, match=r"state cannot be used: File exists\."):
        cloud.up(options(tmp_path), lambda step: None)


def test_it_is_found_before_its_api_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, found = options(tmp_path), []
    start = Supervisor.start

    def start_and_look(self: Supervisor, child: Child) -> None:
        if child.name == "host":
            found.append(find_running(chosen.data_dir))
        start(self, child)

    monkeypatch.setattr(Supervisor, "start", start_and_look)
    running = cloud.up(chosen, lambda step: None)
    running.stop()
    assert [state and state.api_url for state in found] == [running.state.api_url]


def test_a_restart_that_comes_to_nothing_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And leaves no traceback of its thread, which pytest would make an error."""
    steps: list[str] = []
    told = threading.Event()

    def report(step: str) -> None:
        steps.append(step)
        if step.startswith("After a restart"):
            told.set()

    def fail(*_: object) -> None:
        raise cloud.StartError("The process moto does not start.")

    chosen = options(tmp_path)
    lock = FolderLock(chosen.data_dir)
    begun = cloud._Start(chosen, chosen.data_dir, lock, report)
    monkeypatch.setattr(begun, "_wait", fail)
    begun._provision_again()
    assert told.wait(20), steps
    begun._close()


def test_a_line_that_cannot_be_written_is_left_out(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no device that is full")
    path = tmp_path / "moto.log"
    path.symlink_to("/dev/full")
    file = logs.LogFile(path)
    file.write("a line")
    path.unlink()
    file.write("another")
    file.close()
    assert path.read_text() == "another\n"
    assert capfd.readouterr() == ("", "")
