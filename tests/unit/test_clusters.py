from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.core import clusters
from lookalike.core.cluster_sample import Sample
from lookalike.core.clusters import (
    Arrivals,
    Cluster,
    Clustering,
    RawMeans,
    centroids_of,
    decode_clusters,
    decode_page,
    encode_clusters,
    pages_from,
    product_hash,
    without_empty,
)
from lookalike.core.errors import CorruptFile
from lookalike.core.head import Head, fit_head


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def clustering(*sizes: int, dim: int = 4) -> tuple[Clustering, list[list[str]]]:
    members = [[f"c{n}-{i:04}é" for i in range(size)] for n, size in enumerate(sizes)]
    made = Clustering(
        serial=3,
        encoder="e",
        generation="g",
        made_at=12.5,
        clusters=tuple(
            Cluster(f"c{n + 1}", f"name {n}", ("w",), size, 0.5, 1.0, tuple(ids[:2]))
            for n, (size, ids) in enumerate(zip(sizes, members, strict=True))
        ),
        means=np.random.default_rng(0).normal(size=(len(sizes), dim)).astype("<f2").astype("<f4"),
        next_number=9,
        chosen_products=77,
    )
    return made, members


def test_means_give_the_spherical_means_under_their_head():
    rng = np.random.default_rng(0)
    raw = unit(rng.normal(size=(300, 12)) + 1)
    labels = rng.integers(0, 3, 300)
    for head in (Head.identity(12), fit_head(raw, 5)):
        gathered = RawMeans(3, head)
        for start in range(0, 300, 70):
            gathered.add(raw[start : start + 70], labels[start : start + 70])
        found = centroids_of(gathered.means(), head)
        embeddings = head.project(raw)
        expected = unit(np.stack([embeddings[labels == n].mean(axis=0) for n in range(3)]))
        assert np.allclose(found, expected, atol=5e-3)
        assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    with pytest.raises(ValueError, match="length 12"):
        centroids_of(gathered.means(), Head.identity(5))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(1, 4))
def test_round_trip(sizes, page_ids):
    made, members = clustering(*sizes)
    before, clusters.PAGE_IDS = clusters.PAGE_IDS, page_ids
    try:
        data, head_bytes = encode_clusters(made, [ids[::-1] for ids in members])
    finally:
        clusters.PAGE_IDS = before
    again = decode_clusters(data[:head_bytes], "c")
    assert replace(again, members=(), means=made.means) == made
    assert (again.means == made.means).all()
    for pages, ids in zip(again.members, members, strict=True):
        read = [
            id_
            for page in pages
            for id_ in decode_page(page, data[page.start : page.start + page.length], "c")
        ]
        assert read == sorted(ids)
        assert all(page.count <= page_ids for page in pages)
        for after in ["", *ids]:
            found = {id_ for page in pages_from(pages, after) for id_ in ids if page.first <= id_}
            assert {id_ for id_ in ids if id_ > after} <= found


def test_what_is_altered_is_refused_by_name():
    made, members = clustering(3, 2)
    data, head_bytes = encode_clusters(made, members)
    for position in range(0, head_bytes, 7):
        altered = bytearray(data[:head_bytes])
        altered[position] ^= 1
        with pytest.raises(CorruptFile, match="the-name"):
            decode_clusters(bytes(altered), "the-name")
    page = decode_clusters(data[:head_bytes], "c").members[1][0]
    with pytest.raises(CorruptFile, match="the-name"):
        decode_page(page, data[page.start : page.start + page.length - 1], "the-name")
    arrivals = Arrivals({"a": 1}).encode()
    with pytest.raises(CorruptFile, match="the-name"):
        Arrivals.decode(arrivals[:-1], "the-name")


def test_clusters_without_members_are_left_out():
    made, members = clustering(2, 0, 1)
    left, kept = without_empty(made, members)
    assert [cluster.cluster_id for cluster in left.clusters] == ["c1", "c3"]
    assert (left.means == made.means[[0, 2]]).all() and kept == [members[0], members[2]]
    assert left.index_of("c3") == 1 and left.index_of("c2") is None


def test_arrivals_are_what_was_placed():
    placed = {f"p{n}": n % 3 for n in range(20)}
    again = Arrivals.decode(Arrivals(placed).encode(), "a")
    assert again.placed == placed and again.sizes(4) == [7, 7, 6, 0]
    assert again.ids(1, "p13") == ["p16", "p19", "p4", "p7"]
    reordered = dict(reversed(placed.items()))
    assert Arrivals(reordered).encode() == Arrivals(placed).encode()
    assert Arrivals({}).sizes(2) == [0, 0]


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(30)), st.integers(1, 12), st.integers(1, 9), st.booleans())
def test_a_sample_is_the_smallest_hashes_in_any_order(order, limit, step, saved):
    rows = unit(np.random.default_rng(1).normal(size=(30, 6)))
    hashes = np.asarray([product_hash(f"p{n}") for n in range(30)], dtype=np.uint64)
    sample = Sample(limit)
    for start in range(0, 30, step):
        some = np.asarray(order[start : start + step])
        sample.add(hashes[some], rows[some], some % 2 == 0)
        if saved:
            sample = Sample.decode(sample.encode(), "s")
    wanted = np.argsort(hashes)[:limit]
    assert (sample.hashes == hashes[wanted]).all() and len(sample) == len(wanted)
    assert (sample.known == (wanted % 2 == 0)).all()
    assert np.allclose(np.concatenate(list(sample.raw())), rows[wanted], atol=0.02)
    assert sample.embeddings(Head.identity(6)).shape == (len(wanted), 6)


def test_a_product_that_is_drawn_twice_counts_as_it_was_last():
    rows = np.eye(3, dtype=np.float32)
    sample = Sample(2)
    sample.add(np.array([5, 7, 5], np.uint64), rows, np.array([True, True, False]))
    assert sample.hashes.tolist() == [5, 7] and sample.known.tolist() == [False, True]
    assert np.allclose(np.concatenate(list(sample.raw())), rows[[2, 1]], atol=0.01)
    assert len(Sample.decode(Sample(3).encode(), "s")) == 0


def test_the_golden_clusters_still_load(request):
    path = request.config.rootpath / "tests/golden/clusters-v1.clusters"
    data = path.read_bytes()
    length = 12 + int.from_bytes(data[8:12], "little")
    header = json.loads(data[12:length])
    (_, (at, size)) = max(header["sections"].items(), key=lambda item: item[1][0])
    head_bytes = length + -(-(at + size) // 64) * 64 + 16
    made = decode_clusters(data[:head_bytes], path.name)
    assert [cluster.cluster_id for cluster in made.clusters] == ["c1", "c4"]
    assert made.clusters[0].words == ("boot", "leather") and made.next_number == 5
    assert made.means.tolist() == [[1, 0, 0.5, 0], [0, -0.25, 0, 1]]
    members = [
        decode_page(page, data[page.start : page.start + page.length], path.name)
        for (page,) in made.members
    ]
    assert members == [["boot-1", "boot-2", "boot-3"], ["hat", "żabot"]]
    assert encode_clusters(made, members) == (data, head_bytes)
