"""A template's cloud on moto that notes what is asked of it, to be held against a role."""

from __future__ import annotations

import fnmatch
import functools
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import boto3
import botocore.client
import pytest
import urllib3
from moto.server import ThreadedMotoServer

from app import app
from chalicelib.embed import embed
from local.aws.role_check import RoleCheck
from local.roles import Role
from lookalike import wiring, wiring_project
from lookalike.adapters import aws
from lookalike.adapters.signed import SignedRequests
from lookalike.core.errors import Unavailable
from lookalike.modelbuild import ensure_model
from lookalike.services.access import ApiKeys
from lookalike.settings import Settings
from lookalike.stores import aws_stores

EVENTS = Path(__file__).parent.parent / "events"
ENCODER = "efficientnet-lite0"  # the quickest
ACCOUNT, REGION = "123456789012", "us-east-1"
ACTION_OF_CALL = {
    "HeadObject": "s3:GetObject",
    "ListObjectsV2": "s3:ListBucket",
    "SendMessageBatch": "sqs:SendMessage",
}
# Actions (in a folder) that a role needs although its handler does not call them in this test.
LOGS = dict.fromkeys(("logs:CreateLogStream", "logs:PutLogEvents"), "Lambda writes the log")
MISSING = "without it S3 says 403 instead of 404 of what is not there"
COMES_BACK = "photos that come back while their product is deleted"
NEEDED_BESIDE = {
    "EmbedRole": LOGS
    | dict.fromkeys(
        ("sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"),
        "Lambda polls the queue",
    )
    | {"s3:ListBucket": MISSING},
    "QueryRole": LOGS
    | {"s3:ListBucket": MISSING}
    | dict.fromkeys(
        ("s3:PutObject segments", "s3:PutObject thumbnails", "dynamodb:PutItem"), COMES_BACK
    ),
    "SweepRole": LOGS,
    "CompactRole": LOGS,
    "ReindexRole": LOGS | {"s3:ListBucket": MISSING},
    "ReclusterRole": LOGS,
    "ProjectRole": LOGS,
    "HealthRole": LOGS,
    "RollupRole": LOGS,
}


class Resolver:
    """Resolves Ref, GetAtt and Sub as a deployment with the parameters' defaults would."""

    def __init__(self, template: dict[str, Any]) -> None:
        self.resources = template["Resources"]
        self.values = {name: item["Default"] for name, item in template["Parameters"].items()}
        self.values |= {"AWS::Partition": "aws", "AWS::Region": REGION, "AWS::AccountId": ACCOUNT}

    def __call__(self, node: Any) -> Any:
        if isinstance(node, list):
            return [self(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "Ref" in node:
            return self.name(node["Ref"])
        if "Fn::GetAtt" in node:
            return self.arn(node["Fn::GetAtt"][0])
        if "Fn::Sub" in node:
            return re.sub(r"\$\{([^}]+)\}", self._substitute, node["Fn::Sub"])
        return {key: self(value) for key, value in node.items()}

    def _substitute(self, match: re.Match[str]) -> str:
        name, dot, _ = match[1].partition(".")
        return self.arn(name) if dot else str(self.name(name))

    def name(self, name: str) -> Any:
        if name in self.values:
            return self.values[name]
        properties = self.resources[name]["Properties"]
        named = next(key for key in properties if key in {"BucketName", "TableName", "QueueName"})
        physical = self(properties[named])
        is_queue = named == "QueueName"
        return f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{physical}" if is_queue else physical

    def arn(self, name: str) -> str:
        properties = self.resources[name]["Properties"]
        if "BucketName" in properties:
            return f"arn:aws:s3:::{self(properties['BucketName'])}"
        if "TableName" in properties:
            table = self(properties["TableName"])
            return f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{table}"
        if "QueueName" in properties:
            return f"arn:aws:sqs:{REGION}:{ACCOUNT}:{self(properties['QueueName'])}"
        return f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{name}:*"


@dataclass
class Cloud:
    """The template's resources; ``calls`` are the (action, ARN) pairs asked of them."""

    resolve: Resolver
    calls: list[tuple[str, str]] = field(default_factory=list)

    def allowed(self, role: str) -> list[tuple[str, str]]:
        (policy,) = self.resolve.resources[role]["Properties"]["Policies"]
        return [
            (action, resource)
            for statement in self.resolve(policy["PolicyDocument"]["Statement"])
            for action in statement["Action"]
            for resource in (
                statement["Resource"]
                if isinstance(statement["Resource"], list)
                else [statement["Resource"]]
            )
        ]

    def check(self, role: str) -> None:
        allowed = self.allowed(role)
        made, self.calls = set(self.calls), []
        assert made
        enforced = self.enforced(role)
        for action, arn in sorted(made):
            matching = any(
                action == known and fnmatch.fnmatchcase(arn, pattern) for known, pattern in allowed
            )
            assert matching, f"{role} does not allow {action} on {arn}"
            assert enforced(action, arn), f"--enforce-roles refuses {role} {action} on {arn}"
        spare = {
            (known, pattern)
            for known, pattern in allowed
            if known not in NEEDED_BESIDE[role]
            and f"{known} {folder_of(pattern)}" not in NEEDED_BESIDE[role]
            and not any(
                known == action and fnmatch.fnmatchcase(arn, pattern) for action, arn in made
            )
        }
        assert not spare, f"{role} allows what nothing does: {spare}"

    def enforced(self, role: str) -> Callable[[str, str], bool]:
        """What ``lookalike up --enforce-roles`` lets a role do."""
        (policy,) = self.resolve.resources[role]["Properties"]["Policies"]
        session = dict.fromkeys(("access_key_id", "secret_access_key", "session_token"), "any")
        documents = [self.resolve(policy["PolicyDocument"])]
        acting = Role(name=role, arn=role, policies=documents, **session)
        return functools.partial(RoleCheck([acting]).allows, acting)


def folder_of(pattern: str) -> str:
    return pattern.rpartition("/*")[0].rpartition("/")[2]


def call_of(operation: str, parameters: dict[str, Any]) -> list[tuple[str, str]]:
    """The IAM actions and resources of one call."""
    if "Bucket" in parameters:
        key = f"/{parameters['Key']}" if "Key" in parameters else ""
        action = ACTION_OF_CALL.get(operation, f"s3:{operation}")
        return [(action, f"arn:aws:s3:::{parameters['Bucket']}{key}")]
    if "QueueUrl" in parameters:
        queue = parameters["QueueUrl"].rsplit("/", 1)[-1]
        action = ACTION_OF_CALL.get(operation, f"sqs:{operation}")
        return [(action, f"arn:aws:sqs:{REGION}:{ACCOUNT}:{queue}")]
    tables = parameters.get("RequestItems") or [parameters["TableName"]]
    return [
        (f"dynamodb:{operation}", f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{table}")
        for table in tables
    ]


def record_presigned(s3: Any, cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who opens a presigned URL acts with the role of the function that signed it."""
    sign_url, sign_post = SignedRequests.url, s3.generate_presigned_post

    def url(self: Any, path: str, expires_s: int) -> str:
        bucket, _, key = path.lstrip("/").partition("/")
        cloud.calls += call_of("GetObject", {"Bucket": bucket, "Key": key})
        return sign_url(self, path, expires_s)

    def post(Bucket: str, Key: str, **options: Any) -> Any:
        cloud.calls += call_of("PutObject", {"Bucket": Bucket, "Key": Key})
        return sign_post(Bucket=Bucket, Key=Key, **options)

    monkeypatch.setattr(SignedRequests, "url", url)
    monkeypatch.setattr(s3, "generate_presigned_post", post)


def create(resolve: Resolver) -> None:
    for resource in resolve.resources.values():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::S3::Bucket":
            boto3.client("s3").create_bucket(Bucket=resolve(properties["BucketName"]))
        elif resource["Type"] == "AWS::SQS::Queue":
            boto3.client("sqs").create_queue(QueueName=resolve(properties["QueueName"]))
        elif resource["Type"] == "AWS::DynamoDB::Table":
            boto3.client("dynamodb").create_table(
                TableName=resolve(properties["TableName"]),
                AttributeDefinitions=properties["AttributeDefinitions"],
                KeySchema=properties["KeySchema"],
                BillingMode="PAY_PER_REQUEST",
            )


def record_calls(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Note what is sent from here on, through the SDK or signed by our own hand."""
    mine = [aws.client(service) for service in ("s3", "sqs", "dynamodb")]
    through_sdk, by_hand = botocore.client.BaseClient._make_api_call, SignedRequests.send

    def call(self: Any, operation: str, parameters: dict[str, Any]) -> Any:
        if self in mine:
            cloud.calls += call_of(operation, parameters)
        return through_sdk(self, operation, parameters)

    def send(
        self: Any, method: str, path: str, headers: Any = None, body: bytes = b"", **more: Any
    ) -> Any:
        if target := (headers or {}).get("X-Amz-Target"):
            cloud.calls += call_of(target.split(".")[1], json.loads(body))
        else:
            bucket, _, key = path.lstrip("/").partition("/")
            assert key, f"{method} {path} names no object"
            cloud.calls += call_of(f"{method.title()}Object", {"Bucket": bucket, "Key": key})
        return by_hand(self, method, path, headers, body, **more)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", call)
    monkeypatch.setattr(SignedRequests, "send", send)
    record_presigned(mine[0], cloud, monkeypatch)


def forget_services() -> None:
    """Let the next call be that of a process which has read nothing yet."""
    wiring.services.cache_clear()
    wiring_project.project.cache_clear()


def forget() -> None:
    """Let nothing be kept from test to test."""
    forget_services()
    aws.forget_clients()


@contextmanager
def open_cloud(
    template: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cloud]:
    """Buckets, queues and tables of a template, and the functions' environment."""
    resolve = Resolver(template)
    ensure_model(ENCODER, "fp32", tmp_path / "models")
    resolve.values["Encoder"] = ENCODER
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = resolve(resolve.resources["Embed"]["Properties"]["Environment"]["Variables"])
    environment |= {
        "LOOKALIKE_MODEL_DIR": str(tmp_path / "models"),
        "LOOKALIKE_CACHE_DIR": str(tmp_path / "bases"),
        "LOOKALIKE_REFRESH_S": "0",
        "LOOKALIKE_REQUIRE_API_KEY": "true",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    urllib3.request("POST", f"http://{host}:{port}/moto-api/reset")
    forget()
    create(resolve)
    queue_name = resolve.arn("IngestQueue").rsplit(":", 1)[-1]
    queue_url = boto3.client("sqs").get_queue_url(QueueName=queue_name)["QueueUrl"]
    monkeypatch.setenv("LOOKALIKE_INGEST_QUEUE_URL", queue_url)
    keys = ApiKeys(aws_stores(Settings.from_env()).api_keys, time.time)
    _, key = keys.create("test", None, ("read", "write"), 100)
    monkeypatch.setenv("LOOKALIKE_API_KEY", key)
    found = Cloud(resolve)
    record_calls(found, monkeypatch)
    yield found
    server.stop()
    forget()


def embed_now(*keys: str, receives: int = 1) -> None:
    event = json.loads((EVENTS / "sqs_lookalike_keys.json").read_text(encoding="utf-8"))
    event["Records"][0]["body"] = json.dumps({"keys": keys})
    event["Records"][0]["attributes"]["ApproximateReceiveCount"] = str(receives)
    assert embed(event, None) == {"batchItemFailures": []}


def embed_what_is_queued(cloud: Cloud) -> None:
    """As Lambda would, between two calls of the function under test."""
    sqs, made = boto3.client("sqs"), list(cloud.calls)
    url = os.environ["LOOKALIKE_INGEST_QUEUE_URL"]
    event = json.loads((EVENTS / "sqs_lookalike_keys.json").read_text(encoding="utf-8"))
    while messages := sqs.receive_message(QueueUrl=url).get("Messages"):
        event["Records"][0]["body"] = messages[0]["Body"]
        assert embed(event, None) == {"batchItemFailures": []}
        sqs.delete_message(QueueUrl=url, ReceiptHandle=messages[0]["ReceiptHandle"])
    cloud.calls[:] = made


def http(
    method: str,
    resource: str,
    query: dict[str, list[str]],
    body: str | None = None,
    status: int | None = None,
    **path: str,
) -> Any:
    event = json.loads((EVENTS / "api_product_escaped.json").read_text(encoding="utf-8"))
    event["requestContext"] |= {"resourcePath": resource, "httpMethod": method}
    event["pathParameters"] = {"product_id": "a"} | path
    event["multiValueQueryStringParameters"] = query
    event["body"] = body
    event["headers"]["Authorization"] = f"Bearer {os.environ['LOOKALIKE_API_KEY']}"
    answer = app(event, None)
    found = answer["statusCode"]
    assert found < 300 if status is None else found == status, answer["body"]
    return answer["body"]


def await_logged(query_id: str) -> None:
    """Wait for a search's entry in the log: the answer may be there before it."""
    log, late = wiring.services().stores.log, time.time() + 30
    while log.get(query_id, time.time()) is None:
        assert time.time() < late


def empty(cloud: Cloud, prefix: str) -> None:
    """Delete a folder of the index bucket, as somebody else would."""
    s3, index = boto3.client("s3"), cloud.resolve.name("IndexBucket")
    for item in s3.list_objects_v2(Bucket=index, Prefix=prefix)["Contents"]:
        s3.delete_object(Bucket=index, Key=item["Key"])


def make_small(monkeypatch: pytest.MonkeyPatch, **settings: int | str) -> None:
    """Let few rows be enough for bases and heads, at once."""
    for name, value in (settings | {"SETTLE_S": 0}).items():
        monkeypatch.setenv(f"LOOKALIKE_{name}", str(value))
    forget_services()


def throttled(*_: Any) -> NoReturn:
    raise Unavailable("the bucket is throttled")


def by_hand(function: Any, **detail: object) -> Any:
    event = json.loads((EVENTS / "schedule.json").read_text(encoding="utf-8")) | {"detail": detail}
    return function(event, SimpleNamespace(get_remaining_time_in_millis=lambda: 900_000))
