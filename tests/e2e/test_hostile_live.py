"""The worst files of the corpus, at the real limits, through the real functions."""

from __future__ import annotations

import uuid
import zlib

import pytest

from hostile_images import MEMORY, OK, PIXELS, SLOW, bmp, png, progressive_bomb, tiff
from local.control import status
from local.state import find_running

pytestmark = pytest.mark.slow

SIDE = 9_900
"""Of a square with nearly as many pixels as are accepted."""


def worst_files() -> dict[str, tuple[bytes, set[str]]]:
    """Files and what they end as."""
    transparent = zlib.compress(bytes((1 + 4 * SIDE) * SIDE), 1)
    tile = zlib.compress(bytes(4096 * 4096), 1)
    tiles = {322: [4096], 323: [4096], 324: [8] * 600, 325: [len(tile)] * 600}
    jumps = b"\0\x02\xff\xff" * 1000
    return {
        "bomb": (png(SIDE, SIDE, colour=6, data=transparent), {OK}),
        "declared": (png(60_000, 60_000, data=transparent[:99]), {PIXELS}),
        "jumps": (bmp(SIDE**2, 1, jumps), {OK, MEMORY}),
        "tiles": (tiff(1, 600 * 4096, tiles, tile, 8), {PIXELS}),
    }


def processes(cloud) -> list[int]:
    functions = status(find_running(cloud.data_dir))["functions"]
    return functions["Embed"]["pids"] + functions["APIHandler"]["pids"]


def test_the_worst_files_cost_no_process(cloud, photo, eventually):
    files = worst_files()
    shop = f"hostile-{uuid.uuid4().hex[:8]}"
    cloud.s3().put_object(Bucket="lookalike-images", Key=f"{shop}/first.jpg", Body=photo())
    eventually(lambda: cloud.request("GET", f"/products/first?catalogue={shop}")[0] == 200)
    before = processes(cloud)

    keys = {f"{shop}/{name}.jpg": name for name in files}
    for key, name in keys.items():
        cloud.s3().put_object(Bucket="lookalike-images", Key=key, Body=files[name][0])

    def ends() -> dict[str, str]:
        found = {}
        for state, listed in (("failed", "failures"), ("live", "products")):
            page = f"/products?catalogue={shop}&status={state}"
            for entry in cloud.request("GET", page)[1][listed]:
                if state == "failed":
                    found[entry["key"]] = entry["reason"]
                else:
                    found |= dict.fromkeys((view["key"] for view in entry["views"]), "ok")
        return {key: found[key] for key in keys if key in found}

    eventually(lambda: len(ends()) == len(keys), 90)
    assert {keys[key]: end for key, end in ends().items() if end not in files[keys[key]][1]} == {}
    code, problem = cloud.request(
        "POST",
        f"/search?catalogue={shop}",
        body=progressive_bomb(SIDE, 4_000_000),
        headers={"Content-Type": "image/jpeg"},
    )
    assert (code, problem["reason"]) == (422, SLOW)
    assert set(before) <= set(processes(cloud))
