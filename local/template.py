"""Reads THE template: resources by type, with every reference resolved to its local value.

Understands ``Ref``, ``Fn::GetAtt``, ``Fn::Sub`` and ``Fn::Join``, parameters with defaults and the
pseudo parameters. Refuses everything else by name, so that the local cloud never silently differs
from what is deployed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Json = dict[str, Any]

REGION = "us-east-1"
ACCOUNT_ID = "123456789012"
"""The account that moto answers for."""

_PSEUDO_PARAMETERS = {
    "AWS::AccountId": ACCOUNT_ID,
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::StackId": f"arn:aws:cloudformation:{REGION}:{ACCOUNT_ID}:stack/local/local",
    "AWS::StackName": "local",
    "AWS::URLSuffix": "amazonaws.com",
}
_SUB_VARIABLE = re.compile(r"\$\{(!?)([^}]*)\}")
_FOR_CLOUDFORMATION_ONLY = frozenset(
    {"Type", "Properties", "DependsOn", "DeletionPolicy", "UpdateReplacePolicy", "Metadata"}
)


class TemplateError(Exception):
    """The template says what the local cloud does not understand; the message names it."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource of the template, its references not yet resolved."""

    logical_id: str
    type: str
    properties: Json


class Template:
    """The parsed template, with the values that parameters and references have here.

    Parameters
    ----------
    document
        The template as JSON.
    parameters
        Values of parameters; those that are not given have their defaults.
    aws_endpoint
        Base URL of the local AWS endpoint, for queue URLs.
    """

    def __init__(self, document: Json, parameters: Mapping[str, str], aws_endpoint: str) -> None:
        self._endpoint = aws_endpoint.rstrip("/")
        self._parameters = _parameter_values(document.get("Parameters", {}), parameters)
        self.resources = {
            name: _resource(name, body) for name, body in document["Resources"].items()
        }

    @classmethod
    def load(
        cls, path: Path, aws_endpoint: str, parameters: Mapping[str, str] | None = None
    ) -> Template:
        """Read a template file."""
        return cls(json.loads(path.read_text(encoding="utf-8")), parameters or {}, aws_endpoint)

    def of_type(self, type_name: str) -> list[Resource]:
        """The resources of one type, in the template's order."""
        return [item for item in self.resources.values() if item.type == type_name]

    def physical_name(self, logical_id: str) -> str:
        """The name under which a resource is found by the SDK."""
        resource = self._resource_named(logical_id)
        name_property = {
            "AWS::S3::Bucket": "BucketName",
            "AWS::SQS::Queue": "QueueName",
            "AWS::DynamoDB::Table": "TableName",
            "AWS::Serverless::Function": "FunctionName",
            "AWS::Serverless::LayerVersion": "LayerName",
            "AWS::Logs::LogGroup": "LogGroupName",
            "AWS::IAM::Role": "RoleName",
        }.get(resource.type)
        explicit = resource.properties.get(name_property) if name_property else None
        return str(self.resolve(explicit)) if explicit is not None else logical_id

    def resolve(self, value: Any) -> Any:
        """Replace every intrinsic function in ``value``.

        Raises
        ------
        TemplateError
            A function, parameter, resource or attribute that is not understood.
        """
        if isinstance(value, list):
            return [self.resolve(item) for item in value]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            name, argument = next(iter(value.items()))
            if name == "Ref":
                return self._ref(argument)
            if name == "Fn::GetAtt":
                return self._get_att(argument)
            if name == "Fn::Sub":
                return self._sub(argument)
            if name == "Fn::Join":
                separator, items = argument
                return str(separator).join(str(item) for item in self.resolve(items))
            if name.startswith("Fn::") or name == "Condition":
                raise TemplateError(f"The local cloud does not understand {name} in {value!r}.")
        return {key: self.resolve(item) for key, item in value.items()}

    def _ref(self, name: str) -> Any:
        if name in _PSEUDO_PARAMETERS:
            return _PSEUDO_PARAMETERS[name]
        if name in self._parameters:
            return self._parameters[name]
        resource = self._resource_named(name)
        if resource.type == "AWS::SQS::Queue":
            return f"{self._endpoint}/{ACCOUNT_ID}/{self.physical_name(name)}"
        if resource.type == "AWS::Serverless::LayerVersion":
            return self._arn("lambda", f"layer:{self.physical_name(name)}:1")
        return self.physical_name(name)

    def _get_att(self, argument: str | list[str]) -> str:
        parts = argument.split(".", 1) if isinstance(argument, str) else argument
        name, attribute = parts
        resource = self._resource_named(name)
        physical = self.physical_name(name)
        attributes = {
            "AWS::S3::Bucket": {"Arn": f"arn:aws:s3:::{physical}"},
            "AWS::SQS::Queue": {"Arn": self._arn("sqs", physical), "QueueName": physical},
            "AWS::DynamoDB::Table": {"Arn": self._arn("dynamodb", f"table/{physical}")},
            "AWS::Serverless::Function": {"Arn": self._arn("lambda", f"function:{physical}")},
            "AWS::IAM::Role": {"Arn": f"arn:aws:iam::{ACCOUNT_ID}:role/{physical}"},
            "AWS::Logs::LogGroup": {"Arn": self._arn("logs", f"log-group:{physical}:*")},
        }.get(resource.type, {})
        if attribute not in attributes:
            raise TemplateError(
                f"The local cloud does not know the attribute {attribute} of {name} "
                f"({resource.type})."
            )
        return attributes[attribute]

    def _sub(self, argument: str | list[Any]) -> str:
        text, variables = (argument, {}) if isinstance(argument, str) else argument
        local = self.resolve(variables)

        def replacement(match: re.Match[str]) -> str:
            escaped, name = match.groups()
            if escaped:
                return f"${{{name}}}"
            if name in local:
                return str(local[name])
            return str(self._get_att(name) if "." in name else self._ref(name))

        return _SUB_VARIABLE.sub(replacement, text)

    def _resource_named(self, name: str) -> Resource:
        if name not in self.resources:
            raise TemplateError(f"{name!r} is neither a parameter nor a resource of the template.")
        return self.resources[name]

    @staticmethod
    def _arn(service: str, resource: str) -> str:
        return f"arn:aws:{service}:{REGION}:{ACCOUNT_ID}:{resource}"


def _resource(name: str, body: Json) -> Resource:
    unknown = sorted(set(body) - _FOR_CLOUDFORMATION_ONLY)
    if unknown:
        raise TemplateError(f"The local cloud does not understand {unknown[0]} of {name}.")
    return Resource(name, body["Type"], body.get("Properties", {}))


def _parameter_values(declared: Json, given: Mapping[str, str]) -> dict[str, Any]:
    unknown = sorted(set(given) - set(declared))
    if unknown:
        raise TemplateError(
            f"The template has no parameter {unknown[0]!r}; it has {', '.join(declared)}."
        )
    values: dict[str, Any] = {}
    for name, body in declared.items():
        if name not in given and "Default" not in body:
            raise TemplateError(f"The parameter {name} of the template has no value.")
        values[name] = given.get(name, body.get("Default"))
    return values
