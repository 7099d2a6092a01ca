from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner, Result

from local.cli import cli
from local.cloud import Options, StartError
from local.ports import PortInUse
from local.state import AlreadyRunning, State


class FakeCloud:
    """A local cloud that is up at once and stops at once."""

    def __init__(self) -> None:
        self.options: Options | None = None
        self.events: list[str] = []
        self.error: Exception | None = None

    def up(self, options: Options, on_progress: Callable[[str], None]) -> SimpleNamespace:
        if self.error:
            raise self.error
        self.options = options
        on_progress("Starting the functions")
        state = State(
            data_dir=str(options.data_dir),
            api_url=f"http://127.0.0.1:{options.api_port}",
            aws_url=f"http://127.0.0.1:{options.aws_port}",
            control_url="http://127.0.0.1:1",
            dashboard_url="http://127.0.0.1:5006" if options.dashboard else None,
            started_at="",
            pids={},
        )
        return SimpleNamespace(
            state=state,
            wait=lambda: self.events.append("wait"),
            stop=lambda: self.events.append("stop"),
        )


class FakeSample:
    """A sample process that reports twice."""

    lines = (SimpleNamespace(photos=30, total=60, searchable=False),)
    error = ""

    def __init__(self, data_dir: Path) -> None:
        self.stopped = False

    def progress(self) -> object:
        yield from self.lines
        if self.error:
            raise RuntimeError(self.error)
        yield SimpleNamespace(photos=60, total=60, searchable=True)

    def stop(self) -> None:
        self.stopped = True


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> FakeCloud:
    made = FakeCloud()
    monkeypatch.setattr("local.cloud.up", made.up)
    monkeypatch.setattr("local.commands.sample.SampleProcess", FakeSample)
    monkeypatch.setattr(
        "lookalike.modelbuild.ensure_model",
        lambda name, precision, folder: made.events.append(f"{name} {precision} {folder.name}"),
    )
    monkeypatch.setenv("LOOKALIKE_MODEL_DIR", str(tmp_path / "models"))
    monkeypatch.setenv("LOOKALIKE_PRECISION", "int8")
    monkeypatch.chdir(tmp_path)
    return made


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["up", *arguments])


def test_up_prints_the_addresses_and_what_to_do_next(fake: FakeCloud, tmp_path: Path) -> None:
    result = run("--no-sample")
    assert result.exit_code == 0, result.output
    assert fake.events == ["efficientnet-lite2 int8 models", "wait", "stop"]
    for text in (
        "http://127.0.0.1:8000\n",
        "http://127.0.0.1:8000/docs",
        "http://127.0.0.1:5000",
        "http://127.0.0.1:5006",
        "s3://lookalike-images",
        "  lookalike upload PHOTOS_FOLDER\n",
    ):
        assert text in result.stdout
    assert "sample" not in result.stdout.lower()
    assert result.stderr.endswith("Stopped.\n")
    assert fake.options is not None
    assert dict(fake.options.environment) == {
        "LOOKALIKE_CACHE_DIR": str(tmp_path / ".lookalike" / "bases"),
        "LOOKALIKE_MODEL_DIR": str(tmp_path / "models"),
        "LOOKALIKE_PRECISION": "int8",
        "LOOKALIKE_REQUIRE_API_KEY": "false",
    }


@pytest.mark.parametrize("how", ["option", "setting"])
def test_keys_are_asked_for_when_that_is_wanted(
    fake: FakeCloud, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    renewed: list[bool] = []
    monkeypatch.setattr("local.commands.up._renew_key", lambda folder, key: renewed.append(key))
    monkeypatch.setenv("LOOKALIKE_REQUIRE_API_KEY", str(how == "setting").lower())
    assert run("--no-sample", *(["--require-api-key"] if how == "option" else [])).exit_code == 0
    assert fake.options is not None and renewed == [True]
    assert fake.options.environment["LOOKALIKE_REQUIRE_API_KEY"] == "true"


def test_the_options_reach_the_cloud(fake: FakeCloud) -> None:
    result = run(
        *("--data-dir", "here", "--api-port", "1001", "--aws-port", "1002"),
        *("--dashboard-port", "1003", "--workers", "3", "--no-dashboard", "--no-sample"),
    )
    assert result.exit_code == 0, result.output
    options = fake.options
    assert options is not None
    assert (options.api_port, options.aws_port, options.dashboard_port) == (1001, 1002, 1003)
    assert (options.workers, options.dashboard, options.data_dir) == (3, False, Path("here"))
    assert "Dashboard" not in result.stdout
    assert "lookalike search PHOTO.jpg --data-dir here" in result.stdout


def test_the_sample_is_told_of_while_lookalike_runs(fake: FakeCloud) -> None:
    result = run()
    assert "lookalike search mug-01 --catalogue sample\n" in result.stdout
    assert "Sample catalogue: 30 of 60 photos …" in result.stdout
    assert "all 60 photos are searchable" in result.stdout
    assert "lookalike search .lookalike/sample/queries/mug.jpg --catalogue sample" in result.stdout


def test_a_sample_that_fails_stops_nothing(
    fake: FakeCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeSample, "error", "no space left")
    result = run()
    assert result.exit_code == 0
    assert "could not be put in: no space left" in result.stderr


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (PortInUse("Port 8000 cannot be used; choose another with --api-port."), 2),
        (AlreadyRunning("A local cloud already runs on .lookalike."), 2),
        (StartError("The process moto does not start; see its log."), 3),
    ],
)
def test_what_keeps_it_from_starting(fake: FakeCloud, error: Exception, exit_code: int) -> None:
    fake.error = error
    result = run()
    assert result.exit_code == exit_code
    assert str(error) in result.stderr
    assert "Traceback" not in result.output
