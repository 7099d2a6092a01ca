"""Refuses calls of functions that their roles do not allow, with moto's evaluation of policies.

moto's own enforcement (``INITIAL_NO_AUTH_ACTION_COUNT``) is not switched on: it checks every call
to DynamoDB and SQS against the resource ``*``, which no role that names its tables and queues
allows, takes the batch calls of SQS for actions of their own, and fails on presigned requests.
So what a request asks for is read here. Whoever is no function is the user of this machine, who
may do everything. Who calls is read from access key and session token; signatures are moto's.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from html import escape
from typing import Any
from urllib.parse import parse_qsl, unquote

from moto.iam.access_control import IAMPolicy, IAMPolicyStatement, PermissionResult
from moto.s3.responses import ACTION_MAP
from werkzeug.formparser import parse_form_data

from local.aws.aws_requests import use_path_style
from local.aws.durable_moto import Answer, Environ
from local.roles import Role
from local.template import ACCOUNT_ID, REGION

_CREDENTIAL = re.compile(r"Credential=([^/,\s]+)")
_JSON = "application/x-amz-json-1.0"

Wanted = tuple[str, str]
"""An action and the ARN that it is asked of."""


class RoleCheck:
    """Knows the sessions of the functions' roles.

    Parameters
    ----------
    roles
        Those that are enforced.
    """

    def __init__(self, roles: Sequence[Role]) -> None:
        # moto turns patterns into regular expressions unescaped, and stops at a newline in a key.
        IAMPolicyStatement._match = staticmethod(_matches)  # type: ignore[assignment, method-assign]
        self._roles = {role.access_key_id: role for role in roles}
        self._policies = {
            role.access_key_id: [IAMPolicy(json.dumps(document)) for document in role.policies]
            for role in roles
        }

    def __call__(self, environ: Environ, body: bytes) -> Answer | None:
        """The refusal of a request, or None if it may go on."""
        use_path_style(environ)
        form = _form(environ, body)
        access_key_id, token = _caller(environ, form)
        if access_key_id is None:
            # A browser's preflight, and what asks whether anything answers, sign nothing.
            open_to_all = environ["REQUEST_METHOD"] == "OPTIONS" or environ["PATH_INFO"] == "/"
            return None if open_to_all else _refusal(environ, "the request is not signed")
        role = self._roles.get(access_key_id)
        if role is None:
            return None
        if token != role.session_token:
            return _refusal(environ, f"the session token is not that of {role.name}")
        for action, arn in wanted(environ, body, form):
            if not self.allows(role, action, arn):
                return _refusal(environ, f"{role.name} may not {action} on {arn}")
        return None

    def allows(self, role: Role, action: str, arn: str) -> bool:
        """Whether a statement of the role allows it and none denies it."""
        found = {
            policy.is_action_permitted(action, arn) for policy in self._policies[role.access_key_id]
        }
        return PermissionResult.PERMITTED in found and PermissionResult.DENIED not in found


def wanted(environ: Environ, body: bytes, form: dict[str, str]) -> list[Wanted]:
    """What a request needs to be allowed."""
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    service, _, operation = target.rpartition(".")
    if service.startswith("DynamoDB"):
        asked = json.loads(body)
        tables = list(asked.get("RequestItems") or [asked.get("TableName", "*")])
        return [(f"dynamodb:{operation}", _arn("dynamodb", f"table/{name}")) for name in tables]
    if service == "AmazonSQS":
        asked = json.loads(body)
        queue = str(asked.get("QueueUrl") or asked.get("QueueName", "*")).rsplit("/", 1)[-1]
        return [(f"sqs:{operation.removesuffix('Batch')}", _arn("sqs", queue))]
    if target or _is_query_protocol(environ):
        return [(f"unknown:{target or 'Action'}", "*")]
    return _wanted_of_s3(environ, form)


def _wanted_of_s3(environ: Environ, form: dict[str, str]) -> list[Wanted]:
    path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "surrogateescape")
    bucket, _, key = path.lstrip("/").partition("/")
    if form:
        return [("s3:PutObject", f"arn:aws:s3:::{bucket}/{form.get('key', '')}")]
    query = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
    method = environ["REQUEST_METHOD"]
    actions = ACTION_MAP["KEY" if key else "BUCKET"].get(method, {})
    default = actions.get("DEFAULT", f"unknown {method}")
    action = next((name for part, name in actions.items() if part in query), default)
    asked = [(f"s3:{action}", f"arn:aws:s3:::{bucket}" + (f"/{key}" if key else ""))]
    if source := environ.get("HTTP_X_AMZ_COPY_SOURCE"):
        asked.append(("s3:GetObject", f"arn:aws:s3:::{unquote(source).lstrip('/')}"))
    return asked


def _caller(environ: Environ, form: dict[str, str]) -> tuple[str | None, str | None]:
    """Access key id and session token, wherever the request has them."""
    if match := _CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", "")):
        return match[1], environ.get("HTTP_X_AMZ_SECURITY_TOKEN")
    query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
    fields = {name.lower(): value for name, value in (query | form).items()}
    credential = fields.get("x-amz-credential") or fields.get("awsaccesskeyid")
    token = fields.get("x-amz-security-token")
    return (credential.split("/", 1)[0] if credential else None), token


def _form(environ: Environ, body: bytes) -> dict[str, str]:
    """The fields of a browser's upload, which is a POST to a bucket and nothing else."""
    _, _, key = environ["PATH_INFO"].lstrip("/").partition("/")
    content_type = environ.get("CONTENT_TYPE", "").lower()
    is_upload = environ["REQUEST_METHOD"] == "POST" and not key and not environ.get("QUERY_STRING")
    if not is_upload or not content_type.startswith("multipart/form-data"):
        return {}
    given = {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
    _, form, files = parse_form_data(given, max_form_memory_size=len(body))
    for file in files.values():
        file.close()
    return {name.lower(): value for name, value in form.items()}


def _is_query_protocol(environ: Environ) -> bool:
    return "x-www-form-urlencoded" in environ.get("CONTENT_TYPE", "")


def _refusal(environ: Environ, why: str) -> Answer:
    """403 in the words of the service that was asked; a line in the endpoint's own log."""
    print(f"refused {environ['REQUEST_METHOD']} {environ['PATH_INFO']!r}: {why}", flush=True)
    if "HTTP_X_AMZ_TARGET" in environ:
        kind = "com.amazon.coral.service#AccessDeniedException"
        document: dict[str, Any] = {"__type": kind, "message": why, "Message": why}
        return Answer(400, [("Content-Type", _JSON)], json.dumps(document).encode())
    text = f"<Error><Code>AccessDenied</Code><Message>{escape(why)}</Message></Error>"
    return Answer(403, [("Content-Type", "application/xml")], text.encode())


def _arn(service: str, resource: str) -> str:
    return f"arn:aws:{service}:{REGION}:{ACCOUNT_ID}:{resource}"


def _matches(pattern: str, text: str) -> re.Match[str] | None:
    """IAM's wildcards: ``*`` stands for any characters and ``?`` for one."""
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(expression, text, re.DOTALL)
