from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.core.base import Base
from lookalike.core.base_build import BaseRows, BuiltBase, build_base
from lookalike.core.errors import CorruptFile, Unavailable, Vanished
from lookalike.core.filters import parse_filter
from lookalike.core.head import Head
from lookalike.core.index import Candidate, FreshRows
from lookalike.core.search_index import SearchIndex, ShardIndex
from lookalike.services import base_files, ranged_file
from lookalike.services.base_files import BaseFiles
from lookalike.services.ranged_file import Spans

DIM = 16
LIMIT = 10_000_000


def built(seed: int, count: int = 3_000) -> BuiltBase:
    rng = np.random.default_rng(seed)
    embeddings = rng.normal(size=(count, DIM)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    rows = BaseRows(
        [f"shop/p{number:05d}/front.jpg" for number in range(count)],
        [f"{number:016x}" for number in range(count)],
        embeddings,
        [{"n": number % 10} for number in range(count)],
    )
    centroids = rng.normal(size=(40, DIM)).astype(np.float32)
    return build_base(rows, encoder="e", head="", flat_rows=100, lists=centroids)


FILES = [built(seed) for seed in range(3)]
SIZE = len(FILES[0].data)
QUERIES = np.eye(DIM, dtype=np.float32)


def key(file: BuiltBase) -> str:
    return f"bases/shop/{file.digest}.base"


class Store:
    """The index bucket with these bases; it remembers what was read, and can be made to fail."""

    def __init__(self, *files: BuiltBase) -> None:
        self.objects = {key(file): file.data for file in files}
        self.reads: list[tuple[str, int, int]] = []
        self.down = False
        self.largest = sys.maxsize
        self.gate = threading.Event()
        self.gate.set()

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        if length > self.largest:
            self.gate.wait()
        if self.down:
            raise Unavailable("the store cannot be reached")
        self.reads.append((key, start, length))
        data = self.objects.get(key)
        return None if data is None else data[start : start + length]

    @property
    def bytes_read(self) -> int:
        return sum(length for _, _, length in self.reads)


@pytest.fixture
def pool():
    with ThreadPoolExecutor(8) as executor:
        yield executor


@pytest.fixture
def store():
    return Store(*FILES)


def opened(files: BaseFiles, file: BuiltBase):
    return files.open(key(file), len(file.data), file.head_bytes)


def search(base: Base, query: np.ndarray, limit: int, **options) -> list[Candidate]:
    """Search one base as a generation's index does."""
    rows = FreshRows(base.encoder, Head.identity(base.dim))
    return SearchIndex(rows.head, [ShardIndex(base, rows)], rows).search(query, limit, **options)


def answers(base):
    asked = parse_filter({"n": {"lt": 4}})
    return [
        *(search(base, query, 5, nprobe=2) for query in QUERIES),
        *(search(base, query, 5, nprobe=2, filter=asked) for query in QUERIES[:3]),
        search(base, QUERIES[0], 5, nprobe=1, exact=True),
        base.embedding("shop/p00007/front.jpg", f"{7:016x}").tolist(),
    ]


def disk_bytes(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.iterdir() if path.is_file())


def copies(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 12)), max_size=12))
def test_spans_know_what_is_there(ranges):
    spans, there = Spans(), set()
    for start, length in ranges:
        gaps = spans.missing(start, start + length)
        wanted = set(range(start, start + length))
        assert {at for first, end in gaps for at in range(first, end)} == wanted - there
        spans.add(start, start + length)
        there |= wanted
        assert spans.total == len(there)


def test_opening_reads_the_head_and_a_query_a_few_lists(tmp_path, pool, store):
    store.gate.clear()
    store.largest = 20_000  # the background asks for more at once, and waits
    files = BaseFiles(store, tmp_path, LIMIT, pool)
    base = opened(files, FILES[0])
    assert store.bytes_read == FILES[0].head_bytes
    search(base, QUERIES[0], 1, nprobe=2)
    assert FILES[0].head_bytes < store.bytes_read < SIZE / 3
    store.gate.set()
    files.wait()


def test_cold_and_warm_answers_are_the_same(tmp_path, pool, store):
    files = BaseFiles(store, tmp_path, LIMIT, pool)
    base = opened(files, FILES[0])
    cold = answers(base)
    files.wait()
    store.down = True
    assert answers(base) == cold
    assert copies(tmp_path) == {f"{FILES[0].digest}.base"}
    assert (tmp_path / f"{FILES[0].digest}.base").read_bytes() == FILES[0].data


def test_another_process_opens_the_kept_copy_without_a_get(tmp_path, pool, store):
    files = BaseFiles(store, tmp_path, LIMIT, pool)
    base = opened(files, FILES[0])
    first = answers(base)
    files.wait()
    empty = Store()
    assert answers(opened(BaseFiles(empty, tmp_path, LIMIT, pool), FILES[0])) == first
    assert empty.reads == []


def test_a_copy_that_another_process_has_kept_meanwhile_is_taken_over(tmp_path, pool, store):
    files = BaseFiles(store, tmp_path, LIMIT, pool)
    base = opened(files, FILES[0])
    (tmp_path / f"{FILES[0].digest}.base").write_bytes(FILES[0].data)
    reads = len(store.reads)
    answers(base)
    assert len(store.reads) == reads


def test_a_base_is_opened_once_for_as_long_as_it_is_held(tmp_path, pool, store):
    files = BaseFiles(store, tmp_path, LIMIT, pool)
    with ThreadPoolExecutor(6) as callers:
        bases = list(callers.map(lambda _: opened(files, FILES[0]), range(6)))
    assert len({id(base) for base in bases}) == 1
    assert store.bytes_read == FILES[0].head_bytes
    del bases
    gc.collect()
    assert copies(tmp_path) == set()


def test_an_altered_copy_is_given_up_for_the_object(tmp_path, pool, store):
    files = BaseFiles(store, tmp_path, LIMIT, pool)
    base = opened(files, FILES[0])
    expected = answers(base)
    files.wait()
    path = tmp_path / f"{FILES[0].digest}.base"
    for position in (0, FILES[0].head_bytes + 5, SIZE - 1):
        altered = bytearray(FILES[0].data)
        altered[position] ^= 1
        path.write_bytes(bytes(altered))
        again = BaseFiles(store, tmp_path, LIMIT, pool)
        base = opened(again, FILES[0])
        assert answers(base) == expected
        again.wait()
        assert path.read_bytes() == FILES[0].data


def test_an_altered_object_is_refused_by_name(tmp_path, pool):
    for position in (FILES[0].head_bytes - 1, FILES[0].head_bytes + 5):
        store = Store(FILES[0])
        altered = bytearray(FILES[0].data)
        altered[position] ^= 1
        store.objects[key(FILES[0])] = bytes(altered)
        files = BaseFiles(store, tmp_path, LIMIT, pool)
        with pytest.raises(CorruptFile, match=FILES[0].digest):
            search(opened(files, FILES[0]), QUERIES[0], 5, nprobe=1, exact=True)
        files.wait()
    assert not (tmp_path / f"{FILES[0].digest}.base").exists()


def test_a_truncated_object_is_refused_by_name(tmp_path, pool):
    store = Store(FILES[0])
    store.objects[key(FILES[0])] = FILES[0].data[:-5_000]
    files = BaseFiles(store, tmp_path, LIMIT, pool)
    base = opened(files, FILES[0])
    with pytest.raises(CorruptFile, match=key(FILES[0])):
        base.verify()


def test_an_object_that_has_left_is_said_so(tmp_path, pool, store):
    files = BaseFiles(store, tmp_path, LIMIT, pool)
    base = opened(files, FILES[0])
    store.objects.clear()
    with pytest.raises(Vanished, match=FILES[0].digest):
        search(base, QUERIES[0], 5, nprobe=2)
    with pytest.raises(Vanished):
        opened(files, FILES[1])


@pytest.mark.parametrize("error", [CorruptFile, Vanished])
def test_a_base_that_is_lost_is_known_to_be_until_it_is_opened_again(tmp_path, pool, store, error):
    files, name, whole = BaseFiles(store, tmp_path, LIMIT, pool), key(FILES[0]), FILES[0].data
    base = opened(files, FILES[0])
    assert not files.is_lost(name) and not files.is_lost("bases/shop/none.base")
    store.objects[name] = whole[: FILES[0].head_bytes] + bytes(SIZE - FILES[0].head_bytes)
    if error is Vanished:
        del store.objects[name]
    with pytest.raises(error):
        search(base, QUERIES[0], 5, nprobe=2)
    assert files.is_lost(name)
    store.objects[name] = whole
    again = opened(files, FILES[0])
    assert again is not base and not files.is_lost(name)
    assert len(search(again, QUERIES[0], 5, nprobe=2)) == 5
    files.wait()


def test_a_search_goes_on_after_the_store_comes_back(tmp_path, pool, store):
    files = BaseFiles(store, tmp_path, LIMIT, pool)
    base = opened(files, FILES[0])
    store.down = True
    with pytest.raises(Unavailable):
        search(base, QUERIES[0], 5, nprobe=2)
    store.down = False
    assert len(search(base, QUERIES[0], 5, nprobe=2)) == 5


def test_the_copies_opened_least_recently_make_room(tmp_path, pool, store):
    limit = int(2.5 * SIZE)
    for age, file in enumerate(FILES[:2]):
        files = BaseFiles(store, tmp_path, limit, pool)
        base = opened(files, file)
        answers(base)
        files.wait()
        os.utime(tmp_path / f"{file.digest}.base", (age, age))
    files = BaseFiles(store, tmp_path, limit, pool)
    answers(opened(files, FILES[0]))  # used again: now the second is the oldest
    last = opened(files, FILES[2])
    answers(last)
    files.wait()
    assert copies(tmp_path) == {f"{FILES[0].digest}.base", f"{FILES[2].digest}.base"}


def test_newer_bases_take_the_room_of_those_that_nobody_searches(
    tmp_path, pool, store, monkeypatch
):
    """Whole bases fill the limit and are held; the room is theirs for as long as they are used."""
    files = BaseFiles(store, tmp_path, int(2.5 * SIZE), pool)
    bases = [opened(files, file) for file in FILES]
    expected = []
    for base in bases:
        expected.append(answers(base))
        files.wait()
    names = [f"{file.digest}.base" for file in FILES]
    assert {name for name in copies(tmp_path) if name.endswith(".base")} == set(names[:2])
    answers(bases[0])
    monkeypatch.setattr(files._files[key(FILES[1])], "last_used", 0.0)
    search(bases[2], QUERIES[0], 5, nprobe=40)
    files.wait()
    assert copies(tmp_path) == {names[0], names[2]}
    assert [answers(base) for base in bases] == expected


def test_copies_that_nobody_holds_make_room_for_parts(tmp_path, pool, store):
    limit = int(1.1 * SIZE)
    files = BaseFiles(store, tmp_path, limit, pool)
    first = opened(files, FILES[0])
    answers(first)
    files.wait()
    second = opened(files, FILES[1])
    expected = answers(second)
    files.wait()
    assert f"{FILES[0].digest}.base" in copies(tmp_path)  # it is used
    assert disk_bytes(tmp_path) <= limit + 50 * 4096
    del first
    gc.collect()
    third = opened(files, FILES[2])
    store.gate.clear()
    store.largest = 20_000
    search(third, QUERIES[0], 1, nprobe=2)
    assert not list(tmp_path.glob("*.base"))
    store.gate.set()
    files.wait()
    assert [path.stem for path in tmp_path.glob("*.base")] == [FILES[2].digest]
    assert answers(second) == expected


def test_copies_and_parts_together_stay_within_the_limit(tmp_path, pool, store):
    limit = int(1.4 * SIZE)
    files = BaseFiles(store, tmp_path, limit, pool)
    bases = [opened(files, file) for file in FILES]
    expected = [answers(opened(BaseFiles(Store(f), tmp_path / "x", LIMIT, pool), f)) for f in FILES]
    for _ in range(3):
        for base, wanted in zip(bases, expected, strict=True):
            assert answers(base) == wanted
            files.wait()
            gc.collect()
            assert disk_bytes(tmp_path) <= limit + 100 * 4096
    assert len(list(tmp_path.glob("*.base"))) == 1


def test_a_copy_in_use_is_dated_anew(tmp_path, pool, store, monkeypatch):
    files = BaseFiles(store, tmp_path, LIMIT, pool)
    base = opened(files, FILES[0])
    answers(base)
    files.wait()
    path = tmp_path / f"{FILES[0].digest}.base"
    monkeypatch.setattr(ranged_file, "TOUCH_S", 0.0)
    os.utime(path, (1, 1))
    search(base, QUERIES[0], 1, nprobe=2)
    assert path.stat().st_mtime > 1


def test_a_base_beyond_the_limit_is_never_whole_and_answers_the_same(tmp_path, pool, store):
    expected = answers(opened(BaseFiles(store, tmp_path / "a", LIMIT, pool), FILES[0]))
    limit = SIZE // 4
    files = BaseFiles(store, tmp_path / "b", limit, pool)
    base = opened(files, FILES[0])
    for query in QUERIES:
        search(base, query, 5, nprobe=2)
        used = sum(path.stat().st_blocks * 512 for path in (tmp_path / "b").glob("*.part"))
        # Old parts go with the arrays that hold them; a block of the disk is 4 kB.
        assert used <= 2 * limit + 50 * 4096
    assert answers(base) == expected
    files.wait()
    assert not list((tmp_path / "b").glob("*.base"))


def test_bases_together_hold_no_more_than_the_limit(tmp_path, pool, store):
    limit = SIZE // 2
    files = BaseFiles(store, tmp_path, limit, pool)
    bases = [opened(files, file) for file in FILES]
    expected = [answers(opened(BaseFiles(Store(f), tmp_path / "x", LIMIT, pool), f)) for f in FILES]
    for _ in range(2):
        for base, wanted in zip(bases, expected, strict=True):
            assert [search(base, query, 5, nprobe=2) for query in QUERIES] == wanted[: len(QUERIES)]
            held = sum(file.held_bytes for file in files._files.values())
            assert held <= limit
    files.wait()


def test_what_nobody_searches_any_more_is_not_fetched(tmp_path, pool, store, monkeypatch):
    monkeypatch.setattr(base_files, "BACKGROUND_BYTES", SIZE // 5)
    store.gate.clear()
    store.largest = SIZE // 6
    files = BaseFiles(store, tmp_path, LIMIT, pool)
    base = opened(files, FILES[0])
    search(base, QUERIES[0], 1, nprobe=2)
    del base
    gc.collect()
    store.gate.set()
    files.wait()
    assert store.bytes_read < SIZE
    assert not list(tmp_path.glob("*.base"))


def test_without_a_folder_bases_are_held_in_memory(tmp_path, pool, store, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    files = BaseFiles(store, blocked / "folder", LIMIT, pool)
    base = opened(files, FILES[0])
    first = answers(base)
    files.wait()
    store.down = True
    assert answers(base) == first
    assert "no copy of" in caplog.text


def test_a_disk_that_fills_up_costs_no_answer(tmp_path, pool, store, monkeypatch, caplog):
    expected = answers(opened(BaseFiles(store, tmp_path / "a", LIMIT, pool), FILES[0]))
    left = [3]
    real = os.pwrite

    def pwrite(*arguments):
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    monkeypatch.setattr(ranged_file.os, "pwrite", pwrite)
    files = BaseFiles(store, tmp_path / "b", LIMIT, pool)
    base = opened(files, FILES[0])
    assert answers(base) == expected
    files.wait()
    assert "No space left" in caplog.text
    assert copies(tmp_path / "b") == set()


def test_parts_of_a_process_that_was_killed_are_removed(tmp_path, pool, store):
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from lookalike.services.ranged_file import _Buffer\n"
        "path = Path(sys.argv[1]) / 'x.part'\n"
        "path.touch()\n"
        "buffer = _Buffer(1000, path, whole=False)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, timeout=60)
    assert copies(tmp_path) == {"x.part"}
    files = BaseFiles(store, tmp_path, LIMIT, pool)
    base = opened(files, FILES[0])
    BaseFiles(store, tmp_path, LIMIT, pool)  # leaves the part that is in use
    assert len(copies(tmp_path)) == 1 and "x.part" not in copies(tmp_path)
    assert len(search(base, QUERIES[0], 5, nprobe=2)) == 5
    files.wait()


def test_several_share_a_folder(tmp_path, pool, store, monkeypatch):
    monkeypatch.setattr(base_files, "BACKGROUND_BYTES", 20_000)
    expected = [answers(opened(BaseFiles(Store(f), tmp_path / "x", LIMIT, pool), f)) for f in FILES]
    sharing = [BaseFiles(store, tmp_path / "shared", int(1.5 * SIZE), pool) for _ in range(4)]
    barrier = threading.Barrier(8)
    held = []

    def use(turn: int) -> bool:
        barrier.wait()
        number = turn % len(FILES)
        base = opened(sharing[turn % 4], FILES[number])
        held.append(base)
        return all(answers(base) == expected[number] for _ in range(3))

    with ThreadPoolExecutor(8) as callers:
        assert all(callers.map(use, range(8)))
    for files in sharing:
        files.wait()
    for path in (tmp_path / "shared").glob("*.base"):
        file = next(file for file in FILES if file.digest == path.stem)
        assert path.read_bytes() == file.data
