"""The stream of live embeddings, while uploads, deletions, compaction and other heads go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

import numpy as np
import pytest

from crash_points.clouds import MemoryCloud, copied
from crash_points.promises import embed, head_of, products
from crash_points.world import (
    CATALOGUE,
    FOREVER,
    GRACE_S,
    Clock,
    Inline,
    World,
    toys_and_no_threads,
)
from lookalike.core.errors import Retry
from lookalike.core.keys import head_key, segment_key
from lookalike.core.types import Generation
from lookalike.services import live_embeddings
from lookalike.services.live_embeddings import Block, LiveEmbeddings, LiveRows, RowsCursor

Row = tuple[str, str]


@pytest.fixture
def world(memory_stores, toy_encoder_of, tmp_path, monkeypatch) -> Iterator[World]:
    monkeypatch.setattr(live_embeddings, "BLOCK_ROWS", 2)
    clock = Clock()
    with toys_and_no_threads():
        yield World(MemoryCloud(copied(memory_stores), clock), clock, toy_encoder_of, tmp_path)


def upload(world: World, *numbers: int, seed: int = 0) -> None:
    for number in numbers:
        world.put(f"shop/p{number}.png", seed + number)
    world.deliver_all(world.system())


def opened(world: World) -> LiveRows:
    lineage = world.stores.lineages.get(CATALOGUE)
    assert lineage is not None
    return LiveEmbeddings(world.stores, Inline()).open(lineage.current)


def rows_of(block: Block) -> list[Row]:
    return list(zip(block.keys, block.versions, strict=True))


def live(world: World) -> set[Row]:
    return {
        (key, view.version) for product in products(world) for key, view in product.views.items()
    }


def test_every_live_row_comes_once_and_no_dead_one(world):
    upload(world, *range(7))
    world.put("shop/boot/front.png", 20)
    world.put("shop/boot/side.png", 21)
    upload(world, 1, 2, seed=30)
    world.remove("shop/p3.png")
    world.put("shop/p4.png", 4, "red")  # only its metadata is another
    world.deliver_all(world.system())
    stream = opened(world)
    blocks = list(stream.blocks(RowsCursor()))
    given = [row for block in blocks for row in rows_of(block)]
    assert len(given) == len(set(given)) and set(given) == live(world)
    assert stream.rows > len(given), "rows that are dead count there"
    assert stream.newest_at <= world.clock.now and not stream.unreadable
    for block in blocks:
        assert len(block) <= 2
        for key, raw, product in zip(block.keys, block.raw, block.products, strict=True):
            assert key in product.views
            wanted = embed(world, stream.generation.encoder, world.bucket[key])[0]
            assert float(wanted @ raw) > 0.999
            assert np.linalg.norm(raw) == pytest.approx(1, abs=1e-5)


def test_a_product_stands_where_its_first_view_does(world):
    for view in ("c", "a", "b"):
        world.put(f"shop/boot/{view}.png", ord(view))
        world.deliver_all(world.system())
    upload(world, 1)
    firsts = [
        key
        for block in opened(world).blocks(RowsCursor())
        for key, is_first in zip(block.keys, block.first, strict=True)
        if is_first
    ]
    assert sorted(firsts) == ["shop/boot/a.png", "shop/p1.png"]


def test_embeddings_are_in_the_space_of_the_head(world):
    upload(world, *range(9))
    stream = opened(world)
    for block in stream.blocks(RowsCursor()):
        assert np.allclose(block.embeddings, block.raw, atol=1e-6), "there is no head"
    world.system(head_rows=4).reindex.begin(CATALOGUE)
    for _ in range(6):
        world.system(head_rows=4).reindex.run(FOREVER)
        world.wait(100)
    assert not stream.has_another_head, "the generation of old is as it was"
    stream = opened(world)
    head = head_of(world, stream.generation)
    assert stream.head_digest and stream.head(24).dim_out == head.dim_out < 24
    for block in stream.blocks(RowsCursor()):
        assert np.allclose(block.embeddings, head.project(block.raw), atol=1e-5)
        assert np.allclose(np.linalg.norm(block.embeddings, axis=1), 1, atol=1e-5)
    world.stores.index.delete(head_key(CATALOGUE, stream.head_digest))
    with pytest.raises(Retry):
        opened(world)


def test_a_stream_goes_on_where_its_cursor_was_saved(world):
    """After every block a new process goes on, with nothing but the cursor."""
    for number in range(5):
        upload(world, number)
    upload(world, *range(5, 10))
    cursor, given = RowsCursor(), []
    for _ in range(100):
        stream = opened(world).blocks(cursor)
        block = next(stream, None)
        if block is None:
            break
        given += rows_of(block)
        # What is saved before the next block is asked for does not know of this one yet.
        assert not set(live_embeddings.hashed(rows_of(block)).tolist()) & cursor.seen
        lost = next(stream, None)
        assert lost is None or set(rows_of(lost)).isdisjoint(given)
        cursor = RowsCursor.decode(cursor.encode())
    assert sorted(given) == sorted(live(world))
    assert len(cursor.done) == len(opened(world).files)


def test_only_files_with_rows_of_late_are_read(world):
    upload(world, 1, 2)
    world.wait(1000)
    begun = world.clock.now
    upload(world, 3)
    given = [row for block in opened(world).blocks(RowsCursor(), since=begun) for row in block.keys]
    assert given == ["shop/p3.png"]


def test_a_damaged_file_costs_its_own_rows_only(world):
    upload(world, 1)
    upload(world, 2)
    stream = opened(world)
    damaged = segment_key(CATALOGUE, stream.files[0].digest)
    world.stores.index.put(damaged, b"no segment", "")
    assert sum(map(len, stream.blocks(RowsCursor()))) == 1
    assert stream.unreadable == {damaged}


def test_photos_that_never_stop_arriving_do_not_keep_it_from_ending(world):
    """Those that are there when it begins are given, and it is not after all that come later."""
    upload(world, 0, 1)
    given: list[Row] = []
    begun = live(world)
    for number, block in enumerate(opened(world).blocks(RowsCursor())):
        given += rows_of(block)
        assert number < 200, "it never ends"
        upload(world, 10 + number)
    assert set(given) >= begun


def compacted(world: World) -> None:
    """Merge, and let what was replaced go."""
    world.system().compaction.run(FOREVER)
    world.wait(GRACE_S + 1)
    world.system().compaction.run(FOREVER)


def changed(world: World, random: Random) -> None:
    """One change by a merchant or a scheduled function."""
    number = random.randrange(8)
    key = f"shop/p{number}.png"
    match random.randrange(5):
        case 0 if key in world.bucket:
            world.remove(key)
        case 1:
            compacted(world)
            return
        case _:
            world.put(key, random.randrange(40), random.choice(["", "red"]))
    world.deliver_all(world.system())


def stream_beside(world: World, seed: int, begin: Callable[[World], LiveRows]) -> None:
    """Read all blocks, with changes before each of them, by processes that die now and then."""
    random = Random(seed)
    upload(world, *range(8))
    cursor, given = RowsCursor(), []
    steady = live(world)
    ever = set(steady)
    stream = begin(world).blocks(cursor)
    while (block := next(stream, None)) is not None:
        given += rows_of(block)
        next_cursor = RowsCursor.decode(cursor.encode())
        for _ in range(random.randrange(3)):
            changed(world, random)
            steady &= live(world)
            ever |= live(world)
        if random.random() < 0.3:
            # The process died: what it was given after the cursor was saved comes again.
            cursor, given = next_cursor, given[: -len(block)]
            stream = begin(world).blocks(cursor)
    assert len(given) == len(set(given)), "a row was given twice"
    assert set(given) >= steady, f"lost: {steady - set(given)}"
    assert set(given) <= ever, f"never live: {set(given) - ever}"


@pytest.mark.parametrize("seed", range(12))
def test_rows_that_stay_live_come_once_whatever_goes_on(world, seed):
    stream_beside(world, seed, opened)


def test_of_a_generation_that_was_dropped_there_is_nothing(world):
    upload(world, 1)
    gone = Generation(CATALOGUE, "shop/none", "toy-a-border-v1")
    stream = LiveEmbeddings(world.stores, Inline()).open(gone)
    assert list(stream.blocks(RowsCursor())) == [] and stream.rows == 0 and stream.newest_at == 0
