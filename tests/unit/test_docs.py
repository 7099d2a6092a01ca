"""What the documents say can be followed: links lead somewhere, commands are commands."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from local.cli import cli

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "data/README.md"]
LINK = re.compile(r"\[[^\]]*\]\(([^)#]+)(#[^)]*)?\)")
COMMAND = re.compile(r"^    (?:.*&& )?(lookalike [^#|\n]*)$", re.MULTILINE)
SCRIPT = re.compile(r"^    python (tests/benchmarks/\S+)", re.MULTILINE)


def identity(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_links_lead_to_files(page):
    for target, _ in LINK.findall(page.read_text()):
        if not target.startswith(("http:", "https:")):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_commands_are_understood(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for text in COMMAND.findall(page.read_text()):
        if "[" in text or page.name == "cli.md":
            continue  # a synopsis
        words = shlex.split(text)[1:]
        for word in words:  # files that a command wants to exist
            if "." in word or "/" in word:
                Path(word).parent.mkdir(parents=True, exist_ok=True)
                if not Path(word).is_dir():
                    Path(word).touch()
            elif word.isupper():
                Path(word).mkdir(exist_ok=True)
        context: click.Context = click.Context(cli, info_name="lookalike")
        command: click.Command = cli
        while isinstance(command, click.Group) and words:
            name = words.pop(0)
            found = command.get_command(context, name)
            assert found is not None, f"{identity(page)}: {text}"
            command, context = found, click.Context(found, context, info_name=name)
        command.make_parser(context).parse_args(list(words))


def test_scripts_that_are_named_exist():
    named = [path for page in PAGES for path in SCRIPT.findall(page.read_text())]
    assert len(named) > 3
    for path in named:
        assert (ROOT / path).is_file(), path


def test_every_decision_is_listed():
    folder = ROOT / "docs/decisions"
    index = (folder / "README.md").read_text()
    for page in folder.glob("0*.md"):
        assert f"({page.name})" in index
