"""What a user of a running local cloud waits for an explanation.

    lookalike up --no-dashboard --no-sample --data-dir D       in another terminal
    python tests/benchmarks/bench_explanation_api.py FOLDER --data-dir D

Uploads photos of a folder, searches with others, and times the answers for each result: first and
second requests (misses and hits) of the numbers and of the pictures, one after another.
"""

from __future__ import annotations

import argparse
import time
import uuid
from collections import defaultdict
from pathlib import Path

import boto3
import numpy as np
import urllib3

from local.state import State, find_running

HTTP = urllib3.PoolManager(retries=False)
PICTURES = ("query.png", "query.webp", "result.png", "result.webp", "pair.png", "pair.webp")


def upload(state: State, catalogue: str, photos: list[Path]) -> None:
    s3 = boto3.client(
        "s3",
        endpoint_url=state.aws_url,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
    )
    for photo in photos:
        key = f"{catalogue}/{photo.stem}.jpg"
        s3.put_object(Bucket="lookalike-images", Key=key, Body=photo.read_bytes())


def search(state: State, catalogue: str, photo: Path, k: int) -> list[str]:
    answer = HTTP.request(
        "POST",
        f"{state.api_url}/search?catalogue={catalogue}&k={k}",
        body=photo.read_bytes(),
        headers={"Content-Type": "image/jpeg"},
    )
    if answer.status != 200:
        return []
    return [item["explanation_url"] for item in answer.json()["results"]]


def measure(urls: list[str]) -> dict[tuple[str, str], list[float]]:
    """Milliseconds of each request by (what, ``X-Cache``)."""
    took = defaultdict(list)
    for url in urls:
        for what in ("", *PICTURES):
            for _ in range(2):
                address = f"{url}/{what}" if what else url
                begun = time.perf_counter()
                answer = HTTP.request("GET", address, redirect=False)
                elapsed = (time.perf_counter() - begun) * 1000
                assert answer.status in (200, 303), answer.data
                took[what or "numbers", answer.headers["X-Cache"]].append(elapsed)
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of JPEG files")
    parser.add_argument("--data-dir", type=Path, default=Path(".lookalike"))
    parser.add_argument("--products", type=int, default=60)
    parser.add_argument("--searches", type=int, default=10)
    parser.add_argument("-k", type=int, default=5)
    arguments = parser.parse_args()
    state = find_running(arguments.data_dir)
    if state is None:
        raise SystemExit("no local cloud runs on that folder")
    photos = sorted(arguments.folder.rglob("*.jpg"))[: arguments.products + arguments.searches]
    products, queries = photos[arguments.searches :], photos[: arguments.searches]
    catalogue = f"bench-{uuid.uuid4().hex[:6]}"
    upload(state, catalogue, products)
    deadline = time.monotonic() + 120
    while len(search(state, catalogue, queries[0], len(products))) < len(products):
        if time.monotonic() > deadline:
            raise SystemExit("the photos are not searchable within two minutes")
        time.sleep(0.2)
    urls = [url for query in queries for url in search(state, catalogue, query, arguments.k)]
    measure(urls[:1])  # what a process does once is not of interest here
    for (what, cache), took in measure(urls[1:]).items():
        p50, p95 = np.percentile(took, [50, 95])
        print(f"{what:12} {cache:4} {len(took):4} requests: p50 {p50:6.1f} ms, p95 {p95:6.1f} ms")


if __name__ == "__main__":
    main()
