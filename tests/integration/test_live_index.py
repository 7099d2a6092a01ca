"""The index in memory, on memory stores: what it reads, when, and what a query sees meanwhile."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from lookalike.core.base_build import BaseRows, build_base
from lookalike.core.errors import CorruptFile, Unavailable, Vanished
from lookalike.core.head import encode_head, fit_head
from lookalike.core.keys import base_key, content_digest, head_key, segment_key
from lookalike.core.ports import Stores
from lookalike.core.segment import Row, decode_segment, encode_segment
from lookalike.core.types import BaseEntry, Generation, Manifest, Run, SegmentEntry, Shard
from lookalike.services import live_index
from lookalike.services.append import append_rows
from lookalike.services.base_files import BaseFiles
from lookalike.services.index_files import RETRY_S
from lookalike.services.live_index import LiveIndex

DIM = 8
SETTLE_S = 90.0


@dataclass
class Clock:
    now: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def vector(number: int) -> np.ndarray:
    drawn = np.random.default_rng(number).normal(size=DIM).astype(np.float32)
    return drawn / np.linalg.norm(drawn)


def row(number: int) -> Row:
    return Row(f"shop/p{number:04d}.jpg", f"{number:016x}", vector(number), {"n": number})


@dataclass
class Shop:
    """One catalogue's index files and registry, written as ingest and compaction write them."""

    stores: Stores
    folder: Path
    clock: Clock = field(default_factory=Clock)
    generation: Generation = field(default_factory=lambda: Generation("shop", "one", "toy"))
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(4))

    def index(self) -> LiveIndex:
        """A process that has read nothing yet."""
        bases = BaseFiles(self.stores.index, self.folder, 10**7, self.pool)
        return LiveIndex(
            self.stores.index, self.stores.registry, bases, 0.5, SETTLE_S, self.pool, self.clock
        )

    def append(self, *numbers: int) -> SegmentEntry:
        self.clock.now += 1
        rows = [row(number) for number in numbers]
        registry = self.stores.registry
        append_rows(self.stores.index, registry, [self.generation], {"toy": rows}, self.clock.now)
        return registry.read(self.generation.scope)[0][-1]

    @property
    def manifest(self) -> Manifest:
        return self.stores.registry.read(self.generation.scope)[1]

    def put(self, **changes) -> Manifest:
        return self.stores.registry.put_manifest(replace(self.manifest, **changes))

    def run(self, *numbers: int) -> Run:
        """A run that holds these rows."""
        data = encode_segment("toy", [row(number) for number in numbers])
        digest = content_digest(data)
        self.stores.index.put(segment_key("shop", digest), data, "")
        return Run(digest, len(numbers), len(data), self.clock.now)

    def base(
        self,
        *numbers: int,
        head=None,
        head_name: str = "",
        encoder: str = "toy",
        catalogue: str = "shop",
    ) -> BaseEntry:
        """A base that holds these rows."""
        rows = [row(number) for number in numbers]
        raw = np.stack([item.embedding for item in rows])
        built = build_base(
            BaseRows(
                [item.key for item in rows],
                [item.version for item in rows],
                head.project(raw) if head else raw,
                [item.attributes for item in rows],
            ),
            encoder=encoder,
            head=head_name,
            flat_rows=1000,
        )
        self.stores.index.put(base_key(catalogue, built.digest), built.data, "")
        return BaseEntry(
            built.digest, len(rows), 1, len(built.data), built.head_bytes, len(rows), self.clock.now
        )

    def merge(self, *entries: SegmentEntry, run: Run) -> None:
        """Swap appended segments for a run of the first shard, and forget them."""
        shard, *others = self.manifest.shards
        replaced = {segment_key("shop", entry.digest): self.clock.now for entry in entries}
        self.put(
            shards=(replace(shard, fresh=(*shard.fresh, run)), *others),
            replaced={**self.manifest.replaced, **replaced},
        )
        self.stores.registry.remove(entries)


@pytest.fixture
def shop(memory_stores, tmp_path) -> Iterator[Shop]:
    shop = Shop(memory_stores, tmp_path)
    yield shop
    shop.pool.shutdown()


@pytest.fixture
def reads(shop, monkeypatch) -> Callable[[], list[str]]:
    """The names of index files that were asked for since it was called last."""
    asked: list[str] = []
    for name in ("get", "get_range"):
        original = getattr(shop.stores.index, name)
        monkeypatch.setattr(
            shop.stores.index,
            name,
            lambda key, *rest, original=original: asked.append(key) or original(key, *rest),
        )

    def since() -> list[str]:
        seen = list(asked)
        asked.clear()
        return seen

    return since


def found(index, number: int = 0, limit: int = 100) -> list[int]:
    """Numbers of the rows that a search finds, in order of number."""
    query = index.head.project(vector(number)[None])[0]
    return sorted(int(item.version, 16) for item in index.search(query, limit, nprobe=99))


def test_new_segments_are_seen_when_it_is_time_and_read_once(shop, reads):
    live = shop.index()
    first = shop.append(0, 1)
    index = live.get(shop.generation)
    assert found(index) == [0, 1]
    assert reads() == [segment_key("shop", first.digest)]
    second = shop.append(2)
    shop.clock.now -= 0.7
    assert found(live.get(shop.generation)) == [0, 1]
    assert found(live.get(shop.generation, now=True)) == [0, 1, 2]
    assert reads() == [segment_key("shop", second.digest)]
    shop.clock.now += 1
    assert found(live.get(shop.generation)) == [0, 1, 2]
    assert reads() == []


def test_the_registry_is_asked_for_what_is_new_only(shop, monkeypatch):
    live, asked = shop.index(), []
    original = shop.stores.registry.read
    monkeypatch.setattr(
        shop.stores.registry,
        "read",
        lambda scope, since=0.0: asked.append(since) or original(scope, since),
    )
    live.get(shop.generation)
    at = shop.clock.now
    shop.clock.now += 1
    shop.stores.registry.put_manifest(Manifest(shop.generation.scope))
    live.get(shop.generation)
    shop.clock.now += 1
    live.get(shop.generation)
    assert asked == [0.0, at - SETTLE_S, 0.0, at + 1 - SETTLE_S]


def test_an_append_that_took_long_is_not_missed(shop, monkeypatch):
    """Its time is that of its beginning; others that began later are in the registry already."""
    monkeypatch.setattr(live_index, "FULL_READ_S", 1e6)
    live = shop.index()
    slow = shop.append(0)
    shop.stores.registry.remove([slow])
    shop.append(1)
    assert found(live.get(shop.generation)) == [1]
    shop.clock.now += SETTLE_S - 5
    live.get(shop.generation)
    shop.stores.registry.add(slow)
    shop.clock.now += 1
    assert found(live.get(shop.generation)) == [0, 1]


def test_an_append_of_a_clock_that_is_behind_is_seen_within_a_minute(shop):
    live = shop.index()
    shop.append(0)
    first = live.get(shop.generation)
    now = shop.clock.now
    shop.clock.now -= SETTLE_S + 2
    shop.append(1)
    for shop.clock.now in (now + 1, now + live_index.FULL_READ_S - 1):
        assert live.get(shop.generation) is first
    shop.clock.now = now + live_index.FULL_READ_S
    assert found(live.get(shop.generation)) == [0, 1]


def test_a_clock_that_was_put_back_stops_nothing(shop):
    live = shop.index()
    shop.append(0)
    live.get(shop.generation)
    shop.clock.now -= 3600
    shop.append(1)
    assert found(live.get(shop.generation)) == [0, 1]


def test_catalogues_that_nobody_asks_for_leave_and_come_back(shop, monkeypatch):
    monkeypatch.setattr(live_index, "MAX_CATALOGUES", 2)
    live = shop.index()
    generations = [replace(shop.generation, catalogue=f"shop{number}") for number in range(3)]
    shop.generation = generations[0]
    base = shop.base(0, 1, catalogue="shop0")
    shop.put(shards=(Shard(base),))
    for number, shop.generation in enumerate(generations[1:], 1):
        shop.append(number)
    held = weakref.ref(live.get(generations[0]).shards[0].base)
    live.get(generations[1])
    live.get(generations[0])
    live.get(generations[2])
    assert list(live._loaded) == ["shop0", "shop2"] and held() is not None
    live.get(generations[1])
    assert list(live._loaded) == ["shop2", "shop1"] and held() is None
    assert found(live.get(generations[0])) == [0, 1]


def test_rows_in_memory_are_limited_over_all_catalogues(shop, monkeypatch):
    live = shop.index()
    generations = [replace(shop.generation, catalogue=f"shop{number}") for number in range(3)]
    for number, shop.generation in enumerate(generations):
        shop.append(*range(number, number + 4))
    live.get(generations[0])
    size = live._loaded["shop0"].fresh_bytes
    assert size > 4 * 4 * DIM
    monkeypatch.setattr(live_index, "MAX_FRESH_BYTES", 2 * size)
    for generation in generations[1:]:
        live.get(generation)
    assert list(live._loaded) == ["shop1", "shop2"]
    monkeypatch.setattr(live_index, "MAX_FRESH_BYTES", size - 1)
    assert found(live.get(generations[0])) == [0, 1, 2, 3]
    assert list(live._loaded) == ["shop0"]


def test_nothing_new_gives_the_same_index(shop):
    live = shop.index()
    shop.append(0)
    index = live.get(shop.generation)
    shop.clock.now += 1
    assert live.get(shop.generation) is index


def test_a_merge_reads_its_run_and_nothing_else(shop, reads):
    live = shop.index()
    entries = [shop.append(number) for number in range(5)]
    before = live.get(shop.generation)
    reads()
    run = shop.run(0, 1, 2)
    shop.merge(*entries[:3], run=run)
    shop.clock.now += 1
    after = live.get(shop.generation)
    assert reads() == [segment_key("shop", run.digest)]
    assert found(after) == [0, 1, 2, 3, 4] == found(before)
    assert len(after) == 5
    last = shop.append(9)
    shop.clock.now += 1
    assert found(live.get(shop.generation)) == [0, 1, 2, 3, 4, 9]
    assert reads() == [segment_key("shop", last.digest)]


def test_a_segment_that_was_merged_but_not_yet_forgotten_is_left_out(shop):
    live = shop.index()
    entries = [shop.append(number) for number in range(3)]
    live.get(shop.generation)
    shop.merge(*entries, run=shop.run(0, 1, 2))
    for entry in entries:
        shop.stores.registry.add(entry)
    shop.clock.now += 1
    for index in (live.get(shop.generation), shop.index().get(shop.generation)):
        assert len(index) == 3
        assert found(index) == [0, 1, 2]


def test_a_base_takes_the_place_of_its_runs(shop, reads):
    live = shop.index()
    runs = [shop.run(0, 1, 2), shop.run(3, 4)]
    shop.put(shards=(Shard(fresh=tuple(runs)),))
    shop.append(5)
    before = live.get(shop.generation)
    reads()
    base = shop.base(0, 1, 2)
    shop.put(shards=(Shard(base, covered=(runs[0],), fresh=(runs[1],)),))
    shop.clock.now += 1
    after = live.get(shop.generation)
    assert set(reads()) == {base_key("shop", base.digest)}
    assert found(after) == [0, 1, 2, 3, 4, 5] == found(before)
    assert [len(shard.fresh) for shard in after.shards] == [2]
    assert after.embedding("shop/p0001.jpg", f"{1:016x}") == pytest.approx(vector(1), abs=0.01)

    # A base that stays is not opened again.
    shop.append(6)
    shop.clock.now += 1
    assert live.get(shop.generation).shards[0].base is after.shards[0].base


def test_a_cold_process_reads_what_it_needs(shop, reads):
    vectors = np.stack([vector(number) for number in range(50)])
    head = fit_head(vectors, 4)
    data = encode_head(head)
    name = content_digest(data)
    shop.stores.index.put(head_key("shop", name), data, "")
    base, run = shop.base(*range(40), head=head, head_name=name), shop.run(*range(40, 48))
    covered = Run("f" * 32, 40, 1, 0.0)
    shop.put(head=name, shards=(Shard(base, covered=(covered,), fresh=(run,)),))
    appended = shop.append(48, 49)
    index = shop.index().get(shop.generation)
    assert index.head.dim_out == 4
    assert set(reads()) == {
        head_key("shop", name),
        base_key("shop", base.digest),
        segment_key("shop", run.digest),
        segment_key("shop", appended.digest),
    }
    assert found(index) == list(range(50))
    nearest = index.search(index.head.project(vectors[7:8])[0], 3)
    assert nearest[0].key == "shop/p0007.jpg"


def test_a_new_head_projects_everything_anew(shop):
    live = shop.index()
    shop.append(0, 1, 2)
    before = live.get(shop.generation)
    head = fit_head(np.stack([vector(number) for number in range(20)]), 3)
    data = encode_head(head)
    name = content_digest(data)
    shop.stores.index.put(head_key("shop", name), data, "")
    shop.put(head=name)
    shop.clock.now += 1
    after = live.get(shop.generation)
    assert (before.head.dim_out, after.head.dim_out) == (DIM, 3)
    assert found(after) == [0, 1, 2] == found(before)


@pytest.mark.parametrize("harm", ["gone", "altered"])
def test_a_new_head_that_cannot_be_used_leaves_the_index_as_it_was(shop, reads, caplog, harm):
    live = shop.index()
    shop.append(0, 1, 2)
    before = live.get(shop.generation)
    data = encode_head(fit_head(np.stack([vector(number) for number in range(20)]), 3))
    digest = content_digest(data)
    name = head_key("shop", digest)
    if harm == "altered":
        shop.stores.index.put_object(name, data[:-1] + b"?")
    shop.put(head=digest)
    shop.append(3)
    assert live.get(shop.generation) is before
    assert name in caplog.text
    with pytest.raises((Vanished, CorruptFile), match=name):
        shop.index().get(shop.generation)
    caplog.clear()
    reads()
    shop.clock.now += 1
    assert live.get(shop.generation) is before
    assert name not in reads() and name not in caplog.text
    shop.stores.index.put_object(name, data)
    shop.clock.now += RETRY_S
    after = live.get(shop.generation)
    assert after.head.dim_out == 3
    assert found(after) == [0, 1, 2, 3]


@pytest.mark.parametrize("harm", ["gone", "altered"])
def test_a_base_that_is_lost_while_it_is_used_is_left_out_for_a_while(shop, reads, caplog, harm):
    live = shop.index()
    entry = shop.base(*range(50))
    name = base_key("shop", entry.digest)
    shop.put(shards=(Shard(entry, fresh=(shop.run(50),)),))
    index = live.get(shop.generation)
    body = shop.stores.index.get(name, 10**6)[1]
    if harm == "gone":
        shop.stores.index.delete(name)
    else:
        rest = bytes(255 - byte for byte in body[entry.head_bytes :])
        shop.stores.index.put_object(name, body[: entry.head_bytes] + rest)
    with pytest.raises((Vanished, CorruptFile), match=entry.digest):
        found(index)
    del index
    live._bases.wait()
    assert found(live.get(shop.generation, now=True)) == [50]
    assert name in caplog.text
    caplog.clear()
    reads()
    shop.append(51)
    shop.clock.now += 1
    assert found(live.get(shop.generation)) == [50, 51]
    assert name not in reads() and name not in caplog.text
    shop.stores.index.put_object(name, body)
    shop.clock.now += RETRY_S
    assert found(live.get(shop.generation)) == list(range(52))


def test_rows_of_a_lost_base_are_searched_raw_until_it_can_be_read_again(shop, caplog):
    live = shop.index()
    entry = shop.base(0, 1)
    name = base_key("shop", entry.digest)
    body = shop.stores.index.get(name, 10**6)[1]
    shop.stores.index.delete(name)
    shop.put(shards=(Shard(entry, covered=(shop.run(0, 1),), fresh=(shop.run(2),)),))
    assert found(live.get(shop.generation)) == [0, 1, 2]
    assert name in caplog.text
    shop.append(3)
    shop.clock.now += 1
    assert found(live.get(shop.generation)) == [0, 1, 2, 3]
    shop.stores.index.put_object(name, body)
    shop.clock.now += RETRY_S
    index = live.get(shop.generation)
    assert found(index) == [0, 1, 2, 3]
    assert index.shards[0].base is not None and len(index.shards[0].fresh) == 1


def test_a_merge_between_registry_and_bucket_is_read_again(shop, monkeypatch):
    """The reader has the list of segments; before it reads them they are merged and deleted."""
    live = shop.index()
    entries = [shop.append(number) for number in range(3)]
    original, merged = shop.stores.index.get, []

    def get(key, limit):
        if not merged:
            merged.append(True)
            shop.merge(*entries, run=shop.run(0, 1, 2))
            for entry in entries:
                shop.stores.index.delete(segment_key("shop", entry.digest))
        return original(key, limit)

    monkeypatch.setattr(shop.stores.index, "get", get)
    assert found(live.get(shop.generation)) == [0, 1, 2]


def test_a_base_that_was_replaced_between_registry_and_bucket_is_read_again(shop, monkeypatch):
    live = shop.index()
    old, new = shop.base(0, 1), shop.base(0, 1, 2)
    shop.put(shards=(Shard(old),))
    original = shop.stores.registry.read
    swaps = [lambda: (shop.put(shards=(Shard(new),)), shop.stores.index.delete(old_name))]
    old_name = base_key("shop", old.digest)

    def read(scope, since=0.0):
        answer = original(scope, since)
        if swaps:
            swaps.pop()()
        return answer

    monkeypatch.setattr(shop.stores.registry, "read", read)
    assert found(live.get(shop.generation)) == [0, 1, 2]


@pytest.mark.parametrize("harm", ["gone", "altered", "another encoder's"])
def test_a_segment_that_cannot_be_used_is_named_and_left_out(shop, reads, caplog, harm):
    live = shop.index()
    shop.append(0)
    entry = shop.append(1)
    shop.append(2)
    name = segment_key("shop", entry.digest)
    body = bytearray(shop.stores.index.get(name, 10**6)[1])
    if harm == "gone":
        shop.stores.index.delete(name)
    elif harm == "altered":
        body[300] ^= 1
        shop.stores.index.put_object(name, bytes(body))
    else:
        shop.stores.index.put_object(name, encode_segment("other", [row(1)]))
    assert found(live.get(shop.generation)) == [0, 2]
    assert name in caplog.text
    caplog.clear()
    reads()
    shop.append(3)
    shop.clock.now += 1
    assert found(live.get(shop.generation)) == [0, 2, 3]
    assert name not in reads()
    assert name not in caplog.text
    shop.stores.index.put_object(name, encode_segment("toy", [row(1)]))
    shop.clock.now += RETRY_S
    assert found(live.get(shop.generation)) == [0, 1, 2, 3]


@pytest.mark.parametrize("harm", ["gone", "altered", "another encoder's"])
def test_a_base_that_cannot_be_opened_takes_no_other_with_it(shop, caplog, harm):
    live = shop.index()
    encoder = "other" if harm == "another encoder's" else "toy"
    lost, whole = shop.base(0, 1, encoder=encoder), shop.base(2, 3)
    name = base_key("shop", lost.digest)
    if harm == "gone":
        shop.stores.index.delete(name)
    elif harm == "altered":
        body = bytearray(shop.stores.index.get(name, 10**6)[1])
        body[100] ^= 1
        shop.stores.index.put_object(name, bytes(body))
    shop.put(shards=(Shard(lost), Shard(whole, fresh=(shop.run(4),))))
    shop.append(5)
    index = live.get(shop.generation)
    assert found(index) == [2, 3, 4, 5]
    assert name in caplog.text


def test_a_store_that_cannot_be_reached_is_no_reason_to_answer_without_it(shop, monkeypatch):
    live = shop.index()
    shop.append(0)
    index = live.get(shop.generation)
    shop.append(1)
    original = shop.stores.index.get

    def get(key, limit):
        raise Unavailable("try later")

    monkeypatch.setattr(shop.stores.index, "get", get)
    with pytest.raises(Unavailable):
        live.get(shop.generation)
    monkeypatch.setattr(shop.stores.index, "get", original)
    assert found(live.get(shop.generation)) == [0, 1]
    assert found(index)[0] == 0


def test_another_generation_takes_the_place_of_the_one_before(shop):
    live = shop.index()
    shop.append(0, 1)
    old = live.get(shop.generation)
    shop.generation = replace(shop.generation, generation="two")
    shop.append(5)
    new = live.get(shop.generation)
    assert (found(old), found(new)) == ([0, 1], [5])
    assert [loaded.index for loaded in live._loaded.values()] == [new]


def test_a_generation_that_was_dropped_is_not_taken_for_an_empty_one(shop):
    live = shop.index()
    shop.put(shards=(Shard(shop.base(0, 1)),))
    live.get(shop.generation)
    shop.stores.registry.drop(shop.generation.scope)
    shop.clock.now += 1
    with pytest.raises(Vanished, match="shop/one"):
        live.get(shop.generation)
    assert len(live.get(shop.generation)) == 0


def test_rows_come_into_an_index_that_was_empty(shop):
    live = shop.index()
    assert len(live.get(shop.generation)) == 0
    shop.append(0)
    shop.clock.now += 1
    assert found(live.get(shop.generation)) == [0]


def test_searches_beside_appends_and_merges_miss_nothing_and_see_nothing_twice(shop):
    """Readers on snapshots of different ages, a writer, and a compaction that deletes at once."""
    live, errors, ended = shop.index(), [], threading.Event()
    shop.append(0)
    live.get(shop.generation)
    known = [0]

    def read() -> None:
        while not ended.is_set():
            at_least = set(known)
            index = live.get(shop.generation, now=True)
            versions = [int(item.version, 16) for item in index.search(vector(0), 10_000)]
            if len(versions) != len(set(versions)) or not at_least <= set(versions):
                errors.append((at_least, versions))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for number in range(1, 120):
            shop.append(number)
            known.append(number)
            if number % 10 == 0:
                entries, _ = shop.stores.registry.read(shop.generation.scope)
                segments = [
                    decode_segment(
                        shop.stores.index.get(segment_key("shop", entry.digest), 10**6)[1], ""
                    )
                    for entry in entries
                ]
                numbers = [int(v, 16) for segment in segments for v in segment.versions]
                shop.merge(*entries, run=shop.run(*numbers))
                for entry in entries:
                    shop.stores.index.delete(segment_key("shop", entry.digest))
    finally:
        ended.set()
        for reader in readers:
            reader.join()
    assert errors == []
    assert found(live.get(shop.generation, now=True), limit=1000) == list(range(120))
