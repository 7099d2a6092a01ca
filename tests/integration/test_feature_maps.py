"""Feature maps of views: stored by ingestion and by a new generation, read, made again."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from lookalike.core.errors import Gone
from lookalike.core.images import ImageLimits
from lookalike.core.keys import map_key
from lookalike.core.types import Generation
from lookalike.services.bring_over import PhotoReader
from lookalike.services.feature_maps import FeatureMaps, stored_embedding, stored_map
from lookalike.services.ingest import Ingest
from lookalike.services.observe import Observer

SPACE, OTHER = "efficientnet-lite0-border-v1", "efficientnet-lite1-gap-v1"
LIMITS = ImageLimits(10**6, 10**7)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


@pytest.fixture
def observer(memory_stores) -> Observer:
    return Observer(memory_stores.images, LIMITS, 65_536)


@pytest.fixture
def upload(memory_stores, observer, toy_encoder_of, pool, clock):
    """Put photos into the bucket and index them; gives their ETags."""
    ingest = Ingest(memory_stores, observer, toy_encoder_of, SPACE, pool, clock)

    def put(files: dict[str, bytes]) -> list[str]:
        for key, body in files.items():
            memory_stores.images.put_object(key, body, "image/jpeg")
        assert ingest.reconcile(list(files)) == {}
        return [memory_stores.images.head(key).etag for key in files]

    return put


@pytest.fixture
def feature_maps(memory_stores, toy_encoder_of, pool) -> FeatureMaps:
    return FeatureMaps(memory_stores.images, memory_stores.index, toy_encoder_of, LIMITS, pool)


def read(feature_maps: FeatureMaps, space: str, key: str, etag: str) -> np.ndarray:
    (maps,) = feature_maps.read_many(space, [(key, etag)])
    return maps


def names(stores, folder: str = "maps/") -> list[str]:
    return [info.key for info in stores.index.list(folder)]


def close(maps: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether they differ by no more than the codes of maps with a sign do."""
    return maps.shape == wanted.shape and np.abs(maps - wanted).max() < np.abs(wanted).max() / 100


def encoded(encoder_of, space: str, body: bytes):
    return encoder_of(space).embed([Image.open(io.BytesIO(body)).convert("RGB")])


def test_ingestion_stores_the_map_of_each_photo_before_its_record(
    memory_stores, upload, feature_maps, toy_encoder_of, photo
):
    there = []
    put = memory_stores.products.put
    memory_stores.products.put = lambda product: there.append(names(memory_stores)) or put(product)
    bodies = {"shop/a.jpg": photo(1), "shop/b/x.jpg": photo(2)}
    etags = upload(bodies)
    expected = sorted(map_key(SPACE, *item) for item in zip(bodies, etags, strict=True))
    assert names(memory_stores) == expected and there == [expected, expected]
    count = toy_encoder_of(SPACE).encoded
    for (key, body), etag in zip(bodies.items(), etags, strict=True):
        maps = read(feature_maps, SPACE, key, etag)
        assert toy_encoder_of(SPACE).encoded == count
        wanted = encoded(toy_encoder_of, SPACE, body)
        count += 1
        assert close(maps, wanted.maps[0])
        embedding = stored_embedding(memory_stores.index, SPACE, key, etag)
        assert float(embedding @ wanted.embeddings[0]) > 0.999


def test_an_overwritten_photo_has_a_map_of_its_own(memory_stores, upload, feature_maps, photo):
    (first,) = upload({"shop/a.jpg": photo(1)})
    old = read(feature_maps, SPACE, "shop/a.jpg", first)
    (second,) = upload({"shop/a.jpg": photo(2)})
    assert not close(read(feature_maps, SPACE, "shop/a.jpg", second), old)
    assert np.array_equal(read(feature_maps, SPACE, "shop/a.jpg", first), old)


@pytest.mark.parametrize("damage", ["missing", "cut", "of another kind", "huge"])
def test_a_map_that_cannot_be_read_is_made_again_and_stored(
    memory_stores, upload, feature_maps, toy_encoder_of, photo, caplog, damage
):
    (etag,) = upload({"shop/a.jpg": photo(1)})
    name = map_key(SPACE, "shop/a.jpg", etag)
    whole = memory_stores.index.get(name, 10**6)[1]
    if damage == "missing":
        memory_stores.index.delete(name)
    else:
        damaged = {"cut": whole[:-3], "of another kind": photo(1), "huge": bytes(5 * 2**20)}
        memory_stores.index.put_object(name, damaged[damage])
    count = toy_encoder_of(SPACE).encoded
    maps = read(feature_maps, SPACE, "shop/a.jpg", etag)
    assert toy_encoder_of(SPACE).encoded == count + 1
    assert memory_stores.index.get(name, 10**6)[1] == whole
    assert ("shop/a.jpg" in caplog.text) == (damage != "missing")
    assert np.array_equal(read(feature_maps, SPACE, "shop/a.jpg", etag), maps)
    assert toy_encoder_of(SPACE).encoded == count + 1


def test_a_map_of_a_space_that_the_photo_was_never_encoded_in_is_made(
    upload, feature_maps, toy_encoder_of, photo
):
    (etag,) = upload({"shop/a.jpg": photo(1)})
    maps = read(feature_maps, OTHER, "shop/a.jpg", etag)
    assert close(maps, encoded(toy_encoder_of, OTHER, photo(1)).maps[0])


def test_the_map_of_a_photo_that_has_left_cannot_be_made(
    memory_stores, upload, feature_maps, photo
):
    (etag,) = upload({"shop/a.jpg": photo(1)})
    memory_stores.index.delete(map_key(SPACE, "shop/a.jpg", etag))
    memory_stores.images.put_object("shop/a.jpg", photo(2))
    with pytest.raises(Gone, match=r"shop/a\.jpg.*overwritten"):
        read(feature_maps, SPACE, "shop/a.jpg", etag)
    memory_stores.images.delete("shop/a.jpg")
    with pytest.raises(Gone, match=r"shop/a\.jpg.*deleted"):
        read(feature_maps, SPACE, "shop/a.jpg", etag)
    assert names(memory_stores) == []


@pytest.mark.parametrize("limits", [ImageLimits(100, 10**7), ImageLimits(10**6, 100)])
def test_a_photo_over_a_limit_that_was_lowered_since_is_not_read(
    memory_stores, upload, toy_encoder_of, pool, photo, limits
):
    (etag,) = upload({"shop/a.jpg": photo(1)})
    memory_stores.index.delete(map_key(SPACE, "shop/a.jpg", etag))
    feature_maps = FeatureMaps(
        memory_stores.images, memory_stores.index, toy_encoder_of, limits, pool
    )
    with pytest.raises(Gone, match="at most"):
        read(feature_maps, SPACE, "shop/a.jpg", etag)


def test_several_maps_are_read_side_by_side_and_each_once(
    memory_stores, upload, feature_maps, photo, monkeypatch
):
    keys = ["shop/a.jpg", "shop/b.jpg", "shop/c.jpg"]
    etags = upload({key: photo(number) for number, key in enumerate(keys)})
    wanted = list(zip(keys, etags, strict=True))
    expected = [stored_map(memory_stores.index, SPACE, *item) for item in wanted]
    memory_stores.index.delete(map_key(SPACE, *wanted[1]))
    get, all_reading, reads = memory_stores.index.get, threading.Barrier(3, timeout=10), []

    def get_with_the_others(name: str, max_bytes: int):
        reads.append(name)
        all_reading.wait()
        return get(name, max_bytes)

    monkeypatch.setattr(memory_stores.index, "get", get_with_the_others)
    found = feature_maps.read_many(SPACE, [*reversed(wanted), wanted[2]])
    assert len(found) == 4 and len(reads) == 3
    for maps, known in zip(found, [*reversed(expected), expected[2]], strict=True):
        assert np.array_equal(maps, known)
    assert feature_maps.read_many(SPACE, []) == []


def test_filling_another_space_stores_its_maps(
    memory_stores, upload, observer, toy_encoder_of, pool, clock, photo
):
    bodies = {"shop/a.jpg": photo(1), "shop/b.jpg": photo(2)}
    etags = upload(bodies)
    reader = PhotoReader(memory_stores, observer, toy_encoder_of, pool, clock)
    products, _ = memory_stores.products.page("shop", 10)
    brought = reader.bring(Generation("shop", "g2", OTHER), products, lambda view: True)
    assert brought.appended == 2
    for (key, body), etag in zip(bodies.items(), etags, strict=True):
        maps = stored_map(memory_stores.index, OTHER, key, etag)
        assert maps is not None and close(maps, encoded(toy_encoder_of, OTHER, body).maps[0])
