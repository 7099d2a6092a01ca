"""The main job from outside: any S3 client, HTTP, the command."""

from __future__ import annotations

import base64
import io
import json
import struct
import time
import uuid
import zlib

import pytest
import urllib3
from PIL import Image


@pytest.fixture
def shop() -> str:
    """A catalogue of the test's own."""
    return f"shop-{uuid.uuid4().hex[:8]}"


def put(cloud, key: str, body: bytes, **metadata: str) -> None:
    cloud.s3().put_object(
        Bucket="lookalike-images",
        Key=key,
        Body=body,
        ContentType="image/jpeg",
        Metadata={name: str(value) for name, value in metadata.items()},
    )


def found(cloud, shop: str, photo: bytes, **options) -> list[str]:
    query = "&".join([f"catalogue={shop}", *(f"{k}={v}" for k, v in options.items())])
    status, answer = cloud.request(
        "POST", f"/search?{query}", body=photo, headers={"Content-Type": "image/jpeg"}
    )
    return [item["product_id"] for item in answer["results"]] if status == 200 else []


def generation(cloud, shop: str, photo: bytes) -> str:
    status, answer = cloud.request(
        "POST", f"/search?catalogue={shop}", body=photo, headers={"Content-Type": "image/jpeg"}
    )
    assert status == 200, answer
    return str(answer["generation"])


def failures(cloud, shop: str) -> dict[str, str]:
    _, page = cloud.request("GET", f"/products?catalogue={shop}&status=failed")
    return {item["key"]: item["reason"] for item in page["failures"]}


def bomb(side: int) -> bytes:
    """A PNG of side × side pixels in a few kilobytes."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1 + side // 8) * 64)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def test_a_photo_is_searchable_within_two_seconds_of_its_upload(cloud, eventually, shop, photo):
    put(cloud, f"{shop}/first.jpg", photo(0))
    eventually(lambda: found(cloud, shop, photo(0)) == ["first"])
    begun = time.monotonic()
    put(cloud, f"{shop}/boot/front.jpg", photo(1), category="shoes", price="49.90")
    results = eventually(
        lambda: [
            item
            for item in cloud.search(photo(1), f"catalogue={shop}")
            if item["product_id"] == "boot"
        ]
    )
    assert time.monotonic() - begun < 2
    assert results[0]["rank"] == 1 and results[0]["score"] > 0.999
    assert results[0]["category"] == "shoes" and results[0]["attributes"]["price"] == 49.9
    image = urllib3.request("GET", results[0]["image_url"], retries=False)
    assert (image.status, image.data) == (200, photo(1))
    assert image.headers["Content-Type"] == "image/jpeg"
    thumbnail = urllib3.request("GET", results[0]["thumbnail_url"], retries=False)
    assert Image.open(io.BytesIO(thumbnail.data)).format == "WEBP"


def test_overwriting_and_deleting_follow_within_two_seconds(cloud, eventually, shop, photo):
    put(cloud, f"{shop}/a.jpg", photo(0))
    put(cloud, f"{shop}/b.jpg", photo(1))
    eventually(lambda: sorted(found(cloud, shop, photo(0))) == ["a", "b"])
    begun = time.monotonic()
    put(cloud, f"{shop}/a.jpg", photo(5))
    eventually(lambda: cloud.search(photo(5), f"catalogue={shop}")[0]["score"] > 0.999)
    assert cloud.search(photo(0), f"catalogue={shop}")[0]["score"] < 0.99
    assert time.monotonic() - begun < 2
    begun = time.monotonic()
    cloud.s3().delete_object(Bucket="lookalike-images", Key=f"{shop}/b.jpg")
    eventually(lambda: found(cloud, shop, photo(1)) == ["a"])
    assert time.monotonic() - begun < 2


def test_every_way_to_ask(cloud, eventually, shop, photo):
    for seed in range(4):
        put(cloud, f"{shop}/p{seed}.jpg", photo(seed), kind="odd" if seed % 2 else "even")
    eventually(lambda: len(found(cloud, shop, photo(0))) == 4)

    def post(**body) -> list[str]:
        status, answer = cloud.request(
            "POST",
            "/search",
            body=json.dumps({"catalogue": shop, **body}),
            headers={"Content-Type": "application/json"},
        )
        assert status == 200, answer
        return [item["product_id"] for item in answer["results"]]

    encoded = [base64.b64encode(photo(seed)).decode() for seed in range(2)]
    assert post(image=encoded[1])[0] == "p1"
    assert post(image=encoded, weights=[0.1, 1])[0] == "p1"
    assert post(image=encoded[0], crop=[0, 0, 1, 1], k=1) == ["p0"]
    assert sorted(post(product_id="p2")) == ["p0", "p1", "p3"]
    assert sorted(post(image=encoded[0], filter={"kind": "odd"})) == ["p1", "p3"]
    assert "p0" not in post(image=encoded[0], not_like=["p0"])
    assert post(image=encoded[0], min_score=0.999) == ["p0"]
    assert found(cloud, shop, photo(1), filter="kind=even", k=1) in (["p0"], ["p2"])
    status, answer = cloud.request(
        "POST",
        f"/search?catalogue={shop}",
        fields={"image": ("photo.jpg", photo(3), "image/jpeg"), "k": "1"},
    )
    assert status == 200 and answer["results"][0]["product_id"] == "p3"
    status, answer = cloud.request("GET", f"/products/p2/similar?catalogue={shop}&k=2")
    assert status == 200 and len(answer["results"]) == 2

    _, form = cloud.request("POST", "/uploads")
    fields = {**form["fields"], "file": ("photo.jpg", photo(2), "image/jpeg")}
    assert urllib3.request("POST", form["url"], fields=fields, retries=False).status == 204
    assert post(upload_key=form["upload_key"], k=1) == ["p2"]


def test_bad_objects_cost_one_failure_record_each(cloud, eventually, shop, photo):
    odd = f"{shop}/100% röd väska 👜/front side.jpg"
    put(cloud, odd, photo(0))
    put(cloud, f"{shop}/text.jpg", b"this is a text file")
    put(cloud, f"{shop}/cut.jpg", photo(1, size=(600, 400))[:4000])
    put(cloud, f"{shop}/bomb.png", bomb(30_000))
    put(cloud, f"{shop}/empty.jpg", b"")
    put(cloud, f"{shop}/good.jpg", photo(2))
    put(cloud, f"{shop}/good/product.json", b'{"price": NaN}')
    expected = {
        f"{shop}/text.jpg": "not-an-image",
        f"{shop}/cut.jpg": "corrupt-image",
        f"{shop}/bomb.png": "too-many-pixels",
        f"{shop}/empty.jpg": "empty-file",
        f"{shop}/good/product.json": "bad-metadata",
    }
    eventually(lambda: failures(cloud, shop) == expected)
    eventually(lambda: sorted(found(cloud, shop, photo(0))) == ["100% röd väska 👜", "good"])
    assert found(cloud, shop, photo(0))[0] == "100% röd väska 👜"


@pytest.mark.parametrize(
    ("method", "path", "body", "kind", "status"),
    [
        ("POST", "/search?k=0", b"x", "image/jpeg", 422),
        ("POST", "/search?k=100000", b"x", "image/jpeg", 422),
        ("POST", "/search?k=ten", b"x", "image/jpeg", 422),
        ("POST", "/search", b"{broken", "application/json", 400),
        ("POST", "/search", b'{"image": "%%%"}', "application/json", 400),
        ("POST", "/search", b'{"nonsense": 1}', "application/json", 422),
        ("POST", "/search", b"hello", "text/plain", 415),
        ("POST", "/search", bytes(25_000_000), "image/jpeg", 413),
        ("POST", "/search?catalogue=nowhere", b"x", "image/jpeg", 404),
        ("POST", "/search", b"not an image", "image/jpeg", 415),
        ("GET", "/products/none", None, None, 404),
        ("GET", "/nothing/here", None, None, 404),
        ("PUT", "/search", b"", "image/jpeg", 405),
        ("GET", "/products?cursor=%00", None, None, 422),
    ],
)
def test_a_bad_request_costs_one_problem_document(
    cloud, eventually, photo, method, path, body, kind, status
):
    put(cloud, "always.jpg", photo(7))
    eventually(lambda: found(cloud, "default", photo(7)))
    headers = {"Content-Type": kind} if kind else {}
    found_status, answer = cloud.request(method, path, body=body, headers=headers)
    assert found_status == status, answer
    assert answer["status"] == status and answer["title"] and answer["detail"]
    assert cloud.request("GET", "/health")[0] == 200


def test_the_command_uploads_reports_and_searches(cloud, shop, photo, tmp_path):
    folder = tmp_path / "photos"
    (folder / "boot").mkdir(parents=True)
    for seed, name in enumerate(["mug.jpg", "boot/front.jpg", "boot/side.jpg"]):
        (folder / name).write_bytes(photo(seed))
    first = cloud.command("upload", str(folder), "--catalogue", shop, "--json")
    assert first.returncode == 0, first.stdout + first.stderr
    assert found(cloud, shop, photo(0))[0] == "mug"
    again = cloud.command("upload", str(folder), "--catalogue", shop, "--json")
    assert again.returncode == 0 and again.stdout != first.stdout
    (folder / "bad.jpg").write_bytes(b"not a photo")
    bad = cloud.command("upload", str(folder), "--catalogue", shop)
    assert bad.returncode == 1 and "bad.jpg" in bad.stdout + bad.stderr
    listed = cloud.command("failures", "list", "--catalogue", shop, "--json")
    assert "not-an-image" in listed.stdout
    answer = cloud.command("search", str(folder / "mug.jpg"), "--catalogue", shop, "--json")
    assert json.loads(answer.stdout)["results"][0]["product_id"] == "mug"
    status = cloud.command("status", "--json")
    assert shop in status.stdout
    swept = cloud.command("sweep", "--json")
    assert swept.returncode == 0, swept.stdout + swept.stderr


def test_a_generation_is_built_swapped_in_and_rolled_back(cloud, shop, photo, eventually):
    for seed in range(12):
        put(cloud, f"{shop}/p{seed}.jpg", photo(seed))
    eventually(lambda: len(found(cloud, shop, photo(0), k=20)) == 12)
    before = generation(cloud, shop, photo(0))
    built = cloud.command("reindex", "--catalogue", shop)
    assert built.returncode == 0, built.stdout + built.stderr
    after = generation(cloud, shop, photo(0))
    assert after != before
    put(cloud, f"{shop}/late.jpg", photo(99))
    eventually(lambda: found(cloud, shop, photo(99), k=1) == ["late"])
    assert [found(cloud, shop, photo(seed), k=1) for seed in range(12)] == [
        [f"p{seed}"] for seed in range(12)
    ]
    compacted = cloud.command("compact", "--catalogue", shop, "--json")
    assert compacted.returncode == 0, compacted.stdout + compacted.stderr
    status = json.loads(cloud.command("status", "--json").stdout)
    assert shop in str(status) and after in str(status)
    back = cloud.command("reindex", "--catalogue", shop, "--rollback")
    assert back.returncode == 0, back.stdout + back.stderr
    eventually(lambda: generation(cloud, shop, photo(0)) == before)
    assert found(cloud, shop, photo(99), k=1) == ["late"]


def test_a_deleted_product_is_gone_at_once(cloud, eventually, shop, photo):
    put(cloud, f"{shop}/a b.jpg", photo(0))
    put(cloud, f"{shop}/c.jpg", photo(1))
    eventually(lambda: len(found(cloud, shop, photo(0))) == 2)
    status, _ = cloud.request("DELETE", f"/products/a%20b?catalogue={shop}")
    assert status == 204
    assert found(cloud, shop, photo(0)) == ["c"]
    listing = cloud.s3().list_objects_v2(Bucket="lookalike-images", Prefix=f"{shop}/")
    assert [item["Key"] for item in listing["Contents"]] == [f"{shop}/c.jpg"]


def test_it_describes_itself(cloud):
    status, document = cloud.request("GET", "/openapi.json")
    assert status == 200 and "/search" in document["paths"]
    status, page = cloud.request("GET", "/docs", headers={"Accept": "text/html"})
    assert status == 200 and b"<html" in page.lower()
