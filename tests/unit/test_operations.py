"""Metrics and alarms: what is told, that somebody is told of it, and that there is an answer."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
import shlex
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore import xform_name

from app import app
from chalicelib import compact, scheduled_work, sweep
from chalicelib.log import logger
from chalicelib.metrics import DIMENSION, NAMESPACE, UNITS, measure
from infra.alarms import ALARMS, Alarm
from infra.build import read_resources

ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
FUNCTIONS = ROOT / "functions/chalicelib"
QUERY = ("api", "log", "query", "catalogue", "explanations", "uploads")
SCHEDULED = ("Recluster", "Project", "Health", "Rollup")
MODULES = {
    "Embed": ("embed",),
    "APIHandler": QUERY,
    "Sweep": ("sweep",),
    "Compact": ("compact",),
    "Reindex": ("reindex",),
    **{name: (name.lower(), "scheduled_work") for name in SCHEDULED},
}
OF_AWS = {
    "AWS/SQS": {"ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage"},
    "AWS/Lambda": {"Errors", "Throttles", "Duration"},
}
SECTION = re.compile(r"^### (\w+)\n\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)
AWS_COMMAND = re.compile(r"^    (?:event .* \| )?aws (.*)$|\$\(aws (.*)\)", re.MULTILINE)
OF_EVERY_COMMAND = {"query", "output", "cli-read-timeout"}
ONLY_OF_THE_COMMAND = {("logs", "tail"): {"since", "filter-pattern"}}


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr(logger.registered_handler, "stream", stream)
    return stream


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def literals(path: Path) -> set[str]:
    """Strings of a file; ``Answers{…}xx`` stands for its classes."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.JoinedStr):
            text = "".join(
                item.value if isinstance(item, ast.Constant) else "{}" for item in node.values
            )
            found |= {text.replace("{}", digit) for digit in "2345"}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found


def emitted(modules: tuple[str, ...]) -> set[str]:
    files = [FUNCTIONS / f"{name}.py" for name in modules]
    services = ROOT / "layers/common/python/lookalike/services"
    if "scheduled_work" in modules:
        files.append(services / "jobs.py")
    if "rollup" in modules:
        files.append(services / "rollup.py")
    if modules == QUERY:
        files += [*services.glob("query*.py"), *services.glob("search_*.py")]
    return set().union(*map(literals, files)) & UNITS.keys()


def test_a_metric_is_a_line_of_the_log_whatever_its_level(
    log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("lookalike"), "level", logging.ERROR)
    measure("searchable", {"Freshness": 1.5, "QueueAge": [0.1, 0.2]}, key="shop/a.jpg")
    logger.info("not this one")
    (line,) = lines(log)
    (directive,) = line["_aws"]["CloudWatchMetrics"]
    assert directive == {
        "Namespace": NAMESPACE,
        "Dimensions": [[DIMENSION]],
        "Metrics": [
            {"Name": "Freshness", "Unit": "Seconds"},
            {"Name": "QueueAge", "Unit": "Seconds"},
        ],
    }
    assert abs(line["_aws"]["Timestamp"] / 1000 - time.time()) < 5
    # What the directive names is in the line, at its root.
    assert (line["Freshness"], line["QueueAge"], line["key"]) == (1.5, [0.1, 0.2], "shop/a.jpg")
    assert isinstance(line[DIMENSION], str)


def test_an_error_of_a_service_counts_itself(log: io.StringIO) -> None:
    service = logging.getLogger("lookalike.services.query")
    service.error("%s is lost", "it", extra={"metrics": {"SearchesNotLogged": 1}})
    service.error("another")
    counted, plain = lines(log)
    assert (counted["message"], counted["SearchesNotLogged"]) == ("it is lost", 1)
    assert "_aws" not in plain


def test_every_line_has_the_ids_of_its_invocation_and_of_no_other(
    log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = json.loads((ROOT / "tests/events/api_product_escaped.json").read_text())
    api["requestContext"] |= {"resourcePath": "/", "httpMethod": "GET", "requestId": "gateway-1"}
    app(api, SimpleNamespace(aws_request_id="lambda-1"))
    schedule = json.loads((ROOT / "tests/events/schedule.json").read_text())
    monkeypatch.setattr(sweep.wiring, "services", lambda: logger.warning("within") or 1 / 0)
    context = SimpleNamespace(
        aws_request_id="lambda-2", get_remaining_time_in_millis=lambda: 60_000
    )
    with pytest.raises(ZeroDivisionError):
        sweep.sweep(schedule, context)
    answered, within = lines(log)
    assert (answered["function_request_id"], answered["request_id"]) == ("lambda-1", "gateway-1")
    assert within["function_request_id"] == "lambda-2"
    assert "request_id" not in within


def test_every_metric_is_emitted_and_every_emitted_one_known() -> None:
    assert set().union(*map(emitted, MODULES.values())) == UNITS.keys()
    for path in FUNCTIONS.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "measure":
                names = {
                    key.value
                    for item in ast.walk(node.args[1])
                    if isinstance(item, ast.Dict)
                    for key in item.keys
                    if isinstance(key, ast.Constant)
                }
                assert names <= UNITS.keys(), path


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_is_on_a_metric_that_is_there(name: str) -> None:
    alarm = ALARMS[name]
    known = OF_AWS.get(alarm.namespace) or emitted(MODULES[alarm.of])
    assert alarm.metric in known
    assert alarm.namespace in {*OF_AWS, NAMESPACE}
    (dimension,) = alarm.resource(name)["Properties"]["Dimensions"]
    names = {"AWS/SQS": "QueueName", "AWS/Lambda": "FunctionName", NAMESPACE: DIMENSION}
    assert dimension["Name"] == names[alarm.namespace]


def test_every_function_is_watched_for_errors_and_near_its_timeout() -> None:
    resources = read_resources()["Resources"]
    stops = {"Sweep": sweep.STOP_BEFORE_TIMEOUT_S, "Compact": compact.STOP_BEFORE_TIMEOUT_S}
    stops["Reindex"] = compact.STOP_BEFORE_TIMEOUT_S
    stops |= dict.fromkeys(SCHEDULED, scheduled_work.STOP_BEFORE_TIMEOUT_S)
    errors = {alarm.of for alarm in ALARMS.values() if alarm.metric == "Errors"}
    durations = {alarm.of: alarm for alarm in ALARMS.values() if alarm.metric == "Duration"}
    assert errors == durations.keys() == MODULES.keys()
    for of, alarm in durations.items():
        timeout_ms = resources[of]["Properties"]["Timeout"] * 1000
        latest = timeout_ms - stops[of] * 1000 if of in stops else 0.75 * timeout_ms
        assert latest < alarm.threshold < timeout_ms, of


def test_what_must_happen_is_missed_when_nothing_is_told() -> None:
    late = Alarm("", NAMESPACE, "RunFinished", "Sweep", "Sum", 1, over=False)
    properties = late.resource("SweepLateAlarm")["Properties"]
    assert properties["TreatMissingData"] == "breaching"
    assert properties["ComparisonOperator"] == "LessThanThreshold"
    rings = [name for name, alarm in ALARMS.items() if not alarm.over]
    assert rings == [f"{name}LateAlarm" for name in ("Sweep", "Compact", *SCHEDULED)]
    for name in rings:
        assert "after a first deployment" in dict(SECTION.findall(OPERATIONS))[name].lower()


def test_every_alarm_has_its_section_and_every_section_its_alarm() -> None:
    sections = dict(SECTION.findall(OPERATIONS))
    assert list(sections) == list(ALARMS)
    for name, text in sections.items():
        assert "\n    " in text or "](#" in text, f"{name}: what can be done?"
    for target in re.findall(r"\]\(#(\w+)\)", OPERATIONS):
        assert target in {name.lower() for name in sections}, target
    assert set(re.findall(r"`(\w+)`", OPERATIONS.split("## Alarms")[0])) >= UNITS.keys() - {
        "Answers3xx",
        "Answers4xx",
    }


def test_commands_of_aws_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    commands = ["".join(found) for found in AWS_COMMAND.findall(OPERATIONS)]
    assert len(commands) > 10
    for command in commands:
        service, operation, *rest = shlex.split(command)
        flags = {word.removeprefix("--") for word in rest if word.startswith("--")}
        flags -= OF_EVERY_COMMAND
        known = ONLY_OF_THE_COMMAND.get((service, operation))
        if known is None:
            model = boto3.client(service.removesuffix("api")).meta.service_model
            named = {xform_name(name, "-"): name for name in model.operation_names}
            shape = model.operation_model(named[operation]).input_shape
            known = {xform_name(name, "-") for name in (shape.members if shape else ())}
        assert flags <= known, command
