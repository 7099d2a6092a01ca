"""Searches on an index with bases, heads and generations, wired as the functions wire it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pytest

from lookalike.core.errors import NotFound, Vanished
from lookalike.core.filters import parse_filter
from lookalike.core.keys import base_key
from lookalike.core.ports import Stores
from lookalike.services.query_embedding import Stopwatch
from lookalike.services.search_request import QueryInput, SearchRequest
from lookalike.settings import Settings
from lookalike.wiring import Services, build_services

ENCODER = "efficientnet-lite0"
FOREVER = float("inf")


@dataclass
class Clock:
    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@dataclass
class Shop:
    """Two days of a shop: uploads, compactions and builds, with a clock that is moved by hand."""

    stores: Stores
    make: Callable[[], Services]
    clock: Clock

    def __post_init__(self) -> None:
        self.writer = self.make()

    def upload(self, photos: dict[str, bytes], **metadata: str) -> None:
        for name, body in photos.items():
            self.stores.images.put_object(f"shop/{name}.jpg", body, "image/jpeg", metadata)
        assert self.writer.ingest.reconcile([f"shop/{name}.jpg" for name in photos]) == {}

    def compact(self) -> None:
        """Settle, compact, and delete at once what was swapped out."""
        for _ in range(3):
            self.clock.now += 2_000
            assert self.writer.compaction.run(FOREVER).finished

    def reindex(self) -> None:
        """Build a new generation and swap it in."""
        before = self.stores.lineages.get("shop").current
        self.writer.reindex.begin("shop")
        for _ in range(20):
            self.clock.now += 200
            self.writer.reindex.run(FOREVER, "shop")
            if self.stores.lineages.get("shop").current != before:
                return
        raise AssertionError(self.stores.lineages.get("shop"))

    @property
    def bases(self) -> list[str]:
        scope = self.stores.lineages.get("shop").current.scope
        shards = self.stores.registry.read(scope)[1].shards
        return [base_key("shop", shard.base.digest) for shard in shards if shard.base]


@pytest.fixture
def shop(memory_stores, ids, toy_encoder_of, tmp_path) -> Shop:
    clock = Clock()
    folders = iter(range(100))

    def make() -> Services:
        """A process of its own, with a cache of its own."""
        settings = Settings(
            encoder=ENCODER,
            refresh_s=0.5,
            merge_segments=2,
            base_rows=8,
            flat_rows=16,
            shard_rows=30,
            head_rows=20,
            head_dim=12,
            cache_dir=str(Path(tmp_path) / str(next(folders))),
        )
        return build_services(settings, memory_stores, ids, clock, toy_encoder_of)

    return Shop(memory_stores, make, clock)


def search(services: Services, *inputs: QueryInput, **options) -> list[str]:
    request = SearchRequest("shop", inputs, **options)
    return [result.product_id for result in services.query.search(request).results]


def like(photo: bytes) -> QueryInput:
    return QueryInput(image=photo)


def embedding_of(services: Services, photo: bytes):
    lineage = services.stores.lineages.get("shop")
    index: Future = Future()
    index.set_result(services.query._live_index.get(lineage.current))
    request = SearchRequest("shop", (like(photo),))
    return services.query._embedder.embed(request, lineage.current, index, Stopwatch())


def names(count: int) -> list[str]:
    return [f"p{number:02d}" for number in range(count)]


def test_a_base_and_what_came_since_answer_together(shop, photo):
    photos = {name: photo(seed) for seed, name in enumerate(names(60))}
    reader = shop.make()
    shop.upload(photos, kind="old")
    assert sorted(search(reader, like(photos["p00"]), k=100)) == names(60)
    shop.compact()
    assert shop.bases
    shop.upload({"new": photo(100)}, kind="new")
    shop.clock.now += 1
    for services in (reader, shop.make()):
        for name in ("p03", "p59"):
            assert search(services, like(photos[name]), k=1) == [name]
            assert search(services, like(photos[name]), k=1, exact=True) == [name]
        assert search(services, like(photo(100)), k=1) == ["new"]
        assert sorted(search(services, like(photos["p00"]), k=100)) == sorted([*names(60), "new"])
        only_new = parse_filter({"kind": "new"})
        assert search(services, like(photos["p00"]), k=5, filter=only_new) == ["new"]
        only_old = parse_filter({"kind": "old"})
        assert sorted(search(services, like(photos["p00"]), k=100, filter=only_old)) == names(60)
        found = search(services, QueryInput(product_id="p07"), k=100)
        assert sorted(found) == sorted([*names(7), *names(60)[8:], "new"])


def test_overwritten_and_deleted_rows_of_a_base_do_not_count(shop, photo):
    shop.upload({name: photo(seed) for seed, name in enumerate(names(20))})
    shop.compact()
    reader = shop.make()
    shop.upload({"p05": photo(200)})
    shop.writer.catalogue.delete("shop", "p06")
    shop.clock.now += 1
    found = search(reader, like(photo(5)), k=100)
    assert sorted(found) == sorted(set(names(20)) - {"p06"})
    assert search(reader, like(photo(200)), k=1) == ["p05"]
    assert search(reader, like(photo(6)), k=1) != ["p06"]
    with pytest.raises(NotFound):
        search(reader, QueryInput(product_id="p06"))


def test_candidates_are_drawn_on_while_the_nearest_are_dead(shop, photo):
    """One product's photo was replaced forty times by nearly the same one."""
    shop.upload({name: photo(seed) for seed, name in enumerate(names(5))})
    for width in range(96, 136):
        shop.upload({"p00": photo(0, size=(width, 128))})
    reader = shop.make()
    asked = like(photo(0))
    query = embedding_of(reader, photo(0))
    drawn_first = query.index.search(query.embedding, 2 * 3 + 8)
    assert {item.key for item in drawn_first} == {"shop/p00.jpg"}
    assert search(reader, asked, k=3)[0] == "p00"
    assert sorted(search(reader, asked, k=5)) == names(5)
    shop.compact()
    shop.clock.now += 1
    assert sorted(search(reader, asked, k=5)) == names(5)


def test_a_head_and_shards_come_in_with_a_swap(shop, photo):
    photos = {name: photo(seed) for seed, name in enumerate(names(80))}
    shop.upload(photos)
    reader = shop.make()
    assert search(reader, like(photos["p10"]), k=1) == ["p10"]
    shop.reindex()
    shop.clock.now += 1
    index = reader.query._live_index.get(shop.stores.lineages.get("shop").current)
    assert (index.head.dim_in, index.head.dim_out) == (24, 12)
    assert len(index.shards) > 1
    for services in (reader, shop.make()):
        for name in ("p10", "p44", "p79"):
            response = services.query.search(SearchRequest("shop", (like(photos[name]),), k=1))
            assert response.results[0].product_id == name
            assert response.results[0].score == pytest.approx(1, abs=0.02)
            assert response.generation == shop.stores.lineages.get("shop").current.generation
        assert sorted(search(services, like(photos["p00"]), k=100)) == names(80)
        assert len(search(services, QueryInput(product_id="p07"), k=100)) == 79
        mixed = (QueryInput(product_id="p07", weight=0.01), like(photos["p20"]))
        assert search(services, *mixed, k=1) == ["p20"]
        away = search(services, like(photos["p20"]), k=1, not_like=("p20",))
        assert len(away) == 1 and away != ["p20"]
    assert len(reader.query._live_index._loaded) == 1


def test_a_base_that_goes_while_it_is_searched_is_followed_to_the_next(
    shop, photo, monkeypatch, caplog
):
    """A cold process has read the registry; then the base is rebuilt and its file deleted."""
    photos = {name: photo(seed) for seed, name in enumerate(names(30))}
    shop.upload(photos)
    shop.compact()
    reader, old = shop.make(), shop.bases
    assert search(reader, QueryInput(product_id="p01"), k=1)  # what is read of it is a part

    cold = shop.make()
    index = cold.query._live_index
    original, swapped = index.get, []

    def get(generation, **options):
        answer = original(generation, **options)
        if not swapped:
            swapped.append(True)
            shop.upload({f"n{seed:02d}": photo(500 + seed) for seed in range(30)})
            shop.compact()
            assert not set(old) & set(shop.bases)
            assert shop.stores.index.head(old[0]) is None
        return answer

    monkeypatch.setattr(index, "get", get)
    assert search(cold, like(photos["p04"]), k=1) == ["p04"]
    assert swapped and "searching again" in caplog.text
    assert search(cold, like(photo(529)), k=1) == ["n29"]


@pytest.mark.parametrize("harm", ["gone", "altered"])
def test_rows_of_a_lost_base_are_searched_raw(shop, photo, caplog, harm):
    shop.upload({name: photo(seed) for seed, name in enumerate(names(20))})
    shop.compact()
    (base,) = shop.bases
    reader = shop.make()
    current = shop.stores.lineages.get("shop").current
    reader.query._live_index.get(current)  # its head has been read, and nothing else
    if harm == "gone":
        shop.stores.index.delete(base)
    else:
        body = bytearray(shop.stores.index.get(base, 10**7)[1])
        for place in range(len(body) - 2_000, len(body)):
            body[place] ^= 255
        shop.stores.index.put_object(base, bytes(body))
    shop.upload({"new": photo(100)})
    shop.clock.now += 1
    assert search(reader, like(photo(3)), k=21)[0] == "p03"
    assert sorted(search(reader, like(photo(3)), k=21)) == ["new", *names(20)]
    assert base in caplog.text
    assert "p03" not in search(reader, QueryInput(product_id="p03"), k=5)


def test_a_search_is_answered_beside_a_swap_and_a_drop(shop, photo, caplog):
    """A reader that knows the generation from a moment ago finds it gone, and looks again."""
    shop.upload({name: photo(seed) for seed, name in enumerate(names(30))})
    shop.compact()
    warm, cold = shop.make(), shop.make()
    old = shop.stores.lineages.get("shop").current
    for services in (warm, cold):
        assert services.query.generation("shop") == old
    assert search(warm, like(photo(3)), k=1) == ["p03"]
    shop.reindex()
    shop.writer.reindex.drop("shop")
    for _ in range(20):
        shop.clock.now += 2_000
        shop.writer.reindex.run(FOREVER, "shop")
    assert shop.stores.registry.read(old.scope)[1].revision is None
    at = shop.clock.now
    for services in (warm, cold):
        # As if no time had passed since they asked.
        services.query._generations["shop"] = (old, at + 10)
        assert search(services, like(photo(3)), k=1) == ["p03"]
        assert "searching again" in caplog.text
        caplog.clear()


def test_what_has_gone_for_good_is_said_so(shop, photo, monkeypatch):
    shop.upload({"a": photo(0)})

    def get(generation, **options):
        raise Vanished("heads/shop/x.head is not in the bucket")

    monkeypatch.setattr(shop.writer.query._live_index, "get", get)
    with pytest.raises(Vanished, match=r"heads/shop/x\.head"):
        search(shop.writer, like(photo(0)))
