"""Every AWS call that a function makes is one that its role in the template allows, and no less."""

from __future__ import annotations

import fnmatch
import functools
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import boto3
import botocore.client
import pytest
import urllib3
from moto.server import ThreadedMotoServer

from app import app
from chalicelib.compact import compact
from chalicelib.embed import embed
from chalicelib.reindex import reindex
from chalicelib.sweep import sweep
from infra.build import build_template
from local.aws.role_check import RoleCheck
from local.roles import Role
from lookalike import wiring
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
        assert not spare, f"{role} allows what nothing does"

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


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    built = build_template(tmp_path_factory.mktemp("template"))
    document: dict[str, Any] = json.loads(built.read_text(encoding="utf-8"))
    return document


@pytest.fixture
def cloud(
    template: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cloud]:
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
    wiring.services.cache_clear()
    aws.forget_clients()
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
    wiring.services.cache_clear()
    aws.forget_clients()


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


def empty(cloud: Cloud, prefix: str) -> None:
    """Delete a folder of the index bucket, as somebody else would."""
    s3, index = boto3.client("s3"), cloud.resolve.name("IndexBucket")
    for item in s3.list_objects_v2(Bucket=index, Prefix=prefix)["Contents"]:
        s3.delete_object(Bucket=index, Key=item["Key"])


def make_small(monkeypatch: pytest.MonkeyPatch, **settings: int) -> None:
    """Let few rows be enough for bases and heads, at once."""
    for name, value in (settings | {"SETTLE_S": 0}).items():
        monkeypatch.setenv(f"LOOKALIKE_{name}", str(value))
    wiring.services.cache_clear()


def throttled(*_: Any) -> NoReturn:
    raise Unavailable("the bucket is throttled")


def by_hand(function: Any, **detail: str) -> Any:
    event = json.loads((EVENTS / "schedule.json").read_text(encoding="utf-8")) | {"detail": detail}
    return function(event, SimpleNamespace(get_remaining_time_in_millis=lambda: 900_000))


@pytest.mark.parametrize("role", NEEDED_BESIDE)
def test_a_call_too_many_and_an_action_too_many_are_both_found(
    template: dict[str, Any], role: str
) -> None:
    cloud = Cloud(Resolver(template))
    every = [(action, pattern.replace("*", "x")) for action, pattern in cloud.allowed(role)]
    cloud.calls = list(every)
    cloud.check(role)
    cloud.calls = [*every, ("dynamodb:Scan", cloud.resolve.arn("ProductsTable"))]
    with pytest.raises(AssertionError, match="does not allow dynamodb:Scan"):
        cloud.check(role)
    found = 0
    for left_out in every:
        cloud.calls = [call for call in every if call != left_out]
        try:
            cloud.check(role)
        except AssertionError as error:
            found += "allows what nothing does" in str(error)
    beside = [
        (action, pattern)
        for action, pattern in cloud.allowed(role)
        if {action, f"{action} {folder_of(pattern)}"} & NEEDED_BESIDE[role].keys()
    ]
    assert found == len(every) - len(beside) > 0


def test_no_function_does_more_than_its_role_allows(
    cloud: Cloud, photo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3, shop = boto3.client("s3"), {"catalogue": ["shop"]}
    bucket, index = (cloud.resolve.name(name) for name in ("ImagesBucket", "IndexBucket"))

    # Embed: new, broken, with new metadata (its row is copied, or made of its map), mended, gone,
    # coming again.
    for key, body in {"a.jpg": photo(1), "b.jpg": photo(2), "c.jpg": b"no image"}.items():
        s3.put_object(Bucket=bucket, Key=f"shop/{key}", Body=body)
    embed_now("shop/a.jpg", "shop/b.jpg", "shop/c.jpg")
    s3.put_object(Bucket=bucket, Key="shop/a/product.json", Body=b'{"title": "A"}')
    s3.put_object(Bucket=bucket, Key="shop/c.jpg", Body=photo(3))
    embed_now("shop/a/product.json", "shop/c.jpg")
    empty(cloud, "segments/")
    s3.put_object(Bucket=bucket, Key="shop/a/product.json", Body=b'{"title": "A boot"}')
    embed_now("shop/a/product.json")
    s3.delete_object(Bucket=bucket, Key="shop/c.jpg")
    embed_now("shop/c.jpg", "shop/never.jpg")
    embed_now("shop/a.jpg", receives=2)
    cloud.check("EmbedRole")

    # Sweep: photos of which no event told that they came or went, one whose segment is lost, what
    # was derived of those that are gone; then the registry lets go of the lost segment.
    for folder in ("queries", "explanations", "tried"):
        s3.put_object(Bucket=index, Key=f"{folder}/old", Body=b"old")
    monkeypatch.setenv("LOOKALIKE_QUERY_RETENTION_S", "0")
    monkeypatch.setattr("lookalike.services.sweep.DERIVED_AGE_S", -60.0)
    monkeypatch.setattr("lookalike.services.sweep.NOTE_AGE_S", -60.0)
    wiring.services.cache_clear()
    s3.put_object(Bucket=bucket, Key="shop/d.jpg", Body=photo(4))
    s3.put_object(Bucket=bucket, Key="shop/e.jpg", Body=b"no image")
    s3.put_object(Bucket=bucket, Key="shop/f.jpg", Body=photo(6))
    embed_now("shop/f.jpg")
    s3.delete_object(Bucket=bucket, Key="shop/f.jpg")
    cloud.calls.clear()
    context = SimpleNamespace(get_remaining_time_in_millis=lambda: 300_000)
    report = sweep(json.loads((EVENTS / "schedule.json").read_text()), context)
    deleted = ("queries", "explanations", "thumbnails", "maps")
    assert report["queued"] == 4
    embed_what_is_queued(cloud)
    assert sweep(json.loads((EVENTS / "schedule.json").read_text()), context)["queued"] == 0
    assert [report[f"deleted_{name}"] for name in deleted] == [1, 1, 1, 1]
    cloud.check("SweepRole")
    monkeypatch.delenv("LOOKALIKE_QUERY_RETENTION_S")

    # Query: every route that reaches AWS. The index has a head, a base and a segment; the product
    # to delete has a document that failed.
    make_small(monkeypatch, MERGE_SEGMENTS=1, BASE_ROWS=1, HEAD_ROWS=2)
    assert by_hand(reindex)["catalogues"][0]["phase"] == "kept"
    s3.put_object(Bucket=bucket, Key="shop/a/product.json", Body=b"{")
    embed_now("shop/a/product.json")
    s3.put_object(Bucket=bucket, Key="shop/d.jpg", Body=photo(5))
    embed_now("shop/d.jpg")
    services = wiring.services()
    cloud.calls.clear()
    http("POST", "/search", shop, '{"product_id": "a"}')
    form = json.loads(http("POST", "/uploads", {}))
    s3.put_object(Bucket=index, Key=form["fields"]["key"], Body=photo(2))
    search = http("POST", "/search", shop, json.dumps({"upload_key": form["upload_key"]}))
    query_id = json.loads(search)["query_id"]
    http("POST", "/search", shop, json.dumps({"query_id": query_id, "cells": [[3, 3]]}))
    with monkeypatch.context() as patch:  # what a search that fails has kept is taken back
        patch.setattr(services.query, "_result", throttled)
        http("POST", "/search", shop, '{"product_id": "a"}', status=503)
    empty(cloud, "maps/")
    explained = "/explanations/{query_id}/{product_id}"
    http("GET", explained, {}, query_id=query_id)
    http("GET", f"{explained}/{{picture}}", {}, query_id=query_id, picture="pair.png")
    http("GET", "/products/{product_id}/similar", shop)
    http("GET", "/products/{product_id}", shop)
    http("GET", "/products", shop)
    http("GET", "/products", shop | {"status": ["failed"]})
    http("GET", "/stats", {})
    http("GET", "/health", {})
    http("POST", "/uploads", {})
    http("DELETE", "/products/{product_id}", shop)
    http("GET", explained, {}, status=410, query_id=query_id)
    cloud.check("QueryRole")


def test_no_function_that_tends_the_index_does_more_than_its_role_allows(
    cloud: Cloud, photo: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small(monkeypatch, MERGE_SEGMENTS=1, BASE_ROWS=2, HEAD_ROWS=4)
    s3, stores = boto3.client("s3"), wiring.services().stores
    bucket, index = (cloud.resolve.name(name) for name in ("ImagesBucket", "IndexBucket"))
    for first in (0, 2, 4):
        keys = [f"shop/p{number}.jpg" for number in (first, first + 1)]
        for number, key in enumerate(keys):
            s3.put_object(Bucket=bucket, Key=key, Body=photo(first + number))
        embed_now(*keys)

    # Reindex: a head, by itself, and photos of a segment that was lost.
    lost = s3.list_objects_v2(Bucket=index, Prefix="segments/")["Contents"][0]["Key"]
    s3.delete_object(Bucket=index, Key=lost)
    cloud.calls.clear()
    assert by_hand(reindex)["catalogues"][0]["phase"] == "kept"
    assert by_hand(reindex, action="rollback", catalogue="shop")["postponed"] == {}
    assert by_hand(reindex, action="rollback", catalogue="shop")["postponed"] == {}
    cloud.check("ReindexRole")

    # Compact: rows of another product, and a file of each kind whose grace is over.
    s3.put_object(Bucket=bucket, Key="shop/q.jpg", Body=photo(7))
    s3.put_object(Bucket=bucket, Key="shop/r.jpg", Body=photo(8))
    embed_now("shop/q.jpg", "shop/r.jpg")
    lineage = stores.lineages.get("shop")
    assert lineage is not None
    _, manifest = stores.registry.read(lineage.current.scope)
    old = dict.fromkeys(("segments/shop/0.seg", "bases/shop/0.base", "heads/shop/0.head"), 1.0)
    stores.registry.put_manifest(replace(manifest, replaced=old))
    wiring.services.cache_clear()  # another process, which has read nothing yet
    cloud.calls.clear()
    report = by_hand(compact, catalogue="shop")
    assert report["finished"] and report["bases"] and report["deleted_objects"] == len(old)
    cloud.check("CompactRole")
