from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from local.cli import COMMANDS, cli
from local.commands import exits
from local.commands.reference import reference
from local.commands.terminal import millis, plain, size
from local.commands.up import chosen_settings
from lookalike.core.errors import InvalidRequest, Unavailable

ROOT = Path(__file__).parents[2]


def test_the_reference_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == reference(), "run: python -m local.commands.reference > docs/cli.md"


def test_every_command_has_help_and_every_option_a_text() -> None:
    def walk(command: click.Command, ctx: click.Context) -> None:
        assert command.help, ctx.command_path
        for param in command.params:
            if isinstance(param, click.Option):
                assert param.help, (ctx.command_path, param.opts)
        if isinstance(command, click.Group):
            for name in command.list_commands(ctx):
                inner = command.get_command(ctx, name)
                assert inner is not None
                walk(inner, click.Context(inner, ctx, info_name=name))

    walk(cli, click.Context(cli, info_name="lookalike"))
    result = CliRunner().invoke(cli, ["--help"])
    assert result.exit_code == 0
    # Help texts that do not fit are cut with dots.
    assert "..." not in result.output.replace("[ARGS]...", "")
    assert all(f"  {name} " in result.output for name in COMMANDS)


def test_help_loads_nothing_heavy() -> None:
    heavy = ("boto3", "numpy", "onnxruntime", "faiss", "moto", "aiohttp", "PIL", "rich.progress")
    code = (
        "import sys\nfrom local.cli import cli\n"
        "cli.main(['--help'], standalone_mode=False)\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    elapsed = time.perf_counter() - start
    assert done.stdout.splitlines()[-1] == "[]"
    assert elapsed < 5  # 0.15 s on an idle machine; the list above is what guards the budget


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (Unavailable("the table is away"), exits.UNREACHABLE),
        (InvalidRequest("k is 0"), exits.USAGE),
        (KeyboardInterrupt(), exits.INTERRUPTED),
        (exits.Failed("nothing"), exits.FAILED),
    ],
)
def test_errors_become_a_line_and_an_exit_code(
    error: BaseException, exit_code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(data_dir: Path | None) -> None:
        raise error

    monkeypatch.setattr("local.commands.search.connect", fail)
    result = CliRunner().invoke(cli, ["search", "boot-7"])
    assert result.exit_code == exit_code
    assert (str(error) or "Stopped.") in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("reindex", "--catalogue", "\udcff"),
        ("failures", "--catalogue", "\udcff"),
        ("failures", "retry", "a.jpg", "\udcff"),
        ("upload", ".", "--catalogue", "\udcff"),
        ("compact", "--catalogue", "\udcff"),
        ("model", "build", "\udcff"),
    ],
)
def test_texts_must_be_utf8_in_every_command(arguments: tuple[str, ...]) -> None:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == exits.USAGE
    assert "“�” is not text in UTF-8." in result.output


def test_the_command_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from local.cli import main; main()", "search", "x"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "LOOKALIKE_"))},
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "layers" / "common" / "python")]),
        },
    )
    assert done.returncode == exits.UNREACHABLE
    assert "start it with `lookalike up`" in done.stderr and not done.stdout


def test_settings_that_up_hands_on() -> None:
    given = {
        "LOOKALIKE_ENCODER": "resnet50",
        "LOOKALIKE_IMAGES_BUCKET": "elsewhere",
        "LOOKALIKE_INGEST_QUEUE_URL": "elsewhere",
        "LOOKALIKE_API_URL": "elsewhere",
        "HOME": "/root",
    }
    assert chosen_settings(given) == {"LOOKALIKE_ENCODER": "resnet50"}


def test_models_are_listed_with_what_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOOKALIKE_MODEL_DIR", str(tmp_path))
    listed = CliRunner().invoke(cli, ["model", "list", "--json"])
    found = json.loads(listed.output)
    assert found["folder"] == str(tmp_path)
    assert all(item["built_bytes"] == {} for item in found["encoders"])
    built = CliRunner().invoke(cli, ["model", "build", "efficientnet-lite2"])
    assert built.exit_code == 0, built.output
    found = json.loads(CliRunner().invoke(cli, ["model", "list", "--json"]).output)
    (item,) = [item for item in found["encoders"] if item["encoder"] == "efficientnet-lite2"]
    (graph,) = tmp_path.glob("*.onnx")
    assert item["default"] and item["built_bytes"] == {"fp32": graph.stat().st_size}
    table = CliRunner().invoke(cli, ["model", "list"])
    assert f"fp32 {size(graph.stat().st_size)}" in table.output


def test_a_model_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOKALIKE_MODEL_DIR", str(tmp_path))
    result = CliRunner().invoke(cli, ["model", "build", "vgg"])
    assert result.exit_code == exits.USAGE
    assert "efficientnet-lite0" in result.output


def test_what_is_printed_for_people() -> None:
    assert [millis(0.0384), millis(1.239)] == ["38 ms", "1.24 s"]
    assert [size(999), size(19_100_000), size(2.5e12)] == ["999 B", "19.1 MB", "2500.0 GB"]
    assert plain("a\x1b[2Jb\u202e\udc80") == "a�[2Jb��"
    assert plain(None) == ""
