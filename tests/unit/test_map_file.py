"""The map's file and columns: read as they were written, by parts, never when altered."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.adapters.memory import MemoryObjectStore
from lookalike.core.errors import CorruptFile, Vanished
from lookalike.core.head import fit_head
from lookalike.core.map_columns import (
    MAX_TEXT_CHARS,
    Details,
    Points,
    column_text,
    decode_details,
    decode_labels,
    decode_points,
    encode_columns,
    joined,
    taken,
)
from lookalike.core.map_file import Chunk, encode_map
from lookalike.core.placement import Anchors
from lookalike.services.map_files import MapFile, open_map


def points_of(texts: list[str], seed: int = 0) -> Points:
    rng = np.random.default_rng(seed)
    rows = len(texts)
    return Points(
        rng.integers(0, 2**64, rows, dtype=np.uint64),
        rng.normal(size=rows).astype(np.float32),
        rng.normal(size=rows).astype(np.float32),
        rng.random(rows) < 0.5,
        texts,
        [f"c{number}" for number in range(rows)],
    )


def details_of(texts: list[str]) -> Details:
    return Details([f"p{n}" for n in range(len(texts))], ["front"] * len(texts), texts, texts)


def same(ours: Points, theirs: Points) -> bool:
    return all(
        np.array_equal(getattr(ours, name), getattr(theirs, name))
        for name in ("product", "x", "y", "placed")
    ) and (list(ours.category), list(ours.cluster)) == (list(theirs.category), list(theirs.cluster))


@settings(max_examples=30)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=30))
def test_columns_round_trip(texts: list[str]):
    points, details = points_of(texts), details_of(texts)
    assert same(decode_points(encode_columns(points), "x"), points)
    assert decode_details(encode_columns(details), "x") == Details(
        *(list(column) for column in (details.product_id, details.view, texts, texts))
    )
    assert decode_labels(encode_columns(points), "x").category == texts


def test_columns_are_arrow_that_others_read():
    nanoarrow = pytest.importorskip("nanoarrow")
    body = encode_columns(points_of(["a", "b\ud800"]))
    stream = nanoarrow.ipc.InputStream.from_readable(io.BytesIO(body))
    table = nanoarrow.Array(stream)
    names = [field.name for field in table.schema.fields]
    assert names == ["product", "x", "y", "placed", "category", "cluster"]
    assert table.child(4).to_pylist() == ["a", "b?"]


def test_rows_are_taken_and_joined():
    points = points_of(["a", "b", "c"])
    some = taken(points, np.array([2, 0]))
    assert list(some.category) == ["c", "a"] and some.x[0] == points.x[2]
    assert same(joined([taken(points, np.array([0])), taken(points, np.array([1, 2]))]), points)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("hat", "hat"),
        (("a", 1), "a, 1"),
        ("x" * 999, "x" * MAX_TEXT_CHARS),
        (3.5, "3.5"),
    ],
)
def test_attributes_become_text(value: object, text: str):
    assert column_text(value) == text


@pytest.fixture
def anchors() -> Anchors:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(40, 12)).astype(np.float32)
    basis = fit_head(rows, 6)
    return Anchors(
        rng.integers(0, 2**64, 40, dtype=np.uint64),
        basis,
        basis.project(rows),
        rng.normal(size=(40, 2)),
    )


@pytest.fixture
def body(anchors: Anchors) -> bytes:
    chunks = [
        Chunk(len(texts), encode_columns(points_of(texts, seed)), encode_columns(details_of(texts)))
        for seed, texts in enumerate([["a", "b"], ["c"]])
    ]
    hashes = np.array([9, 3, 2**63], dtype=np.uint64)
    return encode_map("tsne", 31.5, chunks, hashes, hashes + np.uint64(1), anchors)


class Store(MemoryObjectStore):
    """Counts what is read."""

    def __init__(self, body: bytes) -> None:
        super().__init__(lambda: 0.0)
        self.put("m", body, "")
        self.read: list[int] = []

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        found = super().get_range(key, start, length)
        self.read.append(len(found or b""))
        return found


def test_each_part_of_a_file_is_read_alone(body: bytes, anchors: Anchors):
    store = Store(body)
    file = open_map(store, "m")
    assert (file.head.method, file.head.scale, file.head.rows) == ("tsne", 31.5, (2, 1))
    first, second = file.points()
    assert same(first, points_of(["a", "b"], 0)) and same(second, points_of(["c"], 1))
    assert file.details(1).title == ["c"] and len(store.read) == 3
    assert file.known().tolist() == [3, 9, 2**63] and file.products().tolist()[0] == 4
    found = file.anchors()
    assert found is not None and (found.hashes == anchors.hashes).all()
    assert np.allclose(found.coordinates, anchors.coordinates, atol=1e-3)
    assert np.allclose(found.positions, anchors.positions)
    rows = np.random.default_rng(2).normal(size=(5, 12)).astype(np.float32)
    assert np.allclose(found.basis.project(rows), anchors.basis.project(rows))
    assert store.read[2] < len(body) / 4


def test_a_long_head_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch, body: bytes):
    monkeypatch.setattr("lookalike.services.map_files.FIRST_READ_BYTES", 100)
    store = Store(body)
    assert open_map(store, "m").head.rows == (2, 1) and len(store.read) == 2


def test_a_file_of_arrivals_has_no_anchors():
    none = np.zeros(0, dtype=np.uint64)
    chunk = Chunk(0, encode_columns(points_of([])), encode_columns(details_of([])))
    file = open_map(Store(encode_map("pca", 1.0, [chunk], none, none)), "m")
    assert file.anchors() is None and len(file.known()) == 0 and len(file.points()[0]) == 0


def readers(file: MapFile) -> dict[str, Callable[[], object]]:
    return {
        "points": file.points,
        "details": lambda: file.details(1),
        "known": file.known,
        "products": file.products,
        "anchors": file.anchors,
    }


@pytest.mark.parametrize("altered", ["points", "details", "known", "products", "anchors"])
def test_a_part_that_was_altered_is_not_read_and_the_others_are(body: bytes, altered: str):
    head = open_map(Store(body), "m").head
    parts = {"points": head.points[1], "details": head.details[1], "known": head.known}
    parts |= {"products": head.products, "anchors": head.anchors}
    damaged = bytearray(body)
    damaged[parts[altered].start + parts[altered].length // 2] ^= 1
    for name, read in readers(open_map(Store(bytes(damaged)), "m")).items():
        if name == altered:
            with pytest.raises(CorruptFile, match="map m is truncated or altered"):
                read()
        else:
            assert read() is not None
    cut = Store(body[: head.anchors.start + 5])
    with pytest.raises(CorruptFile):
        open_map(cut, "m").anchors()


@pytest.mark.parametrize("place", [0, 5, 9, 40, 200])
def test_a_head_that_was_altered_is_not_read(body: bytes, place: int):
    altered = bytearray(body)
    altered[place] ^= 0xFF
    for damaged in (bytes(altered), body[:place]):
        with pytest.raises(CorruptFile, match="m "):
            open_map(Store(damaged), "m")


def test_a_file_that_is_gone_has_vanished(body: bytes):
    store = Store(body)
    file = open_map(store, "m")
    store.delete("m")
    with pytest.raises(Vanished, match="m"):
        file.points()
    with pytest.raises(Vanished):
        open_map(store, "m")


def test_what_the_project_function_imports_is_in_its_layer_and_cheap():
    program = "import sys, lookalike.wiring_project; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    imported = set(done.stdout.decode().split())
    assert not imported & {"faiss", "onnxruntime", "PIL"}, "not in the layer"
    assert not imported & {"sklearn", "scipy", "openTSNE", "nanoarrow"}, "imported each minute"
