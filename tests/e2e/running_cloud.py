"""Starts and stops the whole local cloud as the README does, and talks to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import urllib3

COMMAND = Path(sys.executable).with_name("lookalike")
START_S = 60
_POOL = urllib3.PoolManager(maxsize=16)
# So low that a test's dozen of photos is compacted, and a generation is built within seconds.
THRESHOLDS = {
    "LOOKALIKE_MERGE_SEGMENTS": "4",
    "LOOKALIKE_BASE_ROWS": "8",
    "LOOKALIKE_HEAD_ROWS": "12",
    "LOOKALIKE_SETTLE_S": "3",
}


@dataclass(frozen=True)
class Running:
    """A running local cloud and what talks to it."""

    api: str
    aws: str
    data_dir: Path
    environment: dict[str, str]
    process: subprocess.Popen[str]

    def client(self, service: str, attempts: int = 4) -> Any:
        """A boto3 client; by default with the SDK's own retries."""
        return boto3.client(
            service,
            endpoint_url=self.aws,
            region_name="us-east-1",
            aws_access_key_id="any",
            aws_secret_access_key="any",
            config=botocore.config.Config(
                max_pool_connections=32,
                retries={"mode": "standard", "total_max_attempts": attempts},
            ),
        )

    def s3(self) -> Any:
        return self.client("s3")

    def waiting(self, queue: str) -> int:
        """How many messages a queue holds, visible or in flight."""
        sqs = self.client("sqs")
        url = sqs.get_queue_url(QueueName=queue)["QueueUrl"]
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)

    def request(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        answer = _POOL.request(method, self.api + path, timeout=30, retries=False, **options)
        is_json = answer.data and "json" in answer.headers.get("Content-Type", "")
        return answer.status, json.loads(answer.data) if is_json else answer.data

    def search(self, photo: bytes, query: str = "") -> list[dict[str, Any]]:
        status, answer = self.request(
            "POST", f"/search?{query}", body=photo, headers={"Content-Type": "image/jpeg"}
        )
        assert status == 200, answer
        results: list[dict[str, Any]] = answer["results"]
        return results

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMAND, *arguments],
            env=self.environment,
            cwd=self.data_dir.parent,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def answers(self) -> bool:
        assert self.process.poll() is None, self.process.stdout and self.process.stdout.read()
        try:
            return self.request("GET", "/health")[0] == 200
        except urllib3.exceptions.HTTPError:
            return False

    def wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_S
        while not self.answers():
            assert time.monotonic() < deadline, f"no answer within {START_S} s"
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it as Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)
        try:
            output, _ = self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        assert self.process.returncode == 0, output


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start(
    folder: Path, *options: str, api_port: int, aws_port: int, settings: Mapping[str, str]
) -> Running:
    """Start ``lookalike up`` in a folder; it does not answer yet."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), **settings}
    for name in ("AWS_ENDPOINT_URL", "LOOKALIKE_API_URL", "LOOKALIKE_MODEL_DIR"):
        environment.pop(name, None)
    ports = ["--api-port", str(api_port), "--aws-port", str(aws_port)]
    process = subprocess.Popen(
        [COMMAND, "up", "--no-dashboard", "--no-sample", *options, *ports],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    addresses = (f"http://127.0.0.1:{port}" for port in (api_port, aws_port))
    return Running(*addresses, folder / ".lookalike", environment, process)
