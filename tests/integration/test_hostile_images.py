"""The corpus of hostile files goes through ingestion and search under the settings' own limits."""

from __future__ import annotations

import io
import math
import os
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostile_images import (
    OK,
    SLOW,
    Hostile,
    encode,
    hostile_images,
    noise,
    profile_bomb,
    small_images,
)
from lookalike.adapters.memory_bound import MemoryBound
from lookalike.core.errors import Unindexable
from lookalike.core.images import ImageLimits, decode
from lookalike.http.problems import problem_of
from lookalike.services.search_request import MAX_INPUTS, QueryInput, SearchRequest
from lookalike.settings import Settings
from lookalike.wiring import Services, build_services

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "150"))
MAX_S = 0.1
SETTINGS = Settings(
    max_image_bytes=600_000,
    max_image_pixels=500_000,
    max_decode_s=MAX_S,
    max_decode_bytes=100_000_000,
)
LIMITS = ImageLimits(
    SETTINGS.max_image_bytes,
    SETTINGS.max_image_pixels,
    SETTINGS.max_decode_s,
    time.thread_time,
    MemoryBound(SETTINGS.max_decode_bytes),
)
SEEDS = tuple(small_images().values())


@pytest.fixture(scope="module")
def corpus() -> list[Hostile]:
    return list(hostile_images(SETTINGS.max_image_pixels, SETTINGS.max_image_bytes))


@pytest.fixture
def services(memory_stores, toy_encoder_of, clock, ids) -> Services:
    return build_services(SETTINGS, memory_stores, ids, clock, toy_encoder_of)


def test_each_hostile_file_ends_as_one_failure_or_is_searchable(services, corpus, photo) -> None:
    stores = services.stores
    files = {f"shop/{number}.jpg": item for number, item in enumerate(corpus)}
    for key, item in files.items():
        stores.images.put_object(key, item.body, "image/jpeg")
    stores.images.put_object("shop/good.jpg", photo(), "image/jpeg")

    began = time.thread_time()
    assert services.ingest.reconcile([*files, "shop/good.jpg"]) == {}
    took = time.thread_time() - began

    failures = stores.failures.get_many(list(files))
    products, _ = stores.products.page("shop", 1000)
    live = {key for product in products for key in product.views}
    ends = {key: failures[key].reason if key in failures else OK for key in files}
    wrong = {files[key].name: end for key, end in ends.items() if end not in files[key].ends}
    assert not wrong
    assert live == {key for key, end in ends.items() if end == OK} | {"shop/good.jpg"}
    assert len(files) > 240
    # Those that are slow end when their time is over, and there are a few.
    slow = sum(end == SLOW for end in ends.values())
    assert slow >= 4
    assert took < 2 * MAX_S * slow + 0.03 * len(files), f"{took:.1f} s"


def test_a_hostile_query_is_one_4xx(services, corpus, photo) -> None:
    services.stores.images.put_object("shop/good.jpg", photo(), "image/jpeg")
    services.ingest.reconcile(["shop/good.jpg"])
    one_of_each = {item.ends: item for item in corpus if OK not in item.ends}
    assert len(one_of_each) >= 5
    for item in one_of_each.values():
        request = SearchRequest(catalogue="shop", inputs=(QueryInput(image=item.body or b"\0"),))
        with pytest.raises(Unindexable) as caught:
            services.query.search(request)
        assert 400 <= problem_of(caught.value, "").status < 500, item.name


def test_the_images_of_a_search_share_the_time(services, corpus, photo) -> None:
    services.stores.images.put_object("shop/good.jpg", photo(), "image/jpeg")
    services.ingest.reconcile(["shop/good.jpg"])
    large = photo(size=(700, 700), kind="PNG")  # some 10 ms each
    inputs = (QueryInput(image=large),) * MAX_INPUTS
    with pytest.raises(Unindexable) as caught:
        services.query.search(SearchRequest(catalogue="shop", inputs=inputs))
    assert caught.value.reason == SLOW
    shared = LIMITS.shared()
    while time.thread_time() <= shared.deadline:
        math.factorial(500)
    with pytest.raises(Unindexable) as caught:
        decode(photo(), shared)
    assert caught.value.reason == SLOW
    assert decode(photo(), LIMITS).format == "JPEG"


def test_a_profile_of_very_many_stages_is_not_applied() -> None:
    image = noise(32, 32)
    body = encode(image, "WEBP", lossless=True, icc_profile=profile_bomb(6_000))
    began = time.thread_time()

    assert decode(body, LIMITS).image.tobytes() == image.tobytes()

    assert time.thread_time() - began < 1


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.data())
def test_mutations_of_files_are_read_or_refused(data: st.DataObject) -> None:
    body = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(body)))
        size = data.draw(st.integers(0, 64))
        kind = data.draw(st.sampled_from(("cut", "repeat", "insert", "largest", "donor")))
        if kind == "cut":
            del body[at : at + size]
        elif kind == "repeat":
            body[at:at] = body[at : at + size] * data.draw(st.integers(1, 300))
        elif kind == "insert":
            body[at:at] = data.draw(st.binary(max_size=64))
        elif kind == "largest":
            body[at : at + 4] = data.draw(st.sampled_from((b"\xff" * 4, b"\0" * 4, b"\x7f\xff")))
        else:
            donor = data.draw(st.sampled_from(SEEDS))
            body[at : at + size] = donor[at : at + size]
    began = time.thread_time()
    try:
        image: Any = decode(bytes(body), LIMITS, min_side=64).image
    except Unindexable as error:
        assert error.detail.endswith(".")
    else:
        assert image.mode == "RGB"
        image.save(io.BytesIO(), "PNG")
    assert time.thread_time() - began < 4 * MAX_S
