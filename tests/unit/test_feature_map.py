"""Feature map files: round trips within the codes' steps, hostile bytes, the golden file."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lookalike.core.container import encode_container
from lookalike.core.errors import CorruptFile
from lookalike.core.feature_map import KIND, MAX_VALUES, decode_map, encode_map

SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 5), st.integers(1, 5))
VALUES = st.one_of(st.just(0.0), st.floats(-100, 100, width=32))


def sparse(seed: int, shape: tuple[int, ...] = (64, 7, 7)) -> np.ndarray:
    """Activations as a ReLU6 leaves them: nine tenths are zero."""
    rng = np.random.default_rng(seed)
    values = np.clip(rng.normal(-3, 2.3, shape), 0, 6)
    return values.astype(np.float32)


@given(arrays.arrays(np.float32, SHAPES, elements=VALUES))
def test_round_trip(maps):
    decoded = decode_map(encode_map(maps), "m")
    assert decoded.dtype == np.float32 and decoded.shape == maps.shape
    assert not decoded[maps == 0].any()
    # Half a step of the square root, at this value.
    peak, levels = np.abs(maps).max(initial=0), 127 if (maps < 0).any() else 255
    roots = np.sqrt(np.abs(maps.astype(np.float64)) * peak) + peak / (4 * levels)
    assert (np.abs(decoded - maps) <= roots / levels * 1.001 + 1e-30).all()


def test_a_map_without_negative_values_keeps_none_and_is_small():
    maps = sparse(0)
    data = encode_map(maps)
    assert len(data) < maps.size / 4
    decoded = decode_map(memoryview(data), "m")
    assert decoded.min() == 0 and np.abs(decoded - maps).max() < 6 / 255
    assert not np.shares_memory(decoded, maps)


def test_a_map_may_be_a_part_of_a_batch_in_any_order_of_memory():
    batch = np.asfortranarray(np.stack([sparse(1), sparse(2)]))
    assert encode_map(batch[1]) == encode_map(sparse(2))


def test_every_truncation_and_every_altered_byte_is_refused_by_name():
    data = encode_map(sparse(0, (3, 2, 2)))
    for length in range(len(data)):
        with pytest.raises(CorruptFile, match="the-name"):
            decode_map(data[:length], "the-name")
    for position in range(len(data)):
        altered = bytearray(data)
        altered[position] ^= 1
        with pytest.raises(CorruptFile, match="the-name"):
            decode_map(bytes(altered), "the-name")


def packed(*bits: int) -> bytes:
    return zlib.compress(np.packbits(np.array(bits, dtype=bool)).tobytes())


HEADER = {"shape": [1, 2, 2], "peak": 6.0, "signed": False}
SECTIONS = {"bitmap": packed(1, 0, 0, 1), "codes": b"\x01\xff"}


def test_what_hostile_files_are_made_of_is_read_when_it_is_right():
    decoded = decode_map(encode_container(KIND, HEADER, SECTIONS), "m")
    np.testing.assert_allclose(decoded, [[[6 / 255**2, 0], [0, 6]]], rtol=1e-6)


@pytest.mark.parametrize(
    "header",
    [
        {"shape": [1, 2]},
        {"shape": [1, 2, 2, 1]},
        {"shape": [1, 2, 0]},
        {"shape": [-1, -2, 2]},
        {"shape": [1, 2.0, 2]},
        {"shape": [True, 2, 2]},
        {"shape": "122"},
        {"shape": None},
        {"shape": [1, 3, 3]},
        {"shape": [2, 2, MAX_VALUES]},
        {"shape": [10**30, 10**30, 10**30]},
        {"peak": -1.0},
        {"peak": 1e300},
        {"peak": float("nan")},
        {"peak": float("inf")},
        {"peak": "6"},
        {"peak": None},
    ],
)
def test_a_header_that_no_encoder_writes_is_refused(header):
    with pytest.raises(CorruptFile, match="the-name"):
        decode_map(encode_container(KIND, HEADER | header, SECTIONS), "the-name")


@pytest.mark.parametrize(
    "sections",
    [
        {"codes": b"\x01"},
        {"codes": b"\x01\x02\x03"},
        {"bitmap": b""},
        {"bitmap": b"not deflated"},
        {"bitmap": SECTIONS["bitmap"][:-1]},
        {"bitmap": packed()},
        {"bitmap": packed(1, 0, 0, 1, 0, 0, 0, 0, 0)},
        {"bitmap": zlib.compress(bytes(10**8))},
    ],
)
def test_sections_that_do_not_fit_are_refused_without_being_unpacked(sections):
    file = encode_container(KIND, HEADER, SECTIONS | sections)
    with pytest.raises(CorruptFile, match="the-name"):
        decode_map(file, "the-name")


def test_a_file_without_its_parts_is_refused():
    for header, sections in [({}, SECTIONS), (HEADER, {"codes": b""}), (HEADER, {})]:
        with pytest.raises(CorruptFile, match="the-name"):
            decode_map(encode_container(KIND, header, sections), "the-name")


def test_the_golden_map_still_loads(request):
    path = request.config.rootpath / "tests/golden/map-v1.map"
    maps = decode_map(path.read_bytes(), path.name)
    wanted = sparse(4, (24, 3, 4))
    assert np.abs(maps - wanted).max() <= 6 / 255 and (maps[wanted == 0] == 0).all()
    assert maps.shape == wanted.shape and maps.any()
