"""A generation is built beside the current one and swapped in whole, whatever stops or races it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import replace
from functools import partial

import pytest

from lookalike.adapters.failing import FailingStores
from lookalike.core.compaction import CompactionPolicy
from lookalike.core.errors import Conflict, InvalidRequest, NotFound, Unavailable
from lookalike.core.generations import GenerationPolicy
from lookalike.core.head import decode_head
from lookalike.core.images import ImageLimits
from lookalike.core.keys import head_key, segment_key
from lookalike.core.ports import Stores
from lookalike.core.types import Generation, Lineage
from lookalike.services.bring_over import PhotoReader
from lookalike.services.compact import Compaction
from lookalike.services.ingest import Ingest
from lookalike.services.observe import Observer
from lookalike.services.reindex import Reindex
from lookalike.services.segments import read_segment
from lookalike.settings import Settings
from lookalike.wiring import policy_of

SPACE = "efficientnet-lite0-border-v1"
OTHER = "efficientnet-lite1-border-v1"
SETTINGS = Settings(
    encoder="efficientnet-lite0",
    merge_segments=3,
    base_rows=6,
    flat_rows=10,
    shard_rows=1000,
    head_rows=0,
    head_dim=8,
    settle_s=90,
    grace_s=900,
    keep_generation_s=7200,
)
FOREVER = float("inf")


class Inline(Executor):
    """Runs every call at once, so that calls have an order."""

    def submit(self, fn, /, *args, **kwargs):
        future: Future = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Shop:
    """One catalogue with what works on it, wired as for the functions."""

    def __init__(self, stores: Stores, clock, encoder_of, photo) -> None:
        self.stores, self.clock, self.encoder_of, self.photo = stores, clock, encoder_of, photo
        self.observer = Observer(stores.images, ImageLimits(10**7, 10**7), 10**5)
        self.ingest = Ingest(stores, self.observer, encoder_of, SPACE, Inline(), clock)

    def reindex(self, stores: Stores | None = None, **changes) -> Reindex:
        settings, stores = replace(SETTINGS, **changes), stores or self.stores
        compaction = self.compaction(stores, **changes)
        observer = Observer(stores.images, ImageLimits(10**7, 10**7), 10**5)
        photos = PhotoReader(stores, observer, self.encoder_of, Inline(), self.clock)
        policy = policy_of(GenerationPolicy, settings)
        return Reindex(stores, policy, settings.pooling, compaction, photos, self.clock)

    def compaction(self, stores: Stores | None = None, **changes) -> Compaction:
        policy = policy_of(CompactionPolicy, replace(SETTINGS, **changes))
        return Compaction(stores or self.stores, policy, Inline(), self.clock)

    def upload(self, *numbers: int) -> None:
        for number in numbers:
            key = f"shop/p{number}.jpg"
            self.stores.images.put_object(key, self.photo(number, size=(48, 48)), "image/jpeg")
            assert self.ingest.reconcile([key]) == {}

    def delete(self, number: int) -> None:
        self.stores.images.delete(f"shop/p{number}.jpg")
        assert self.ingest.reconcile([f"shop/p{number}.jpg"]) == {}

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @property
    def lineage(self) -> Lineage:
        return self.stores.lineages.get("shop")

    @property
    def live(self) -> set[tuple[str, str]]:
        products, _ = self.stores.products.page("shop", 1000)
        return {(key, view.version) for item in products for key, view in item.views.items()}

    def rows(self, generation: Generation) -> set[tuple[str, str]]:
        """(key, version) of every raw row; all files are there and of the generation's space."""
        entries, manifest = self.stores.registry.read(generation.scope)
        digests = [run.digest for shard in manifest.shards for run in shard.runs]
        digests += [
            entry.digest
            for entry in entries
            if segment_key("shop", entry.digest) not in manifest.replaced
        ]
        found = set()
        for digest in digests:
            segment = read_segment(self.stores.index, "shop", digest)
            assert segment.encoder == generation.encoder
            found |= set(zip(segment.keys, segment.versions, strict=True))
        return found

    def check(self) -> None:
        assert self.live <= self.rows(self.lineage.current)

    def finish(self, reindex: Reindex | None = None) -> None:
        """Run as the schedule does until the build is swapped in."""
        reindex = reindex or self.reindex()
        for _ in range(8):
            report = reindex.run(FOREVER)
            assert report.postponed == {}
            if report.catalogues[0].phase in {"", "kept"}:
                return
            self.wait(60)
        raise AssertionError(report)


@pytest.fixture
def new_shop(fresh_stores, clock, toy_encoder_of, photo) -> Callable[[], Shop]:
    return lambda: Shop(fresh_stores(), clock, toy_encoder_of, photo)


@pytest.fixture
def shop(new_shop) -> Shop:
    return new_shop()


def test_nothing_happens_unasked_and_costs_a_few_reads(shop):
    shop.upload(1, 2, 3)
    failing = FailingStores(shop.stores)
    report = shop.reindex(failing.stores).run(FOREVER)
    assert [item.phase for item in report.catalogues] == [""]
    assert failing.calls <= 3
    assert shop.lineage.beside is None


def test_enough_rows_get_a_head_without_encoding_anything(shop, toy_encoder_of):
    shop.upload(*range(20))
    before, encoded = shop.lineage.current, toy_encoder_of(SPACE).encoded
    reindex = shop.reindex(head_rows=20)
    (state,) = reindex.run(FOREVER).catalogues
    assert state.phase == "announced" and state.generation == before.generation
    shop.upload(*range(20, 24))
    shop.wait(60)
    assert reindex.run(FOREVER).catalogues[0].phase == "announced", "appends may be under way"
    shop.wait(60)
    (state,) = reindex.run(FOREVER).catalogues
    assert state.phase == "kept" and (state.encoder, state.beside) == (SPACE, before.generation)
    assert toy_encoder_of(SPACE).encoded == encoded + 4
    current = shop.lineage.current
    assert current == Generation("shop", f"{SPACE}-g2", SPACE)
    _, manifest = shop.stores.registry.read(current.scope)
    assert manifest.fitted_rows == 24
    key = head_key("shop", manifest.head)
    head = decode_head(shop.stores.index.get(key, 10**9)[1], key)
    assert (head.dim_in, head.dim_out, head.shards) == (24, 8, 1)
    assert manifest.shards[0].base.rows >= 20
    shop.check()
    # The one that is kept takes every append, and so can come back at any time.
    shop.upload(30)
    shop.check()
    assert shop.live <= shop.rows(before)


def test_growth_fits_again_and_a_full_shard_is_split(shop):
    shop.upload(*range(10))
    shop.finish(shop.reindex(head_rows=10))
    shop.upload(*range(10, 80))
    reindex = shop.reindex(head_rows=10, shard_rows=20)
    assert reindex.run(FOREVER).catalogues[0].phase == "kept", "there is time for a rollback"
    shop.wait(1000)
    assert reindex.run(FOREVER).catalogues[0].phase == "dropping"
    shop.wait(100)
    assert reindex.run(FOREVER).catalogues[0].phase == "announced"
    shop.wait(100)
    assert reindex.run(FOREVER).catalogues[0].phase == "kept"
    _, manifest = shop.stores.registry.read(shop.lineage.current.scope)
    assert manifest.fitted_rows == 80
    assert len(manifest.shards) == 6  # 80 rows, shards of 20 filled by three quarters
    assert sum(bool(shard.runs) for shard in manifest.shards) > 2
    shop.check()
    shop.wait(2000)
    reindex.run(FOREVER)
    assert shop.lineage.current.generation == f"{SPACE}-g3", "it is not wanted again"


def test_another_encoder_is_filled_from_the_photos(shop, toy_encoder_of):
    shop.upload(*range(70))
    shop.delete(3)
    state = shop.reindex().begin("shop", "efficientnet-lite1")
    assert (state.phase, state.beside_encoder) == ("announced", OTHER)
    assert shop.reindex().begin("shop", "efficientnet-lite1") == state, "asking twice is once"
    with pytest.raises(InvalidRequest, match="is being built"):
        shop.reindex().begin("shop", "efficientnet-lite2")
    shop.upload(70, 71)
    shop.delete(4)
    shop.wait(100)
    # An object that changed without its event having come yet.
    shop.stores.images.put_object("shop/p5.jpg", shop.photo(500), "image/jpeg")
    (state,) = shop.reindex().run(FOREVER).catalogues
    assert (state.phase, state.encoder) == ("kept", OTHER)
    missing = shop.live - shop.rows(shop.lineage.current)
    assert [key for key, _ in missing] == ["shop/p5.jpg"]
    assert shop.ingest.reconcile(["shop/p5.jpg"]) == {}
    shop.check()
    # By their uploads, by the fill (which does not rely on uploads as fresh as that), by p5.
    assert toy_encoder_of(OTHER).encoded == 2 + 69 + 1


def test_filling_goes_on_where_it_stopped(shop, toy_encoder_of):
    shop.upload(*range(120))
    reindex = shop.reindex()
    reindex.begin("shop", "efficientnet-lite1")
    shop.wait(100)
    states = []
    while shop.lineage.current.encoder == SPACE:
        # Time for little more than one step.
        (state,) = reindex.run(shop.clock.now + 3).catalogues
        states.append((state.phase, state.done, state.total))
        assert len(states) < 50
    filling = [done for phase, done, _ in states if phase == "filling"]
    assert sorted(set(filling)) == [0, 50, 100]
    assert all(total == 120 for _, _, total in states if total)
    assert toy_encoder_of(OTHER).encoded == 120
    shop.check()


def test_rollback_and_drop(shop):
    shop.upload(*range(8))
    first = shop.lineage.current
    reindex = shop.reindex()
    for ask in (reindex.roll_back, reindex.drop):
        with pytest.raises(InvalidRequest):
            ask("shop")
    reindex.begin("shop", "efficientnet-lite1")
    shop.finish()
    second = shop.lineage.current
    reindex.roll_back("shop")
    assert (shop.lineage.current, shop.lineage.beside.generation) == (first, second)
    shop.upload(9)
    shop.check()
    # What was rolled back is not built again by itself.
    shop.wait(2000)
    assert shop.reindex(head_rows=5).run(FOREVER).catalogues[0].phase == "kept"
    reindex.roll_back("shop")
    assert shop.lineage.current == second
    shop.check()
    assert reindex.drop("shop").phase == "dropping"
    with pytest.raises(InvalidRequest):
        reindex.roll_back("shop")
    assert shop.lineage.generations == (second,)
    assert reindex.run(FOREVER).catalogues[0].phase == "dropping", "appends may be under way"
    shop.upload(10)
    shop.wait(100)
    assert reindex.run(FOREVER).catalogues[0].phase == ""
    assert shop.stores.registry.read(first.scope)[0] == []
    shop.check()


def test_files_of_a_dropped_generation_have_their_grace(shop):
    shop.upload(*range(8))
    files = {segment_key("shop", e.digest) for e in shop.stores.registry.read(f"shop/{SPACE}")[0]}
    shop.reindex().begin("shop", "efficientnet-lite1")
    shop.finish()
    shop.wait(9000)
    shop.reindex().run(FOREVER)
    shop.wait(100)
    shop.reindex().run(FOREVER)
    assert shop.lineage.beside is None

    def there() -> set[str]:
        return files & {info.key for info in shop.stores.index.list("segments/")}

    dropped_at = shop.clock.now
    shop.compaction().run(FOREVER, "shop")
    shop.wait(800)
    shop.compaction().run(FOREVER, "shop")
    assert there() == files and shop.clock.now < dropped_at + 900
    shop.wait(200)
    shop.compaction().run(FOREVER, "shop")
    assert there() == set()
    shop.check()


def test_a_kept_generation_is_dropped_after_its_time(shop):
    shop.upload(1, 2)
    shop.reindex().begin("shop")
    shop.finish()
    shop.wait(7000)
    assert shop.reindex().run(FOREVER).catalogues[0].phase == "kept"
    shop.wait(300)
    assert shop.reindex().run(FOREVER).catalogues[0].phase == "dropping"
    # A request is remembered until the old one is gone.
    assert shop.reindex().begin("shop", "efficientnet-lite1").phase == "dropping"
    shop.wait(100)
    (state,) = shop.reindex().run(FOREVER).catalogues
    assert (state.phase, state.beside_encoder) == ("announced", OTHER)
    assert state.beside == f"{OTHER}-g3"


def test_requests_are_checked(shop, toy_encoder_of):
    with pytest.raises(InvalidRequest, match="none yet"):
        shop.reindex().begin()
    shop.upload(1)
    with pytest.raises(NotFound, match="nowhere"):
        shop.reindex().begin("nowhere")
    with pytest.raises(NotFound, match="nowhere"):
        shop.reindex().run(FOREVER, "nowhere")
    with pytest.raises(InvalidRequest, match="no encoder"):
        shop.reindex().begin("shop", "vgg")

    def no_model(space: str):
        raise Unavailable("lookalike model build resnet50")

    shop.encoder_of = no_model
    with pytest.raises(Unavailable, match="model build"):
        shop.reindex().begin("shop", "resnet50")
    assert shop.lineage.beside is None
    shop.encoder_of = toy_encoder_of
    shop.stores.lineages.put(Lineage("hats", Generation("hats", SPACE, SPACE)))
    with pytest.raises(InvalidRequest, match="hats, shop"):
        shop.reindex().begin()
    assert shop.reindex().begin("shop").phase == "announced"
    assert shop.stores.lineages.get("hats").beside is None, "catalogues never mix"


def lose_a_file(shop: Shop, generation: Generation) -> str:
    entries, manifest = shop.stores.registry.read(generation.scope)
    runs = [run.digest for shard in manifest.shards for run in shard.runs]
    digest = (runs + [entry.digest for entry in entries])[0]
    shop.stores.index.delete(segment_key("shop", digest))
    return digest


def test_a_swap_that_would_lose_rows_is_refused_until_they_are_found(shop, caplog):
    shop.upload(*range(7))
    shop.compaction().run(FOREVER)
    first = shop.lineage.current
    lost = lose_a_file(shop, first)
    reindex = shop.reindex()
    reindex.begin("shop")
    shop.wait(100)
    images, get = shop.stores.images, shop.stores.images.get

    def out_of_order(key, limit):
        raise Unavailable("the bucket does not answer")

    images.get = out_of_order
    (state,) = reindex.run(FOREVER).catalogues
    assert state.phase == "compacting" and shop.lineage.current == first
    assert "views would be lost" in caplog.text
    images.get = get
    (state,) = reindex.run(FOREVER).catalogues
    assert state.phase == "kept"
    shop.check()
    # The new generation is well: it names nothing that cannot be read.
    _, manifest = shop.stores.registry.read(shop.lineage.current.scope)
    assert lost not in {run.digest for shard in manifest.shards for run in shard.runs}


@pytest.mark.parametrize("effective", [False, True])
@pytest.mark.parametrize("encoder", [None, "efficientnet-lite1"])
def test_a_crash_at_any_call_is_made_good_by_the_next_run(new_shop, encoder, effective):
    crashes = 0
    while True:
        shop = new_shop()
        shop.upload(*range(7))
        shop.reindex().begin("shop", encoder)
        shop.upload(7)
        shop.wait(100)
        failing = FailingStores(shop.stores, crashes + 1, effective=effective)
        options = {"shard_rows": 4, "head_rows": 5}
        run = partial(shop.reindex(failing.stores, **options).run, FOREVER)
        if failing.survives(run):
            break
        crashes += 1
        shop.check()
        shop.delete(1)
        shop.upload(8)
        shop.check()
        shop.finish(shop.reindex(**options))
        shop.check()
        assert shop.lineage.current.encoder == (OTHER if encoder else SPACE)
        _, manifest = shop.stores.registry.read(shop.lineage.current.scope)
        assert len(manifest.shards) == 3
    assert crashes > 30


def test_of_two_runners_one_wins_and_nothing_is_lost(shop):
    shop.upload(*range(9))
    shop.reindex().begin("shop")
    shop.wait(100)
    lineages, put = shop.stores.lineages, shop.stores.lineages.put
    beside, races = shop.reindex(), []

    def raced(lineage):
        if len(races) < 3:
            races.append(lineage.beside.phase)
            beside.run(FOREVER)
        return put(lineage)

    lineages.put = raced
    report = shop.reindex().run(FOREVER)
    assert report.postponed == {} and races
    assert shop.lineage.current.generation == f"{SPACE}-g2"
    shop.check()


def test_a_catalogue_that_cannot_go_on_does_not_hold_up_the_others(shop):
    shop.upload(1, 2)
    shop.stores.lineages.put(Lineage("hats", Generation("hats", SPACE, SPACE)))
    shop.reindex().begin("hats")
    shop.reindex().begin("shop")
    shop.wait(100)
    read = shop.stores.registry.read

    def failing(scope, since=0.0):
        if scope.startswith("hats/"):
            raise Conflict("always")
        return read(scope, since)

    shop.stores.registry.read = failing
    report = shop.reindex().run(FOREVER)
    assert report.postponed == {"hats": "always"}
    assert [(item.catalogue, item.phase) for item in report.catalogues] == [
        ("hats", "filling"),
        ("shop", "kept"),
    ]
