from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.core import base as base_module
from lookalike.core.base import Base
from lookalike.core.base_build import BaseRows, BuiltBase, build_base, lists_for
from lookalike.core.errors import CorruptFile
from lookalike.core.filters import parse_filter
from lookalike.core.head import Head
from lookalike.core.index import Candidate, FreshRows
from lookalike.core.search_index import SearchIndex, ShardIndex

DIM = 12
FLAT_ROWS = 100


class Bytes:
    """A file at hand, as a source; it counts what is asked for."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self.memory = np.frombuffer(data, dtype=np.uint8)
        self.asked: set[tuple[int, int]] = set()
        self.refused = 0

    def ensure(self, ranges: Sequence[tuple[int, int]]) -> np.ndarray:
        self.asked.update(ranges)
        return self.memory

    def refuse(self) -> None:
        self.refused += 1


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def some_rows(count: int, dim: int = DIM, seed: int = 0) -> BaseRows:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(20, dim))
    cluster = rng.integers(20, size=count)
    embeddings = unit(centres[cluster] + 0.5 * rng.normal(size=(count, dim)))
    attributes = [
        {"n": number % 10, "cluster": int(cluster[number]), **({"odd": True} if number % 2 else {})}
        for number in range(count)
    ]
    return BaseRows(
        [f"shop/p{number:05d}/é.jpg" for number in rng.permutation(count)],
        [f"{number:016x}" for number in range(count)],
        embeddings,
        attributes,
    )


def built(rows: BaseRows, **options) -> BuiltBase:
    return build_base(
        rows, **({"encoder": "an-encoder", "head": "ab", "flat_rows": FLAT_ROWS} | options)
    )


def opened(file: BuiltBase) -> Base:
    return Base(Bytes(file.data), f"bases/shop/{file.digest}.base", file.head_bytes)


def search(base: Base, query: np.ndarray, limit: int, **options) -> list[Candidate]:
    """Search one base as a generation's index does."""
    rows = FreshRows(base.encoder, Head.identity(base.dim))
    return SearchIndex(rows.head, [ShardIndex(base, rows)], rows).search(query, limit, **options)


def brute_force(rows: BaseRows, query: np.ndarray, limit: int, passes=lambda row: True):
    scores = rows.embeddings @ query
    order = sorted(
        (number for number in range(len(rows.keys)) if passes(rows.attributes[number])),
        key=lambda number: (-scores[number], rows.keys[number]),
    )
    return [(rows.keys[number], float(scores[number])) for number in order[:limit]]


ROWS = some_rows(1_500)
IVF = built(ROWS, lists=unit(np.random.default_rng(5).normal(size=(24, DIM))))
FLAT_ONES = some_rows(80)
FLAT = built(FLAT_ONES)
QUERIES = unit(np.random.default_rng(9).normal(size=(20, DIM)))


@pytest.mark.parametrize(("rows", "file"), [(ROWS, IVF), (FLAT_ONES, FLAT)], ids=["ivf", "flat"])
def test_a_base_holds_what_it_was_built_of(rows, file):
    base = opened(file)
    assert (base.rows, base.dim, base.encoder, base.head) == (
        len(rows.keys),
        DIM,
        "an-encoder",
        "ab",
    )
    assert base.digest == file.digest
    assert len(base.centroids) == file.lists
    for number in range(0, base.rows, 7):
        embedding = base.embedding(rows.keys[number], rows.versions[number])
        assert embedding.dtype == np.float32
        assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-6)
        assert float(embedding @ rows.embeddings[number]) > 1 - 1e-6
    assert base.embedding(rows.keys[0], "f" * 16) is None
    assert base.embedding("shop/none.jpg", rows.versions[0]) is None


@pytest.mark.parametrize(("rows", "file"), [(ROWS, IVF), (FLAT_ONES, FLAT)], ids=["ivf", "flat"])
def test_a_score_is_the_cosine_of_the_row_that_the_base_gives(rows, file):
    """Explanations add up to the embedding's score: it must be the one that was searched by."""
    base = opened(file)
    query = rows.embeddings[3]

    for found in search(base, query, 20):
        embedding = base.embedding(found.key, found.version)
        assert embedding is not None
        assert found.score == pytest.approx(float(embedding @ query), abs=2e-7)
        assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(("rows", "file"), [(ROWS, IVF), (FLAT_ONES, FLAT)], ids=["ivf", "flat"])
def test_every_list_read_answers_as_brute_force_does(rows, file):
    base = opened(file)
    for query in QUERIES:
        found = search(base, query, 10, nprobe=1, exact=True)
        wanted = brute_force(rows, query, 10)
        # A step of the fine codes is 1/4080 of a component's range.
        assert [item.score for item in found] == pytest.approx([s for _, s in wanted], abs=1e-3)
        near = {key for key, score in brute_force(rows, query, 30) if score > wanted[-1][1] - 2e-3}
        assert {item.key for item in found} <= near
        assert found == search(base, query, 10, nprobe=file.lists)


def test_more_lists_find_more():
    base = opened(IVF)
    recall = []
    for nprobe in (1, 4, 24):
        hits = 0
        for query in QUERIES:
            wanted = {key for key, _ in brute_force(ROWS, query, 10)}
            hits += len(wanted & {c.key for c in search(base, query, 10, nprobe=nprobe)})
        recall.append(hits / (10 * len(QUERIES)))
    assert recall[0] < recall[1] < recall[2]
    assert recall[2] >= 0.99


def test_lists_are_trained_when_none_are_given_and_kept_when_they_are():
    trained = built(ROWS, flat_rows=100, seed=3)
    assert trained.trained and trained.lists == lists_for(1_500, 100)
    base = opened(trained)
    again = built(ROWS, lists=base.centroids)
    assert not again.trained
    assert again.lists == trained.lists
    assert again.data == trained.data
    assert built(ROWS, flat_rows=5_000, lists=base.centroids).lists == 1


def test_lists_grow_with_rows():
    assert lists_for(20_000, 20_000) == 1
    assert lists_for(100_000, 20_000) == 1_265
    assert lists_for(1_000_000, 20_000) == 4_000


def test_the_order_of_rows_does_not_matter():
    order = np.random.default_rng(1).permutation(len(ROWS.keys))
    shuffled = BaseRows(
        [ROWS.keys[i] for i in order],
        [ROWS.versions[i] for i in order],
        ROWS.embeddings[order],
        [ROWS.attributes[i] for i in order],
    )
    assert built(shuffled).data == built(ROWS).data


@pytest.mark.parametrize("dim", [1, 3, 8, 37])
def test_any_length_of_embedding(dim):
    rows = some_rows(300, dim)
    base = opened(built(rows, lists=unit(np.random.default_rng(2).normal(size=(4, dim)))))
    for number in (0, 150, 299):
        embedding = base.embedding(rows.keys[number], rows.versions[number])
        assert float(embedding @ rows.embeddings[number]) > 1 - 1e-6
        found = search(base, rows.embeddings[number], 5, nprobe=4)
        wanted = brute_force(rows, rows.embeddings[number], 5)
        assert [item.score for item in found] == pytest.approx([s for _, s in wanted], abs=1e-3)


def test_one_row():
    rows = BaseRows(["k"], ["0" * 16], unit(np.ones((1, 4))), [{}])
    base = opened(built(rows))
    found = search(base, rows.embeddings[0], 10, nprobe=1)
    assert [(c.key, c.version) for c in found] == [("k", "0" * 16)]
    assert found[0].score == pytest.approx(1)


def test_no_rows_or_rows_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match="at least one row"):
        built(BaseRows([], [], np.empty((0, 4), np.float32), []))
    with pytest.raises(ValueError, match="for each row"):
        built(BaseRows(["a", "b"], ["0" * 16], unit(np.ones((2, 4))), [{}, {}]))


CONDITIONS = st.one_of(
    st.fixed_dictionaries({"n": st.fixed_dictionaries({"lt": st.integers(0, 10)})}),
    st.fixed_dictionaries({"cluster": st.lists(st.integers(0, 21), min_size=1, max_size=4)}),
    st.fixed_dictionaries({"odd": st.fixed_dictionaries({"exists": st.booleans()})}),
    st.just({"absent": 1}),
    st.just({"odd": True, "n": 3}),
    st.just({"odd": 1}),
)


@settings(max_examples=60, deadline=None)
@given(CONDITIONS, st.integers(0, 19), st.integers(1, 30), st.sampled_from([IVF, FLAT]))
def test_a_filter_passes_what_it_passes_row_by_row(condition, query, limit, file):
    rows = ROWS if file is IVF else FLAT_ONES
    asked = parse_filter(condition)
    base = opened(file)
    found = search(base, QUERIES[query], limit, nprobe=24, filter=asked)
    wanted = brute_force(rows, QUERIES[query], limit, asked.matches)
    assert [item.score for item in found] == pytest.approx([s for _, s in wanted], abs=1e-3)
    attributes = dict(zip(rows.keys, rows.attributes, strict=True))
    assert all(asked.matches(attributes[item.key]) for item in found)
    assert found == search(base, QUERIES[query], limit, nprobe=1, filter=asked, exact=True)


def test_a_filter_on_true_is_not_one_on_one():
    rows = BaseRows(["a", "b"], ["0" * 16] * 2, unit(np.ones((2, 4))), [{"x": True}, {"x": 1}])
    base = opened(built(rows))
    for value, key in ((True, "a"), (1, "b"), (True, "a")):
        found = search(base, rows.embeddings[0], 5, nprobe=1, filter=parse_filter({"x": value}))
        assert [item.key for item in found] == [key]


@pytest.mark.parametrize("bound", [1, 3, 9])
@pytest.mark.parametrize("attribute", ["n", "cluster"])
def test_a_filter_costs_no_recall(bound, attribute):
    asked = parse_filter({attribute: {"lt": bound}})
    base = opened(IVF)
    hits = unfiltered = wanted = 0
    for query in QUERIES:
        truth = {key for key, _ in brute_force(ROWS, query, 10, asked.matches)}
        wanted += len(truth)
        hits += len(truth & {c.key for c in search(base, query, 10, nprobe=6, filter=asked)})
        all_of_them = {key for key, _ in brute_force(ROWS, query, 10)}
        unfiltered += len(all_of_them & {c.key for c in search(base, query, 10, nprobe=6)})
    assert hits / wanted >= unfiltered / (10 * len(QUERIES))


def test_gathered_and_scanned_rows_answer_alike(monkeypatch):
    asked = parse_filter({"n": {"lt": 4}})
    answers = []
    for share in (0.0, 1.1):
        monkeypatch.setattr("lookalike.core.base_selection.GATHER_SHARE", share)
        base = opened(IVF)
        answers.append([search(base, q, 10, nprobe=6, filter=asked) for q in QUERIES])
    assert answers[0] == answers[1]


def test_rows_of_equal_score_come_in_order_of_key_and_the_smallest_keys_are_given():
    twins = 900
    rng = np.random.default_rng(4)
    embeddings = unit(rng.normal(size=(1_000, DIM)))
    embeddings[:twins] = embeddings[0]
    keys = [f"k{number:04d}" for number in rng.permutation(1_000)]
    rows = BaseRows(keys, [f"{i:016x}" for i in range(1_000)], embeddings, [{}] * 1_000)
    base = opened(built(rows, lists=unit(rng.normal(size=(8, DIM)))))
    for limit in (1, 10, 200, 899):
        found = search(base, embeddings[0], limit, nprobe=8)
        assert [item.key for item in found] == sorted(keys[:twins])[:limit]
        assert len({item.score for item in found}) == 1


def test_a_limit_beyond_what_the_nearest_lists_hold_reads_more_of_them():
    base = opened(IVF)
    assert len(search(base, QUERIES[0], 400, nprobe=1)) == 400
    assert len(search(base, QUERIES[0], 10_000, nprobe=1)) == len(ROWS.keys)
    assert search(base, QUERIES[0], 0, nprobe=1) == []


def test_only_what_is_needed_is_read():
    source = Bytes(IVF.data)
    base = Base(source, IVF.digest, IVF.head_bytes)
    assert source.asked == {(0, IVF.head_bytes)}
    search(base, QUERIES[0], 1, nprobe=2)
    read = sum(length for _, length in source.asked)
    assert IVF.head_bytes < read < IVF.head_bytes + (len(IVF.data) - IVF.head_bytes) / 3


def test_many_threads_search_one_base():
    base = opened(IVF)
    filters = [None, *(parse_filter({"n": {"lt": bound}}) for bound in range(1, 9))]
    asked = [(query, item) for query in QUERIES for item in filters]
    alone = [search(opened(IVF), q, 10, nprobe=3, filter=f) for q, f in asked]
    barrier = threading.Barrier(8)

    def answered(turn: int):
        if turn < 8:
            barrier.wait()
        query, item = asked[turn]
        return search(base, query, 10, nprobe=3, filter=item)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(answered, range(len(asked)))) == alone


def test_a_large_base_is_brought_in_piece_by_piece(monkeypatch):
    whole = [search(opened(IVF), q, 10, nprobe=1, exact=True) for q in QUERIES]
    monkeypatch.setattr("lookalike.core.base_parts.BATCH_BYTES", 5_000)
    assert [search(opened(IVF), q, 10, nprobe=1, exact=True) for q in QUERIES] == whole


SMALL = built(some_rows(12, 4), lists=unit(np.eye(3, 4)), flat_rows=1)


def everything(base: Base) -> None:
    """Touch every part of a base."""
    base.verify()


def test_every_truncation_is_refused_by_name():
    for length in range(len(SMALL.data)):
        with pytest.raises(CorruptFile, match=SMALL.digest):
            opened(BuiltBase(SMALL.data[:length], SMALL.digest, SMALL.head_bytes, 3, False))


def test_every_altered_byte_is_refused_by_name():
    for position in range(len(SMALL.data)):
        altered = bytearray(SMALL.data)
        altered[position] ^= 1
        file = BuiltBase(bytes(altered), SMALL.digest, SMALL.head_bytes, 3, False)
        with pytest.raises(CorruptFile, match=SMALL.digest):
            everything(opened(file))


def test_a_search_refuses_an_altered_list_that_it_reads_and_no_other():
    query = QUERIES[0]
    altered = bytearray(IVF.data)
    source = Bytes(IVF.data)
    search(Base(source, IVF.digest, IVF.head_bytes), query, 1, nprobe=2)
    start = next(start for start, _ in source.asked if start)
    altered[start] ^= 128
    base = Base(Bytes(bytes(altered)), IVF.digest, IVF.head_bytes)
    for _ in range(2):
        with pytest.raises(CorruptFile, match=f"{IVF.digest}.*list"):
            search(base, query, 1, nprobe=2)
    asked = []
    for other in QUERIES[1:]:
        source = Bytes(IVF.data)
        expected = search(Base(source, IVF.digest, IVF.head_bytes), other, 1, nprobe=2)
        if start not in {at for at, _ in source.asked}:
            asked.append(search(base, other, 1, nprobe=2) == expected)
    assert asked and all(asked)


def test_another_base_under_this_name_is_refused():
    other = built(some_rows(80, seed=8))
    with pytest.raises(CorruptFile, match="holds another base"):
        Base(Bytes(other.data), FLAT.digest, other.head_bytes)


def test_the_golden_base_still_loads(request):
    path = request.config.rootpath / "tests/golden/base-v1.base"
    data = path.read_bytes()
    digest, head_bytes = "ccd7ea88382bb9f9a3bec844bef7831a", 1040
    base = Base(Bytes(data), digest, head_bytes)
    assert (base.encoder, base.head, base.rows, base.dim) == (
        "efficientnet-lite2-border-v1",
        "",
        4,
        3,
    )
    assert base.centroids.tolist() == [[1, 0, 0], [0, 1, 0]]
    found = search(base, np.asarray([1, 0, 0], np.float32), 4, nprobe=1, exact=True)
    assert [(item.key, item.version) for item in found] == [
        ("shop/a/front.jpg", "000000000000000a"),
        ("shop/café ☕/front.png", "ffffffffffffffff"),
        ("shop/b.jpg", "000000000000000b"),
        ("shop/c.jpg", "000000000000000c"),
    ]
    assert [item.score for item in found] == pytest.approx([1, 0.8, 0, 0], abs=1e-3)
    shoes = parse_filter({"category": "shoes", "price": {"lte": 50}})
    found = search(base, np.asarray([0, 1, 0], np.float32), 4, nprobe=1, filter=shoes)
    assert [item.key for item in found] == ["shop/b.jpg"]
    embedding = base.embedding("shop/café ☕/front.png", "ffffffffffffffff")
    assert embedding.tolist() == pytest.approx([0.8, 0.6, 0], abs=1e-3)


def test_reranking_by_fine_codes_pays(monkeypatch):
    rows = some_rows(1_500, 8, seed=6)
    file = built(rows, flat_rows=2_000)

    def recall() -> float:
        base = opened(file)
        hits = 0
        for query in unit(np.random.default_rng(3).normal(size=(40, 8))):
            wanted = {key for key, _ in brute_force(rows, query, 10)}
            hits += len(wanted & {c.key for c in search(base, query, 10, nprobe=1)})
        return hits / 400

    assert recall() >= 0.995
    monkeypatch.setattr(base_module, "RERANKED", 1)
    assert recall() < 0.995
