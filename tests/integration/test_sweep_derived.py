"""The sweep deletes what was made of photos and searches that are gone, and nothing else."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lookalike.adapters.failing import Crash, FailingStores
from lookalike.core.images import ImageLimits
from lookalike.core.keys import explanation_key, map_key, query_key
from lookalike.core.ports import Stores
from lookalike.core.types import Build, Generation, ObjectInfo, Product, View
from lookalike.services.derived import KeySet
from lookalike.services.feature_maps import FeatureMaps
from lookalike.services.ingest import Ingest
from lookalike.services.observe import Observer
from lookalike.services.sweep import Sweep, SweepReport

SPACE, OTHER = "efficientnet-lite0-border-v1", "efficientnet-lite1-border-v1"
LIMITS = ImageLimits(10**6, 10**7)
DAY, FOREVER = 86_400.0, float("inf")


@dataclass
class Shop:
    """Ingestion and sweep on stores in memory, with toy encoders."""

    stores: Stores
    encoder_of: Callable
    pool: ThreadPoolExecutor
    clock: Any

    def ingest(self, *keys: str, stores: Stores | None = None) -> Callable[[], None]:
        stores = stores or self.stores
        observer = Observer(stores.images, LIMITS, 65_536)
        ingest = Ingest(stores, observer, self.encoder_of, SPACE, self.pool, self.clock)

        def run() -> None:
            assert ingest.reconcile(keys) == {}

        return run

    def upload(self, files: dict[str, bytes]) -> None:
        for key, body in files.items():
            self.stores.images.put_object(key, body, "image/jpeg")
        self.ingest(*files)()

    def delete(self, *keys: str) -> None:
        for key in keys:
            self.stores.images.delete(key)
        self.ingest(*keys)()

    def sweep(
        self, retention_s: float = DAY, stores: Stores | None = None, deadline: float = FOREVER
    ) -> SweepReport:
        sweep = Sweep(
            stores or self.stores, self.pool, self.clock, retention_s, 1000, lambda _: None
        )
        return sweep.run(deadline)

    def age(self, days: float) -> None:
        self.clock.now += days * DAY

    def names(self, folder: str) -> set[str]:
        return {info.key for info in self.stores.index.list(f"{folder}/")}

    @property
    def live(self) -> list[View]:
        found = []
        for catalogue in ("shop", "other"):
            products, _ = self.stores.products.page(catalogue, 100)
            found += [view for product in products for view in product.views.values()]
        return found

    @property
    def thumbnails(self) -> set[str]:
        return {view.thumbnail for view in self.live}

    def maps(self, space: str = SPACE) -> set[str]:
        return {map_key(space, view.key, view.etag) for view in self.live}


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:  # so that calls come in one order
        yield threads


@pytest.fixture
def new_shop(fresh_stores, clock, toy_encoder_of, pool) -> Callable[[], Shop]:
    return lambda: Shop(fresh_stores(), toy_encoder_of, pool, clock)


@pytest.fixture
def shop(new_shop) -> Shop:
    return new_shop()


def counts(report: SweepReport) -> tuple[int, int, int, int]:
    assert report.finished
    return (
        report.deleted_queries,
        report.deleted_explanations,
        report.deleted_thumbnails,
        report.deleted_maps,
    )


def test_what_was_overwritten_or_deleted_goes_after_a_day(shop, photo):
    shop.upload({"shop/a.jpg": photo(1), "shop/b/x.jpg": photo(2), "shop/c.jpg": photo(3)})
    shop.age(3)
    shop.upload({"shop/a.jpg": photo(4)})
    shop.delete("shop/c.jpg")
    assert len(shop.names("thumbnails")) == len(shop.names("maps")) == 4
    assert counts(shop.sweep()) == (0, 0, 2, 2)
    assert shop.names("thumbnails") == shop.thumbnails and len(shop.thumbnails) == 2
    assert shop.names("maps") == shop.maps()
    shop.upload({"shop/a.jpg": photo(5)})
    assert counts(shop.sweep()) == (0, 0, 0, 0), "an ingest in flight may be about to name it"
    shop.age(1)
    assert counts(shop.sweep()) == (0, 0, 1, 1)
    assert (shop.names("thumbnails"), shop.names("maps")) == (shop.thumbnails, shop.maps())


def test_a_photo_that_was_uploaded_again_as_it_was_keeps_its_thumbnail(shop, photo):
    shop.upload({"shop/a.jpg": photo(1)})
    shop.age(2)
    shop.upload({"shop/a.jpg": photo(1)})
    shop.age(2)
    assert counts(shop.sweep()) == (0, 0, 0, 0)
    assert (shop.names("thumbnails"), shop.names("maps")) == (shop.thumbnails, shop.maps())


def test_maps_of_spaces_that_no_generation_of_their_catalogue_has_go(shop, photo):
    shop.upload({"shop/a.jpg": photo(1), "other/b.jpg": photo(2)})
    lineage = shop.stores.lineages.get("shop")
    beside = Build(Generation("shop", "g2", OTHER), "filling", 1.0, 2.0)
    lineage = shop.stores.lineages.put(replace(lineage, beside=beside))
    shop.upload({"shop/c.jpg": photo(3)})
    shop.age(2)
    both = shop.names("maps")
    for phase in ("filling", "kept", "dropping"):
        lineage = shop.stores.lineages.put(replace(lineage, beside=replace(beside, phase=phase)))
        assert counts(shop.sweep()) == (0, 0, 0, 0)
        assert shop.names("maps") == both and both & shop.maps(OTHER)
    lineage = shop.stores.lineages.put(replace(lineage, current=beside.generation, beside=None))
    assert counts(shop.sweep()) == (0, 0, 0, 2)
    (kept, other) = sorted(shop.names("maps"))
    assert kept in shop.maps(SPACE) and kept.startswith(f"maps/{SPACE}/"), "the other catalogue's"
    assert other in shop.maps(OTHER)


def store_searches(shop: Shop, first: int, count: int) -> set[str]:
    """Searches that are kept for a day, each explained; gives the names of the explanations."""
    names = set()
    for number in range(first, first + count):
        shop.stores.index.put_object(query_key(f"{number:026d}"), b"query")
        name = explanation_key(shop.clock.now + DAY, f"pair{number}", "explanation.json")
        shop.stores.index.put_object(name, b"{}")
        names.add(name)
    return names


def test_searches_and_explanations_expire(shop):
    store_searches(shop, 0, 130)
    shop.age(0.5)
    young = store_searches(shop, 130, 2)
    assert counts(shop.sweep()) == (0, 0, 0, 0)
    shop.age(0.55)
    assert counts(shop.sweep()) == (130, 130, 0, 0)
    assert shop.names("queries") == {query_key(f"{number:026d}") for number in (130, 131)}
    assert shop.names("explanations") == young
    assert counts(shop.sweep(retention_s=0)) == (2, 2, 0, 0)
    assert not shop.names("queries") and not shop.names("explanations")


def test_searches_are_listed_until_the_first_that_is_young(shop):
    """An old object behind it is not looked at; there is none, as names are in order of time."""
    store_searches(shop, 1000, 3)
    shop.age(2)
    store_searches(shop, 0, 150)
    assert shop.sweep().deleted_queries == 0
    assert len(shop.names("queries")) == 153


def test_explanations_go_with_their_search_however_young_they_are(shop):
    expires_at = shop.clock.now + DAY
    shop.age(0.99)
    shop.stores.index.put_object(explanation_key(expires_at, "pair", "pair-main.png"), b"picture")
    assert counts(shop.sweep()) == (0, 0, 0, 0)
    shop.age(0.06)
    assert counts(shop.sweep()) == (0, 1, 0, 0)


def test_what_has_expired_goes_even_if_comparing_takes_too_long(shop, photo, monkeypatch):
    shop.upload({"shop/a.jpg": photo(1)})
    store_searches(shop, 0, 3)
    shop.age(2)
    monkeypatch.setattr(shop.stores.images, "list", lambda *_: iter(too_late(shop)))
    report = shop.sweep(deadline=shop.clock.now + 3600)
    assert not report.finished
    assert (report.deleted_queries, report.deleted_explanations) == (3, 3)


def too_late(shop: Shop) -> Iterator[ObjectInfo]:
    """A listing that takes all the time that there is."""
    shop.age(1)
    yield ObjectInfo("shop/a.jpg", "etag", 1, 0.0)


@given(st.lists(st.tuples(st.booleans(), st.text(max_size=3))))
def test_a_set_of_keys_knows_what_was_added(steps):
    ours, theirs = KeySet(), set()
    for add, key in steps:
        if add:
            ours.add(key)
            theirs.add(key)
        assert (key in ours) == (key in theirs)


def test_a_set_of_keys_takes_eight_bytes_each():
    tracemalloc.start()
    try:
        keys = KeySet()
        for number in range(100_000):
            keys.add(f"shop/{number}.jpg")
        assert "shop/7.jpg" in keys and "shop/x.jpg" not in keys
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * 100_000


def test_a_sweep_out_of_time_goes_on_in_the_next_run(shop, photo):
    shop.upload({"shop/a.jpg": photo(1), "shop/b.jpg": photo(2)})
    shop.age(2)
    shop.upload({"shop/a.jpg": photo(3)})
    before = len(shop.names("thumbnails") | shop.names("maps"))
    shop.age(0.5)
    shop.upload({"shop/c.jpg": photo(4)})
    phases, deleted, report = [], 0, SweepReport()
    while not report.finished:
        report = shop.sweep(deadline=shop.clock.now + 5)
        phases.append(report.phase)
        deleted += report.deleted_thumbnails + report.deleted_maps
        assert len(shop.names("thumbnails") | shop.names("maps")) == before + 2 - deleted
        assert len(phases) < 20
    assert len(phases) > 3 and len(set(phases)) > 3
    assert deleted == 2
    assert (shop.names("thumbnails"), shop.names("maps")) == (shop.thumbnails, shop.maps())


class Meddling:
    """Stores during whose call number ``at`` something else happens first."""

    def __init__(self, stores: Stores, at: int, meddle: Callable[[], None]) -> None:
        self.calls = 0
        self._at, self._meddle = at, meddle
        wrapped = {item.name: self._wrap(getattr(stores, item.name)) for item in fields(stores)}
        self.stores = replace(stores, **wrapped)

    def _wrap(self, store: object) -> Any:
        owner = self

        class Wrapped:
            def __getattr__(self, name: str) -> Any:
                def call(*args: Any, **kwargs: Any) -> Any:
                    owner.calls += 1
                    if owner.calls == owner._at:
                        owner._meddle()
                    return getattr(store, name)(*args, **kwargs)

                return call

        return Wrapped()


def die_before_the_record(shop: Shop, key: str, body: bytes) -> None:
    """Ingest a photo up to where its record would be written."""

    def put(product: Product) -> None:
        raise Crash

    shop.stores.images.put_object(key, body, "image/jpeg")
    get_many = shop.stores.products.get_many
    dying = replace(shop.stores, products=SimpleNamespace(put=put, get_many=get_many))
    with pytest.raises(Crash):
        shop.ingest(key, stores=dying)()


OLD_B, OLD_C = 2, 3


@pytest.mark.parametrize(
    "change",
    [
        {"shop/b.jpg": OLD_B},
        {"shop/c.jpg": OLD_C},
        {"shop/a.jpg": 7, "shop/b.jpg": OLD_B, "shop/c.jpg": OLD_C},
        {"shop/a.jpg": None},
        {"shop/d.jpg": 8, "shop/b.jpg": None},
    ],
)
def test_what_changes_during_any_call_of_a_sweep_has_its_thumbnail(new_shop, photo, change, pool):
    """Also when a photo comes back whose thumbnail of long ago is just being deleted."""
    for at in range(1, 100):
        shop = new_shop()
        with ThreadPoolExecutor(1) as its_own:  # the sweep's is busy with the call
            meddler = replace(shop, pool=its_own)
            shop.upload({f"shop/{name}.jpg": photo(number) for number, name in enumerate("abc", 1)})
            shop.upload({"shop/b.jpg": photo(5)})
            shop.delete("shop/c.jpg")
            die_before_the_record(shop, "shop/e.jpg", photo(9))
            shop.age(2)

            def meddle(shop: Shop = meddler) -> None:
                for key, seed in change.items():
                    shop.upload({key: photo(seed)}) if seed is not None else shop.delete(key)
                shop.ingest("shop/e.jpg")()

            meddling = Meddling(shop.stores, at, meddle)
            assert shop.sweep(stores=meddling.stores).finished
        if meddling.calls < at:
            break
        assert shop.thumbnails <= shop.names("thumbnails"), at
        shop.ingest("shop/e.jpg")()
        FeatureMaps(
            shop.stores.images, shop.stores.index, shop.encoder_of, LIMITS, shop.pool
        ).read_many(SPACE, [(view.key, view.etag) for view in shop.live])
        shop.age(2)
        shop.sweep()
        assert (shop.names("thumbnails"), shop.names("maps")) == (shop.thumbnails, shop.maps())
    assert at > 12


KEYS = ("shop/a.jpg", "shop/b.jpg", "other/c.jpg")
STEPS = st.one_of(
    st.tuples(st.just("put"), st.sampled_from(KEYS), st.integers(0, 2)),
    st.tuples(st.just("delete"), st.sampled_from(KEYS)),
    st.tuples(st.just("ingest"), st.sampled_from(KEYS)),
    st.tuples(st.just("crash"), st.sampled_from(KEYS), st.integers(1, 16), st.booleans()),
    st.tuples(st.just("age"), st.sampled_from([0.1, 1.1, 5])),
    st.tuples(st.just("sweep")),
)


@given(st.lists(STEPS, max_size=25))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_order_of_steps_takes_a_live_view_s_thumbnail_or_map(new_shop, photo, steps):
    shop = new_shop()
    images = shop.stores.images
    for step in steps:
        match step:
            case ("put", key, seed):
                images.put_object(key, photo(seed, size=(24, 32)), "image/jpeg")
            case ("delete", key):
                images.delete(key)
            case ("ingest", key):
                shop.ingest(key)()
            case ("crash", key, call, effective):
                failing = FailingStores(shop.stores, call, effective=effective)
                failing.survives(shop.ingest(key, stores=failing.stores))
            case ("age", days):
                shop.age(days)
            case ("sweep",):
                assert shop.sweep().finished
        assert shop.thumbnails <= shop.names("thumbnails")
        assert shop.maps() <= shop.names("maps")
    shop.ingest(*KEYS)()
    shop.age(2)
    shop.sweep()
    assert (shop.names("thumbnails"), shop.names("maps")) == (shop.thumbnails, shop.maps())
