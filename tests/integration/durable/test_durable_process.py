"""The real process: killed at random moments under load, and on a disk that is full."""

from __future__ import annotations

import itertools
import os
import random
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from moto.core.models import DEFAULT_ACCOUNT_ID

pytestmark = pytest.mark.slow

BUCKET, TABLE, QUEUE = "kill-bucket", "kills", "kill-queue"
KILLS = int(os.environ.get("KILLS", "5"))
"""A bigger run: ``KILLS=100 pytest -m slow tests/integration/durable/test_durable_process.py``."""


class Server:
    """The endpoint's process on a journal; it can be killed and started again."""

    def __init__(self, journal: Path, max_file_bytes: int | None = None) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._journal = journal
        self.start(max_file_bytes)

    def start(self, max_file_bytes: int | None = None) -> None:
        def limit() -> None:
            if max_file_bytes:
                resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_bytes, max_file_bytes))

        command = ["-m", "local.aws.moto_server", "--port", str(self._port), "--journal"]
        self._process = subprocess.Popen(
            [sys.executable, *command, str(self._journal)],
            preexec_fn=limit,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while not self._listens():
            assert self._process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self._port)) == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def client(self, service: str) -> Any:
        return boto3.client(
            service,
            endpoint_url=f"http://127.0.0.1:{self._port}",
            region_name="us-east-1",
            aws_access_key_id="any",
            aws_secret_access_key="any",
            config=Config(retries={"total_max_attempts": 1}, read_timeout=30),
        )


@contextmanager
def serving(journal: Path, max_file_bytes: int | None = None) -> Iterator[Server]:
    server = Server(journal, max_file_bytes)
    try:
        yield server
    finally:
        server.kill()


def make_resources(server: Server) -> None:
    server.client("s3").create_bucket(Bucket=BUCKET)
    server.client("sqs").create_queue(QueueName=QUEUE)
    server.client("dynamodb").create_table(
        TableName=TABLE,
        KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )


class Load:
    """Clients that write, each its own records, and note what was acknowledged and what was not.

    A value is the number of the write; after a kill a record has the last acknowledged one, or the
    one that was on its way.
    """

    def __init__(self, server: Server, seed: int) -> None:
        self._server = server
        self._random = random.Random(seed)
        self._numbers = itertools.count()
        self.acknowledged: dict[str, int | None] = {}
        self.on_its_way: dict[str, int | None] = {}
        self.sent: set[str] = set()
        self.deleted: set[str] = set()
        self.unsure_messages: set[str] = set()

    def run_until_killed(self, after_s: float) -> None:
        writers = [self._write_object, self._write_item, self._pass_message] * 2
        threads = [
            threading.Thread(target=self._repeat, args=(writer, f"{writer.__name__}-{number}"))
            for number, writer in enumerate(writers)
        ]
        for thread in threads:
            thread.start()
        time.sleep(after_s)
        self._server.kill()
        for thread in threads:
            thread.join()

    def _repeat(self, write: Callable[[Any, str], None], name: str) -> None:
        clients = {service: self._server.client(service) for service in ("s3", "sqs", "dynamodb")}
        choose = random.Random(name)
        try:
            while True:
                write(clients, f"{name}-{choose.randrange(8)}")
        except (ClientError, BotoCoreError):
            return  # killed

    def _acknowledge(self, name: str, value: int | None, write: Callable[[], Any]) -> None:
        self.on_its_way[name] = value
        write()
        self.acknowledged[name] = value
        del self.on_its_way[name]

    def _write_object(self, clients: Any, name: str) -> None:
        number = next(self._numbers)
        body, s3 = f"{number} ".encode() * 5_000, clients["s3"]
        if number % 5:
            write = lambda: s3.put_object(Bucket=BUCKET, Key=name, Body=body)  # noqa: E731
            self._acknowledge(f"object {name}", number, write)
        else:
            write = lambda: s3.delete_object(Bucket=BUCKET, Key=name)  # noqa: E731
            self._acknowledge(f"object {name}", None, write)

    def _write_item(self, clients: Any, name: str) -> None:
        number = next(self._numbers)
        item = {"k": {"S": name}, "number": {"N": str(number)}}
        write = lambda: clients["dynamodb"].put_item(TableName=TABLE, Item=item)  # noqa: E731
        self._acknowledge(f"item {name}", number, write)

    def _pass_message(self, clients: Any, name: str) -> None:
        sqs, url = clients["sqs"], queue_url()
        body = f"{name} {next(self._numbers)}"
        self.unsure_messages.add(body)
        sqs.send_message(QueueUrl=url, MessageBody=body)
        self.sent.add(body)
        self.unsure_messages.discard(body)
        for message in sqs.receive_message(QueueUrl=url, VisibilityTimeout=0).get("Messages", []):
            if hash(message["Body"]) % 2:
                self.unsure_messages.add(message["Body"])
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                self.deleted.add(message["Body"])

    def check(self) -> None:
        """What was acknowledged is there, and nothing that nobody wrote."""
        found: dict[str, int | None] = {}
        s3 = self._server.client("s3")
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
            for listed in page.get("Contents", []):
                answer = s3.get_object(Bucket=BUCKET, Key=listed["Key"])
                body = answer["Body"].read()
                number = int(body.split(b" ", 1)[0])
                assert body == f"{number} ".encode() * 5_000
                found[f"object {listed['Key']}"] = number
        pages = self._server.client("dynamodb").get_paginator("scan").paginate(TableName=TABLE)
        for item in itertools.chain.from_iterable(page["Items"] for page in pages):
            found[f"item {item['k']['S']}"] = int(item["number"]["N"])
        for name in self.acknowledged.keys() | self.on_its_way.keys() | found.keys():
            allowed = {self.acknowledged.get(name)}
            if name in self.on_its_way:
                allowed.add(self.on_its_way[name])
            assert found.get(name) in allowed, name
        self._check_messages()
        self.acknowledged, self.on_its_way = found, {}

    def _check_messages(self) -> None:
        sqs, url, found = self._server.client("sqs"), queue_url(), set()
        while batch := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            found |= {message["Body"] for message in batch}
            entries = [
                {"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]}
                for number, message in enumerate(batch)
            ]
            sqs.delete_message_batch(QueueUrl=url, Entries=entries)
        kept = self.sent - self.deleted
        assert kept - self.unsure_messages <= found <= kept | self.unsure_messages
        self.sent, self.deleted, self.unsure_messages = set(), set(), set()


def queue_url() -> str:
    return f"http://127.0.0.1/{DEFAULT_ACCOUNT_ID}/{QUEUE}"


def test_what_was_acknowledged_survives_sigkill(tmp_path: Path) -> None:
    moments = random.Random(5)
    with serving(tmp_path / "aws.db") as server:
        make_resources(server)
        load = Load(server, 5)
        written = 0
        for _ in range(KILLS):
            load.run_until_killed(moments.uniform(0.3, 1.5))
            written += len(load.acknowledged) + len(load.sent)
            server.start()
            load.check()
    assert written > 10 * KILLS


def test_a_full_disk_is_an_error_and_no_corruption(tmp_path: Path) -> None:
    """No file of the process may grow over 4 MB; SQLite's log reaches that first."""
    with serving(tmp_path / "aws.db", max_file_bytes=4_000_000) as server:
        make_resources(server)
        s3, kept, refused = server.client("s3"), set(), set()
        for number in range(200):
            try:
                s3.put_object(Bucket=BUCKET, Key=f"{number}", Body=bytes([number]) * 60_000)
                kept.add(f"{number}")
            except ClientError as error:
                assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 500
                refused.add(f"{number}")
            if len(refused) > 20:
                break
        assert kept and refused
        listed = s3.list_objects_v2(Bucket=BUCKET)["Contents"]
        assert {item["Key"] for item in listed} == kept  # it answers, with what it has kept
        server.kill()
        server.start()
        s3 = server.client("s3")
        listed = s3.list_objects_v2(Bucket=BUCKET)["Contents"]
        assert {item["Key"] for item in listed} == kept
        for key in kept:
            body = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            assert body == bytes([int(key)]) * 60_000
        s3.put_object(Bucket=BUCKET, Key="after", Body=b"x" * 60_000)
