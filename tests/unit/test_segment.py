from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.core.errors import CorruptFile
from lookalike.core.segment import Row, decode_segment, encode_segment, quantize

SCALARS = st.one_of(st.text(max_size=8), st.integers(-(10**6), 10**6), st.booleans())
ATTRIBUTES = st.dictionaries(
    st.text(min_size=1, max_size=6), st.one_of(SCALARS, st.lists(SCALARS, max_size=3).map(tuple))
)


def unit(seed: int, dim: int) -> np.ndarray:
    vector = np.random.default_rng(seed).normal(size=dim).astype(np.float32)
    return vector / np.linalg.norm(vector)


@given(
    st.lists(
        st.tuples(st.text(max_size=12), st.integers(0, 2**64 - 1), ATTRIBUTES),
        min_size=1,
        max_size=6,
        unique_by=lambda item: (item[0], item[1]),
    ),
    st.integers(1, 40),
)
def test_round_trip(items, dim):
    rows = [
        Row(key, f"{version:016x}", unit(number, dim), attributes)
        for number, (key, version, attributes) in enumerate(items)
    ]
    data = encode_segment("an-encoder", rows)
    assert data == encode_segment("an-encoder", rows[::-1])
    segment = decode_segment(data, "s")
    assert segment.encoder == "an-encoder"
    by_row = {(row.key, row.version): row for row in rows}
    assert set(zip(segment.keys, segment.versions, strict=True)) == set(by_row)
    for number, embedding in enumerate(segment.embeddings()):
        row = by_row[segment.keys[number], segment.versions[number]]
        assert segment.attributes[number] == row.attributes
        assert float(embedding @ row.embedding) > 0.9999


def test_every_truncation_and_every_altered_byte_is_refused_by_name():
    data = encode_segment("e", [Row("k", "0" * 16, unit(0, 8), {"a": 1})])
    for length in range(len(data)):
        with pytest.raises(CorruptFile, match="the-name"):
            decode_segment(data[:length], "the-name")
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 1
        with pytest.raises(CorruptFile, match="the-name"):
            decode_segment(bytes(altered), "the-name")


def test_a_zero_embedding_is_kept_finite():
    codes, scales = quantize(np.zeros((1, 4), dtype=np.float32))
    assert not codes.any() and np.isfinite(scales).all()


def test_no_rows_is_refused():
    with pytest.raises(ValueError, match="at least one row"):
        encode_segment("e", [])


def test_quantization_error_is_bounded_by_half_a_step():
    embeddings = np.stack([unit(seed, 1280) for seed in range(20)])
    codes, scales = quantize(embeddings)
    assert np.abs(codes * scales[:, None] - embeddings).max() <= scales.max() / 2 * 1.001


def test_the_golden_segment_still_loads(request):
    path = request.config.rootpath / "tests/golden/segment-v1.seg"
    segment = decode_segment(path.read_bytes(), path.name)
    assert segment.encoder == "efficientnet-lite2-border-v1"
    assert segment.keys == ("default/mug.jpg", "shop/café ☕/front.png")
    assert segment.versions == ("0123456789abcdef", "ffffffffffffffff")
    assert segment.attributes == (
        {"price": 12.5, "sizes": ("s", 42)},
        {"title": "Café", "sold": True},
    )
    assert segment.codes.tolist() == [[127, 0, -64, 32], [0, 127, 0, -127]]
