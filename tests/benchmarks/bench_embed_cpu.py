"""CPU of the embed function per image against JPEG decode and a bare ONNX session on the same.

    python tests/benchmarks/bench_embed_cpu.py FOLDER [--images 300] [--batch 10]

The function's work runs in this process against moto in another; CPU is this process's own, all
threads. The three variants take turns batch by batch, so that a change of the machine's speed meets
them all.
"""

from __future__ import annotations

import argparse
import io
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import boto3
import numpy as np
from PIL import Image

TABLES = {
    "products_table": ("catalogue", "product_id"),
    "failures_table": ("catalogue", "key"),
    "registry_table": ("scope", "entry"),
    "generations_table": ("kind", "catalogue"),
    "searches_table": ("bucket", "query_id"),
}


def start_moto() -> subprocess.Popen[bytes]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    os.environ.update(
        AWS_ENDPOINT_URL=address,
        AWS_DEFAULT_REGION="us-east-1",
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
    )
    server = subprocess.Popen(
        [sys.executable, "-m", "local.aws.moto_server", "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{address}/moto-api/data.json", timeout=1).close()
            return server
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.1)
    raise SystemExit("moto did not start")


def provision(settings) -> None:  # type: ignore[no-untyped-def]
    for bucket in (settings.images_bucket, settings.index_bucket):
        boto3.client("s3").create_bucket(Bucket=bucket)
    for field, keys in TABLES.items():
        boto3.client("dynamodb").create_table(
            TableName=getattr(settings, field),
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[
                {"AttributeName": name, "KeyType": kind}
                for name, kind in zip(keys, ("HASH", "RANGE"), strict=True)
            ],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in keys],
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--batch", type=int, default=10)
    parser.add_argument("--encoder", default="efficientnet-lite2")
    parser.add_argument("--precision", default="fp32")
    arguments = parser.parse_args()
    server = start_moto()
    try:
        measure(arguments)
    finally:
        server.terminate()
        server.wait(10)


def measure(arguments: argparse.Namespace) -> None:
    from lookalike.core.encoder import Encoder
    from lookalike.core.encoders import encoder_record
    from lookalike.modelbuild import ensure_model
    from lookalike.models import default_model_dir
    from lookalike.settings import Settings
    from lookalike.stores import aws_stores
    from lookalike.wiring import build_services

    settings = Settings(encoder=arguments.encoder, precision=arguments.precision)
    provision(settings)
    path = ensure_model(arguments.encoder, arguments.precision, default_model_dir())
    record = encoder_record(arguments.encoder)
    bare = Encoder(path, record, "border")
    system = build_services(settings, aws_stores(settings), lambda: "0" * 26)
    files = sorted(arguments.folder.glob("*.jpg"))[: arguments.images]
    bodies = [file.read_bytes() for file in files]
    for file, body in zip(files, bodies, strict=True):
        boto3.client("s3").put_object(
            Bucket=settings.images_bucket, Key=f"b/{file.name}", Body=body
        )

    cpu: dict[str, list[float]] = {"decode": [], "onnx": [], "embed function": []}
    tensor = np.zeros((1, 3, record.input_size, record.input_size), dtype=np.float32)
    for start in range(0, len(files), arguments.batch):
        chunk = bodies[start : start + arguments.batch]
        begun = time.process_time()
        for body in chunk:
            Image.open(io.BytesIO(body)).load()
        cpu["decode"].append((time.process_time() - begun) / len(chunk))
        begun = time.process_time()
        for _ in chunk:
            bare.feature_maps(tensor)
        cpu["onnx"].append((time.process_time() - begun) / len(chunk))
        keys = [f"b/{file.name}" for file in files[start : start + arguments.batch]]
        begun = time.process_time()
        assert system.ingest.reconcile(keys) == {}
        cpu["embed function"].append((time.process_time() - begun) / len(chunk))
    for name, values in cpu.items():
        print(f"{name:15} {statistics.median(values) * 1000:7.2f} ms an image (median of batches)")
    ratios = [
        whole / (decode + onnx)
        for whole, decode, onnx in zip(
            cpu["embed function"], cpu["decode"], cpu["onnx"], strict=True
        )
    ]
    print(f"ratio           {statistics.median(ratios):7.3f} (median of {len(ratios)} batches)")


if __name__ == "__main__":
    main()
