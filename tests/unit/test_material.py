from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lookalike.core.container import encode_container
from lookalike.core.errors import CorruptFile, InvalidRequest
from lookalike.core.feature_map import decode_map, encode_map
from lookalike.core.material import (
    KIND,
    MAX_PARTS,
    Photo,
    QueryMaterial,
    QueryPart,
    decode_material,
    encode_material,
    fingerprint,
    normalized,
    sum_of,
)

QUERY_ID = "01JD9Y3V5Q4ZP0GQ3B0V9F4K7M"


def as_stored(maps: np.ndarray) -> np.ndarray:
    return decode_map(encode_map(maps), "map")


def example() -> QueryMaterial:
    """A crop of a photo, a view of a product, a part of another view that it is not like."""
    maps = as_stored(np.arange(12, dtype=np.float32).reshape(3, 2, 2))
    weights = np.array([[0.5, 0.25], [0.25, 0]], dtype=np.float32)
    axes = np.eye(3, dtype=np.float32)
    return QueryMaterial(
        query_id=QUERY_ID,
        catalogue="my shop",
        generation="efficientnet-lite2-border-v1-g2",
        encoder="efficientnet-lite2-border-v1",
        head="0123456789abcdef0123456789abcdef",
        created_at=1_736_071_200.25,
        expires_at=1_736_157_600.25,
        parts=(
            QueryPart(0.75, axes[0], 0, 0, maps, weights, 30, 40),
            QueryPart(0.5, axes[1], 1, width=90, height=60, key="my shop/ü/a.jpg", etag="e1"),
            QueryPart(
                -0.25, axes[2], -1, weights=weights, width=9, height=8, key="my shop/b.jpg", etag=""
            ),
        ),
        photos=(Photo(b"\xff\xd8 a photo", (0.25, 0.25, 0.5, 0.5)),),
    )


def assert_equal(found: QueryMaterial, expected: QueryMaterial) -> None:
    assert replace(found, parts=(), known_as="") == replace(expected, parts=(), known_as="")
    for part, known in zip(found.parts, expected.parts, strict=True):
        for name in ("embedding", "maps", "weights"):
            array, of_known = getattr(part, name), getattr(known, name)
            assert (array is None) == (of_known is None), name
            if array is not None:
                assert array.dtype == np.float32
                assert np.array_equal(array, of_known), name
        scalars = {"embedding": known.embedding, "maps": known.maps, "weights": known.weights}
        bare = replace(part, **scalars)
        for name in ("coefficient", "input", "photo", "width", "height", "key", "etag"):
            assert getattr(bare, name) == getattr(known, name), name


def test_the_golden_material_still_loads(request):
    path = request.config.rootpath / "tests/golden/query-v1.query"
    found = decode_material(path.read_bytes(), path.name)
    assert_equal(found, example())
    assert np.allclose(found.embedding, [0.75, 0.5, -0.25])
    assert fingerprint(found) == "8ed4ef205bf4213b1b53d4d22df92f56"


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.floats(-1e6, 1e6)


@st.composite
def materials(draw) -> QueryMaterial:
    side, dim = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    photos, parts = [], []
    for number in range(draw(st.integers(1, 5))):
        embedding = rng.normal(size=dim).astype(np.float32)
        coefficient, width = draw(numbers), draw(st.integers(1, 10**5))
        weights = rng.random((side, side), dtype=np.float32)
        if draw(st.booleans()):
            sign = draw(st.sampled_from([0, -1]))
            maps = as_stored(np.maximum(rng.normal(size=(5, side, side)), sign).astype(np.float32))
            parts.append(
                QueryPart(coefficient, embedding, number, len(photos), maps, weights, width, 7)
            )
            crop = draw(st.none() | st.tuples(numbers, numbers, numbers, numbers))
            photos.append(Photo(draw(st.binary(max_size=200)), crop))
        else:
            key, etag = draw(names), draw(names)
            some = weights if draw(st.booleans()) else None
            parts.append(
                QueryPart(coefficient, embedding, -1, weights=some, width=width, key=key, etag=etag)
            )
    return QueryMaterial(
        QUERY_ID, draw(names), draw(names), "e", "", 1.5, 2.5, tuple(parts), tuple(photos)
    )


@settings(deadline=None, max_examples=50)
@given(materials())
def test_material_comes_back_as_it_went(material):
    data = encode_material(material)
    found = decode_material(data, "q")
    assert_equal(found, material)
    assert encode_material(found) == data
    assert fingerprint(found) == found.known_as == fingerprint(material)


def test_a_search_has_at_most_so_many_parts():
    (product,) = example().parts[1:2]
    most = replace(example(), parts=(product,) * MAX_PARTS, photos=())
    assert_equal(decode_material(encode_material(most), "q"), most)
    more = replace(most, parts=(product,) * (MAX_PARTS + 1))
    with pytest.raises(CorruptFile, match="q "):
        decode_material(encode_material(more), "q")
    photos = replace(example(), photos=example().photos * (MAX_PARTS + 1))
    with pytest.raises(CorruptFile, match="q "):
        decode_material(encode_material(photos), "q")


def test_too_many_parts_are_not_decoded(monkeypatch):
    photo = example().parts[0]
    monkeypatch.setattr(
        "lookalike.core.material.decode_map", None
    )  # would be a TypeError of its own
    data = encode_material(replace(example(), parts=(photo,) * (MAX_PARTS + 1)))
    with pytest.raises(CorruptFile) as caught:
        decode_material(data, "q")
    assert "too many" in str(caught.value.__cause__)


def test_what_is_truncated_or_altered_is_refused_by_its_name():
    data = encode_material(example())
    for length in (0, 3, 20, len(data) // 2, len(data) - 1):
        with pytest.raises(CorruptFile, match="some name"):
            decode_material(data[:length], "some name")
    for place in range(0, len(data), 7):
        altered = bytearray(data)
        altered[place] ^= 0x10
        with pytest.raises(CorruptFile, match="some name"):
            decode_material(bytes(altered), "some name")


def header_of(data: bytes) -> dict:
    length = int.from_bytes(data[8:12], "little")
    return json.loads(data[12 : 12 + length])


@pytest.mark.parametrize(
    "change",
    [
        lambda header, sections: header.update(dim=10**12),
        lambda header, sections: header.update(parts=header["parts"] * 1000),
        lambda header, sections: header.update(parts=[]),
        lambda header, sections: header.update(photos=[{"crop": None}] * 10),
        lambda header, sections: header.update(photos=[]),
        lambda header, sections: header.pop("expires_at"),
        lambda header, sections: header.pop("fingerprint"),
        lambda header, sections: header["parts"][0].update(grid=[10**6, 10**6]),
        lambda header, sections: header["parts"][0].update(photo="first"),
        lambda header, sections: header["parts"][0].update(photo=1),
        lambda header, sections: header["parts"][1].update(photo=0),
        lambda header, sections: sections.pop("map-0"),
        lambda header, sections: sections.update({"map-0": b"no map"}),
        lambda header, sections: sections.update({"weights-2": b"123"}),
        lambda header, sections: sections.pop("embeddings"),
    ],
)
def test_a_header_that_does_not_fit_is_refused_before_memory_is_taken(change):
    data = encode_material(example())
    header = header_of(data)
    start = 12 + int.from_bytes(data[8:12], "little")
    sections = {
        name: data[start + offset : start + offset + length]
        for name, (offset, length) in header.pop("sections").items()
    }
    assert encode_container(KIND, header, sections) == data
    change(header, sections)
    with pytest.raises(CorruptFile):
        decode_material(encode_container(KIND, header, sections), "q")


def test_a_fingerprint_is_of_what_decides_the_query_alone():
    material = example()
    first, product, unwanted = material.parts
    (photo,) = material.photos
    same = replace(material, query_id="0" * 26, created_at=0.0, expires_at=1.0)
    assert fingerprint(same) == fingerprint(material)
    assert fingerprint(replace(material, photos=(photo, Photo(b"unused")))) == fingerprint(material)
    others = [
        replace(material, catalogue="other"),
        replace(material, generation="g3"),
        replace(material, encoder="resnet50-border-v1"),
        replace(material, head=""),
        replace(material, parts=(product, first, unwanted)),
        replace(material, parts=(first, product)),
        replace(material, photos=(replace(photo, body=b"another"),)),
        replace(material, photos=(replace(photo, crop=None),)),
        replace(material, parts=(replace(first, coefficient=0.7), product, unwanted)),
        replace(material, parts=(replace(first, weights=first.weights * 2), product, unwanted)),
        replace(material, parts=(first, replace(product, etag="e2"), unwanted)),
        replace(material, parts=(first, replace(product, key="my shop/c.jpg"), unwanted)),
        replace(material, parts=(first, product, replace(unwanted, weights=None))),
        # The index keeps embeddings with fewer digits after compaction; a head makes others.
        replace(
            material,
            parts=(first, replace(product, embedding=product.embedding * (1 - 1e-6)), unwanted),
        ),
    ]
    assert len({fingerprint(item) for item in [material, *others]}) == len(others) + 1


def test_parts_of_any_length_are_scaled_to_one():
    parts = normalized(example().parts)
    assert np.linalg.norm(sum_of(parts)) == pytest.approx(1, abs=1e-6)
    assert parts[0].coefficient / parts[1].coefficient == pytest.approx(1.5)
    first = parts[0]
    with pytest.raises(InvalidRequest, match="cancel"):
        normalized([first, replace(first, coefficient=-first.coefficient)])
