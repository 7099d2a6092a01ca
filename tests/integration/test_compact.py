"""Compaction on stores in memory: no row lost, none twice, whatever stops it or is beside it."""

from __future__ import annotations

import threading
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from crash_points.world import Inline
from lookalike.adapters.failing import FailingStores
from lookalike.core.compaction import CompactionPolicy, named_keys, swapped
from lookalike.core.errors import Conflict, NotFound
from lookalike.core.head import Head, encode_head, fit_head, with_shards
from lookalike.core.keys import base_key, content_digest, head_key, segment_key
from lookalike.core.ports import Stores
from lookalike.core.segment import Row
from lookalike.core.types import (
    Build,
    Counts,
    Generation,
    Lineage,
    Manifest,
    Product,
    Shard,
    View,
)
from lookalike.services.append import append_rows
from lookalike.services.collect import collect
from lookalike.services.compact import Compaction
from lookalike.services.segments import read_segment

SPACE = "efficientnet-lite0-border-v1"
DIM = 12
GENERATION = Generation("shop", SPACE, SPACE)
POLICY = CompactionPolicy(merge_segments=3, base_rows=8, flat_rows=20, settle_s=90, grace_s=900)
FOREVER = float("inf")


class Shop:
    """A catalogue whose rows are appended as ingest does it."""

    def __init__(self, stores: Stores, clock) -> None:
        self.stores, self.clock = stores, clock
        self.lineage = stores.lineages.put(Lineage("shop", GENERATION))
        self.live: dict[str, str] = {}

    def compaction(self, stores: Stores | None = None, **changes) -> Compaction:
        return Compaction(stores or self.stores, replace(POLICY, **changes), Inline(), self.clock)

    def upload(self, *names: str, version: int = 0, generations=(GENERATION,)) -> None:
        rows = [
            Row(f"shop/{name}.jpg", f"{version:016x}", embedding(name, version), {"name": name})
            for name in names
        ]
        append_rows(
            self.stores.index,
            self.stores.registry,
            generations,
            {SPACE: rows},
            self.clock(),
        )
        for row in rows:
            self.record(row.key, row.version)

    def record(self, key: str, version: str) -> None:
        product_id = key.removeprefix("shop/").removesuffix(".jpg")
        view = View(key, "etag", version, "s", 0, 1, 1, "", 0.0, 0.0)
        known = self.stores.products.get_many([("shop", product_id)]).get(("shop", product_id))
        revision = known.revision if known else None
        product = Product("shop", product_id, SPACE, {key: view}, revision=revision)
        self.stores.products.put(product)
        self.live[key] = version
        self._count()

    def delete(self, name: str) -> None:
        found = self.stores.products.get_many([("shop", name)])
        self.stores.products.delete(found["shop", name])
        del self.live[f"shop/{name}.jpg"]
        self._count()

    def _count(self) -> None:
        self.stores.counts.set("shop", Counts(len(self.live), len(self.live)))

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    def read(self, generation: Generation = GENERATION):
        return self.stores.registry.read(generation.scope)

    def raw_rows(self, generation: Generation = GENERATION) -> Counter:
        """Every raw row of the scope, by (key, version)."""
        entries, manifest = self.read(generation)
        digests = [run.digest for shard in manifest.shards for run in shard.runs]
        digests += [
            entry.digest
            for entry in entries
            if segment_key("shop", entry.digest) not in manifest.replaced
        ]
        rows: Counter = Counter()
        for digest in digests:
            segment = read_segment(self.stores.index, "shop", digest)
            rows.update(zip(segment.keys, segment.versions, strict=True))
            for number, raw in enumerate(segment.embeddings()):
                name = segment.attributes[number]["name"]
                assert segment.keys[number] == f"shop/{name}.jpg"
                version = int(segment.versions[number], 16)
                assert float(raw @ embedding(name, version)) > 0.999
        return rows

    def check(self, generation: Generation = GENERATION) -> None:
        """Nothing that counts is missing, and every named file is there."""
        assert set(self.live.items()) <= self.raw_rows(generation).keys()
        _, manifest = self.read(generation)
        for shard in manifest.shards:
            if shard.base:
                assert self.stores.index.head(base_key("shop", shard.base.digest))

    def objects(self) -> set[str]:
        return {info.key for info in self.stores.index.list("")}


def embedding(name: str, version: int = 0) -> np.ndarray:
    seed = zlib.crc32(f"{name}/{version}".encode())
    vector = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


@pytest.fixture
def shop(memory_stores, clock) -> Shop:
    return Shop(memory_stores, clock)


@pytest.fixture
def new_shop(fresh_stores, clock) -> Callable[[], Shop]:
    return lambda: Shop(fresh_stores(), clock)


def test_nothing_to_do_costs_a_few_reads(shop):
    shop.upload("a")
    failing = FailingStores(shop.stores)
    compaction = shop.compaction(failing.stores)
    compaction.run(FOREVER)
    before = failing.calls
    report = compaction.run(FOREVER)
    assert report.finished and report.merged_segments == 0
    assert failing.calls - before <= 3


def test_segments_become_a_run_and_runs_a_base(shop):
    for number in range(3):
        shop.upload(f"a{number}", f"b{number}")
    report = shop.compaction().run(FOREVER)
    entries, manifest = shop.read()
    assert (entries, report.merged_segments, report.merged_rows) == ([], 3, 6)
    assert [run.rows for run in manifest.shards[0].fresh] == [6]
    for number in range(3, 6):
        shop.upload(f"a{number}", f"b{number}")
    report = shop.compaction().run(FOREVER)
    _, manifest = shop.read()
    (shard,) = manifest.shards
    assert report.bases == 1 and shard.base.rows == 12 and shard.fresh == ()
    assert sum(run.rows for run in shard.covered) == 12
    assert set(shop.raw_rows().values()) == {1}
    shop.check()


def test_dead_rows_go_once_they_are_settled_and_live_ones_stay(shop):
    for number in range(12):
        shop.upload(f"p{number}")
    shop.upload("p0", version=1)
    shop.delete("p1")
    compaction = shop.compaction()
    compaction.run(FOREVER)
    assert len(shop.raw_rows()) == 13, "all are too young to tell"
    shop.wait(100)
    for number in range(12, 24):
        shop.upload(f"p{number}")
    shop.wait(100)
    report = compaction.run(FOREVER)
    assert report.dropped_rows == 2
    assert shop.raw_rows() == Counter(shop.live.items())
    _, manifest = shop.read()
    assert manifest.shards[0].base.rows == 23


def test_a_row_whose_record_is_not_written_yet_is_kept(shop):
    for number in range(9):
        shop.upload(f"p{number}")
    rows = [Row("shop/late.jpg", "f" * 16, embedding("late", 2**64 - 1), {"name": "late"})]
    append_rows(shop.stores.index, shop.stores.registry, [GENERATION], {SPACE: rows}, shop.clock())
    shop.compaction().run(FOREVER)
    assert ("shop/late.jpg", "f" * 16) in shop.raw_rows()
    shop.record("shop/late.jpg", "f" * 16)
    shop.wait(100)
    shop.compaction().run(FOREVER)
    shop.check()


def test_rows_that_were_appended_twice_become_one(shop):
    for _ in range(4):
        shop.upload("a", "b", "c")
    shop.compaction().run(FOREVER)
    assert shop.raw_rows() == Counter({row: 1 for row in shop.live.items()})


def test_many_dead_rows_call_for_a_rebuild_once_an_hour(shop):
    for number in range(30):
        shop.upload(f"p{number}")
    compaction = shop.compaction()
    compaction.run(FOREVER)
    for number in range(15):
        shop.delete(f"p{number}")
    shop.wait(100)
    assert compaction.run(FOREVER).bases == 0, "the base is new"
    shop.wait(3700)
    report = compaction.run(FOREVER)
    assert (report.bases, report.dropped_rows) == (1, 15)
    # Counts that are wrong do not make it rebuild for ever.
    shop.stores.counts.set("shop", Counts(0, 0))
    assert compaction.run(FOREVER).bases == 0
    shop.check()


def test_when_all_rows_are_dead_nothing_is_left(shop):
    for number in range(12):
        shop.upload(f"p{number}")
    compaction = shop.compaction()
    compaction.run(FOREVER)
    for number in range(12):
        shop.delete(f"p{number}")
    shop.wait(4000)
    compaction.run(FOREVER)
    _, manifest = shop.read()
    assert manifest.shards == (Shard(),)
    shop.wait(4000)
    compaction.run(FOREVER)
    assert shop.objects() == set()


def test_replaced_files_stay_for_the_grace_period(shop):
    for number in range(12):
        shop.upload(f"p{number}")
    before = shop.objects()
    compaction = shop.compaction()
    compaction.run(FOREVER)
    assert before <= shop.objects()
    shop.wait(800)
    compaction.run(FOREVER)
    assert before <= shop.objects()
    shop.wait(100)
    report = compaction.run(FOREVER)
    assert report.deleted_objects == len(before)
    assert not before & shop.objects()
    assert shop.read()[1].replaced == {}
    shop.check()


def test_a_file_that_another_generation_names_is_not_deleted(shop):
    other = Generation("shop", f"{SPACE}-g2", SPACE)
    shop.stores.lineages.put(replace(shop.lineage, beside=Build(other, "kept", 0.0, 0.0)))
    for number in range(3):
        shop.upload(f"p{number}", generations=(GENERATION,))
        entries, _ = shop.read()
        shop.stores.registry.add(replace(entries[-1], scope=other.scope))
    named = {segment_key("shop", entry.digest) for entry in shop.read(other)[0]}
    compaction = shop.compaction()
    compaction.compact(GENERATION, FOREVER)
    shop.wait(1000)
    assert compaction.compact(GENERATION, FOREVER).outcome.deleted_objects == 0
    assert named <= shop.objects() and shop.read()[1].replaced == {}
    shop.check(other)
    # It is for the other generation now to let go of them.
    compaction.compact(other, FOREVER)
    shop.wait(1000)
    compaction.compact(other, FOREVER)
    assert not named & shop.objects()
    shop.check()
    shop.check(other)


def test_orphans_are_claimed_first_and_deleted_a_grace_later(shop):
    for number in range(3):
        shop.upload(f"p{number}")
    shop.compaction().run(FOREVER)
    orphans = {
        segment_key("shop", "0" * 32),
        base_key("shop", "1" * 32),
        head_key("shop", "2" * 32),
    }
    for key in orphans:
        shop.stores.index.put(key, b"left behind", "")
    shop.stores.index.put(segment_key("other", "0" * 32), b"of another catalogue", "")
    compaction = shop.compaction()
    assert compaction.run(FOREVER, "shop").orphans == 0, "somebody may be about to name them"
    shop.wait(3700)
    assert compaction.run(FOREVER, "shop").orphans == 3
    assert orphans <= shop.objects()
    shop.wait(1000)
    compaction.run(FOREVER)
    assert not orphans & shop.objects()
    assert segment_key("other", "0" * 32) in shop.objects()
    shop.check()


def test_orphans_are_looked_for_at_the_first_run_and_then_once_an_hour(shop):
    shop.upload("a")
    lists, listing = [], shop.stores.index.list

    def counted(prefix):
        lists.append(prefix)
        return listing(prefix)

    shop.stores.index.list = counted
    compaction = shop.compaction()
    looks = []
    # A run may be late by a minute or more, or last for one.
    for _ in range(40):
        before = len(lists)
        compaction.run(FOREVER)
        looks.append(len(lists) > before)
        shop.wait(290)
    assert looks[0] and sum(looks) == 4


def test_two_collectors_cannot_delete_what_is_named(shop):
    """Both decided on one revision; between them the same rows were built again."""
    for number in range(12):
        shop.upload(f"p{number}")
    compaction = shop.compaction()
    compaction.run(FOREVER)
    _, first = shop.read()
    # The base goes, as if all its rows had left it, and its grace passes.
    without = swapped(first, shop.clock(), shards=[Shard(fresh=first.shards[0].covered)])
    shop.stores.registry.put_manifest(without)
    shop.wait(1000)
    entries, planned = shop.read()
    keys = tuple(planned.replaced)
    assert base_key("shop", first.shards[0].base.digest) in keys
    assert collect(shop.stores, shop.lineage, planned, entries, keys, Inline()) == len(keys)
    assert compaction.run(FOREVER).bases == 1
    _, rebuilt = shop.read()
    with pytest.raises(Conflict):
        collect(shop.stores, shop.lineage, planned, entries, keys, Inline())
    base = rebuilt.shards[0].base
    assert base.rows == first.shards[0].base.rows
    assert named_keys(rebuilt, entries) <= shop.objects()
    shop.check()


def test_generations_of_one_space_have_bases_of_their_own(shop):
    for number in range(12):
        shop.upload(f"p{number}")
    shop.compaction().run(FOREVER)
    _, manifest = shop.read()
    other = Generation("shop", f"{SPACE}-g2", SPACE)
    raw = Shard(fresh=manifest.shards[0].runs)
    shop.stores.registry.put_manifest(Manifest(other.scope, shards=(raw,)))
    at = manifest.shards[0].base.built_at
    standing = Compaction(shop.stores, POLICY, Inline(), lambda: at)
    standing.compact(other, FOREVER)
    _, theirs = shop.read(other)
    assert theirs.shards[0].base.built_at == at
    assert theirs.shards[0].base.digest != manifest.shards[0].base.digest


def test_a_catalogue_must_exist(shop):
    with pytest.raises(NotFound, match="nowhere"):
        shop.compaction().run(FOREVER, "nowhere")


@pytest.mark.parametrize("damage", ["altered", "gone"])
@pytest.mark.parametrize("place", ["appended", "fresh", "covered"])
def test_a_file_that_cannot_be_read_stays_named_and_the_rest_goes_on(shop, caplog, place, damage):
    names = iter(f"p{number}" for number in range(100))
    compaction = shop.compaction()
    shop.upload(next(names), next(names))
    if place != "appended":
        for _ in range(2 if place == "fresh" else 8):
            shop.upload(next(names))
        compaction.run(FOREVER)
    entries, manifest = shop.read()
    digest = (*entries, *manifest.shards[0].runs)[0].digest
    key = segment_key("shop", digest)
    if damage == "gone":
        shop.stores.index.delete(key)
    else:
        body = shop.stores.index.get(key, 10**9)[1]
        shop.stores.index.put(key, body[:-20] + bytes(20), "")
    base = manifest.shards[0].base
    for _ in range(12):
        shop.upload(next(names))
    shop.wait(100)
    report = compaction.run(FOREVER)
    assert report.unreadable == [key] and key in caplog.text
    assert report.merged_segments == 12 and report.finished
    for _ in range(2):
        entries, after = shop.read()
        runs = [run.digest for shard in after.shards for run in shard.runs]
        assert digest in [entry.digest for entry in entries] + runs
        assert key not in after.replaced
        if place == "covered":
            assert after.shards[0].base == base, "the rows that were lost are in it"
        else:
            assert after.shards[0].base.rows == 12
        again = compaction.run(FOREVER)
        assert again.finished and again.bases == 0


@pytest.mark.parametrize("damage", ["gone", "cut off"])
def test_a_base_that_is_lost_is_built_anew_out_of_its_raw_rows(shop, caplog, damage):
    for number in range(12):
        shop.upload(f"p{number}")
    compaction = shop.compaction()
    assert compaction.run(FOREVER).bases == 1
    base = shop.read()[1].shards[0].base
    key = base_key("shop", base.digest)
    if damage == "gone":
        shop.stores.index.delete(key)
    else:
        body = shop.stores.index.get(key, 10**9)[1]
        shop.stores.index.put(key, body[:-1], "")
    shop.wait(290)
    assert compaction.run(FOREVER).bases == 0, "not every run looks"
    shop.wait(20)
    report = compaction.run(FOREVER)
    assert (report.bases, report.unreadable, report.finished) == (1, [key], True)
    assert key in caplog.text
    _, manifest = shop.read()
    rebuilt = manifest.shards[0].base
    assert rebuilt.rows == base.rows and rebuilt.digest != base.digest
    assert key in manifest.replaced
    assert set(shop.raw_rows().values()) == {1}
    shop.check()
    shop.wait(400)
    report = compaction.run(FOREVER)
    assert (report.bases, report.unreadable) == (0, [])


def test_a_lost_base_goes_even_when_not_all_of_its_raw_rows_are_there(shop):
    for number in range(12):
        shop.upload(f"p{number}")
    shop.compaction().run(FOREVER)
    shop.upload("q0", "q1", "q2")
    shop.compaction(merge_segments=1).run(FOREVER)
    (shard,) = shop.read()[1].shards
    base, raw = base_key("shop", shard.base.digest), segment_key("shop", shard.covered[0].digest)
    assert len(shard.covered) == len(shard.fresh) == 1
    body = shop.stores.index.get(raw, 10**9)[1]
    for key in (base, raw):
        shop.stores.index.delete(key)
    report = shop.compaction().run(FOREVER)
    assert set(report.unreadable) == {base, raw} and report.finished
    (shard,) = shop.read()[1].shards
    assert shard.base is None and sum(run.rows for run in shard.fresh) == 15
    # Whoever puts the file back puts its rows back.
    shop.stores.index.put(raw, body, "")
    assert shop.compaction().run(FOREVER).bases == 1
    assert shop.read()[1].shards[0].base.rows == 15
    shop.check()


def test_looking_for_lost_bases_is_one_call_each_now_and_then(shop):
    for number in range(12):
        shop.upload(f"p{number}")
    compaction, heads, head = shop.compaction(), [], shop.stores.index.head
    compaction.run(FOREVER)

    def counted(key):
        heads.append(key)
        return head(key)

    shop.stores.index.head = counted
    compaction = shop.compaction()
    for _ in range(10):
        compaction.run(FOREVER)
        shop.wait(60)
    assert heads == [base_key("shop", shop.read()[1].shards[0].base.digest)] * 2
    compaction.run(shop.clock.now - 1)
    assert len(heads) == 2
    compaction.run(FOREVER, "shop")
    assert len(heads) == 3, "by hand it looks at once"


def test_a_generation_without_its_head_does_not_hold_up_the_other(shop):
    kept = replace(GENERATION, generation="g2")
    shop.lineage = shop.stores.lineages.put(
        replace(shop.lineage, beside=Build(kept, "kept", 0.0, 0.0))
    )
    for number in range(4):
        shop.upload(f"p{number}", generations=(GENERATION, kept))
    _, manifest = shop.read()
    shop.stores.registry.put_manifest(replace(manifest, head="0" * 32))
    report = shop.compaction().run(FOREVER)
    assert "is not in the bucket; `lookalike reindex`" in report.postponed["shop"]
    assert not report.finished and report.merged_segments == 4
    assert len(shop.read()[0]) == 4 and shop.read(kept)[0] == []


def test_rows_of_another_encoder_are_never_merged(shop, caplog):
    shop.upload("a", "b")
    other = "efficientnet-lite1-border-v1"
    stray = replace(GENERATION, encoder=other)
    rows = [Row("shop/c.jpg", "0" * 16, embedding("c"), {})]
    append_rows(shop.stores.index, shop.stores.registry, [stray], {other: rows}, shop.clock())
    shop.upload("d")
    report = shop.compaction().run(FOREVER)
    assert len(report.unreadable) == 1 and f"of another space, {other}" in caplog.text
    assert [entry.rows for entry in shop.read()[0]] == [1]
    assert [run.rows for run in shop.read()[1].shards[0].fresh] == [3]


def with_routing(shop: Shop, shards: int) -> Head:
    """A scope as a build leaves it: head and centroids there, runs yet to be routed."""
    _, manifest = shop.read()
    raw = np.stack([embedding(f"p{number}") for number in range(60)])
    head = with_shards(fit_head(raw, 8), raw, shards)
    data = encode_head(head)
    digest = content_digest(data)
    shop.stores.index.put(head_key("shop", digest), data, "")
    unrouted = Shard(fresh=manifest.shards[0].runs)
    shop.stores.registry.put_manifest(
        replace(
            manifest,
            head=digest,
            fitted_rows=60,
            shards=(*(Shard() for _ in range(shards)), unrouted),
        )
    )
    return head


def test_rows_are_routed_to_the_shard_of_the_nearest_centroid(shop):
    for number in range(0, 60, 4):
        shop.upload(*(f"p{n}" for n in range(number, number + 4)))
    shop.compaction(base_rows=1000).run(FOREVER)
    head = with_routing(shop, 3)
    shop.upload("late")
    shop.compaction(merge_segments=1, base_rows=5).run(FOREVER)
    _, manifest = shop.read()
    assert len(manifest.shards) == 3
    assert sum(shard.base.rows for shard in manifest.shards if shard.base) >= 56
    for number, shard in enumerate(manifest.shards):
        for run in shard.runs:
            segment = read_segment(shop.stores.index, "shop", run.digest)
            assert set(head.route(head.project(segment.embeddings())).tolist()) == {number}
    assert shop.raw_rows() == Counter(shop.live.items())


def test_a_compaction_that_loses_the_race_changes_nothing(shop):
    for number in range(12):
        shop.upload(f"p{number}")
    quick, registry = shop.compaction(), shop.stores.registry
    original, raced = registry.put_manifest, []

    def put(manifest):
        if not raced:
            raced.append(True)
            quick.run(FOREVER)
        return original(manifest)

    registry.put_manifest = put
    assert shop.compaction().run(FOREVER).finished
    assert raced
    assert shop.raw_rows() == Counter(shop.live.items())
    registry.put_manifest = lambda manifest: (_ for _ in ()).throw(Conflict("always"))
    for number in range(12, 24):
        shop.upload(f"p{number}")
    report = shop.compaction().run(FOREVER)
    assert report.postponed == {"shop": "always"} and not report.finished
    registry.put_manifest = original
    shop.check()


def test_appends_and_compactions_beside_each_other_lose_nothing(memory_stores, clock):
    shop = Shop(memory_stores, clock)
    policy = replace(POLICY, settle_s=10**6, grace_s=10**6)
    stop = threading.Event()

    def compact() -> None:
        with ThreadPoolExecutor(2) as pool:
            while not stop.is_set():
                Compaction(memory_stores, policy, pool, clock).run(FOREVER)

    def append(writer: int) -> None:
        for number in range(40):
            shop.upload(f"w{writer}n{number}", f"w{writer}m{number}")

    with ThreadPoolExecutor(5) as pool:
        compactors = [pool.submit(compact) for _ in range(2)]
        for writer in [pool.submit(append, number) for number in range(3)]:
            writer.result()
        stop.set()
        for compactor in compactors:
            compactor.result()
    Compaction(memory_stores, policy, Inline(), clock).run(FOREVER)
    assert len(shop.live) == 240
    assert shop.raw_rows() == Counter(shop.live.items())
    assert shop.read()[1].shards[0].base
