"""Columns answer as their definition does row by row, and survive their bytes."""

from __future__ import annotations

import struct
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.core.columns import Column, columns_of, comparable, comparables
from lookalike.core.errors import CorruptFile

TEXTS = st.sampled_from(["", "a", "A", "Straße", "STRASSE", "10", "1.50", "007", "True", "é", "𝄞"])
SCALARS = st.one_of(
    st.booleans(), st.integers(-3, 3), st.integers(), st.floats(), TEXTS, st.text(max_size=3)
)
VALUES = st.one_of(st.none(), SCALARS, st.lists(SCALARS, max_size=3).map(tuple))


@pytest.mark.parametrize(
    ("value", "compared"),
    [
        (" Shoes ", "shoes"),
        ("49.90", 49.9),
        ("007", "007"),
        ("True", True),
        (7, 7.0),
        (True, True),
        (-0.0, 0.0),
        (10**400, float("inf")),
        (-(10**400), float("-inf")),
        (float("nan"), None),
    ],
    ids=lambda value: str(value)[:9],
)
def test_what_a_value_is_compared_as(value, compared):
    found = comparable(value)
    assert found == compared and type(found) is type(compared)


def test_comparing_twice_changes_nothing():
    """A filter holds comparables, whose text is read again from the search log."""
    for point in range(sys.maxunicode + 1):
        text = f"x{chr(point)}x"
        if text != text.casefold():
            assert comparable(comparable(text)) == comparable(text)


@given(st.lists(VALUES, max_size=12), SCALARS)
def test_a_value_is_found_where_it_is(values, wanted):
    column, value = Column.build(values), comparable(wanted)
    if value is None:
        return
    expected = [
        any(type(x) is type(value) and x == value for x in comparables(item)) for item in values
    ]
    assert column.select(column.equal([value])).tolist() == expected
    present = [bool(comparables(item)) for item in values]
    assert column.select(column.exists()).tolist() == present


@given(st.lists(VALUES, max_size=12), SCALARS)
def test_ranges_hold_within_a_kind(values, wanted):
    column, bound = Column.build(values), comparable(wanted)
    if bound is None:
        return
    below = [
        any(
            type(x) is type(bound) and not isinstance(x, bool) and x < bound
            for x in comparables(item)
        )
        for item in values
    ]
    assert column.select(column.compare("lt", bound)).tolist() == below


@given(st.lists(VALUES, max_size=12))
def test_bytes_come_back(values):
    column = Column.build(values)
    data = column.encode()
    assert len(data) % 8 == 0
    for source in (data, memoryview(data)):
        again = Column.decode(source)
        assert again.rows == len(values)
        assert np.array_equal(again.codes, column.codes)
        assert again.encode() == data


@given(st.lists(VALUES, min_size=1, max_size=6), st.data())
def test_altered_bytes_are_refused_or_still_a_column(values, data):
    whole = bytearray(Column.build(values).encode())
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    try:
        column = Column.decode(bytes(whole), "price of some.base")
    except CorruptFile as error:
        assert "price of some.base" in str(error)
        return
    for value in (True, 1.0, "a"):
        assert column.select(column.equal([value])).shape == (column.rows,)
        assert column.select(column.compare("lte", value)).shape == (column.rows,)


@given(st.lists(VALUES, max_size=6), st.data())
def test_truncated_bytes_are_refused(values, data):
    whole = Column.build(values).encode()
    with pytest.raises(CorruptFile):
        Column.decode(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(CorruptFile):
        Column.decode(whole + bytes(8))


def test_the_bytes_are_those_that_are_described():
    column = Column.build(["Hat", 2, None, "hat", "7", True])
    head = struct.pack("<IIIIIBBH", 6, 6, 2, 1, 3, 1, 0, 0)
    numbers, text_offsets = struct.pack("<dd", 2, 7), struct.pack("<II", 0, 3)
    codes, texts = bytes([5, 3, 0, 5, 4, 2, 0, 0]), b"hat\0\0\0\0\0"
    assert column.encode() == head + numbers + text_offsets + codes + texts


def test_the_bytes_of_lists():
    column = Column.build([("b", "a"), None, (), "b"])
    head = struct.pack("<IIIIIBBH", 4, 3, 0, 2, 2, 1, 1, 0)
    row_offsets = struct.pack("<IIIII4x", 0, 2, 2, 2, 3)
    text_offsets = struct.pack("<III4x", 0, 1, 2)
    assert column.encode() == head + row_offsets + text_offsets + b"\4\3\4\0\0\0\0\0ab" + bytes(6)


@pytest.mark.parametrize(
    ("distinct", "width"), [(1, 1), (253, 1), (254, 2), (65_533, 2), (65_534, 4)]
)
def test_codes_are_as_narrow_as_they_can_be(distinct, width):
    column = Column.build(list(range(distinct)))
    assert column.codes.itemsize == width
    again = Column.decode(column.encode())
    last = again.select(again.compare("gte", float(distinct - 1)))
    assert np.flatnonzero(last).tolist() == [distinct - 1]
    middle = again.select(again.compare("lt", float(distinct // 2)))
    assert middle.sum() == distinct // 2


def test_many_values_at_once():
    column = Column.build([f"brand {number % 50}" for number in range(500)])
    wanted = [f"brand {number}" for number in range(0, 50, 3)]
    expected = [number % 50 % 3 == 0 for number in range(500)]
    assert column.select(column.equal(wanted)).tolist() == expected


@pytest.mark.parametrize(
    "field", [{"rows": 9}, {"width": 3}, {"layout": 2}, {"zero": 1}, {"rows": 2**32 - 1}]
)
def test_a_head_that_makes_no_sense_is_refused(field):
    names = ("rows", "values", "numbers", "texts", "bytes", "width", "layout", "zero")
    whole = Column.build(["a", 1, None]).encode()
    head = dict(zip(names, struct.unpack_from("<IIIIIBBH", whole), strict=True)) | field
    with pytest.raises(CorruptFile):
        Column.decode(struct.pack("<IIIIIBBH", *head.values()) + whole[24:])


def test_columns_of_rows():
    columns = columns_of([{"a": 1}, {"b": ("x", 2)}, {}])
    assert {name: column.rows for name, column in columns.items()} == {"a": 3, "b": 3}
    assert columns["a"].select(columns["a"].exists()).tolist() == [True, False, False]
    assert columns_of([]) == {}
