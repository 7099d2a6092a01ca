"""What durability costs: the local AWS endpoint beside moto's server, and beside itself in memory.

    python tests/benchmarks/bench_durable_moto.py throughput
    python tests/benchmarks/bench_durable_moto.py depth
    python tests/benchmarks/bench_durable_moto.py restart --objects 20000
    python tests/benchmarks/bench_durable_moto.py large

throughput: calls a second of clients in processes of their own, rounds of the servers taken in
turn. depth: messages a second into and out of a queue at several depths. restart: time from the
start of the process to its first answer, with an object, an item and a message for each of N.
large: ranged GETs of one object of 266 MB.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3

ROOT = Path(__file__).resolve().parents[2]
IN_MEMORY = """
import asyncio, sys
from local.serving import run_until_signalled
from local.aws.moto_server import MotoServer, MAX_BODY_BYTES
from local.aws.durable_moto import DurableMoto
from local.aws import shims
shims.install()
server = MotoServer(DurableMoto())
asyncio.run(run_until_signalled(server.handle, int(sys.argv[1]), max_body_bytes=MAX_BODY_BYTES))
"""
QUEUE = "bench"
SIGNED = "AWS4-HMAC-SHA256 Credential=a/20000101/us-east-1/{}/aws4_request, SignedHeaders=host"


class Client:
    """Calls one endpoint without an SDK, whose signing would cost more than the call."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._http = urllib3.PoolManager(retries=False)

    def s3(self, method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
        headers["Authorization"] = SIGNED.format("s3")
        answer = self._http.request(method, f"{self._url}/{path}", body=body, headers=headers)
        assert answer.status < 300, (answer.status, answer.data)
        return answer.data

    def json(self, service: str, target: str, fields: dict[str, Any]) -> Any:
        headers = {
            "Authorization": SIGNED.format(service),
            "X-Amz-Target": target,
            "Content-Type": "application/x-amz-json-1.0",
        }
        answer = self._http.request("POST", self._url, body=json.dumps(fields), headers=headers)
        assert answer.status == 200, (answer.status, answer.data)
        return json.loads(answer.data or b"{}")

    def sqs(self, action: str, **fields: Any) -> Any:
        url = f"{self._url}/123456789012/{QUEUE}"
        return self.json("sqs", f"AmazonSQS.{action}", {"QueueUrl": url, **fields})

    def dynamodb(self, action: str, **fields: Any) -> Any:
        return self.json("dynamodb", f"DynamoDB_20120810.{action}", fields)

    def prepare(self) -> None:
        self.s3("PUT", "bench-bucket")
        self.json("sqs", "AmazonSQS.CreateQueue", {"QueueName": QUEUE})
        self.dynamodb(
            "CreateTable",
            TableName="bench",
            KeySchema=[{"AttributeName": "k", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "k", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )


def put_object(client: Client, name: str, body: bytes) -> None:
    client.s3("PUT", f"bench-bucket/{name}", body)


def put_item(client: Client, name: str, body: bytes) -> None:
    attributes = {f"a{number}": {"S": "x" * 60} for number in range(15)}
    client.dynamodb("PutItem", TableName="bench", Item={"k": {"S": name}, **attributes})


def pass_message(client: Client, name: str, body: bytes) -> None:
    client.sqs("SendMessage", MessageBody="x" * 900)
    message = client.sqs("ReceiveMessage", MaxNumberOfMessages=1)["Messages"][0]
    client.sqs("DeleteMessage", ReceiptHandle=message["ReceiptHandle"])


OPERATIONS: dict[str, tuple[Callable[[Client, str, bytes], None], int, int]] = {
    "PUT of 25 kB, 1 client": (put_object, 1, 1),
    "PUT of 25 kB, 8 clients": (put_object, 8, 1),
    "PutItem of 1 kB, 1 client": (put_item, 1, 1),
    "PutItem of 1 kB, 8 clients": (put_item, 8, 1),
    "Send, Receive, Delete, 1 client": (pass_message, 1, 3),
    "Send, Receive, Delete, 8 clients": (pass_message, 8, 3),
}


def run_client(port: int, operation: str, prefix: str, until: float) -> int:
    client, body, done = Client(port), os.urandom(25_000), 0
    call, _, calls = OPERATIONS[operation]
    while time.time() < until:
        call(client, f"{prefix}-{done}", body)
        done += 1
    return done * calls


def throughput(seconds: float, rounds: int) -> None:
    rates: dict[tuple[str, str], list[float]] = {}
    costs: dict[tuple[str, str], list[float]] = {}
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(8, context) as pool:
        list(pool.map(time.sleep, [0.2] * 8))
        for turn in range(rounds):
            for server in ("moto", "in memory", "durable"):
                journal = Path(folder) / f"{turn}.db"
                with running(server, journal) as (port, _, pid):
                    Client(port).prepare()
                    for operation, (_, clients, _) in OPERATIONS.items():
                        until, cpu = time.time() + seconds, cpu_s(pid)
                        done = [
                            pool.submit(run_client, port, operation, f"{number}", until)
                            for number in range(clients)
                        ]
                        calls, cpu = sum(item.result() for item in done), cpu_s(pid) - cpu
                        rates.setdefault((operation, server), []).append(calls / seconds)
                        costs.setdefault((operation, server), []).append(1e3 * cpu / calls)
    for operation in OPERATIONS:
        cpu_ms = {
            server: statistics.median(costs[operation, server])
            for server in ("moto", "in memory", "durable")
        }
        plain, memory, durable = (
            statistics.median(rates[operation, server])
            for server in ("moto", "in memory", "durable")
        )
        print(
            f"{operation:34} moto {plain:6.0f}/s  in memory {memory:6.0f}/s  "
            f"durable {durable:6.0f}/s  = {durable / plain:.0%} of moto, "
            f"{durable / memory:.0%} of in memory; CPU a call "
            + ", ".join(f"{server} {cost:.2f} ms" for server, cost in cpu_ms.items())
        )


def cpu_s(pid: int) -> float:
    """CPU that a process has used so far, of the user and the kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def depth(depths: list[int]) -> None:
    for server in ("moto", "durable"):
        for size in depths:
            if server == "moto" and size > 2_000:
                continue  # hours
            with (
                tempfile.TemporaryDirectory() as folder,
                running(server, Path(folder) / "aws.db") as (port, _, _),
            ):
                client = Client(port)
                client.prepare()
                begun = time.perf_counter()
                for _ in range(0, size, 10):
                    entries = [{"Id": str(i), "MessageBody": "x" * 900} for i in range(10)]
                    client.sqs("SendMessageBatch", Entries=entries)
                sent, received = time.perf_counter(), 0
                while found := client.sqs("ReceiveMessage", MaxNumberOfMessages=10).get("Messages"):
                    received += len(found)
                    entries = [
                        {"Id": str(i), "ReceiptHandle": item["ReceiptHandle"]}
                        for i, item in enumerate(found)
                    ]
                    client.sqs("DeleteMessageBatch", Entries=entries)
                assert received == size
                drained = time.perf_counter()
            print(
                f"{server:8} depth {size:6}: {size / (sent - begun):6.0f} messages/s in, "
                f"{size / (drained - sent):6.0f} messages/s out"
            )


def restart(objects: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "aws.db"
        with running("durable", journal) as (port, _, _):
            Client(port).prepare()
        filling = multiprocessing.get_context("spawn").Process(target=fill, args=(journal, objects))
        filling.start()
        filling.join()
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        for _ in range(5):
            with running("durable", journal) as (port, seconds, pid):
                assert len(Client(port).s3("GET", f"bench-bucket/{objects - 1}")) == 25_000
                print(
                    f"restart with {objects} objects, {size / 1e6:.0f} MB: "
                    f"{seconds:.2f} s, {cpu_s(pid):.2f} s of CPU"
                )


def fill(journal: Path, objects: int) -> None:
    """Objects of 25 kB, an item of 1 kB and a message of 0.9 kB for each, past HTTP."""
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.dynamodb.models import dynamodb_backends
    from moto.s3.models import s3_backends
    from moto.sqs.models import sqs_backends

    from local.aws import shims
    from local.aws.durable_moto import DurableMoto
    from local.aws.journal import Journal

    shims.install()
    kept = Journal(journal)
    kept.rows("PRAGMA synchronous = OFF")
    moto_s3 = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    moto = DurableMoto(journal=kept)
    attributes = {f"a{number}": {"S": "x" * 60} for number in range(15)}
    for number in range(objects):
        moto_s3.put_object("bench-bucket", f"{number}", os.urandom(25_000))
        item = {"k": {"S": f"{number}"}, **attributes}
        dynamodb_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].put_item("bench", item)
        sqs_backends[DEFAULT_ACCOUNT_ID]["us-east-1"].send_message(QUEUE, "x" * 900)
        if number % 100 == 99:
            moto.release_messages(QUEUE)  # nothing is in flight: a commit
    kept.close()


def large() -> None:
    size, part = 266_000_000, 4_000_000
    with (
        tempfile.TemporaryDirectory() as folder,
        running("durable", Path(folder) / "aws.db") as (port, _, _),
    ):
        client = Client(port)
        client.prepare()
        begun = time.perf_counter()
        put_object(client, "large", os.urandom(size))
        print(f"PUT of 266 MB: {time.perf_counter() - begun:.2f} s")
        times = []
        for number in range(60):
            begin = number * part
            wanted = f"bytes={begin}-{begin + part - 1}"
            begun = time.perf_counter()
            assert len(client.s3("GET", "bench-bucket/large", Range=wanted)) == part
            times.append(time.perf_counter() - begun)
        print(f"GET of 4 MB of it: p50 {1e3 * statistics.median(times):.1f} ms")
        begun = time.perf_counter()
        for _ in range(200):
            client.s3("GET", "bench-bucket/large", Range="bytes=200000000-200099999")
        print(f"GET of 100 kB of it: {1e3 * (time.perf_counter() - begun) / 200:.1f} ms")
        begun = time.perf_counter()
        assert len(client.s3("GET", "bench-bucket/large")) == size
        print(f"GET of all of it: {time.perf_counter() - begun:.2f} s")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3
    print(f"peak memory of the server: {peak:.0f} MB")


@contextmanager
def running(server: str, journal: Path) -> Iterator[tuple[int, float, int]]:
    """A server's port, how long it took to answer, and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    commands = {
        "moto": ["-m", "moto.server", "-p", str(port)],
        "in memory": ["-c", IN_MEMORY, str(port)],
        "durable": ["-m", "local.aws.moto_server", "--port", str(port), "--journal", str(journal)],
    }
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *commands[server]], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            try:
                urllib3.PoolManager(retries=False).request("GET", f"http://127.0.0.1:{port}/")
                break
            except urllib3.exceptions.HTTPError:
                time.sleep(0.01)
        yield port, time.perf_counter() - begun, process.pid
    finally:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["throughput", "depth", "restart", "large"])
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--objects", type=int, default=20_000)
    parser.add_argument("--depths", type=int, nargs="+", default=[400, 2_000, 20_000])
    arguments = parser.parse_args()
    if arguments.what == "throughput":
        throughput(arguments.seconds, arguments.rounds)
    elif arguments.what == "depth":
        depth(arguments.depths)
    elif arguments.what == "restart":
        restart(arguments.objects)
    else:
        large()


if __name__ == "__main__":
    main()
