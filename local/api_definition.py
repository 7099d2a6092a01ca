"""What the template says about the HTTP API: routes, binary types, the gateway's own answers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from local.properties import Properties
from local.template import Template, TemplateError

API_WITHOUT_LOCAL_EFFECT = {
    "AccessLogSetting": "the functions log",
    "EndpointConfiguration": "there is one endpoint",
    "MethodSettings": "nothing is throttled",
    "Name": "for people",
    "Tags": "nothing is billed",
    "TracingEnabled": "nothing traces here",
}
_DEFINITION_WITHOUT_LOCAL_EFFECT = {
    "swagger": "version",
    "info": "for people",
    "schemes": "local HTTP",
    "definitions": "schemas",
    "securityDefinitions": "described for clients",
}
_ANY = "x-amazon-apigateway-any-method"
_FUNCTION_URI = re.compile(r"/functions/(arn:[^/]+)/invocations$")
_TIMEOUT_MS = 29_000


@dataclass(frozen=True, slots=True)
class Integration:
    """What answers a method: a function, or (``function_arn`` is ``None``) fixed headers."""

    function_arn: str | None
    timeout_s: float
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Route:
    """A resource such as ``/products/{id}``, with its methods (``ANY`` for the others)."""

    resource: str
    segments: tuple[str, ...]
    methods: Mapping[str, Integration]

    def match(self, segments: Sequence[str]) -> dict[str, str] | None:
        """Path parameters, as they were sent, when the segments of a path fit, else ``None``."""
        greedy = bool(self.segments) and self.segments[-1].endswith("+}")
        if len(segments) < len(self.segments) or (
            len(segments) > len(self.segments) and not greedy
        ):
            return None
        parameters: dict[str, str] = {}
        for position, wanted in enumerate(self.segments):
            if wanted.endswith("+}"):
                parameters[wanted[1:-2]] = "/".join(segments[position:])
            elif wanted.startswith("{"):
                parameters[wanted[1:-1]] = segments[position]
            elif wanted != unquote(segments[position]):
                return None
        return parameters

    @property
    def rank(self) -> tuple[int, ...]:
        """Order of preference: a literal segment before a parameter before a greedy one."""
        kinds = (
            2 if item.endswith("+}") else 1 if item.startswith("{") else 0 for item in self.segments
        )
        return (*kinds, 0)


@dataclass(frozen=True, slots=True)
class GatewayAnswer:
    """An answer of the gateway itself, from a template with ``$context`` variables."""

    status: int
    headers: tuple[tuple[str, str], ...]
    template: str

    def body(self, request_id: str, response_type: str, message: str) -> str:
        """The document with its variables filled in."""
        variables = {
            "$context.error.messageString": json.dumps(message),
            "$context.error.message": json.dumps(message)[1:-1],
            "$context.error.responseType": response_type,
            "$context.requestId": request_id,
        }
        text = self.template
        for name, value in variables.items():
            text = text.replace(name, value)
        return text


@dataclass(frozen=True, slots=True)
class Api:
    """The HTTP API of the template."""

    stage: str
    routes: tuple[Route, ...]
    binary_types: tuple[str, ...]
    answers: Mapping[str, GatewayAnswer]

    def find(self, raw_path: str) -> tuple[Route, dict[str, str]] | None:
        """The best route for a path, and its path parameters, both as they were sent."""
        segments = split_path(raw_path)
        for route in self.routes:
            parameters = route.match(segments)
            if parameters is not None:
                return route, parameters
        return None

    def answer(self, response_type: str, status: int) -> GatewayAnswer:
        """The template's answer of a type, else its default, else API Gateway's own."""
        family = "DEFAULT_4XX" if status < 500 else "DEFAULT_5XX"
        found = self.answers.get(response_type) or self.answers.get(family)
        if found is not None:
            return found
        headers = (("Content-Type", "application/json"),)
        return GatewayAnswer(status, headers, '{"message":$context.error.messageString}')


def split_path(raw_path: str) -> list[str]:
    """Segments of a path, still percent-encoded, so that ``%2F`` stays within its segment."""
    trimmed = raw_path.strip("/")
    return trimmed.split("/") if trimmed else []


def read_api(template: Template) -> Api | None:
    """The template's API, if it has one.

    Raises
    ------
    TemplateError
        Something in it is not understood.
    """
    resources = template.of_type("AWS::Serverless::Api")
    if not resources:
        return None
    if len(resources) > 1:
        raise TemplateError("The local cloud serves one API; the template has several.")
    name = resources[0].logical_id
    properties = Properties(name, template.resolve(resources[0].properties))
    definition = properties.take_object("DefinitionBody")
    if definition is None:
        raise TemplateError(f"{name}.DefinitionBody is missing.")
    stage = str(properties.take("StageName"))
    binary = definition.take("x-amazon-apigateway-binary-media-types", [])
    binary = [*binary, *properties.take("BinaryMediaTypes", [])]
    routes = [_route(path, methods) for path, methods in definition.take("paths").items()]
    answers = definition.take("x-amazon-apigateway-gateway-responses", {})
    definition.ignore(_DEFINITION_WITHOUT_LOCAL_EFFECT)
    definition.finish()
    properties.ignore(API_WITHOUT_LOCAL_EFFECT)
    properties.finish()
    return Api(
        stage=stage,
        routes=tuple(sorted(routes, key=lambda route: route.rank)),
        binary_types=tuple(item.lower().replace("~1", "/") for item in binary),
        answers={key: _gateway_answer(value) for key, value in answers.items()},
    )


def _route(path: str, methods: Mapping[str, Any]) -> Route:
    integrations = {
        ("ANY" if method == _ANY else method.upper()): _integration(path, method, body)
        for method, body in methods.items()
    }
    segments = tuple(path.strip("/").split("/")) if path.strip("/") else ()
    return Route(path, segments, integrations)


def _integration(path: str, method: str, body: Mapping[str, Any]) -> Integration:
    described = body["x-amazon-apigateway-integration"]
    kind = described["type"].lower()
    timeout_s = described.get("timeoutInMillis", _TIMEOUT_MS) / 1000
    if kind == "aws_proxy":
        matched = _FUNCTION_URI.search(described["uri"])
        if matched is None:
            raise TemplateError(f"{method} {path} does not name a function: {described['uri']}")
        return Integration(matched[1], timeout_s)
    if kind == "mock":
        parameters = described["responses"]["default"].get("responseParameters", {})
        return Integration(
            None, timeout_s, _header_parameters(parameters, "method.response.header.")
        )
    raise TemplateError(f"The local cloud does not understand the integration {kind} ({path}).")


def _gateway_answer(body: Mapping[str, Any]) -> GatewayAnswer:
    template = body.get("responseTemplates", {}).get(
        "application/json", '{"message":$context.error.messageString}'
    )
    headers = _header_parameters(body.get("responseParameters", {}), "gatewayresponse.header.")
    if not any(name.lower() == "content-type" for name, _ in headers):
        headers = (*headers, ("Content-Type", "application/json"))
    return GatewayAnswer(int(body["statusCode"]), headers, template)


def _header_parameters(parameters: Mapping[str, str], prefix: str) -> tuple[tuple[str, str], ...]:
    """Static header values, which the API definition writes in single quotes."""
    for name, value in parameters.items():
        if not name.startswith(prefix) or not (value[:1] == value[-1:] == "'"):
            raise TemplateError(f"The local cloud does not understand {name}: {value}.")
    return tuple((name.removeprefix(prefix), value[1:-1]) for name, value in parameters.items())
