"""The template's roles, and the credentials with which functions act in them (``--enforce-roles``).

Written by the supervisor; read by the process that runs the functions, which hands the credentials
out as Lambda does, and by the AWS endpoint, which knows whose they are (`local.aws.role_check`).
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import msgspec

from local.template import Template

FILE_NAME = "roles.json"


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """A role with its policy documents, and the credentials of one session."""

    name: str
    arn: str
    policies: list[dict[str, Any]]
    access_key_id: str
    secret_access_key: str
    session_token: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables that Lambda gives a function."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_SESSION_TOKEN": self.session_token,
        }


def read_roles(template: Template) -> list[Role]:
    """The roles of a template, each with new credentials."""
    return [
        Role(
            name=resource.logical_id,
            arn=template.resolve({"Fn::GetAtt": [resource.logical_id, "Arn"]}),
            policies=[
                policy["PolicyDocument"]
                for policy in template.resolve(resource.properties.get("Policies", []))
            ],
            access_key_id="ASIA" + secrets.token_hex(8).upper(),
            secret_access_key=secrets.token_urlsafe(30),
            session_token=secrets.token_urlsafe(60),
        )
        for resource in template.of_type("AWS::IAM::Role")
    ]


def write_roles(path: Path, roles: list[Role]) -> None:
    """Write the file, for nobody else to read."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(roles))


def load_roles(path: str) -> list[Role]:
    """Read the file; the roles that are enforced, none when there is no path."""
    return msgspec.json.decode(Path(path).read_bytes(), type=list[Role]) if path else []
