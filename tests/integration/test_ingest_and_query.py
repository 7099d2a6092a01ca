"""Upload → searchable → answer on memory stores, with the real encoder."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from lookalike.core.errors import InvalidRequest, NotFound, Unavailable, Unindexable
from lookalike.core.filters import parse_filter
from lookalike.core.ports import Stores
from lookalike.core.types import Counts
from lookalike.http.problems import problem_answer, problem_of
from lookalike.services.failures import GivingUp
from lookalike.services.search_request import QueryInput, SearchRequest
from lookalike.settings import Settings
from lookalike.wiring import Services, build_services

ENCODER = "efficientnet-lite0"  # the quickest


@pytest.fixture
def build(model_dir, ids) -> Callable[[Stores], Services]:
    def build_on(stores: Stores) -> Services:
        settings = Settings(encoder=ENCODER, model_dir=str(model_dir), refresh_s=0)
        return build_services(settings, stores, ids)

    return build_on


@pytest.fixture
def system(build, memory_stores) -> Services:
    return build(memory_stores)


def search(system: Services, photo: bytes, **options) -> list[str]:
    request = SearchRequest("shop", (QueryInput(image=photo),), **options)
    return [result.product_id for result in system.query.search(request).results]


def upload(system: Services, files: dict[str, bytes], **metadata: str) -> None:
    for key, body in files.items():
        system.stores.images.put_object(key, body, "image/jpeg", metadata)
    assert system.ingest.reconcile(list(files)) == {}


def test_an_uploaded_photo_is_found_by_itself_first(system, photo, eventually):
    upload(system, {f"shop/p{seed}.jpg": photo(seed) for seed in range(6)})
    for seed in range(6):
        response = system.query.search(SearchRequest("shop", (QueryInput(image=photo(seed)),), k=3))
        assert response.results[0].product_id == f"p{seed}"
        assert response.results[0].score == pytest.approx(1, abs=1e-3)
        assert len(response.results) == 3
        logged = eventually(partial(system.stores.log.get, response.query_id, 0.0))
        assert [item[0] for item in logged.results] == [r.product_id for r in response.results]


def test_several_views_are_one_result_and_the_best_view_is_named(system, photo):
    upload(
        system,
        {
            "shop/boot/front.jpg": photo(1),
            "shop/boot/side.jpg": photo(2),
            "shop/hat.jpg": photo(3),
        },
    )
    response = system.query.search(SearchRequest("shop", (QueryInput(image=photo(2)),)))
    assert (response.results[0].product_id, response.results[0].view) == ("boot", "side")
    assert sorted(item.product_id for item in response.results) == ["boot", "hat"]


def test_overwriting_and_deleting_take_effect(system, photo):
    upload(system, {"shop/a.jpg": photo(1), "shop/b.jpg": photo(2)})
    upload(system, {"shop/a.jpg": photo(3)})
    request = SearchRequest("shop", (QueryInput(image=photo(1)),))
    scores = {item.product_id: item.score for item in system.query.search(request).results}
    assert scores["a"] < 0.99
    assert search(system, photo(3))[0] == "a"
    system.stores.images.delete("shop/a.jpg")
    assert system.ingest.reconcile(["shop/a.jpg"]) == {}
    assert search(system, photo(3)) == ["b"]
    assert system.stores.counts.all()["shop"].products == 1


def test_uploading_the_same_again_changes_nothing_that_is_searched(system, photo):
    files = {f"shop/p{seed}.jpg": photo(seed) for seed in range(3)}
    upload(system, files, category="mug")
    segments = system.stores.registry.read("shop/efficientnet-lite0-border-v1")
    before, _ = system.stores.products.page("shop", 10)
    assert system.ingest.reconcile(list(files) * 3) == {}
    assert system.stores.products.page("shop", 10)[0] == before
    upload(system, files, category="mug")
    assert system.stores.registry.read("shop/efficientnet-lite0-border-v1") == segments
    after, _ = system.stores.products.page("shop", 10)
    assert [view.version for item in after for view in item.views.values()] == [
        view.version for item in before for view in item.views.values()
    ]
    assert system.stores.counts.all()["shop"].views == 3


def test_a_bad_file_costs_one_failure_and_nothing_else(system, photo):
    upload(
        system,
        {
            "shop/good.jpg": photo(1),
            "shop/text.jpg": b"this is no photo",
            "shop/cut.jpg": photo(2, size=(600, 400))[:4000],
            "shop/empty.jpg": b"",
            "shop/notes.txt": b"notes",
            "shop/a/b/c/d.jpg": photo(3),
        },
    )
    failures = {item.key: item.reason for item in system.stores.failures.page("shop", 10)[0]}
    assert failures == {
        "shop/text.jpg": "not-an-image",
        "shop/cut.jpg": "corrupt-image",
        "shop/empty.jpg": "empty-file",
        "shop/notes.txt": "unsupported-type",
        "shop/a/b/c/d.jpg": "bad-key",
    }
    assert search(system, photo(1)) == ["good"]
    assert system.stores.counts.all()["shop"].failures == 5
    upload(system, {"shop/text.jpg": photo(4)})
    assert search(system, photo(4))[0] == "text"
    assert "shop/text.jpg" not in system.stores.failures.get_many(["shop/text.jpg"])
    assert system.stores.counts.all()["shop"].failures == 4


def test_an_overwrite_with_a_bad_file_takes_the_old_photo_out(system, photo):
    upload(system, {"shop/a.jpg": photo(1), "shop/b.jpg": photo(2)})
    upload(system, {"shop/a.jpg": b"not a photo"})
    assert search(system, photo(1)) == ["b"]


def test_metadata_comes_from_the_object_and_from_the_document(system, photo):
    upload(system, {"shop/boot/front.jpg": photo(1)}, category="shoes", price="49.90")
    upload(system, {"shop/boot/product.json": json.dumps({"title": "Boot", "price": 40}).encode()})
    (result,) = system.query.search(SearchRequest("shop", (QueryInput(image=photo(1)),))).results
    assert (result.title, result.category) == ("Boot", "shoes")
    assert result.attributes["price"] == 40
    assert search(system, photo(1), filter=parse_filter({"price": {"lte": 45}})) == ["boot"]
    assert search(system, photo(1), filter=parse_filter({"price": {"gt": 45}})) == []
    upload(system, {"shop/boot/product.json": b'{"price": "free", "nested": {}}'})
    assert search(system, photo(1), filter=parse_filter({"price": 49.9})) == ["boot"]
    assert "shop/boot/product.json" in system.stores.failures.get_many(["shop/boot/product.json"])


def test_a_changed_document_does_not_read_the_photos_again(system, photo):
    upload(system, {"shop/boot/front.jpg": photo(1), "shop/boot/side.jpg": photo(2)})
    reads: list[str] = []
    images = system.stores.images
    original = images.get
    images.get = lambda key, limit: reads.append(key) or original(key, limit)
    upload(system, {"shop/boot/product.json": b'{"price": 3}'})
    assert reads == ["shop/boot/product.json"]
    assert search(system, photo(2), filter=parse_filter({"price": 3})) == ["boot"]


def test_a_filter_finds_as_many_as_there_are(system, photo):
    for seed in range(30):
        kind = "rare" if seed % 10 == 0 else "common"
        upload(system, {f"shop/p{seed:02d}.jpg": photo(seed)}, kind=kind)
    found = search(system, photo(5), k=3, filter=parse_filter({"kind": "rare"}))
    assert sorted(found) == ["p00", "p10", "p20"]


def test_a_stored_product_is_a_query_that_does_not_answer_itself(system, photo):
    upload(system, {f"shop/p{seed}.jpg": photo(seed) for seed in range(4)})
    request = SearchRequest("shop", (QueryInput(product_id="p2"),))
    found = [item.product_id for item in system.query.search(request).results]
    assert sorted(found) == ["p0", "p1", "p3"]


def test_weights_and_not_like_move_the_query(system, photo):
    upload(system, {f"shop/p{seed}.jpg": photo(seed) for seed in range(6)})

    def first(weight_0: float, weight_1: float, **options) -> str:
        inputs = (
            QueryInput(image=photo(0), weight=weight_0),
            QueryInput(image=photo(1), weight=weight_1),
        )
        return system.query.search(SearchRequest("shop", inputs, **options)).results[0].product_id

    assert first(1, 0.1) == "p0"
    assert first(0.1, 1) == "p1"
    assert first(1, 0.1, not_like=("p0",)) == "p1"


def test_min_score_and_k_bound_the_answer(system, photo):
    upload(system, {f"shop/p{seed}.jpg": photo(seed) for seed in range(6)})
    assert search(system, photo(0), min_score=0.999) == ["p0"]
    assert len(search(system, photo(0), k=2)) == 2


def test_min_score_ends_the_search_for_more(system, photo):
    upload(system, {f"shop/p{seed:02d}.jpg": photo(seed) for seed in range(30)})
    generation = system.stores.lineages.get("shop").current
    index, limits = system.query._live_index.get(generation), []
    original = index.search
    index.search = lambda query, limit, **options: (
        limits.append(limit) or original(query, limit, **options)
    )
    assert search(system, photo(0), k=2, min_score=0.999) == ["p00"]
    assert len(limits) == 1


def test_an_exact_search_reads_every_row(system, photo):
    upload(system, {f"shop/p{seed:02d}.jpg": photo(seed) for seed in range(30)})
    index = system.query._live_index.get(system.stores.lineages.get("shop").current)
    asked, original = [], index.search
    index.search = lambda query, limit, **options: (
        asked.append(options) or original(query, limit, **options)
    )
    assert search(system, photo(3), k=5, exact=True) == search(system, photo(3), k=5)
    assert [options["exact"] for options in asked] == [True, False]
    assert asked[0]["nprobe"] == system.settings.nprobe


def test_a_deletion_that_was_cut_short_is_finished_by_the_same_call(system, photo):
    upload(system, {"shop/boot/front.jpg": photo(1), "shop/boot/product.json": b"{}"})
    for key in ("shop/boot/front.jpg", "shop/boot/product.json"):
        system.stores.images.delete(key)
    assert system.ingest.reconcile(["shop/boot/front.jpg"]) == {}
    system.catalogue.delete("shop", "boot")
    with pytest.raises(NotFound):
        system.catalogue.product("shop", "boot")


def test_a_crop_is_another_query(system, photo):
    upload(system, {"shop/a.jpg": photo(0), "shop/b.jpg": photo(1)})

    def score(crop) -> float:
        inputs = (QueryInput(image=photo(0), crop=crop),)
        return system.query.search(SearchRequest("shop", inputs, k=1)).results[0].score

    whole = score((0, 0, 1, 1))
    assert whole == pytest.approx(score(None), abs=1e-4)
    assert score((10, 10, 40, 40)) < whole
    with pytest.raises(InvalidRequest, match="crop"):
        score((500, 500, 10, 10))


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (SearchRequest("shop", (QueryInput(image=b"x"),), k=0), InvalidRequest),
        (SearchRequest("shop", (QueryInput(image=b"x"),), k=101), InvalidRequest),
        (SearchRequest("shop", ()), InvalidRequest),
        (SearchRequest("shop", (QueryInput(image=b"x", weight=-1),)), InvalidRequest),
        (SearchRequest("shop", (QueryInput(image=b"x", weight=0),)), InvalidRequest),
        (SearchRequest("nowhere", (QueryInput(image=b"x"),)), NotFound),
        (SearchRequest("shop", (QueryInput(product_id="none"),)), NotFound),
        (SearchRequest("shop", (QueryInput(upload_key="../secret"),)), NotFound),
        (SearchRequest("shop", (QueryInput(image=b"x"),)), Unindexable),
    ],
)
def test_requests_that_cannot_be_served(system, photo, request_, error):
    upload(system, {"shop/a.jpg": photo(0)})
    with pytest.raises(error):
        system.query.search(request_)


def test_catalogues_never_mix(system, photo):
    upload(system, {"shop/a.jpg": photo(0), "other/b.jpg": photo(0)})
    assert search(system, photo(0)) == ["a"]


def test_deleting_a_product_removes_its_objects(system, photo):
    upload(system, {"shop/boot/front.jpg": photo(1), "shop/boot/product.json": b"{}"})
    system.catalogue.delete("shop", "boot")
    assert list(system.stores.images.list("")) == []
    assert search(system, photo(1)) == []
    with pytest.raises(NotFound):
        system.catalogue.product("shop", "boot")


def test_an_object_that_changes_while_it_is_indexed_goes_again(system, photo):
    images = system.stores.images
    images.put_object("shop/a.jpg", photo(1))
    original = images.get
    versions = iter([photo(2), photo(3)])

    def get_then_overwrite(key, limit):
        found = original(key, limit)
        if (body := next(versions, None)) is not None:
            images.put_object(key, body)
        return found

    images.get = get_then_overwrite
    assert system.ingest.reconcile(["shop/a.jpg"]) == {}
    response = system.query.search(SearchRequest("shop", (QueryInput(image=photo(3)),)))
    assert response.results[0].score == pytest.approx(1, abs=1e-3)


def test_the_sweep_finds_what_no_event_told_of(system, photo):
    upload(system, {"shop/a.jpg": photo(0), "shop/b.jpg": photo(1)})
    images = system.stores.images
    images.put_object("shop/new.jpg", photo(2))
    images.put_object("shop/b.jpg", photo(3))
    images.delete("shop/a.jpg")
    report = system.sweep.run(deadline=float("inf"))
    assert report.finished and report.queued == 3
    asked = [key for body in system.stores.queue.bodies for key in json.loads(body)["keys"]]
    assert sorted(asked) == ["shop/a.jpg", "shop/b.jpg", "shop/new.jpg"]
    assert system.ingest.reconcile(asked) == {}
    system.stores.queue.bodies.clear()
    assert system.sweep.run(deadline=float("inf")).queued == 0


def test_any_order_and_repetition_of_events_ends_in_the_same_state(build, fresh_stores, photo):
    keys = [f"shop/p{seed}.jpg" for seed in range(5)] + ["shop/p0/product.json"]
    for seed in range(4):
        rng = random.Random(seed)
        stores = fresh_stores()
        system = build(stores)
        for number, key in enumerate(keys[:5]):
            stores.images.put_object(key, photo(number))
        stores.images.put_object(keys[5], b'{"price": 1}')
        events = [key for key in keys for _ in range(rng.randint(1, 3))]
        rng.shuffle(events)
        for start in range(0, len(events), 3):
            assert system.ingest.reconcile(events[start : start + 3]) == {}
        assert sorted(search(system, photo(0))) == [f"p{number}" for number in range(5)]
        assert search(system, photo(0), filter=parse_filter({"price": 1})) == ["p0"]


def test_two_functions_that_index_the_same_keys_at_once_agree(build, fresh_stores, photo):
    stores = fresh_stores()
    keys = [f"shop/boot/v{seed}.jpg" for seed in range(6)]
    for number, key in enumerate(keys):
        stores.images.put_object(key, photo(number))
    systems = [build(stores) for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        for again in list(pool.map(lambda system: system.ingest.reconcile(keys), systems)):
            assert systems[0].ingest.reconcile(list(again)) == {}
    assert len(systems[0].catalogue.product("shop", "boot").views) == 6
    assert search(systems[0], photo(4)) == ["boot"]
    assert stores.counts.all()["shop"].views == 6


def test_a_search_whose_log_entry_fails_is_answered_and_named(
    build, memory_stores, photo, caplog, eventually
):
    system = build(memory_stores)
    upload(system, {"shop/a.jpg": photo(0)})

    def throttled(record) -> None:
        raise Unavailable("throttled")

    memory_stores.log.write = throttled
    with caplog.at_level("INFO", logger="lookalike"):
        response = system.query.search(SearchRequest("shop", (QueryInput(image=photo(0)),)))
        eventually(lambda: any(item.levelname == "ERROR" for item in caplog.records))
    assert response.results[0].product_id == "a"
    assert response.query_id in caplog.text and "throttled" in caplog.text
    (kept,) = (item.search for item in caplog.records if hasattr(item, "search"))
    assert kept["results"][0][0] == "a"


def test_an_altered_segment_is_named_and_never_searched(build, memory_stores, photo, caplog):
    system = build(memory_stores)
    upload(system, {"shop/a.jpg": photo(0)})
    upload(system, {"shop/b.jpg": photo(1)})
    entries, _ = memory_stores.registry.read("shop/efficientnet-lite0-border-v1")
    name = f"segments/shop/{entries[0].digest}.seg"
    body = bytearray(memory_stores.index.get(name, 10**6)[1])
    body[200] ^= 1
    memory_stores.index.put_object(name, bytes(body))
    assert len(search(build(memory_stores), photo(0))) == 1
    assert name in caplog.text


def test_deletions_and_bad_files_make_no_catalogue_but_their_failures_are_seen(system):
    assert system.ingest.reconcile(["never/was.jpg"]) == {}
    assert system.catalogue.stats().catalogues == []
    upload(system, {"typo/bad.jpg": b"not a photo", "typo/too/many/levels.jpg": b"x"})
    (entry,) = system.catalogue.stats().catalogues
    assert (entry.catalogue, entry.encoder, entry.failures) == ("typo", None, 2)
    assert system.stores.lineages.all() == []
    system.stores.counts.set("typo", Counts(7, 7, 7))
    system.sweep.run(deadline=float("inf"))
    assert system.stores.counts.all()["typo"] == Counts(0, 0, 2)


def test_giving_up_files_a_failure_unless_the_photo_is_searchable(system, photo):
    upload(system, {"shop/a.jpg": photo(0)})
    system.stores.images.put_object("shop/b.jpg", photo(1))
    giving_up = GivingUp(system.stores, time.time)
    giving_up.file(["shop/a.jpg", "shop/b.jpg", "shop/gone.jpg"])
    failures, _ = system.stores.failures.page("shop", 10)
    assert [(item.key, item.reason) for item in failures] == [("shop/b.jpg", "gave-up")]
    assert system.ingest.reconcile(["shop/b.jpg"]) == {}
    assert system.stores.failures.page("shop", 10) == ([], None)


def test_many_keys_are_read_a_few_at_a_time(system, photo):
    images, reading, most = system.stores.images, [], []
    original = images.get

    def get(key, limit):
        reading.append(key)
        most.append(len(reading))
        return original(key, limit)

    images.get = get
    looked_at = system.stores.products.get_many

    def get_many(ids):
        reading.clear()  # a new pass: what the last one held is gone
        return looked_at(ids)

    system.stores.products.get_many = get_many
    files = {f"shop/p{seed:02d}.jpg": photo(seed) for seed in range(25)}
    upload(system, files)
    assert max(most) == 10
    assert system.stores.counts.all()["shop"].views == 25


def test_new_metadata_within_the_same_second_is_seen(system, photo):
    images = system.stores.images
    images._clock = lambda: 1_700_000_000.0
    upload(system, {"shop/a.jpg": photo(0)}, price="5")
    upload(system, {"shop/a.jpg": photo(0)}, price="6")
    assert system.catalogue.product("shop", "a").attributes == {"price": 6}


def test_the_sweep_sees_vanished_documents_and_failures_and_new_metadata(system, photo):
    upload(system, {"shop/a.jpg": photo(0), "shop/b.jpg": photo(1)})
    upload(system, {"shop/a/product.json": b'{"price": 1}', "shop/bad.jpg": b"no photo"})
    assert system.sweep.run(deadline=float("inf")).queued == 0
    images = system.stores.images
    images.delete("shop/a/product.json")
    images.delete("shop/bad.jpg")
    images.put_object("shop/b.jpg", photo(1), metadata={"price": "2"})
    assert system.sweep.run(deadline=float("inf")).queued == 3
    asked = [key for body in system.stores.queue.bodies for key in json.loads(body)["keys"]]
    assert system.ingest.reconcile(asked) == {}
    assert system.catalogue.product("shop", "a").attributes == {}
    assert system.catalogue.product("shop", "b").attributes == {"price": 2}
    assert system.sweep.run(deadline=float("inf")).queued == 0


def test_deleting_a_product_takes_failed_and_pending_views_along(system, photo):
    upload(system, {"shop/a.jpg": photo(0), "shop/a/bad.jpg": b"no photo", "shop/b.jpg": photo(1)})
    system.stores.images.put_object("shop/a/pending.jpg", photo(2))
    system.stores.images.put_object("shop/a.b.jpg", photo(3))
    system.catalogue.delete("shop", "a")
    assert [item.key for item in system.stores.images.list("")] == ["shop/a.b.jpg", "shop/b.jpg"]
    assert system.stores.failures.page("shop", 10) == ([], None)
    system.stores.images.put_object("shop/c/bad.jpg", b"no photo")
    system.catalogue.delete("shop", "c")
    with pytest.raises(NotFound):
        system.catalogue.delete("shop", "c")


def test_undecodable_photos_during_a_slow_load_hold_nothing_up(build, memory_stores, photo):
    """Each leaves a refresh behind; they must not wait for each other's threads."""
    system = build(memory_stores)
    for number in range(3):
        upload(system, {f"shop/p{number}.jpg": photo(number)})
    fresh, opened = build(memory_stores), threading.Event()
    search(system, photo(0))
    original = memory_stores.registry.read
    memory_stores.registry.read = lambda *asked: opened.wait(10) and original(*asked)
    for _ in range(40):
        with pytest.raises(Unindexable):
            search(fresh, b"no photo")
    opened.set()
    assert sorted(search(fresh, photo(0))) == ["p0", "p1", "p2"]


def test_two_refreshes_of_an_index_take_turns(build, memory_stores, photo):
    """A request that ends early leaves its refresh running when the next one begins."""
    system = build(memory_stores)
    upload(system, {"shop/a.jpg": photo(0)})
    generation = memory_stores.lineages.get("shop").current
    together, met = threading.Barrier(2), []
    original = memory_stores.registry.read

    def read(scope: str, since: float = 0.0):
        try:
            together.wait(0.2)
            met.append(scope)
        except threading.BrokenBarrierError:
            together.reset()
        return original(scope, since)

    memory_stores.registry.read = read
    with ThreadPoolExecutor(2) as pool:
        indexes = list(pool.map(system.query._live_index.get, [generation] * 2))
    assert met == []
    assert [len(index) for index in indexes] == [1, 1]


def test_an_object_that_cannot_be_read_is_tried_again_alone(system, photo):
    images = system.stores.images
    original = images.get

    def get(key, limit):
        if key == "shop/poison.jpg":
            raise Unavailable("the answer cannot be read")
        return original(key, limit)

    images.get = get
    keys = ["shop/a.jpg", "shop/poison.jpg", "shop/poison/b.jpg"]
    for number, key in enumerate(keys):
        images.put_object(key, photo(number))
    assert list(system.ingest.reconcile(keys)) == ["shop/poison.jpg"]
    assert sorted(search(system, photo(0))) == ["a", "poison"]
    GivingUp(system.stores, time.time).file(["shop/poison.jpg"])
    assert [item.key for item in system.stores.failures.page("shop", 10)[0]] == ["shop/poison.jpg"]
    assert system.sweep.run(deadline=float("inf")).queued == 0


def test_a_problem_may_quote_what_is_no_text():
    answer = problem_answer(problem_of(InvalidRequest("bad: \ud800"), "r"))
    assert json.loads(answer.body)["detail"] == "bad: ?"
