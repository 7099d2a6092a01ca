from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from click.testing import CliRunner
from moto import mock_aws

from local.cli import cli
from local.commands.exits import Failed, Unreachable
from local.commands.upload import bucket_put
from local.commands.upload_metadata import user_metadata
from local.commands.upload_plan import PlannedFile
from lookalike.adapters.aws import forget_clients
from lookalike.core.attributes import from_user_metadata

CATALOGUE = {
    "catalogue": "shop",
    "encoder": "lite",
    "generation": "lite",
    "products": 1200,
    "views": 3400,
    "failures": 2,
    "shards": 2,
    "bases": 1,
    "runs": 3,
    "segments": 7,
    "build": None,
    "rows": 3500,
    "size_bytes": 4_700_000,
}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("AWS_ENDPOINT_URL", "LOOKALIKE_INGEST_QUEUE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("LOOKALIKE_API_URL", "http://127.0.0.1:1")
    monkeypatch.chdir(tmp_path)
    with mock_aws():
        forget_clients()
        yield
    forget_clients()


def test_an_object_holds_the_file_and_its_metadata(aws: None, tmp_path: Path) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="photos")
    path = tmp_path / "mug.png"
    path.write_bytes(b"x" * 9_000_000)  # more than the SDK would send in one part by itself
    metadata = user_metadata({"title": "Tasse, grün 🍵", "price": 9.5}, "row")
    etag = bucket_put("photos")(PlannedFile(str(path), "shop/grün mug.png", metadata))
    assert etag == hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    head = s3.head_object(Bucket="photos", Key="shop/grün mug.png")
    assert head["ContentType"] == "image/png" and head["ContentLength"] == 9_000_000
    assert from_user_metadata(head["Metadata"]) == {"title": "Tasse, grün 🍵", "price": 9.5}


def test_status(aws: None, monkeypatch: pytest.MonkeyPatch) -> None:
    sqs = boto3.client("sqs")
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]
    policy = json.dumps({"deadLetterTargetArn": arn["QueueArn"], "maxReceiveCount": 5})
    url = sqs.create_queue(QueueName="ingest", Attributes={"RedrivePolicy": policy})["QueueUrl"]
    for queue in (url, url, url, dead):
        sqs.send_message(QueueUrl=queue, MessageBody="{}")
    sqs.receive_message(QueueUrl=url)
    monkeypatch.setenv("LOOKALIKE_INGEST_QUEUE_URL", url)
    monkeypatch.setattr("local.commands.status._catalogues", lambda connection: [CATALOGUE])
    monkeypatch.setattr("local.commands.status._work", lambda connection: [])
    found = json.loads(CliRunner().invoke(cli, ["status", "--json"]).output)
    assert found["queue"] == {"visible": 2, "in_flight": 1, "dead_letters": 1}
    assert found["catalogues"] == [CATALOGUE]
    assert found["addresses"] == {
        "api": "http://127.0.0.1:1",
        "bucket": "s3://lookalike-images",
    }
    table = CliRunner().invoke(cli, ["status"])
    assert table.exit_code == 0
    assert "Queue: 2 waiting, 1 in work, 1 dead letters." in table.output
    rows = [" ".join(line.split()) for line in table.output.splitlines()]
    assert "shop 1,200 3,400 2 2 1 3 7 3,500 4.7 MB lite" in rows


@pytest.mark.parametrize("error", [Unreachable("the API is away"), Failed("no such route")])
def test_status_shows_what_it_can(
    aws: None, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(connection: object) -> None:
        raise error

    monkeypatch.setattr("local.commands.status._catalogues", fail)
    monkeypatch.setenv("LOOKALIKE_INGEST_QUEUE_URL", "https://sqs.us-east-1.amazonaws.com/1/none")
    result = CliRunner().invoke(cli, ["status", "--json"])
    assert result.exit_code == 3
    found = json.loads(result.output)
    assert found["unreachable"]["catalogues"] == str(error)
    assert "reading the ingest queue" in found["unreachable"]["queue"]
    assert "lookalike-generations" in found["unreachable"]["work"]
    assert found["addresses"]["api"] == "http://127.0.0.1:1"
