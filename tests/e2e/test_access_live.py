"""The whole local cloud with keys asked for and roles enforced."""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running_cloud import THRESHOLDS, Running, free_port, start

pytestmark = pytest.mark.slow


def run_cloud(folder: Path, *options: str) -> Iterator[Running]:
    running = start(
        folder,
        "--enforce-roles",
        *options,
        api_port=free_port(),
        aws_port=free_port(),
        settings=THRESHOLDS | {"LOOKALIKE_API_KEY_REFRESH_S": "0.5"},
    )
    try:
        running.wait_until_it_answers()
        yield running
    finally:
        running.stop()


@pytest.fixture
def keyed(tmp_path: Path) -> Iterator[Running]:
    yield from run_cloud(tmp_path, "--require-api-key")


def asked(cloud: Running, path: str, key: str = "", method: str = "GET", **body: Any) -> int:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    if body:
        headers["Content-Type"] = "application/json"
    return cloud.request(
        method, path, headers=headers, body=json.dumps(body).encode() if body else None
    )[0]


def test_keys_from_their_making_to_their_end(
    keyed: Running, photo: Any, eventually: Any, tmp_path: Path
) -> None:
    own = keyed.data_dir / "api-key"
    eventually(own.is_file)
    assert stat.S_IMODE(own.stat().st_mode) == 0o600
    for catalogue, seed in (("shop", 1), ("other", 2)):
        for number in range(2):
            (tmp_path / f"p{number}.jpg").write_bytes(photo(10 * seed + number))
        files = [str(tmp_path / f"p{number}.jpg") for number in range(2)]
        assert keyed.command("upload", *files, "--catalogue", catalogue).returncode == 0

    def made(*options: str) -> str:
        done = keyed.command("keys", "create", "--label", "test", *options)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    reader, writer = made("--catalogue", "shop"), made("--catalogue", "shop", "--write")
    assert [asked(keyed, path) for path in ("/stats", "/health", "/docs")] == [401, 200, 200]
    search = {"path": "/search?catalogue=shop", "method": "POST", "product_id": "p0"}
    assert asked(keyed, key=reader, **search) == 200
    assert asked(keyed, "/products?catalogue=other", reader) == 403
    product = "/products/p1?catalogue=shop"
    deleted = [asked(keyed, product, key, "DELETE") for key in (reader, writer, writer)]
    assert deleted == [403, 204, 404]

    # The command asks with the local cloud's own key: a small photo, an upload, an explanation.
    large = tmp_path / "large.jpg"
    large.write_bytes(photo(3) + bytes(4_600_000))
    for image in (tmp_path / "p0.jpg", large):
        done = keyed.command(
            "search", str(image), "--catalogue", "other", "--explain", str(tmp_path / "why")
        )
        assert done.returncode == 0, done.stderr
    assert json.loads(keyed.command("status", "--json").stdout)["unreachable"] == {}

    few = made("--rate", "5")
    eventually(lambda: time.time() % 60 < 50)  # all of these within one minute
    assert [asked(keyed, "/stats", few) for _ in range(7)] == [200] * 5 + [429] * 2
    assert keyed.command("keys", "revoke", reader.split("_")[1]).returncode == 0
    eventually(lambda: asked(keyed, key=reader, **search) == 401)
    assert asked(keyed, key=writer, **search) == 200
