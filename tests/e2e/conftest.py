"""The whole local cloud, as the README starts it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
import urllib3

COMMAND = Path(sys.executable).with_name("lookalike")
START_S = 60
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

    def s3(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.aws,
            region_name="us-east-1",
            aws_access_key_id="any",
            aws_secret_access_key="any",
        )

    def request(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        answer = urllib3.request(method, self.api + path, timeout=30, retries=False, **options)
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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def cloud(tmp_path_factory, eventually):
    folder = tmp_path_factory.mktemp("cloud")
    ports = {"--api-port": free_port(), "--aws-port": free_port()}
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), **THRESHOLDS}
    for name in ("AWS_ENDPOINT_URL", "LOOKALIKE_API_URL", "LOOKALIKE_MODEL_DIR"):
        environment.pop(name, None)
    options = [text for pair in ports.items() for text in map(str, pair)]
    process = subprocess.Popen(
        [COMMAND, "up", "--no-dashboard", "--no-sample", *options],
        env=environment,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    api = f"http://127.0.0.1:{ports['--api-port']}"
    aws = f"http://127.0.0.1:{ports['--aws-port']}"
    running = Running(api, aws, folder / ".lookalike", environment, process)
    try:
        eventually(lambda: answers(running), START_S)
        yield running
    finally:
        process.send_signal(signal.SIGINT)
        try:
            output, _ = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode == 0, output


def answers(running: Running) -> bool:
    assert running.process.poll() is None, running.process.stdout.read()
    try:
        return running.request("GET", "/health")[0] == 200
    except urllib3.exceptions.HTTPError:
        return False
