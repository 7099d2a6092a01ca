"""A generation is built beside the current one and swapped in whole, whatever stops or races it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from crash_points.world import Inline
from lookalike.adapters.failing import FailingStores
from lookalike.core import generations
from lookalike.core.compaction import CompactionPolicy
from lookalike.core.errors import Conflict, InvalidRequest, NotFound, Unavailable
from lookalike.core.generations import GenerationPolicy, shard_rows
from lookalike.core.head import decode_head
from lookalike.core.images import ImageLimits
from lookalike.core.keys import head_key, segment_key
from lookalike.core.ports import Stores
from lookalike.core.segment import Row
from lookalike.core.types import Counts, Generation, Lineage, Product, View
from lookalike.services import new_generation
from lookalike.services.append import append_rows
from lookalike.services.bring_over import PhotoReader
from lookalike.services.compact import Compaction
from lookalike.services.ingest import Ingest
from lookalike.services.observe import Observer
from lookalike.services.reindex import Reindex
from lookalike.services.segments import read_segment
from lookalike.settings import Settings, policy_of

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
        return Reindex(stores, policy, settings.pooling, compaction, photos, Inline(), self.clock)

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
    shop.wait(30)
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
        # Time for little more than one step of filling.
        filled = shop.lineage.beside.phase == "compacting"
        (state,) = reindex.run(shop.clock.now + (50 if filled else 3)).catalogues
        states.append((state.phase, state.done, state.total))
        assert len(states) < 50
    filling = [done for phase, done, _ in states if phase == "filling"]
    assert sorted(set(filling)) == [0, 50, 100]
    assert all(total == 120 for _, _, total in states if total)
    assert toy_encoder_of(OTHER).encoded == 120
    shop.check()


def test_a_batch_is_so_many_views_and_a_product_at_least(shop, toy_encoder_of, monkeypatch):
    monkeypatch.setattr(new_generation, "BATCH_VIEWS", 5)
    for product, views in enumerate((3, 2, 7, 1, 4, 1)):
        keys = [f"shop/p{product}/{number}.jpg" for number in range(views)]
        for number, key in enumerate(keys):
            photo = shop.photo(10 * product + number, size=(48, 48))
            shop.stores.images.put_object(key, photo, "image/jpeg")
        assert shop.ingest.reconcile(keys) == {}
    reindex, done = shop.reindex(), []
    reindex.begin("shop", "efficientnet-lite1")
    shop.wait(100)
    while shop.lineage.current.encoder == SPACE:
        filled = shop.lineage.beside.phase == "compacting"
        done.append(reindex.run(shop.clock.now + (50 if filled else 3)).catalogues[0].done)
        assert len(done) < 20
    assert sorted(set(done)) == [0, 5, 12, 17, 18]
    assert toy_encoder_of(OTHER).encoded == 18
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
    state = shop.reindex().begin("shop", "efficientnet-lite1")
    assert (state.phase, state.next, state.next_encoder) == ("dropping", f"{OTHER}-g3", OTHER)
    assert shop.reindex().begin("shop", "efficientnet-lite1") == state, "asking twice is once"
    for other in ("efficientnet-lite2", None):
        with pytest.raises(InvalidRequest, match=f"{OTHER} is being built; give it up"):
            shop.reindex().begin("shop", other)
    assert shop.reindex().drop("shop").next == ""
    assert shop.reindex().begin("shop", "efficientnet-lite1") == state
    shop.wait(100)
    (state,) = shop.reindex().run(FOREVER).catalogues
    assert (state.phase, state.beside_encoder) == ("announced", OTHER)
    assert state.beside == f"{OTHER}-g3"


def test_a_fit_on_a_sample_is_as_good_as_one_on_all_it_could_have_had(shop, monkeypatch):
    """The sample rounds down, file by file: no reason to fit again for ever."""
    for module in (generations, new_generation):
        monkeypatch.setattr(module, "MAX_FITTED_ROWS", 20)
    monkeypatch.setattr(new_generation, "_SAMPLED_ROWS", 80)
    for start in range(0, 168, 7):
        shop.upload(*range(start, start + 7))
    reindex = shop.reindex(head_rows=10)
    shop.finish(reindex)
    current = shop.lineage.current
    assert current.generation == f"{SPACE}-g2"
    assert shop.stores.registry.read(current.scope)[1].fitted_rows == 20
    for _ in range(10):
        shop.wait(1000)
        reindex.run(FOREVER)
        assert shop.lineage.current == current
        assert shop.lineage.beside is None or shop.lineage.beside.phase in {"kept", "dropping"}


def raw_files(shop: Shop, generation: Generation, rows_of: dict[str, np.ndarray]) -> None:
    """Rows of embeddings that are given, in the registry, in records and in the counts."""
    rows = [Row(f"shop/{name}.jpg", "0" * 16, row, {}) for name, row in rows_of.items()]
    append_rows(shop.stores.index, shop.stores.registry, [generation], {SPACE: rows}, shop.clock())
    for name in rows_of:
        key = f"shop/{name}.jpg"
        view = View(key, "e", "0" * 16, "s", 0, 1, 1, "", 0.0, 0.0)
        shop.stores.products.put(Product("shop", name, SPACE, {key: view}))
    shop.stores.counts.add("shop", Counts(len(rows), len(rows)))


@pytest.mark.parametrize("alike", [False, True])
def test_a_shard_that_is_too_full_is_split_if_it_can_be(shop, alike):
    generation = Generation("shop", SPACE, SPACE)
    shop.stores.lineages.put(Lineage("shop", generation))
    rng = np.random.default_rng(0)
    centre = rng.normal(size=24)
    spread = 0 if alike else 0.05
    many = {f"a{n}": (centre + spread * rng.normal(size=24)).astype("f4") for n in range(60)}
    few = {f"b{n}": rng.normal(size=24).astype("f4") for n in range(20)}
    options = {"shard_rows": 20, "head_rows": 10, "head_dim": 24}
    reindex = shop.reindex(**options)
    raw_files(shop, generation, many | few)
    shop.finish(reindex)

    def shards() -> list[int]:
        _, manifest = shop.stores.registry.read(shop.lineage.current.scope)
        return [shard_rows(shard) for shard in manifest.shards]

    assert sum(shards()) == 80
    assert (max(shards()) <= 1.5 * 20) is not alike
    # What could not be split is not tried again before there is half as much more of it.
    first = shop.lineage.current
    for _ in range(6):
        shop.wait(2000)
        reindex.run(FOREVER)
        assert shop.lineage.current == first
        assert shop.lineage.beside is None or shop.lineage.beside.phase in {"kept", "dropping"}
    before = max(shards())
    for number in range(3):
        more = {f"c{number}x{n}": centre.astype("f4") for n in range(before // 6 + 1)}
        raw_files(shop, first, more)
    for _ in range(8):
        shop.wait(2000)
        shop.compaction(**options).run(FOREVER)
        reindex.run(FOREVER)
    assert shop.lineage.current.generation == f"{SPACE}-g3"


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


def test_completing_goes_on_where_it_stopped(shop, monkeypatch):
    monkeypatch.setattr(new_generation, "_CHECKED_PAGE", 4)
    monkeypatch.setattr(new_generation, "_PAGE", 3)
    shop.upload(*range(10, 40))
    shop.compaction(base_rows=1000).run(FOREVER)
    lost = lose_a_file(shop, shop.lineage.current)
    reindex = shop.reindex(base_rows=1000)
    reindex.begin("shop")
    shop.wait(100)
    cursors = []
    while shop.lineage.beside.phase != "kept":
        reindex.run(shop.clock.now + 18)
        cursors.append(shop.lineage.beside.cursor)
        assert len(cursors) < 40
    places = [cursor for cursor in cursors if cursor]
    # Once more when all is there, to see that nothing is missing.
    again = [number for number in range(1, len(places)) if places[number] < places[number - 1]]
    assert len(set(places)) > 3 and len(again) == 1
    shop.check()
    _, manifest = shop.stores.registry.read(shop.lineage.current.scope)
    assert lost not in [run.digest for shard in manifest.shards for run in shard.runs]


def test_a_file_that_is_lost_while_completing_is_noticed(shop, monkeypatch):
    """What it held was compared already: everything is compared again."""
    monkeypatch.setattr(new_generation, "_CHECKED_PAGE", 4)
    shop.upload(*range(10, 40))
    shop.compaction(base_rows=1000).run(FOREVER)
    reindex = shop.reindex(base_rows=1000)
    reindex.begin("shop")
    shop.wait(100)
    while not shop.lineage.beside.cursor:
        reindex.run(shop.clock.now + 12)
    lose_a_file(shop, shop.lineage.beside.generation)
    shop.finish(reindex)
    shop.check()


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


def test_what_replaces_lost_files_gets_its_head_and_bases_before_the_swap(shop, monkeypatch):
    monkeypatch.setattr(new_generation, "_PAGE", 3)
    shop.upload(*range(24))
    entries, _ = shop.stores.registry.read(shop.lineage.current.scope)
    for entry in entries:
        shop.stores.index.delete(segment_key("shop", entry.digest))
    reindex = shop.reindex(head_rows=20, shard_rows=10)
    reindex.begin("shop")
    shop.wait(100)
    assert reindex.run(FOREVER).catalogues[0].phase == "kept"
    _, manifest = shop.stores.registry.read(shop.lineage.current.scope)
    assert manifest.head and manifest.fitted_rows == 24 and len(manifest.shards) >= 3
    assert manifest.fullest_rows and any(shard.base for shard in manifest.shards)
    shop.check()


def damage_head(shop: Shop, generation: Generation, damage: str) -> None:
    _, manifest = shop.stores.registry.read(generation.scope)
    key = head_key("shop", manifest.head)
    if damage == "gone":
        shop.stores.index.delete(key)
    else:
        body = shop.stores.index.get(key, 10**9)[1]
        shop.stores.index.put(key, body[:-20] + bytes(20), "")


@pytest.mark.parametrize("damage", ["gone", "altered"])
def test_a_head_that_is_lost_is_made_anew_without_being_asked_for(shop, damage):
    shop.upload(*range(24))
    options = {"head_rows": 20}
    shop.finish(shop.reindex(**options))
    shop.wait(8000)
    for _ in range(2):  # the generation before goes
        shop.reindex(**options).run(FOREVER)
        shop.wait(100)
    assert shop.lineage.beside is None
    first, running = shop.lineage.current, shop.reindex(**options)
    assert running.run(FOREVER).catalogues[0].phase == ""
    damage_head(shop, first, damage)
    shop.upload(24, 25, 26)
    report = shop.compaction(**options).run(FOREVER)
    assert not report.finished and "`lookalike reindex` makes it anew" in report.postponed["shop"]
    # A process that has read it before notices, too.
    shop.wait(400)
    assert running.run(FOREVER).catalogues[0].phase == "announced"
    shop.wait(100)
    shop.finish(running)
    assert shop.lineage.current.generation == f"{SPACE}-g3"
    _, manifest = shop.stores.registry.read(shop.lineage.current.scope)
    assert manifest.head and manifest.shards[0].base
    shop.check()
    # What is kept has no head either: it is no way back.
    shop.wait(1000)
    state = running.run(FOREVER).catalogues[0]
    assert (state.phase, state.beside, state.next) == ("dropping", first.generation, "")


def test_a_head_that_is_lost_during_the_build_is_fitted_again(shop, monkeypatch):
    shop.upload(*range(24))
    reindex = shop.reindex(head_rows=20)
    reindex.begin("shop")
    shop.wait(100)
    fit, lost = new_generation.NewGeneration.fit, []

    def fit_and_lose(self, rows, *, anew=False):
        did = fit(self, rows, anew=anew)
        if did and not lost:
            lost.append(anew)
            damage_head(shop, self._generation, "gone")
        return did

    monkeypatch.setattr(new_generation.NewGeneration, "fit", fit_and_lose)
    shop.finish(reindex)
    assert lost == [False]
    _, manifest = shop.stores.registry.read(shop.lineage.current.scope)
    assert shop.stores.index.head(head_key("shop", manifest.head))
    shop.check()


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
