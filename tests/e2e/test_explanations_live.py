"""Explanations from outside: upload, search, follow the URLs, look at the bytes."""

from __future__ import annotations

import io
import json
import urllib.request
import uuid

import numpy as np
import pytest
import urllib3
from PIL import Image


@pytest.fixture
def shop() -> str:
    """A catalogue of the test's own."""
    return f"shop-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def put(cloud, shop):
    def put(name: str, body: bytes) -> None:
        cloud.s3().put_object(Bucket="lookalike-images", Key=f"{shop}/{name}.jpg", Body=body)

    return put


@pytest.fixture
def searched(cloud, shop, eventually):
    """Search until so many products are found; gives the whole answer."""

    def searched(photo: bytes, count: int):
        def answer():
            status, found = cloud.request(
                "POST",
                f"/search?catalogue={shop}",
                body=photo,
                headers={"Content-Type": "image/jpeg"},
            )
            return found if status == 200 and len(found["results"]) == count else None

        return eventually(answer)

    return searched


def get(url: str, **headers: str) -> urllib3.BaseHTTPResponse:
    return urllib3.request("GET", url, headers=headers, timeout=30, retries=False)


def test_a_match_is_explained_in_numbers_and_pictures(put, searched, photo):
    put("röd väska 1", photo(0, size=(640, 480)))
    put("other", photo(1))
    found = searched(photo(5, size=(500, 700)), 2)
    for result in found["results"]:
        first, again = get(result["explanation_url"]), get(result["explanation_url"])
        assert [item.headers["X-Cache"] for item in (first, again)] == ["miss", "hit"]
        assert first.data == again.data
        answer = first.json()
        assert answer["score"] == pytest.approx(result["score"], abs=2e-6)
        for side in ("query", "result"):
            total = np.sum(answer[side]["contributions"])
            assert total == pytest.approx(answer["score"], abs=1e-5)
        sizes = {"query": (500, 700), "result": None, "pair": None}
        if result["product_id"] == "röd väska 1":
            sizes["result"] = (640, 480)
        for of, size in sizes.items():
            url = answer["overlays"][of]
            for address, kind in ((url, "PNG"), (url.replace(".png", ".webp"), "WEBP")):
                # A browser's <img>, curl, and a client that names no type at all.
                browser = get(address, Accept="image/avif,image/webp,*/*;q=0.8")
                assert browser.status == 200, browser.data[:300]
                image = Image.open(io.BytesIO(browser.data))
                image.load()
                assert image.format == kind
                assert browser.headers["Content-Type"] == f"image/{kind.lower()}"
                assert size is None or image.size == size
                assert get(address, Accept="*/*").data == browser.data
                bare = urllib.request.Request(address)
                with urllib.request.urlopen(bare, timeout=30) as opened:
                    assert opened.read() == browser.data
                    assert opened.headers["X-Cache"] == "hit"


def test_a_picture_too_large_for_an_answer_is_followed_to_the_bucket(put, searched):
    noise = np.random.default_rng(0).integers(0, 255, (1_300, 1_300, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise).save(stream, "JPEG", quality=90)
    put("noise", stream.getvalue())
    found = searched(stream.getvalue(), 1)
    url = f"{found['results'][0]['explanation_url']}/result.png"
    answer = urllib3.request("GET", url, timeout=30, retries=False, redirect=False)
    assert answer.status == 303 and answer.headers["X-Cache"] == "miss"
    followed = urllib3.request("GET", url, timeout=30)
    assert Image.open(io.BytesIO(followed.data)).size == (1_300, 1_300)


def test_overwritten_and_deleted_products(cloud, shop, put, searched, photo, eventually):
    put("a", photo(0))
    put("b", photo(1))
    found = searched(photo(0), 2)
    urls = {item["product_id"]: item["explanation_url"] for item in found["results"]}
    before = get(urls["a"]).json()
    assert before["score"] > 0.999 and not before["changed_since"]
    put("a", photo(5, size=(200, 100)))
    after = eventually(lambda: (now := get(urls["a"]).json())["changed_since"] and now)
    assert after["score"] < before["score"]
    assert Image.open(io.BytesIO(get(urls["a"] + "/result.png").data)).size == (200, 100)
    assert cloud.request("DELETE", f"/products/b?catalogue={shop}")[0] == 204
    for url in (urls["b"], urls["b"] + "/pair.png"):
        gone = get(url)
        assert gone.status == 410 and gone.headers["Content-Type"] == "application/problem+json"


def test_a_body_that_is_not_utf8_is_the_clients_mistake(cloud):
    for body in (b'{"image": "\xff\xfe"}', b"\xff"):
        status, problem = cloud.request(
            "POST", "/search", body=body, headers={"Content-Type": "application/json"}
        )
        assert status == 400, problem
        assert problem["type"] == "urn:lookalike:problem:malformed-body"


def test_pages_may_read_it(cloud):
    answer = urllib3.request("OPTIONS", f"{cloud.api}/explanations/a/b/pair.png", retries=False)
    assert answer.status == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert "GET" in answer.headers["Access-Control-Allow-Methods"]
    assert "X-Cache" in answer.headers["Access-Control-Expose-Headers"]


def test_what_is_not_there(cloud, put, searched, photo):
    put("a", photo(0))
    url = searched(photo(0), 1)["results"][0]["explanation_url"]
    paths = {
        "/explanations/nonsense/a": 404,
        "/explanations/01ARZ3NDEKTSV4RRFFQ69G5FAV/a": 410,
        "/explanations/a/b/c/d": 404,
    }
    for path, status in paths.items():
        assert cloud.request("GET", path)[0] == status
    tails = {"x": 404, "/query.gif": 404, "/pair.png?part=3": 422, "/pair.png?map=x": 422}
    for tail, status in tails.items():
        answer = get(url + tail)
        assert answer.status == status, answer.data
        assert json.loads(answer.data)["detail"]
