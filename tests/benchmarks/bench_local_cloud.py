"""What a user of a running local cloud waits for.

    lookalike up --no-dashboard --no-sample --data-dir D       in another terminal
    python tests/benchmarks/bench_local_cloud.py freshness FOLDER --data-dir D
    python tests/benchmarks/bench_local_cloud.py cold PHOTO --data-dir D

freshness: photos one after another into an idle system, then each overwritten, then each deleted;
for each the time from the answer to the PUT or DELETE until a search shows it. cold: the query
function's processes are killed, then one search is timed.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import urllib3

from local.control import status
from local.state import State, find_running

HTTP = urllib3.PoolManager(retries=False)


def search(state: State, catalogue: str, photo: bytes) -> list[dict[str, Any]]:
    answer = HTTP.request(
        "POST",
        f"{state.api_url}/search?catalogue={catalogue}&k=1",
        body=photo,
        headers={"Content-Type": "image/jpeg"},
    )
    return list(answer.json()["results"]) if answer.status == 200 else []


def freshness(state: State, folder: Path, count: int) -> None:
    catalogue = f"fresh-{uuid.uuid4().hex[:6]}"
    s3 = boto3.client(
        "s3",
        endpoint_url=state.aws_url,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
    )
    photos = [file.read_bytes() for file in sorted(folder.glob("*.jpg"))[: 2 * count]]

    def best_score(photo: bytes) -> float:
        results = search(state, catalogue, photo)
        return float(results[0]["score"]) if results else 0.0

    def waits(change: Callable[[int], object], done: Callable[[int], bool]) -> list[float]:
        waited = []
        for number in range(count):
            change(number)
            begun = time.perf_counter()
            while not done(number) and time.perf_counter() - begun < 30:
                time.sleep(0.02)
            waited.append(time.perf_counter() - begun)
            time.sleep(0.3)  # idle again
        return waited

    def put(number: int, photo: bytes) -> None:
        s3.put_object(Bucket="lookalike-images", Key=f"{catalogue}/p{number}.jpg", Body=photo)

    def delete(number: int) -> None:
        s3.delete_object(Bucket="lookalike-images", Key=f"{catalogue}/p{number}.jpg")

    new = waits(lambda n: put(n, photos[n]), lambda n: best_score(photos[n]) > 0.999)
    overwritten = waits(
        lambda n: put(n, photos[count + n]), lambda n: best_score(photos[count + n]) > 0.999
    )
    deleted = waits(delete, lambda n: best_score(photos[count + n]) < 0.999)
    for name, waited in (("new", new), ("overwritten", overwritten), ("deleted", deleted)):
        waited.sort()
        p95 = waited[int(len(waited) * 0.95)]
        print(
            f"{name:12} {len(waited)} photos: p50 {statistics.median(waited):.2f} s, "
            f"p95 {p95:.2f} s, worst {waited[-1]:.2f} s"
        )


def cold(state: State, photo: Path, rounds: int) -> None:
    body, times = photo.read_bytes(), []
    catalogue = "default"
    search(state, catalogue, body)
    for _ in range(rounds):
        old = query_pids(state)
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while set(query_pids(state)) & set(old) and time.monotonic() < deadline:
            time.sleep(0.005)
        begun = time.perf_counter()
        assert search(state, catalogue, body)
        times.append(time.perf_counter() - begun)
    print(
        f"query function, cold start to answer: median {statistics.median(times):.2f} s, ", end=""
    )
    print(f"worst {max(times):.2f} s of {rounds}")


def query_pids(state: State) -> list[int]:
    return list(status(state)["functions"]["APIHandler"]["pids"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["freshness", "cold"])
    parser.add_argument("path", type=Path)
    parser.add_argument("--data-dir", type=Path, default=Path(".lookalike"))
    parser.add_argument("--count", type=int, default=30)
    arguments = parser.parse_args()
    state = find_running(arguments.data_dir)
    if state is None:
        raise SystemExit("no local cloud runs on that folder")
    if arguments.what == "freshness":
        freshness(state, arguments.path, arguments.count)
    else:
        cold(state, arguments.path, 7)


if __name__ == "__main__":
    main()
