"""What docs/operations.md and docs/access.md tell to do by hand works on a deployed stack."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from click.testing import CliRunner
from moto import mock_aws

from chalicelib import recluster, reindex, sweep
from local.cli import cli
from lookalike.adapters.aws import forget_clients
from lookalike.core.access import key_text
from lookalike.core.ports import Stores
from lookalike.services.sweep import ANEW, GO_ON

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [(DOCS / name).read_text(encoding="utf-8") for name in ("operations.md", "access.md")]
EVENT = re.compile(r"^    (event\(\) .*)$", re.MULTILINE)
INVOKED = re.compile(r"^    (event .*\| aws lambda invoke .*)$", re.MULTILINE)
COMMAND = re.compile(r"^    lookalike (?!up)(.*)$", re.MULTILINE)
COMMANDS = sorted({command for page in PAGES for command in COMMAND.findall(page)})
FUNCTIONS = {
    "lookalike-sweep": sweep,
    "lookalike-reindex": reindex,
    "lookalike-recluster": recluster,
}
# Keeps the event and names the function, as `aws lambda invoke` would send them.
AWS = '#!/bin/sh\ncat "${8#fileb://}" > "$EVENT_FILE"\necho "$4"\n'


class Asked:
    """Stands for the services; notes what they are asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.sweep = self.compaction = self.reindex = self.recluster = self.calibrate = self

    def run(self, deadline: float, *asked: object, **options: object) -> Any:
        self.calls.append((*asked, "now") if options.get("now") else asked)
        report = SimpleNamespace(queued=0, finished=True, postponed={}, unreadable=[], asked="")
        report.catalogues = []
        return report

    def ask(self, action: str, catalogue: str | None, encoder: str | None) -> Any:
        self.calls.append((action, catalogue, encoder))
        return SimpleNamespace(catalogue=catalogue, asked="")


def test_functions_understand_the_events_that_they_are_invoked_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = Asked()
    (define,) = EVENT.findall(PAGES[0])
    (tmp_path / "aws").write_text(AWS)
    (tmp_path / "aws").chmod(0o755)
    kept = tmp_path / "event.json"
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    context = SimpleNamespace(aws_request_id="1", get_remaining_time_in_millis=lambda: 60_000)
    for module in FUNCTIONS.values():
        monkeypatch.setattr(module.wiring, "services", lambda: asked)
        plain = SimpleNamespace(to_builtins=vars, convert=first)
        monkeypatch.setattr(module, "msgspec", plain, raising=False)
    for command in INVOKED.findall(PAGES[0]):
        done = subprocess.run(
            ["bash", "-c", f"{define}\n{command}"],
            env={"PATH": path, "EVENT_FILE": str(kept)},
            capture_output=True,
            text=True,
            check=True,
        )
        name = done.stdout.strip()
        getattr(FUNCTIONS[name], name.removeprefix("lookalike-"))(
            json.loads(kept.read_text()), context
        )
    modes = {(ANEW,), (GO_ON,)}
    on_myshop = {("rollback", "myshop", None), ("myshop",), ("myshop", "now")}
    assert modes | on_myshop == set(asked.calls)


def first(value: object, kind: object) -> object:
    return value


@pytest.fixture
def deployed(
    memory_stores: Stores, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[None]:
    """The variables that "By hand" tells to set, and no others."""
    for name in list(os.environ):
        if name.startswith(("LOOKALIKE_", "AWS_ENDPOINT_URL")):
            monkeypatch.delenv(name)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lookalike.stores.aws_stores", lambda settings: memory_stores)
    monkeypatch.setattr("local.commands.status._catalogues", lambda connection: [])
    with mock_aws():
        forget_clients()
        sqs = boto3.client("sqs")
        dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]
        policy = json.dumps({"deadLetterTargetArn": arn["QueueArn"], "maxReceiveCount": 5})
        url = sqs.create_queue(QueueName="ingest", Attributes={"RedrivePolicy": policy})
        said = {
            "LOOKALIKE_API_URL": "http://127.0.0.1:1",
            "LOOKALIKE_API_KEY": key_text("0" * 12, "A" * 43),
            "LOOKALIKE_INGEST_QUEUE_URL": url["QueueUrl"],
        }
        by_hand = PAGES[0].split("## By hand")[1].split("\n## ")[0]
        for name, value in said.items():
            assert f"{name}=" in by_hand
            monkeypatch.setenv(name, value)
        yield
    forget_clients()


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_find_a_deployed_stack(deployed: None, command: str) -> None:
    result = CliRunner().invoke(cli, shlex.split(command))
    assert isinstance(result.exception, SystemExit | None), result.exception
    # 1 and 2: the pages' example ids name nothing here.
    assert result.exit_code in ({1, 2} if "_ID" in command or "revoke" in command else {0})
    assert "Usage:" not in result.output
