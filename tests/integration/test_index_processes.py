"""Eight processes append while compaction, a generation's build and queries run beside them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import urllib3

from infra.build import build_template
from local.cloud import clients
from local.ports import free_port
from local.provision import provision
from local.template import Template
from lookalike.adapters.aws import forget_clients
from lookalike.core.compaction import live_entries
from lookalike.core.keys import parse_key
from lookalike.modelbuild import ensure_model
from lookalike.services.search_request import QueryInput, SearchRequest
from lookalike.services.segments import read_segment
from lookalike.settings import Settings
from lookalike.stores import aws_stores
from lookalike.wiring import Services, build_services

PROCESSES = 8
BATCHES = 6
ENCODER = "efficientnet-lite0"
SETTLE_S = 15.0
FOLDER = Path(__file__).parent / "index_processes"


@pytest.fixture
def environment(tmp_path, monkeypatch, eventually) -> Iterator[dict[str, str]]:
    """Moto with the template's buckets and tables, and thresholds that so few photos reach."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    moto = subprocess.Popen([sys.executable, "-m", "local.aws.moto_server", "--port", str(port)])
    try:
        template = Template.load(build_template(tmp_path / "template"), address)
        eventually(lambda: answers(address))
        provision(template, clients(address))
        ensure_model(ENCODER, "fp32", tmp_path / "models")
        settings = {
            "ENCODER": ENCODER,
            "MODEL_DIR": str(tmp_path / "models"),
            "CACHE_DIR": str(tmp_path / "cache"),
            "INGEST_QUEUE_URL": f"{address}/123456789012/lookalike-ingest",
            "REFRESH_S": "0.1",
            "MERGE_SEGMENTS": "6",
            "BASE_ROWS": "40",
            "FLAT_ROWS": "60",
            "SHARD_ROWS": "100",
            "HEAD_ROWS": "80",
            "HEAD_DIM": "64",
            "SETTLE_S": str(SETTLE_S),
            "GRACE_S": "4",
            "KEEP_GENERATION_S": "5",
        }
        names = {f"LOOKALIKE_{name}": value for name, value in settings.items()} | {
            "AWS_ENDPOINT_URL": address,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }
        for name, value in names.items():
            monkeypatch.setenv(name, value)
        forget_clients()
        yield os.environ | names
    finally:
        moto.terminate()
        moto.wait(10)
        forget_clients()


def answers(address: str) -> bool:
    try:
        return urllib3.request("GET", address, timeout=2, retries=False).status > 0
    except urllib3.exceptions.HTTPError:
        return False


def start(environment: dict[str, str], name: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, FOLDER / f"{name}.py", *arguments],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> Any:
    """What a process printed, once it has ended without an error."""
    said, complained = process.communicate(timeout=180)
    assert process.returncode == 0, complained
    return json.loads(said)


def next_line(process: subprocess.Popen[str]) -> Any:
    """The next line that a process prints; the process is ended when it takes too long."""
    assert process.stdout is not None
    watchdog = threading.Timer(120, process.kill)
    watchdog.start()
    line = process.stdout.readline()
    watchdog.cancel()
    assert line, "nothing was printed"
    return json.loads(line)


def built_anew(system: Services) -> list[str]:
    """The object key of every row, after a generation of nothing but live rows was built."""
    system.reindex.begin("shop")
    asked = system.stores.lineages.get("shop")
    assert asked is not None
    until = time.monotonic() + 120
    while (now := system.stores.lineages.get("shop")).current == asked.current:
        assert time.monotonic() < until, now
        system.compaction.run(time.time() + 60)
        report = system.reindex.run(time.time() + 60)
        assert not report.postponed
        time.sleep(0.2)
    entries, manifest = system.stores.registry.read(now.current.scope)
    assert not live_entries(manifest, entries)
    keys: list[str] = []
    for shard in manifest.shards:
        assert shard.base is not None and not shard.fresh
        rows = [row for run in shard.covered for row in keys_of(system, run.digest)]
        assert shard.base.rows == len(rows)
        keys += rows
    return keys


def keys_of(system: Services, digest: str) -> tuple[str, ...]:
    return read_segment(system.stores.index, "shop", digest).keys


@pytest.mark.slow
def test_nothing_is_lost_or_wrong_while_everything_runs_at_once(environment, ids, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    from shop import ANCHORS, draw

    settings = Settings.from_env()
    system = build_services(settings, aws_stores(settings), ids)
    for key in ANCHORS:
        system.stores.images.put(key, draw(key), "image/jpeg")
    assert system.ingest.reconcile(ANCHORS) == {}

    beside = [start(environment, "look_after"), start(environment, "look_after")]
    searching = start(environment, "search")
    appending = [
        start(environment, "append", f"w{number}", str(BATCHES)) for number in range(PROCESSES)
    ]
    appended = [finish(process) for process in appending]
    longest_s = max(one["longest_s"] for one in appended)
    assert longest_s < SETTLE_S, f"an append took {longest_s:.1f} s; it must end within SETTLE_S"
    left: dict[str, str | None] = {}
    for one in appended:
        left |= one["left"]
    # The generation that so many rows call for is built and swapped in while searches go on.
    assert next_line(searching) == "efficientnet-lite0-border-v1"
    assert next_line(searching) == "efficientnet-lite0-border-v1-g2"
    searched = finish(searching)
    for process in beside:
        finish(process)

    assert searched["wrong"] == []
    assert searched["searches"] > 50

    expected = {key: name for key, name in left.items() if name is not None}
    expected |= {key: key for key in ANCHORS}
    ids_of = {(parse_key(key).catalogue, parse_key(key).product_id) for key in left | expected}
    records = system.stores.products.get_many(ids_of)
    assert {key for record in records.values() for key in record.views} == expected.keys()
    for key, name in expected.items():
        request = SearchRequest("shop", (QueryInput(image=draw(name)),), k=1, exact=True)
        best = system.query.search(request).results[0]
        parsed = parse_key(key)
        assert (best.product_id, best.view) == (parsed.product_id, parsed.view), key

    # No append is under way any more that a build would have to wait for.
    rebuilding = replace(settings, base_rows=1, settle_s=0.5)
    rows = built_anew(build_services(rebuilding, aws_stores(rebuilding), ids))
    assert sorted(rows) == sorted(expected)
