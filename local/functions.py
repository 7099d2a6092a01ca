"""What the template says about functions: how to run each one and what triggers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from local.properties import Properties
from local.template import Resource, Template, TemplateError

FUNCTION_WITHOUT_LOCAL_EFFECT = {
    "Architectures": "the machine has the one it has",
    "CodeUri": "functions run from the source folder",
    "Description": "for people",
    "EventInvokeConfig": "a schedule waits for its run and does not repeat it",
    "EphemeralStorage": "the temporary folder is the machine's",
    "Layers": "functions import what is installed",
    "LoggingConfig": "functions log to files",
    "PackageType": "functions run from the source folder, not from an image",
    "Runtime": "functions run on the interpreter of the local cloud",
    "Tags": "nothing is billed",
    "Tracing": "nothing traces here",
}
_DEFAULT_TIMEOUT_S = 3
_DEFAULT_MEMORY_MB = 128


@dataclass(frozen=True, slots=True)
class QueueSource:
    """An SQS event source mapping."""

    queue_arn: str
    batch_size: int
    window_s: float
    reports_item_failures: bool
    maximum_concurrency: int | None

    @property
    def queue_name(self) -> str:
        """Last part of the ARN."""
        return self.queue_arn.rsplit(":", 1)[-1]


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule that invokes a function. ``input`` replaces the usual event when it is given."""

    name: str
    expression: str
    input: str | None


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the template."""

    logical_id: str
    name: str
    arn: str
    handler: str
    role_arn: str
    timeout_s: float
    memory_mb: int
    reserved_concurrency: int | None
    environment: Mapping[str, str]
    queues: tuple[QueueSource, ...]
    schedules: tuple[Schedule, ...]


def read_functions(template: Template) -> dict[str, Function]:
    """The functions of a template by logical id.

    Raises
    ------
    TemplateError
        A property or an event is not understood.
    """
    return {
        resource.logical_id: _read_function(template, resource)
        for resource in template.of_type("AWS::Serverless::Function")
    }


def _read_function(template: Template, resource: Resource) -> Function:
    properties = Properties(resource.logical_id, template.resolve(resource.properties))
    properties.take("FunctionName", None)
    variables = properties.take("Environment", {"Variables": {}})["Variables"]
    queues: list[QueueSource] = []
    schedules: list[Schedule] = []
    for name, event in properties.take("Events", {}).items():
        body = Properties(f"{properties.path}.Events.{name}", event)
        kind, details = body.take("Type"), body.take_object("Properties")
        body.finish()
        if details is None:
            raise TemplateError(f"{body.path}.Properties is missing.")
        if kind == "SQS":
            queues.extend(_read_queue(details))
        elif kind == "Schedule":
            schedules.extend(_read_schedule(name, details))
        else:
            raise TemplateError(
                f"The local cloud does not understand the event {kind} ({body.path})."
            )
    function = Function(
        logical_id=resource.logical_id,
        name=template.physical_name(resource.logical_id),
        arn=template.resolve({"Fn::GetAtt": [resource.logical_id, "Arn"]}),
        handler=properties.take("Handler"),
        role_arn=properties.take("Role", ""),
        timeout_s=float(properties.take("Timeout", _DEFAULT_TIMEOUT_S)),
        memory_mb=int(properties.take("MemorySize", _DEFAULT_MEMORY_MB)),
        reserved_concurrency=properties.take("ReservedConcurrentExecutions", None),
        environment={key: str(value) for key, value in variables.items()},
        queues=tuple(queues),
        schedules=tuple(schedules),
    )
    properties.ignore(FUNCTION_WITHOUT_LOCAL_EFFECT)
    properties.finish()
    return function


def _read_queue(details: Properties) -> list[QueueSource]:
    enabled = details.take("Enabled", True)
    scaling = details.take_object("ScalingConfig")
    concurrency: Any = None
    if scaling:
        concurrency = int(scaling.take("MaximumConcurrency"))
        scaling.finish()
    responses = details.take("FunctionResponseTypes", [])
    if set(responses) - {"ReportBatchItemFailures"}:
        raise TemplateError(f"{details.path}.FunctionResponseTypes is not understood: {responses}.")
    source = QueueSource(
        queue_arn=details.take("Queue"),
        batch_size=int(details.take("BatchSize", 10)),
        window_s=float(details.take("MaximumBatchingWindowInSeconds", 0)),
        reports_item_failures=bool(responses),
        maximum_concurrency=concurrency,
    )
    details.finish()
    return [source] if enabled else []


def _read_schedule(name: str, details: Properties) -> list[Schedule]:
    enabled = details.take("Enabled", True) and details.take("State", "ENABLED") == "ENABLED"
    schedule = Schedule(
        name=str(details.take("Name", name)),
        expression=str(details.take("Schedule")),
        input=details.take("Input", None),
    )
    details.take("Description", None)
    details.finish()
    return [schedule] if enabled else []
