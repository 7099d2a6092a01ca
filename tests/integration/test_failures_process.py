"""A photo that makes the function's process exit, on a queue with the template's receive count."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner
from moto.server import ThreadedMotoServer

from infra.build import RESOURCES
from local.cli import cli
from local.pollers import record
from lookalike.adapters.aws import forget_clients
from lookalike.settings import Settings
from lookalike.stores import aws_stores

pytestmark = pytest.mark.slow
ENCODER = "efficientnet-lite0"
HERE = Path(__file__).parent
ROOT = HERE.parent.parent
POISON = b"\xff\xd8kills the process"
TABLES = {
    "products": ("catalogue", "product_id"),
    "failures": ("catalogue", "key"),
    "registry": ("scope", "entry"),
    "generations": ("kind", "catalogue"),
    "searches": ("bucket", "query_id"),
}


@pytest.fixture
def queues(monkeypatch, model_dir, tmp_path) -> Iterator[tuple[str, str]]:
    """(ingest queue, dead letters) of a cloud whose settings are in the environment."""
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "LOOKALIKE_MODEL_DIR": str(model_dir),
        "LOOKALIKE_ENCODER": ENCODER,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.chdir(tmp_path)
    forget_clients()
    for bucket in ("lookalike-images", "lookalike-index"):
        boto3.client("s3").create_bucket(Bucket=bucket)
    for table, names in TABLES.items():
        boto3.client("dynamodb").create_table(
            TableName=f"lookalike-{table}",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": n, "AttributeType": "S"} for n in names],
            KeySchema=[
                {"AttributeName": n, "KeyType": kind}
                for n, kind in zip(names, ("HASH", "RANGE"), strict=True)
            ],
        )
    template = json.loads(RESOURCES.read_text(encoding="utf-8"))["Resources"]
    redrive = template["IngestQueue"]["Properties"]["RedrivePolicy"]
    sqs = boto3.client("sqs")
    dead = sqs.create_queue(QueueName="dead")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]
    policy = json.dumps(redrive | {"deadLetterTargetArn": arn["QueueArn"]})
    ingest = sqs.create_queue(QueueName="ingest", Attributes={"RedrivePolicy": policy})["QueueUrl"]
    monkeypatch.setenv("LOOKALIKE_INGEST_QUEUE_URL", ingest)
    variables = template["Embed"]["Properties"]["Environment"]["Variables"]
    monkeypatch.setenv("LOOKALIKE_MAX_RECEIVES", variables["LOOKALIKE_MAX_RECEIVES"])
    assert int(variables["LOOKALIKE_MAX_RECEIVES"]) == redrive["maxReceiveCount"]
    yield ingest, dead
    server.stop()
    forget_clients()


def invoke(messages: list[Any]) -> set[str]:
    """Run the function on a batch as Lambda would; gives the ids of the messages that failed."""
    event = {"Records": [record(item, "arn:aws:sqs:us-east-1:123456789012:q") for item in messages]}
    path = os.pathsep.join(map(str, (ROOT, ROOT / "functions")))
    done = subprocess.run(
        [sys.executable, str(HERE / "embed_process/invoke.py")],
        input=json.dumps(event).encode(),
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        timeout=60,
        check=False,
    )
    if done.returncode == 139:
        return {item["MessageId"] for item in messages}
    assert done.returncode == 0, done.stderr.decode()
    answer = json.loads(done.stderr.decode().splitlines()[-1])
    return {item["itemIdentifier"] for item in answer["batchItemFailures"]}


def work_off(url: str) -> int:
    """Deliver until the queue is empty; gives how often the process died or gave messages back."""
    sqs, failed_batches = boto3.client("sqs"), 0
    while messages := sqs.receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, AttributeNames=["All"]
    ).get("Messages"):
        failed = invoke(messages)
        failed_batches += bool(failed)
        for item in messages:
            named = {"QueueUrl": url, "ReceiptHandle": item["ReceiptHandle"]}
            if item["MessageId"] in failed:
                sqs.change_message_visibility(**named, VisibilityTimeout=0)
            else:
                sqs.delete_message(**named)
    return failed_batches


def count(url: str) -> int:
    name = "ApproximateNumberOfMessages"
    found = boto3.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=[name])
    return int(found["Attributes"][name])


def test_poison_is_a_dead_letter_alone_and_a_retry_clears_it(queues, photo):
    ingest, dead = queues
    stores = aws_stores(Settings.from_env())
    s3 = boto3.client("s3")
    keys = [f"shop/p{number}.jpg" for number in range(10)]
    for number, key in enumerate(keys):
        body = POISON if number == 5 else photo(number)
        s3.put_object(Bucket="lookalike-images", Key=key, Body=body)
    stores.queue.send_keys(keys)
    assert work_off(ingest) == 5

    products, _ = stores.products.page("shop", 100)
    assert [product.product_id for product in products] == [f"p{n}" for n in range(10) if n != 5]
    assert (count(ingest), count(dead)) == (0, 1)
    (listed,) = json.loads(CliRunner().invoke(cli, ["failures", "--json"]).stdout)
    assert (listed["key"], listed["reason"]) == ("shop/p5.jpg", "gave-up")
    assert count(dead) == 1, "listing takes nothing out"

    s3.put_object(Bucket="lookalike-images", Key="shop/p5.jpg", Body=photo(5))
    assert CliRunner().invoke(cli, ["failures", "retry"]).exit_code == 0
    assert (count(ingest), count(dead)) == (1, 0)
    assert work_off(ingest) == 0
    assert CliRunner().invoke(cli, ["failures"]).output == "No failures.\n"
    counts = stores.counts.all()["shop"]
    assert (counts.views, counts.failures) == (10, 0)
