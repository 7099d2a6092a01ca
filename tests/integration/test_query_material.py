"""What searches leave behind, and searches with parts of earlier ones, on stores in memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from ulid import ULID

from lookalike.adapters.failing import FailingStores, Fault
from lookalike.core.encoders import encoder_record
from lookalike.core.errors import Gone, InvalidRequest, NotFound, Unavailable, Vanished
from lookalike.core.feature_map import decode_map, encode_map
from lookalike.core.geometry import seen_square
from lookalike.core.keys import map_key, query_key
from lookalike.core.material import QueryMaterial, fingerprint
from lookalike.core.pooling import pool
from lookalike.core.ports import Stores
from lookalike.services import query_embedding, query_material
from lookalike.services.query import SearchResponse
from lookalike.services.query_material import QueryMaterials
from lookalike.services.search_request import QueryInput, SearchRequest
from lookalike.settings import Settings
from lookalike.wiring import Services, build_services

ENCODER = "efficientnet-lite0"
SPACE = f"{ENCODER}-border-v1"
SIDE = encoder_record(ENCODER).map_side
DAY = 86_400.0
ALL = tuple((row, column) for row in range(SIDE) for column in range(SIDE))


@dataclass
class Clock:
    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Shop:
    stores: Stores
    clock: Clock
    build: Callable[..., Services]
    encoder_of: Callable[[str], object]

    def __post_init__(self) -> None:
        self.system = self.build(self.stores)

    def upload(self, photos: dict[str, bytes], catalogue: str = "shop") -> None:
        keys = [f"{catalogue}/{name}.jpg" for name in photos]
        for key, body in zip(keys, photos.values(), strict=True):
            self.stores.images.put_object(key, body, "image/jpeg")
        assert self.system.ingest.reconcile(keys) == {}

    def search(self, *inputs: QueryInput, catalogue: str = "shop", **options) -> SearchResponse:
        return self.system.query.search(SearchRequest(catalogue, inputs, **options))

    def material(self, response: SearchResponse) -> QueryMaterial:
        return self.system.query._materials.read(response.query_id)

    @property
    def encoded(self) -> int:
        return self.encoder_of(SPACE).encoded

    @property
    def kept(self) -> list[str]:
        return [item.key for item in self.stores.index.list("queries/")]


@pytest.fixture
def shop(memory_stores, toy_encoder_of, tmp_path) -> Shop:
    clock, folders = Clock(), iter(range(100))

    def build(stores: Stores, **options) -> Services:
        settings = Settings(
            encoder=ENCODER,
            refresh_s=0,
            base_rows=8,
            merge_segments=2,
            head_rows=options.pop("head_rows", 20),
            head_dim=12,
            cache_dir=str(Path(tmp_path) / str(next(folders))),
            **options,
        )

        def new_id() -> str:
            clock.now += 0.001
            return str(ULID.from_timestamp(clock.now))

        return build_services(settings, stores, new_id, clock, toy_encoder_of)

    return Shop(memory_stores, clock, build, toy_encoder_of)


@pytest.fixture
def stocked(shop, photo) -> Shop:
    shop.upload({f"p{seed}": photo(seed) for seed in range(8)})
    shop.upload({"boot/front": photo(20), "boot/side": photo(21, size=(120, 80))})
    return shop


def ranked(response: SearchResponse) -> list[tuple[str, float]]:
    return [(item.product_id, item.score) for item in response.results]


def searched_with(shop: Shop) -> list[np.ndarray]:
    """The embeddings that are searched with from now on."""
    embed, queries = shop.system.query._embedder.embed, []

    def embedded(*args, **options):
        found = embed(*args, **options)
        queries.append(found.embedding)
        return found

    shop.system.query._embedder.embed = embedded
    return queries


def test_a_search_keeps_what_it_was_made_with(stocked, photo):
    queries = searched_with(stocked)
    body = photo(3, size=(200, 160))
    stocked.stores.index.put_object("uploads/01J0000000000000000000000G", photo(4), "image/jpeg")
    response = stocked.search(
        QueryInput(image=body, crop=(0.25, 0.0, 0.5, 1.0), weight=2.0),
        QueryInput(product_id="boot"),
        QueryInput(product_id="p0", weight=0.0),
        QueryInput(upload_key="01J0000000000000000000000G", weight=0.5),
        not_like=("p1", "p2"),
    )
    found = stocked.material(response)
    assert np.array_equal(found.embedding, queries[0])
    assert np.linalg.norm(found.embedding) == pytest.approx(1, abs=1e-6)
    total = sum(part.coefficient * part.embedding.astype(np.float64) for part in found.parts)
    assert np.abs(total - queries[0]).max() < 1e-6
    assert [(part.input, part.photo, part.key) for part in found.parts] == [
        (0, 0, ""),
        (1, None, "shop/boot/front.jpg"),
        (1, None, "shop/boot/side.jpg"),
        (3, 1, ""),
        (-1, None, "shop/p1.jpg"),
        (-1, None, "shop/p2.jpg"),
    ]
    assert [part.coefficient > 0 for part in found.parts] == [True] * 4 + [False] * 2
    assert [(part.width, part.height) for part in found.parts[:4]] == [
        (100, 160),
        (96, 128),
        (120, 80),
        (96, 128),
    ]
    assert [item.crop for item in found.photos] == [(0.25, 0.0, 0.5, 1.0), None]
    assert [item.body for item in found.photos] == [body, photo(4)]
    front = stocked.stores.products.get_many([("shop", "boot")])[("shop", "boot")]
    assert found.parts[1].etag == front.views["shop/boot/front.jpg"].etag
    for part in (found.parts[0], found.parts[3]):
        assert part.weights.sum() == pytest.approx(1, abs=1e-5)
        (pooled,) = pool(part.maps[None], part.weights[None])
        assert pooled @ part.embedding > 0.9999
    assert (found.catalogue, found.encoder, found.generation) == ("shop", SPACE, SPACE)
    assert found.query_id == response.query_id
    assert found.expires_at - found.created_at == DAY
    assert response.explanations_expire_at == found.expires_at


def test_the_embedding_is_the_weighted_sum_that_it_always_was(stocked, photo):
    """Rocchio on unit vectors, product means first, written out once more."""
    queries = searched_with(stocked)
    index = stocked.system.query._live_index.get(stocked.stores.lineages.get("shop").current)
    views = stocked.stores.products.get_many([("shop", "boot"), ("shop", "p1")])

    def stored(product_id: str) -> np.ndarray:
        product = views[("shop", product_id)]
        rows = [index.embedding(view.key, view.version) for view in product.views.values()]
        mean = np.mean(rows, axis=0)
        return mean / np.linalg.norm(mean)

    stocked.search(QueryInput(image=photo(3)))
    inputs = (QueryInput(image=photo(3), weight=3.0), QueryInput(product_id="boot"))
    stocked.search(*inputs, not_like=("p1",))
    expected = 0.75 * queries[0] + 0.25 * stored("boot")
    expected -= 0.5 * np.linalg.norm(expected) * stored("p1")
    assert np.allclose(queries[1], expected / np.linalg.norm(expected), atol=1e-6)


def test_explanation_urls_name_search_and_product(shop, photo):
    shop.upload({"a b%/x": photo(0), "ü/x": photo(1)})
    base = "https://api.example/prod"
    response = shop.search(QueryInput(image=photo(0)), base_url=base)
    assert {item.product_id: item.explanation_url for item in response.results} == {
        "a b%": f"{base}/explanations/{response.query_id}/a%20b%25",
        "ü": f"{base}/explanations/{response.query_id}/%C3%BC",
    }


def test_the_answer_is_the_same_with_and_without_explanations(stocked, photo):
    inputs = (QueryInput(image=photo(3)), QueryInput(product_id="boot", weight=0.5))
    kept = stocked.search(*inputs, not_like=("p1",))
    assert stocked.kept == [query_key(kept.query_id)]
    bare = stocked.search(*inputs, not_like=("p1",), explain=False)
    off = stocked.build(stocked.stores, query_retention_s=0.0)
    none = off.query.search(SearchRequest("shop", inputs, not_like=("p1",)))
    assert ranked(kept) == ranked(bare) == ranked(none)
    for response in (bare, none):
        assert response.explanations_expire_at is None
        assert {item.explanation_url for item in response.results} == {None}
    assert stocked.kept == [query_key(kept.query_id)]


def test_the_same_search_later_has_the_same_fingerprint(stocked, photo):
    inputs = (QueryInput(image=photo(3)), QueryInput(product_id="boot"))
    first = stocked.material(stocked.search(*inputs))
    stocked.clock.now += 100
    second = stocked.material(stocked.search(*inputs))
    assert first.query_id != second.query_id
    assert fingerprint(first) == fingerprint(second)
    third = stocked.material(stocked.search(QueryInput(image=photo(4)), inputs[1]))
    assert fingerprint(third) != fingerprint(first)


def test_inputs_of_weight_zero_are_not_looked_at(stocked, photo, eventually):
    encoded = stocked.encoded
    response = stocked.search(
        QueryInput(image=b"no image", weight=0.0),
        QueryInput(image=photo(3)),
        QueryInput(product_id="p0", weight=0.0),
        QueryInput(upload_key="01J0000000000000000000000G", weight=0.0),
        QueryInput(query_id="nothing", weight=0.0),
    )
    assert stocked.encoded == encoded + 1
    found = stocked.material(response)
    assert [item.body for item in found.photos] == [photo(3)]
    assert [(part.input, part.photo) for part in found.parts] == [(1, 0)]
    alone = stocked.search(QueryInput(image=photo(3)))
    assert ranked(response) == [row for row in ranked(alone) if row[0] != "p0"]
    assert len(response.results) == len(alone.results) - 1
    logged = eventually(partial(stocked.stores.log.get, response.query_id, 0.0))
    assert logged.kind == "image"


def test_a_search_of_too_many_images_is_answered_and_not_kept(stocked, photo, monkeypatch):
    monkeypatch.setattr(query_embedding, "MAX_PARTS", 3)
    inputs = (QueryInput(image=photo(3)), QueryInput(product_id="boot"))
    first = stocked.search(*inputs)
    assert len(stocked.material(first).parts) == 3
    for more in (
        stocked.search(*inputs, QueryInput(image=photo(4))),
        stocked.search(*inputs, not_like=("p1",)),
        stocked.search(*inputs, QueryInput(product_id="boot")),
    ):
        assert more.results and more.explanations_expire_at is None
        assert {item.explanation_url for item in more.results} == {None}
    assert stocked.kept == [query_key(first.query_id)]


def test_searches_do_not_grow_by_being_searched_on(stocked, photo, monkeypatch):
    monkeypatch.setattr(query_embedding, "MAX_PARTS", 3)
    first = stocked.search(QueryInput(image=photo(3)), QueryInput(product_id="boot"))
    stocked.search(region(first))
    stocked.search(region(first, (0, 0), (SIDE, 0), (2 * SIDE, 0)))
    stocked.search(region(first, (0, 0), (SIDE, 0)), QueryInput(image=photo(4)))
    get = stocked.stores.index.get
    monkeypatch.setattr(
        stocked.stores.index,
        "get",
        lambda name, limit: pytest.fail(name) if name.startswith("maps/") else get(name, limit),
    )
    for inputs, options in (
        ((region(first), QueryInput(image=photo(4))), {}),
        ((region(first, (0, 0), (SIDE, 0)), QueryInput(product_id="boot")), {}),
        ((region(first, (0, 0), (SIDE, 0), (2 * SIDE, 0)),), {"not_like": ("p1",)}),
        ((region(first), region(first)), {}),
    ):
        with pytest.raises(InvalidRequest, match=r"at most 3 .* of [46], ") as caught:
            stocked.search(*inputs, **options)
        assert caught.value.parameter == "query_id"


def test_photos_of_too_many_bytes_are_searched_and_not_kept(stocked, photo, monkeypatch):
    body = photo(3)
    monkeypatch.setattr(query_embedding, "MAX_PHOTO_BYTES", 2 * len(body))
    two = stocked.search(*[QueryInput(image=body)] * 2)
    assert two.explanations_expire_at is not None
    three = stocked.search(*[QueryInput(image=body)] * 3)
    assert three.explanations_expire_at is None
    assert dict(ranked(three)) == pytest.approx(dict(ranked(two)))
    assert stocked.kept == [query_key(two.query_id)]


@pytest.mark.parametrize("effective", [False, True])
@pytest.mark.parametrize("error", [Unavailable, MemoryError])
def test_a_write_that_fails_costs_the_explanation_and_nothing_else(
    stocked, photo, caplog, eventually, effective, error
):
    expected = ranked(stocked.search(QueryInput(image=photo(3))))
    fault = Fault("lost", error, effective=effective)
    failing = FailingStores.with_fault(stocked.stores, 1, fault)
    materials = stocked.system.query._materials
    stocked.system.query._materials = QueryMaterials(failing.stores.index, DAY, stocked.clock)
    response = stocked.search(QueryInput(image=photo(3)))
    eventually(lambda: failing.calls == 2)  # the write, and another call that takes it back
    assert len(stocked.kept) == 1
    assert ranked(response) == expected
    assert response.explanations_expire_at is None
    assert {item.explanation_url for item in response.results} == {None}
    (said,) = (item for item in caplog.records if item.levelname == "ERROR")
    assert response.query_id in said.getMessage()
    stocked.system.query._materials = materials
    assert stocked.search(QueryInput(image=photo(3))).explanations_expire_at is not None


def test_the_answer_waits_for_the_write(stocked, photo):
    index, order = stocked.stores.index, []
    put, held = index.put, threading.Event()

    def slow_put(*args, **options) -> None:
        held.wait(0.2)
        put(*args, **options)
        order.append("written")

    index.put = slow_put
    ranking = stocked.system.query._ranking
    rank = ranking.rank
    ranking.rank = lambda *args: (order.append("ranking"), rank(*args))[1]
    response = stocked.search(QueryInput(image=photo(3)))
    assert order == ["ranking", "written"]
    assert stocked.material(response).query_id == response.query_id


def test_a_write_that_hangs_holds_nothing_up_and_leaves_nothing(
    stocked, photo, monkeypatch, caplog, eventually
):
    index, held, order = stocked.stores.index, threading.Event(), []
    put, delete = index.put, index.delete

    def hanging_put(*args) -> None:
        assert held.wait(20)
        put(*args)
        order.append(stocked.kept)

    def noted_delete(name: str) -> None:
        delete(name)
        order.append(stocked.kept)

    index.put, index.delete = hanging_put, noted_delete
    monkeypatch.setattr(query_material, "MAX_KEEP_S", 0.05)
    response = stocked.search(QueryInput(image=photo(3)))
    assert response.results and response.explanations_expire_at is None
    assert {item.explanation_url for item in response.results} == {None}
    assert f"{response.query_id} cannot be explained: TimeoutError" in caplog.text
    held.set()
    eventually(lambda: len(order) == 2)
    assert order == [[query_key(response.query_id)], []]


def test_a_write_that_has_not_begun_in_time_never_does(stocked, photo, monkeypatch):
    held, keeper, written = threading.Event(), stocked.system.query._keeper, []
    busy = [keeper.submit(held.wait, 20) for _ in range(2)]
    monkeypatch.setattr(query_material, "MAX_KEEP_S", 0.05)
    monkeypatch.setattr(stocked.stores.index, "put", lambda name, *_: written.append(name))
    response = stocked.search(QueryInput(image=photo(3)))
    assert response.results and response.explanations_expire_at is None
    held.set()
    assert all(item.result() for item in busy)
    keeper.shutdown()  # when all that was asked of it is done
    assert written == []


def test_what_cannot_be_taken_back_is_said(stocked, photo, caplog, eventually):
    def unavailable(*args) -> None:
        raise Unavailable("the bucket is throttled")

    stocked.stores.index.put = stocked.stores.index.delete = unavailable
    response = stocked.search(QueryInput(image=photo(3)))
    assert response.results and response.explanations_expire_at is None
    eventually(lambda: f"{response.query_id} stays until it expires" in caplog.text)


@pytest.mark.parametrize("error", [Unavailable("throttled"), Vanished("a base has left")])
def test_a_search_that_fails_leaves_nothing(stocked, photo, error):
    index, begun, written = stocked.stores.index, threading.Semaphore(0), []
    put = index.put

    def slow_put(name: str, *args) -> None:
        begun.release()
        threading.Event().wait(0.1)
        put(name, *args)
        written.append(name)

    def fail(*args) -> None:
        assert begun.acquire(timeout=10)
        raise error

    index.put, stocked.system.query._ranking.rank = slow_put, fail
    with pytest.raises(type(error)):
        stocked.search(QueryInput(image=photo(3)))
    assert len(written) == (2 if isinstance(error, Vanished) else 1)
    assert stocked.kept == []


def test_a_search_that_starts_again_leaves_the_material_of_its_answer(stocked, photo):
    """The first attempt's material, of another photo, is still on its way when that fails."""
    system = stocked.system.query
    rank, put = system._ranking.rank, stocked.stores.index.put
    begun, written, attempts = threading.Event(), [], []

    def vanish_once(request, embedded, *rest):
        attempts.append(embedded)
        if len(attempts) == 1:
            assert begun.wait(10)
            raise Vanished("a base has left")
        return rank(request, embedded, *rest)

    def slow_once(key, *rest, **options):
        if not begun.is_set():
            begun.set()
            threading.Event().wait(0.3)
        put(key, *rest, **options)
        written.append(key)

    system._ranking.rank, stocked.stores.index.put = vanish_once, slow_once
    embed = system._embedder.embed

    def embed_other(request, *rest):
        inputs = request.inputs if not attempts else (QueryInput(image=photo(5)),)
        return embed(replace(request, inputs=inputs), *rest)

    system._embedder.embed = embed_other
    response = stocked.search(QueryInput(image=photo(4)))
    assert written == [query_key(response.query_id)] * 2
    assert stocked.kept == [query_key(response.query_id)]
    assert stocked.material(response).photos[0].body == photo(5)


def test_what_cannot_be_read_is_said(stocked, photo, monkeypatch, caplog):
    response = stocked.search(QueryInput(image=photo(3)))
    materials = stocked.system.query._materials
    key = query_key(response.query_id)
    for unknown in ("", "x", "../secret", response.query_id.lower(), response.query_id + "0"):
        with pytest.raises(NotFound, match="query_id of an answer"):
            materials.read(unknown)
    other = str(ULID.from_timestamp(stocked.clock.now - 60))
    with pytest.raises(NotFound, match="no search"):
        materials.read(other)
    with pytest.raises(NotFound, match="LOOKALIKE_QUERY_RETENTION_S is 0"):
        QueryMaterials(stocked.stores.index, 0, stocked.clock).read(response.query_id)
    body = stocked.stores.index.get(key, 10**7)[1]
    stocked.stores.index.put_object(key, body[:-1])
    for ask in (materials.read, lambda id_: stocked.search(QueryInput(query_id=id_))):
        with pytest.raises(Gone, match=r"cannot be read\. Search again") as caught:
            ask(response.query_id)
        assert caught.value.parameter == "query_id"
    assert f"{key} is truncated" in caplog.text
    stocked.stores.index.put_object(key, body)
    with monkeypatch.context() as patch:
        patch.setattr(query_material, "_MAX_FILE_BYTES", len(body) - 1)
        with pytest.raises(Gone, match=r"cannot be read\. Search again"):
            materials.read(response.query_id)
    stocked.clock.now += DAY - 1
    assert materials.read(response.query_id).query_id == response.query_id
    stocked.clock.now += 1
    with pytest.raises(Gone, match="24 hours"):
        materials.read(response.query_id)
    stocked.stores.index.delete(key)
    with pytest.raises(Gone, match="expired"):
        materials.read(response.query_id)


def region(response: SearchResponse, *cells: tuple[int, int], **options) -> QueryInput:
    return QueryInput(query_id=response.query_id, cells=cells or None, **options)


def test_a_region_is_searched_without_the_network(stocked, photo, eventually):
    first = stocked.search(QueryInput(image=photo(3)))
    queries, encoded = searched_with(stocked), stocked.encoded
    cells = ((2, 2), (2, 3), (3, 2))
    response = stocked.search(region(first, *cells))
    assert stocked.encoded == encoded
    (part,) = stocked.material(first).parts
    kept = np.zeros((SIDE, SIDE), np.float32)
    for row, column in cells:
        kept[row, column] = part.weights[row, column]
    (expected,) = pool(part.maps[None], kept[None] / kept.sum())
    assert np.allclose(queries[0], expected, atol=1e-6)
    logged = eventually(partial(stocked.stores.log.get, response.query_id, 0.0))
    assert logged.kind == "region"
    assert "encode" not in response.took_ms and "earlier" in response.took_ms
    again = stocked.material(response)
    assert np.array_equal(again.embedding, queries[0])
    assert np.allclose(again.parts[0].weights, kept / kept.sum())
    assert np.array_equal(again.parts[0].maps, part.maps)
    assert again.photos == stocked.material(first).photos


def test_all_cells_are_the_whole_and_a_region_has_regions(stocked, photo):
    first = stocked.search(QueryInput(image=photo(3)))
    whole = stocked.search(region(first, *ALL))
    assert [item.product_id for item in whole.results] == [i.product_id for i in first.results]
    assert whole.results[0].score == pytest.approx(first.results[0].score, abs=1e-4)
    left = stocked.search(region(first, *[cell for cell in ALL if cell[1] < 3]))
    corner = stocked.search(region(left, (0, 0), (0, SIDE - 1)))
    (part,) = stocked.material(corner).parts
    assert part.weights[0, 0] == pytest.approx(1)  # the other cell was left out before
    nothing = stocked.search(region(left, (0, SIDE - 1), (1, SIDE - 1)))
    (part,) = stocked.material(nothing).parts
    assert part.weights[:2, -1].tolist() == [0.5, 0.5]


def test_a_search_is_repeated_as_it_was(stocked, photo, eventually):
    inputs = (QueryInput(image=photo(3), weight=2.0), QueryInput(product_id="boot"))
    first = stocked.search(*inputs, not_like=("p1",))
    stocked.upload({"boot/front": photo(30)})  # what was searched with is no longer there
    encoded, queries = stocked.encoded, searched_with(stocked)
    again = stocked.search(QueryInput(query_id=first.query_id))
    assert stocked.encoded == encoded
    assert np.allclose(queries[0], stocked.material(first).embedding, atol=1e-6)
    assert dict(ranked(again)) == pytest.approx(dict(ranked(first)), abs=5e-6)
    assert not {"boot", "p1"} & {item.product_id for item in again.results}
    assert [part.input for part in stocked.material(again).parts] == [0, 0, 0, -1]
    logged = eventually(partial(stocked.stores.log.get, again.query_id, 0.0))
    assert logged.kind == "repeat"


def test_an_earlier_search_is_weighed_with_other_inputs(stocked, photo):
    first = stocked.search(QueryInput(image=photo(3)), QueryInput(image=photo(4)))
    queries = searched_with(stocked)
    stocked.search(QueryInput(image=photo(5)))
    response = stocked.search(
        QueryInput(image=photo(5), weight=1.0), region(first, (SIDE, 0), (SIDE, 1), weight=3.0)
    )
    found = stocked.material(response)
    assert [(part.input, part.photo) for part in found.parts] == [(0, 0), (1, 1)]
    assert [item.body for item in found.photos] == [photo(5), photo(4)]
    expected = queries[0] + 3 * found.parts[1].embedding
    assert np.allclose(queries[1], expected / np.linalg.norm(expected), atol=1e-6)
    assert found.parts[1].weights[0, :2].sum() == pytest.approx(1)


def test_cells_of_several_parts_and_of_stored_photos(stocked, photo):
    inputs = (QueryInput(image=photo(3)), QueryInput(product_id="boot"))
    first = stocked.search(*inputs, not_like=("p1",))
    encoded, queries = stocked.encoded, searched_with(stocked)
    # The photo's grid, then those of both views of the boot, then what it should not be like.
    response = stocked.search(region(first, (0, 1), (2 * SIDE + 3, 3), (3 * SIDE, 0)))
    assert stocked.encoded == encoded
    old, new = stocked.material(first).parts, stocked.material(response).parts
    assert [part.key for part in new] == ["", "shop/boot/side.jpg", "shop/p1.jpg"]
    assert new[1].weights[3, 3] == 1 and new[1].maps is None
    ratios = [
        part.coefficient / was.coefficient
        for part, was in zip(new, (old[0], *old[2:]), strict=True)
    ]
    assert ratios == pytest.approx([ratios[0]] * 3)
    assert np.linalg.norm(queries[0]) == pytest.approx(1, abs=1e-6)
    name = map_key(SPACE, new[1].key, new[1].etag)
    maps = decode_map(stocked.stores.index.get(name, 10**7)[1], name)
    (expected,) = pool(maps[None], new[1].weights[None])
    assert np.allclose(new[1].embedding, expected, atol=1e-6)
    assert not {"boot", "p1"} & {item.product_id for item in response.results}
    # A region of that region: weights that are kept with the part count, not the photo's own.
    again = stocked.search(region(response, (SIDE + 3, 3), (SIDE + 3, 4)))
    (part,) = stocked.material(again).parts
    assert part.weights[3, 3] == 1


def test_stored_photos_of_a_region_are_read_side_by_side(stocked, monkeypatch):
    first = stocked.search(QueryInput(product_id="boot"), QueryInput(product_id="p3"))
    get, all_reading = stocked.stores.index.get, threading.Barrier(3, timeout=10)

    def get_with_the_others(name: str, max_bytes: int):
        if name.startswith("maps/"):
            all_reading.wait()
        return get(name, max_bytes)

    monkeypatch.setattr(stocked.stores.index, "get", get_with_the_others)
    response = stocked.search(region(first, (0, 0), (SIDE, 0), (2 * SIDE, 0)))
    assert len(stocked.material(response).parts) == 3


def test_photos_are_kept_no_longer_for_being_searched_again(stocked, photo):
    first = stocked.search(QueryInput(image=photo(3)))
    stocked.clock.now += DAY / 2
    later = stocked.search(QueryInput(image=photo(4)))
    expires_at = first.explanations_expire_at
    assert later.explanations_expire_at > expires_at
    for inputs in (
        (region(first),),
        (region(first, (0, 0)),),
        (QueryInput(image=photo(5)), region(later), region(first)),
    ):
        again = stocked.search(*inputs)
        assert again.explanations_expire_at == expires_at
        assert stocked.material(again).expires_at == expires_at
    stocked.clock.now = expires_at
    for query_id in (first.query_id, again.query_id):
        with pytest.raises(Gone, match="expired"):
            stocked.search(QueryInput(query_id=query_id))
    assert stocked.material(later).photos


def test_a_crop_of_an_earlier_photo(stocked, photo):
    body = photo(3, size=(400, 300))
    first = stocked.search(QueryInput(image=body))
    left, top, side = seen_square(400, 300, encoder_record(ENCODER))
    cell = side / SIDE
    box = (left + cell, top + cell, 2 * cell, cell)
    encoded, queries = stocked.encoded, searched_with(stocked)
    stocked.search(QueryInput(query_id=first.query_id, crop=box))
    stocked.search(region(first, (1, 1), (1, 2)))
    assert stocked.encoded == encoded
    assert np.allclose(queries[0], queries[1], atol=1e-5)
    product = stocked.search(QueryInput(product_id="p3"))
    stocked.search(QueryInput(query_id=product.query_id, crop=(0.0, 0.0, 1.0, 0.5)))
    assert stocked.encoded == encoded


@pytest.mark.parametrize(
    ("item", "says", "parameter"),
    [
        ({"cells": ()}, "at least one", "cells"),
        ({"cells": ((2 * SIDE, 0),)}, f"{2 * SIDE} rows of {SIDE}", "cells"),
        ({"cells": ((0, SIDE),)}, "no cell", "cells"),
        ({"cells": ((0, 0), (0, 0))}, "more than once", "cells"),
        ({"cells": ((SIDE, 0),)}, "not like", "cells"),
        ({"cells": ((0, 0),), "crop": (0, 0, 1, 1)}, "give one", "cells"),
        ({"crop": (0, 0, 1, 1)}, "2 photos", "crop"),
        ({"query_id": None, "cells": ((0, 0),)}, "query_id", "cells"),
    ],
)
def test_parts_that_cannot_be_searched(stocked, photo, item, says, parameter):
    first = stocked.search(QueryInput(image=photo(3)), not_like=("p1",))
    given = {"query_id": first.query_id, **item}
    if given["query_id"] is None:
        given["image"] = photo(3)
    with pytest.raises(InvalidRequest, match=says) as caught:
        stocked.search(QueryInput(**given))
    assert caught.value.parameter == parameter


def test_a_crop_that_the_network_has_not_seen(stocked, photo):
    first = stocked.search(QueryInput(image=photo(3, size=(400, 100))))
    with pytest.raises(InvalidRequest, match="square"):
        stocked.search(QueryInput(query_id=first.query_id, crop=(0, 0, 0.2, 1)))


def test_an_earlier_search_is_of_its_catalogue_and_encoder(stocked, photo, tmp_path):
    stocked.upload({"x": photo(0)}, catalogue="other")
    first = stocked.search(QueryInput(image=photo(3)))
    with pytest.raises(InvalidRequest, match="“shop”") as caught:
        stocked.search(region(first, (0, 0)), catalogue="other")
    assert caught.value.parameter == "catalogue"
    with pytest.raises(NotFound):
        stocked.search(QueryInput(query_id="nothing"))
    lineages = stocked.stores.lineages
    lineage = lineages.get("shop")
    lineages.put(replace(lineage, current=replace(lineage.current, encoder=f"{ENCODER}-gap-v1")))
    with pytest.raises(Gone, match="Search again with the photo"):
        stocked.search(region(first, (0, 0)))
    with pytest.raises(Gone):
        stocked.search(QueryInput(query_id=first.query_id))
    lineages.put(replace(lineage, revision=lineages.get("shop").revision))
    stocked.clock.now += DAY + 1
    with pytest.raises(Gone, match="expired"):
        stocked.search(region(first, (0, 0)))


def test_another_head_of_the_same_encoder_projects_anew(shop, photo):
    shop.upload({f"p{seed:02d}": photo(seed) for seed in range(30)})
    inputs = (QueryInput(image=photo(40)), QueryInput(product_id="p07"))
    first = shop.search(*inputs)
    assert shop.material(first).head == ""
    before = shop.stores.lineages.get("shop").current
    shop.system.reindex.begin("shop")
    for _ in range(20):
        shop.clock.now += 200
        shop.system.reindex.run(float("inf"), "shop")
    assert shop.stores.lineages.get("shop").current != before
    encoded, queries = shop.encoded, searched_with(shop)
    again = shop.search(QueryInput(query_id=first.query_id))
    shop.search(region(first, (3, 3), (3, 4)))
    assert shop.encoded == encoded
    fresh = shop.search(*inputs)
    assert shop.material(again).head == shop.material(fresh).head != ""
    assert queries[0].shape == queries[1].shape == (12,)
    assert queries[0] @ queries[2] > 0.999
    # The stored photos' embeddings are a little different: no explanation is of both.
    assert not np.array_equal(queries[0], queries[2])
    assert fingerprint(shop.material(again)) != fingerprint(shop.material(fresh))
    (part,) = shop.material(shop.search(QueryInput(image=photo(40)))).parts
    stored = decode_map(encode_map(part.maps), "map")
    weights = np.zeros((SIDE, SIDE), np.float32)
    weights[3, 3:5] = part.weights[3, 3:5] / part.weights[3, 3:5].sum()
    head = shop.system.query._live_index.get(shop.stores.lineages.get("shop").current).head
    (expected,) = head.project(pool(stored[None], weights[None]))
    assert np.allclose(queries[1], expected, atol=1e-5)
