"""Appends to every generation of a catalogue: memory stores, encoders without a model."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import pytest
from PIL import Image

from lookalike.core.errors import Conflict, CorruptFile, Unavailable, Vanished
from lookalike.core.images import ImageLimits
from lookalike.core.keys import map_key, segment_key
from lookalike.core.ports import Stores
from lookalike.core.types import (
    BaseEntry,
    Build,
    Failure,
    Generation,
    Lineage,
    Manifest,
    Product,
    Run,
    SegmentEntry,
    Shard,
)
from lookalike.services.catalogue import BuildStats, Catalogue
from lookalike.services.clusters import Clusters
from lookalike.services.ingest import Ingest
from lookalike.services.observe import Observer
from lookalike.services.segments import read_segment
from lookalike.services.sweep import Sweep

SPACE, OTHER = "efficientnet-lite0-border-v1", "efficientnet-lite1-border-v1"


@dataclass
class System:
    """Ingestion on stores in memory; ``encoder_of`` gives toy encoders."""

    stores: Stores
    ingest: Ingest
    encoder_of: Callable

    def upload(self, files: dict[str, bytes], **metadata: str) -> None:
        for key, body in files.items():
            self.stores.images.put_object(key, body, "image/jpeg", metadata)
        assert self.ingest.reconcile(list(files)) == {}

    def announce(self, name: str, space: str, phase: str = "announced") -> None:
        lineage = self.stores.lineages.get("shop")
        build = Build(Generation("shop", name, space), phase, 1.0, 2.0)
        self.stores.lineages.put(replace(lineage, beside=build, serial=lineage.serial + 1))

    def entries(self, generation: str) -> list[SegmentEntry]:
        return self.stores.registry.read(f"shop/{generation}")[0]

    def rows(self, generation: str) -> dict[tuple[str, str], tuple[str, np.ndarray, dict]]:
        """Every row of a scope: (space, embedding, attributes) by (key, version)."""
        found = {}
        for entry in self.entries(generation):
            segment = read_segment(self.stores.index, "shop", entry.digest)
            assert len(segment) == entry.rows
            for key, version, embedding, attributes in zip(
                segment.keys,
                segment.versions,
                segment.embeddings(),
                segment.attributes,
                strict=True,
            ):
                found[key, version] = (segment.encoder, embedding, attributes)
        return found

    def products(self) -> list[Product]:
        return self.stores.products.page("shop", 100)[0]

    def views(self) -> dict[str, str]:
        """Versions of live views by key."""
        views = [view for product in self.products() for view in product.views.values()]
        return {view.key: view.version for view in views}

    def check(self, *generations: tuple[str, str]) -> None:
        """Each live view has a row, of its photo as it is, in every generation."""
        for generation, space in generations:
            rows = self.rows(generation)
            for product in self.products():
                for view in product.views.values():
                    encoder, embedding, attributes = rows[view.key, view.version]
                    assert (encoder, attributes) == (space, product.attributes)
                    body = self.stores.images.get(view.key, 10**7)[1]
                    image = Image.open(io.BytesIO(body)).convert("RGB")
                    (wanted,) = self.encoder_of(space).embed([image]).embeddings
                    assert float(wanted @ embedding) == pytest.approx(1, abs=1e-3)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


@pytest.fixture
def build(toy_encoder_of, clock, pool) -> Callable[[Stores], System]:
    def build_on(stores: Stores) -> System:
        observer = Observer(stores.images, ImageLimits(10**7, 10**8), 65_536)
        ingest = Ingest(stores, observer, toy_encoder_of, SPACE, pool, clock)
        return System(stores, ingest, toy_encoder_of)

    return build_on


@pytest.fixture
def system(build, memory_stores) -> System:
    return build(memory_stores)


def test_the_first_rows_begin_the_lineage(system, photo):
    assert system.ingest.reconcile(["shop/none.jpg"]) == {}
    assert system.stores.lineages.all() == []
    system.upload({"shop/a.jpg": photo(0)})
    lineage = system.stores.lineages.get("shop")
    assert lineage == Lineage(
        "shop", Generation("shop", SPACE, SPACE), None, 1, revision=lineage.revision
    )
    system.check((SPACE, SPACE))


def test_generations_of_one_space_share_a_segment(system, photo):
    system.upload({"shop/a.jpg": photo(0)})
    system.announce("g2", SPACE)
    encoded = system.encoder_of(SPACE).encoded
    system.upload({"shop/b.jpg": photo(1), "shop/c.jpg": photo(2)})
    assert system.encoder_of(SPACE).encoded == encoded + 2
    (entry,) = system.entries("g2")
    assert entry == replace(system.entries(SPACE)[-1], scope="shop/g2")
    assert len(list(system.stores.index.list("segments/"))) == 2
    assert {key for key, _ in system.rows("g2")} == {"shop/b.jpg", "shop/c.jpg"}
    system.check((SPACE, SPACE))


def test_generations_of_two_spaces_get_each_their_own_embeddings(system, photo):
    system.upload({"shop/a.jpg": photo(0)})
    system.announce("g2", OTHER)
    system.upload({f"shop/p{seed}.jpg": photo(seed) for seed in range(12)})
    system.upload({"shop/a.jpg": photo(20)})
    system.check((SPACE, SPACE), ("g2", OTHER))
    rows = system.rows("g2")
    assert {space for space, _, _ in rows.values()} == {OTHER}
    assert {space for space, _, _ in system.rows(SPACE).values()} == {SPACE}


def test_rows_are_known_everywhere_before_the_record_flips(system, photo):
    system.upload({"shop/a.jpg": photo(0)})
    system.announce("g2", OTHER)
    seen = []
    original = system.stores.products.put

    def put(product):
        places = [
            (name, view.key, view.version)
            for name in (SPACE, "g2")
            for view in product.views.values()
        ]
        seen.append(all((key, version) in system.rows(name) for name, key, version in places))
        return original(product)

    system.stores.products.put = put
    system.upload({"shop/a.jpg": photo(1), "shop/b.jpg": photo(2)}, category="mug")
    assert seen == [True, True]


def test_the_lineage_is_asked_for_in_every_pass(system, photo):
    """A generation that is announced is written to by the next pass, one that is dropped is not."""
    system.upload({"shop/a.jpg": photo(0)})
    system.announce("g2", OTHER)
    images = system.stores.images
    original, overwrites = images.get, iter([photo(1)])

    def get_then_change(key, limit):
        found = original(key, limit)
        if (body := next(overwrites, None)) is not None:
            images.put_object(key, body)
            lineage = system.stores.lineages.get("shop")
            system.stores.lineages.put(replace(lineage, beside=None))
            system.announce("g3", SPACE)
        return found

    images.get = get_then_change
    system.upload({"shop/b.jpg": photo(2)})
    assert [len(system.entries(name)) for name in (SPACE, "g2", "g3")] == [3, 1, 1]
    system.check((SPACE, SPACE))
    assert ("shop/b.jpg", system.views()["shop/b.jpg"]) in system.rows("g3")


def test_a_record_names_the_generation_that_was_current(system, photo):
    system.upload({"shop/a.jpg": photo(0), "shop/b.jpg": photo(1)})
    system.announce("g2", SPACE)
    lineage = system.stores.lineages.get("shop")
    kept = Build(lineage.current, "kept", 1.0, 2.0)
    current = lineage.beside.generation
    system.stores.lineages.put(replace(lineage, current=current, beside=kept))
    system.upload({"shop/a.jpg": photo(2)})
    assert [product.generation for product in system.products()] == ["g2", SPACE]
    assert len(system.entries("g2")) == 1 and len(system.entries(SPACE)) == 2


def test_every_commit_has_a_segment_of_its_own(system, photo):
    """A photo that is deleted and comes back is no segment that compaction merged away."""
    system.upload({"shop/a.jpg": photo(0)})
    system.stores.images.delete("shop/a.jpg")
    assert system.ingest.reconcile(["shop/a.jpg"]) == {}
    system.upload({"shop/a.jpg": photo(0)})
    first, second = system.entries(SPACE)
    assert first.digest != second.digest and first.committed_at < second.committed_at
    for entry in (first, second):
        body = system.stores.index.get(segment_key("shop", entry.digest), 10**6)[1]
        assert json.dumps({"committed_at": entry.committed_at})[1:-1].replace(" ", "") in str(
            body[:400]
        )


def read_keys(system: System) -> list[str]:
    """Bucket keys that are read from here on."""
    keys: list[str] = []
    original = system.stores.images.get
    system.stores.images.get = lambda key, limit: keys.append(key) or original(key, limit)
    return keys


def test_new_metadata_copies_rows_within_a_space(system, photo):
    system.upload({"shop/boot/front.jpg": photo(1), "shop/boot/side.jpg": photo(2)})
    system.announce("g2", SPACE)
    reads, encoded = read_keys(system), system.encoder_of(SPACE).encoded
    system.upload({"shop/boot/product.json": b'{"price": 3}'})
    assert reads == ["shop/boot/product.json"]
    assert system.encoder_of(SPACE).encoded == encoded
    system.check((SPACE, SPACE), ("g2", SPACE))


def test_new_metadata_reads_photos_for_another_space(system, photo):
    system.upload({"shop/boot/front.jpg": photo(1), "shop/boot/side.jpg": photo(2)})
    system.announce("g2", OTHER)
    system.upload({"shop/boot/product.json": b'{"price": 3}'})
    assert len(system.views()) == 2
    system.check((SPACE, SPACE), ("g2", OTHER))
    # The first space is current no more: rows of it alone are no help.
    lineage = system.stores.lineages.get("shop")
    system.stores.lineages.put(replace(lineage, current=lineage.beside.generation, beside=None))
    system.upload({"shop/boot/product.json": b'{"price": 4}'})
    system.check(("g2", OTHER))


def forget(system: System, *folders: str) -> None:
    """As after a compaction whose grace is over; without ``maps`` as before maps were stored."""
    for folder in folders:
        for info in list(system.stores.index.list(f"{folder}/")):
            system.stores.index.delete(info.key)
    for entry in system.entries(SPACE):
        system.stores.registry.remove([entry])


def test_new_metadata_takes_moved_rows_from_the_stored_maps(system, photo):
    """No photo is read, in one space and in two."""
    system.upload({"shop/boot/front.jpg": photo(1)})
    system.announce("g2", OTHER)
    system.upload({"shop/hat/a.jpg": photo(2), "shop/hat/b.jpg": photo(3)})
    forget(system, "segments")
    reads = read_keys(system)
    encoded = [system.encoder_of(space).encoded for space in (SPACE, OTHER)]
    system.upload({"shop/hat/product.json": b'{"price": 3}'})
    assert reads == ["shop/hat/product.json"]
    lineage = system.stores.lineages.get("shop")
    system.stores.lineages.put(replace(lineage, beside=None))
    system.upload({"shop/boot/product.json": b'{"price": 4}'})
    assert reads == ["shop/hat/product.json", "shop/boot/product.json"]
    assert [system.encoder_of(space).encoded for space in (SPACE, OTHER)] == encoded
    system.check((SPACE, SPACE))


def test_new_metadata_reads_the_photo_whose_map_cannot_be_read(system, photo, caplog):
    system.upload({"shop/boot/front.jpg": photo(1), "shop/boot/side.jpg": photo(2)})
    forget(system, "segments")
    etag = system.products()[0].views["shop/boot/side.jpg"].etag
    name = map_key(SPACE, "shop/boot/side.jpg", etag)
    whole = system.stores.index.get(name, 10**6)[1]
    system.stores.index.put_object(name, whole[:-1])
    reads = read_keys(system)
    system.upload({"shop/boot/product.json": b'{"price": 3}'})
    assert reads == ["shop/boot/product.json", "shop/boot/side.jpg"]
    assert name in caplog.text
    assert system.stores.index.get(name, 10**6)[1] == whole
    system.check((SPACE, SPACE))


def test_new_metadata_reads_photos_without_maps_a_few_at_a_time(system, photo):
    files = {f"shop/boot/v{seed:02d}.jpg": photo(seed) for seed in range(25)}
    system.upload(files)
    forget(system, "segments", "maps")

    def searchable() -> dict[str, float]:
        views = [view for item in system.products() for view in item.views.values()]
        return {view.key: view.searchable_at for view in views}

    before = searchable()
    reads = read_keys(system)
    batches = []
    encoder = system.encoder_of(SPACE)
    original = encoder.encode
    encoder.encode = lambda batch: batches.append(len(batch)) or original(batch)
    system.upload({"shop/boot/product.json": b'{"price": 3}'})
    encoder.encode = original
    assert sorted(reads) == sorted([*files, "shop/boot/product.json"])
    assert batches == [10, 10, 5]
    assert len(system.views()) == 25 and len(system.entries(SPACE)) == 1
    system.check((SPACE, SPACE))
    assert searchable() == before


def test_an_altered_segment_is_named_and_no_row_is_copied_from_it(system, photo, caplog):
    system.upload({"shop/a.jpg": photo(0)})
    (entry,) = system.entries(SPACE)
    name = segment_key("shop", entry.digest)
    body = bytearray(system.stores.index.get(name, 10**6)[1])
    body[200] ^= 1
    system.stores.index.put_object(name, bytes(body))
    with pytest.raises(CorruptFile, match=name):
        read_segment(system.stores.index, "shop", entry.digest)
    system.stores.images.put_object("shop/a.jpg", photo(0), metadata={"price": "2"})
    assert system.ingest.reconcile(["shop/a.jpg"]) == {}
    assert name in caplog.text
    system.stores.registry.remove([entry])
    system.check((SPACE, SPACE))
    with pytest.raises(Vanished, match=r"segments/shop/00\.seg"):
        read_segment(system.stores.index, "shop", "00")


def change_while_reading(system: System, change: Callable[[], None]) -> None:
    """Change an object between the decision that its photo is needed and the reading of it."""
    original = system.stores.index.get

    def get(name, limit):
        change()
        return original(name, limit)

    system.stores.index.get = get


def test_a_photo_that_is_overwritten_before_it_is_read_again(system, photo):
    system.upload({"shop/boot/a.jpg": photo(0), "shop/boot/b.jpg": photo(1)})
    forget(system, "segments", "maps")
    images = system.stores.images
    change_while_reading(system, lambda: images.put_object("shop/boot/a.jpg", photo(5)))
    system.upload({"shop/boot/product.json": b'{"price": 3}'})
    system.check((SPACE, SPACE))


def test_a_photo_that_is_deleted_before_it_is_read_again(system, photo):
    system.upload({"shop/boot/a.jpg": photo(0), "shop/boot/b.jpg": photo(1)})
    forget(system, "segments", "maps")
    change_while_reading(system, lambda: system.stores.images.delete("shop/boot/a.jpg"))
    system.upload({"shop/boot/product.json": b'{"price": 3}'})
    assert list(system.views()) == ["shop/boot/b.jpg"]
    system.check((SPACE, SPACE))
    assert system.stores.counts.all()["shop"].views == 1


def test_a_photo_that_turns_bad_before_it_is_read_again(system, photo):
    system.upload({"shop/boot/a.jpg": photo(0), "shop/boot/b.jpg": photo(1)})
    forget(system, "segments", "maps")
    etag = hashlib.md5(b"no photo", usedforsecurity=False).hexdigest()
    system.stores.failures.put(
        Failure("shop", "shop/boot/a.jpg", "not-an-image", "It was bad before.", etag, 1.0, 3)
    )
    images = system.stores.images
    change_while_reading(system, lambda: images.put_object("shop/boot/a.jpg", b"no photo"))
    system.upload({"shop/boot/product.json": b'{"price": 3}'})
    assert list(system.views()) == ["shop/boot/b.jpg"]
    (failure,) = system.stores.failures.get_many(["shop/boot/a.jpg"]).values()
    assert (failure.reason, failure.tries) == ("not-an-image", 4)
    counts = system.stores.counts.all()["shop"]
    assert (counts.views, counts.failures) == (
        1,
        0,
    )  # one that was filed before is not counted twice


def test_a_photo_that_cannot_be_read_again_just_now_holds_up_its_product_alone(system, photo):
    files = {"shop/boot/a.jpg": photo(0), "shop/boot/b.jpg": photo(1), "shop/hat.jpg": photo(2)}
    system.upload(files)
    forget(system, "segments", "maps")
    before = system.products()
    images = system.stores.images
    original = images.get

    def get(key, limit):
        if key == "shop/boot/b.jpg":
            raise Unavailable("the bucket is throttled")
        return original(key, limit)

    images.get = get
    images.put_object("shop/boot/product.json", b'{"price": 3}')
    images.put_object("shop/hat.jpg", photo(7))
    again = system.ingest.reconcile(["shop/boot/product.json", "shop/hat.jpg"])
    assert again.keys() == {"shop/boot/product.json"}
    assert "throttled" in str(again["shop/boot/product.json"])
    assert system.products()[0] == before[0] and system.products()[1] != before[1]
    images.get = original
    assert system.ingest.reconcile(list(again)) == {}
    assert system.products()[0].attributes == {"price": 3}
    system.check((SPACE, SPACE))


def test_two_functions_that_begin_a_catalogue_agree(build, fresh_stores, photo):
    stores = fresh_stores()
    first, second = build(stores), build(stores)
    stores.images.put_object("shop/a.jpg", photo(0))
    stores.images.put_object("shop/b.jpg", photo(1))
    original = stores.lineages.put

    def put(lineage):
        stores.lineages.put = original
        assert second.ingest.reconcile(["shop/b.jpg"]) == {}
        return original(lineage)

    stores.lineages.put = put
    assert first.ingest.reconcile(["shop/a.jpg"]) == {}
    assert sorted(first.views()) == ["shop/a.jpg", "shop/b.jpg"]
    first.check((SPACE, SPACE))


def test_a_function_that_began_a_catalogue_otherwise_comes_again(build, fresh_stores, photo):
    """Two releases with different settings: one encoder wins, nothing is written in the other."""
    stores = fresh_stores()
    system = build(stores)
    original = stores.lineages.put

    def put(lineage):
        stores.lineages.put = original
        original(Lineage("shop", Generation("shop", OTHER, OTHER)))
        return original(lineage)

    stores.lineages.put = put
    stores.images.put_object("shop/a.jpg", photo(0))
    (error,) = system.ingest.reconcile(["shop/a.jpg"]).values()
    assert isinstance(error, Conflict)
    assert list(stores.index.list("segments/")) == []
    assert system.ingest.reconcile(["shop/a.jpg"]) == {}
    system.check((OTHER, OTHER))


def test_stats_tell_of_the_index_and_of_the_build_beside_it(system, photo):
    clusters = Clusters(system.stores, 0, lambda: 0.0, ThreadPoolExecutor(1))
    catalogue = Catalogue(system.stores, clusters, system.ingest.reconcile, 60)
    system.upload({"shop/a.jpg": photo(0)})
    system.upload({"shop/b.jpg": photo(1)})
    entries = system.entries(SPACE)
    (stats,) = catalogue.stats().catalogues
    assert (stats.segments, stats.runs, stats.bases, stats.shards, stats.rows) == (2, 0, 0, 1, 2)
    assert stats.size_bytes == sum(entry.size_bytes for entry in entries)
    assert stats.build is None
    base = BaseEntry("b", 900, 1, 50_000, 400, 900, 5.0)
    covered, fresh = Run("r1", 900, 80_000, 5.0), Run("r2", 30, 3_000, 6.0)
    system.stores.registry.put_manifest(
        Manifest(
            f"shop/{SPACE}",
            shards=(Shard(base, (covered,), (fresh,)), Shard()),
            replaced={segment_key("shop", entries[0].digest): 7.0},
        )
    )
    lineage = system.stores.lineages.get("shop")
    build = Build(Generation("shop", "g2", OTHER), "filling", 1.0, 2.0, "a", 5, 9, 1)
    system.stores.lineages.put(replace(lineage, beside=build))
    (stats,) = catalogue.stats().catalogues
    assert (stats.segments, stats.runs, stats.bases, stats.shards) == (1, 2, 1, 2)
    assert stats.rows == 1 + 900 + 30
    assert stats.size_bytes == entries[1].size_bytes + 50_000 + 80_000 + 3_000
    assert stats.build == BuildStats("g2", OTHER, "filling", 5, 9, 1, 1.0, 2.0)
    assert catalogue.health().status == "ok"


def test_the_sweep_counts_every_catalogue(system, photo, clock, pool):
    system.upload({"shop/a.jpg": photo(0), "other/b.jpg": photo(1), "third/bad.jpg": b"no photo"})
    for name in ("shop", "other", "third"):
        system.stores.counts.set(name, replace(system.stores.counts.all()[name], products=9))
    sweep = Sweep(system.stores, pool, clock, 0, 1000, lambda _: None)
    assert sweep.run(deadline=float("inf")).queued == 0
    found = system.stores.counts.all()
    assert [found[name].products for name in ("shop", "other", "third")] == [1, 1, 0]
