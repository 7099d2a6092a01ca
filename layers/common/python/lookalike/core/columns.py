"""Columns: one attribute's values for many rows, as integer codes. Owns order, equality and bytes.

What a filter compares is a *comparable*: a text is stripped and casefolded, numbers are doubles,
and numbers and truth values that are written as text count as what they say (`comparable`).
A column numbers the distinct comparables in ascending order: code 0 is "no value", 1 is false, 2 is
true, then follow the numbers, then the texts by code point. So a value is one code, a range of
numbers or of texts is one interval of codes, and a condition is tested on all rows at once.

The bytes, little-endian, every part padded with zeros to a multiple of 8::

    0   4   u32 rows
    4   4   u32 values: codes in the column
    8   4   u32 numbers in the dictionary
    12  4   u32 texts in the dictionary
    16  4   u32 bytes of the texts
    20  1   u8 width of a code in bytes: 1, 2 or 4
    21  1   u8 layout: 0 one code a row, 1 any number of codes a row
    22  2   zero
    24  …   numbers, f64 ascending
        …   row offsets, u32 × (rows + 1), only in layout 1: row i has the codes from offset i to
            offset i + 1
        …   text offsets, u32 × (texts + 1), into the bytes of the texts
        …   codes, unsigned
        …   texts, UTF-8 ascending, one after the other
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_left
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.core.attributes import typed
from lookalike.core.errors import CorruptFile
from lookalike.core.types import Attributes, AttributeValue, Scalar

Comparable = bool | float | str
Mask = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.unsignedinteger[Any]]
Offsets = npt.NDArray[np.uint32]
Interval = tuple[int, int]
"""Codes from the first up to, not including, the second."""

MISSING, FALSE, TRUE, FIRST_NUMBER = 0, 1, 2, 3
_TRUTH = {"false": False, "true": True}
_HEAD = struct.Struct("<IIIIIBBH")
_CODE_TYPES: dict[int, np.dtype[np.unsignedinteger[Any]]] = {
    1: np.dtype("<u1"),
    2: np.dtype("<u2"),
    4: np.dtype("<u4"),
}
_ALIGNMENT = 8
# Beyond this many intervals one lookup in a table of all codes is quicker than comparing.
_MAX_COMPARED = 8


def comparable(value: Scalar) -> Comparable | None:
    """What a value is compared as; None for NaN, which is no value.

    ``"49.90"`` → 49.9, ``" Shoes "`` → ``"shoes"``, ``"True"`` → True, ``"007"`` → ``"007"``.
    """
    if isinstance(value, str):
        folded = value.casefold()
        value = typed(folded)
        if isinstance(value, str):
            return _TRUTH.get(value, value)
    if isinstance(value, bool):
        return value
    try:
        number = float(value)
    except OverflowError:
        number = math.inf if value > 0 else -math.inf
    return None if math.isnan(number) else number + 0.0  # no negative zero


def comparables(value: AttributeValue | None) -> list[Comparable]:
    """What an attribute's values are compared as: none when it is missing or an empty list."""
    if value is None:
        return []
    several = value if isinstance(value, tuple) else (value,)
    return [item for item in map(comparable, several) if item is not None]


@dataclass(frozen=True, slots=True)
class Texts(Sequence[bytes]):
    """Texts one after the other in UTF-8; each is cut out when it is asked for."""

    offsets: Offsets
    blob: memoryview

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, place: Any) -> Any:
        return bytes(self.blob[int(self.offsets[place]) : int(self.offsets[place + 1])])


@dataclass(frozen=True, slots=True)
class Column:
    """One attribute of ``rows`` rows.

    ``codes`` is (rows,), or with ``offsets`` (rows + 1,) the codes of one row after the other's;
    ``numbers`` is (n,) float64 ascending, ``texts`` ascend by code point.
    """

    rows: int
    codes: Codes
    offsets: Offsets | None
    numbers: npt.NDArray[np.float64]
    texts: Texts

    @classmethod
    def build(cls, values: Sequence[AttributeValue | None]) -> Column:
        """The column of these values, one a row; None is no value."""
        kinds = set(map(type, values))
        offsets, flat = None, values
        if tuple in kinds:
            lists: list[tuple[Any, ...]] = [
                value if isinstance(value, tuple) else () if value is None else (value,)
                for value in values
            ]
            offsets, flat = _offsets(lists), list(chain.from_iterable(lists))
        if tuple in kinds or bool in kinds:
            # True == 1 as keys of a dictionary; written as text it is the same value.
            flat = [str(value) if isinstance(value, bool) else value for value in flat]
        places, numbers, texts = _dictionary(flat)
        size = FIRST_NUMBER + len(numbers) + len(texts)
        width = 1 if size <= 1 << 8 else 2 if size <= 1 << 16 else 4
        codes = np.fromiter(map(places.__getitem__, flat), _CODE_TYPES[width], len(flat))
        return cls(len(values), codes, offsets, numbers, texts)

    @property
    def size(self) -> int:
        """Number of codes: every code is below it."""
        return FIRST_NUMBER + len(self.numbers) + len(self.texts)

    def equal(self, values: Iterable[Comparable]) -> list[Interval]:
        """Codes of these values; those that no row has are left out."""
        found = []
        for value in values:
            first, last = self._bounds(value)
            if first < last:
                found.append((first, last))
        return found

    def compare(self, operator: str, bound: Comparable) -> list[Interval]:
        """Codes of the numbers or texts that are ``lt``, ``lte``, ``gt`` or ``gte`` the bound.

        A text is never compared with a number, and nothing with a truth value.
        """
        if isinstance(bound, bool):
            return []
        first_text = FIRST_NUMBER + len(self.numbers)
        low, high = (
            (first_text, self.size) if isinstance(bound, str) else (FIRST_NUMBER, first_text)
        )
        first, last = self._bounds(bound)
        interval = {
            "lt": (low, first),
            "lte": (low, last),
            "gt": (last, high),
            "gte": (first, high),
        }[operator]
        return [interval] if interval[0] < interval[1] else []

    def exists(self) -> list[Interval]:
        """Codes of all values."""
        return [(FALSE, self.size)]

    def select(self, intervals: Sequence[Interval]) -> Mask:
        """(rows,) bool: whether any of a row's codes is in one of the intervals."""
        if not intervals:
            return np.zeros(self.rows, dtype=np.bool_)
        found = _within(self.codes, intervals, self.size)
        if self.offsets is None:
            return found
        # Hits before each offset: a row whose two ends differ has one, and empty rows never do.
        before = np.zeros(len(found) + 1, dtype=np.uint32)
        np.cumsum(found, out=before[1:])
        at = before[self.offsets]
        return np.asarray(at[1:] != at[:-1])

    def _bounds(self, value: Comparable) -> Interval:
        """The code of a value as an interval: empty, at its place, when no row has it."""
        if isinstance(value, bool):
            return (TRUE, TRUE + 1) if value else (FALSE, FALSE + 1)
        if isinstance(value, str):
            key = _encoded(value)
            place, first = bisect_left(self.texts, key), FIRST_NUMBER + len(self.numbers)
            found = place < len(self.texts) and self.texts[place] == key
        else:
            place, first = int(np.searchsorted(self.numbers, value)), FIRST_NUMBER
            found = place < len(self.numbers) and bool(self.numbers[place] == value)
        return first + place, first + place + found

    def encode(self) -> bytes:
        """The bytes of the module's description."""
        codes = self.codes.astype(_CODE_TYPES[self.codes.itemsize], copy=False)
        head = _HEAD.pack(
            self.rows,
            len(codes),
            len(self.numbers),
            len(self.texts),
            len(self.texts.blob),
            codes.itemsize,
            self.offsets is not None,
            0,
        )
        parts = [
            head,
            self.numbers.astype("<f8", copy=False).tobytes(),
            b"" if self.offsets is None else self.offsets.astype("<u4", copy=False).tobytes(),
            self.texts.offsets.astype("<u4", copy=False).tobytes(),
            codes.tobytes(),
            bytes(self.texts.blob),
        ]
        return b"".join(part + bytes(-len(part) % _ALIGNMENT) for part in parts)

    @classmethod
    def decode(cls, data: bytes | memoryview, name: str = "") -> Column:
        """Read a column without a copy; ``name`` is for the error.

        Raises
        ------
        CorruptFile
            The bytes are no column, or their parts do not fit together.
        """
        view = memoryview(data).cast("B")
        if len(view) < _HEAD.size:
            raise _corrupt(name, f"it has {len(view)} bytes")
        rows, values, numbers, texts, text_bytes, width, layout, zero = _HEAD.unpack_from(view)
        if width not in _CODE_TYPES or layout > 1 or zero or (not layout and values != rows):
            raise _corrupt(name, "its head makes no sense")
        lengths = [
            8 * numbers,
            4 * (rows + 1) if layout else 0,
            4 * (texts + 1),
            width * values,
            text_bytes,
        ]
        starts = [_HEAD.size]
        for length in lengths:
            starts.append(starts[-1] + length + -length % _ALIGNMENT)
        if starts[-1] != len(view):
            raise _corrupt(name, f"it has {len(view)} bytes where its head says {starts[-1]}")
        parts = [view[a : a + length] for a, length in zip(starts, lengths, strict=False)]
        column = cls(
            rows,
            np.frombuffer(parts[3], _CODE_TYPES[width]),
            np.frombuffer(parts[1], "<u4") if layout else None,
            np.frombuffer(parts[0], "<f8"),
            Texts(np.frombuffer(parts[2], "<u4"), parts[4]),
        )
        column._check(name)
        return column

    def _check(self, name: str) -> None:
        if len(self.codes) and int(self.codes.max()) >= self.size:
            raise _corrupt(name, "a code is in no dictionary")
        if not np.all(self.numbers[1:] > self.numbers[:-1]):
            raise _corrupt(name, "its numbers are not in order")
        for offsets, end in (
            (self.offsets, len(self.codes)),
            (self.texts.offsets, len(self.texts.blob)),
        ):
            if offsets is None:
                continue
            if offsets[0] != 0 or offsets[-1] != end or np.any(offsets[1:] < offsets[:-1]):
                raise _corrupt(name, "its offsets are not in order")


def columns_of(rows: Sequence[Attributes]) -> dict[str, Column]:
    """The columns of every attribute that any of the rows has."""
    names = sorted(set(chain.from_iterable(rows)))
    return {name: Column.build([row.get(name) for row in rows]) for name in names}


def _dictionary(flat: Sequence[Any]) -> tuple[dict[Any, int], npt.NDArray[np.float64], Texts]:
    """The code of each value as it was given, the distinct numbers, the distinct texts."""
    codes: dict[Any, int] = {None: MISSING}
    given: dict[type, list[Any]] = {bool: [], float: [], str: []}
    compared: dict[type, list[Any]] = {bool: [], float: [], str: []}
    for value in dict.fromkeys(flat):
        found = None if value is None else comparable(value)
        if found is None:
            codes[value] = MISSING
        else:
            given[type(found)].append(value)
            compared[type(found)].append(found)
    numbers, places = np.unique(np.array(compared[float], dtype="<f8"), return_inverse=True)
    texts = sorted(set(compared[str]))
    text_codes = dict(zip(texts, range(FIRST_NUMBER + len(numbers), 2**32), strict=False))
    codes.update(zip(given[bool], (FALSE + found for found in compared[bool]), strict=True))
    codes.update(zip(given[float], (places + FIRST_NUMBER).tolist(), strict=True))
    codes.update(zip(given[str], map(text_codes.__getitem__, compared[str]), strict=True))
    encoded = [_encoded(text) for text in texts]
    return codes, numbers, Texts(_offsets(encoded), memoryview(b"".join(encoded)))


def _offsets(items: Sequence[Sized]) -> Offsets:
    """(n + 1,) uint32: where each item begins when they stand one after the other."""
    offsets = np.zeros(len(items) + 1, dtype="<u4")
    np.cumsum(np.fromiter(map(len, items), np.uint32, len(items)), out=offsets[1:])
    return offsets


def _encoded(text: str) -> bytes:
    # Bytes in UTF-8 have the order of code points; so have lone surrogates, should one come by.
    return text.encode("utf-8", "surrogatepass")


def _within(codes: Codes, intervals: Sequence[Interval], size: int) -> Mask:
    if len(intervals) > _MAX_COMPARED:
        chosen = np.zeros(size, dtype=np.bool_)
        for first, last in intervals:
            chosen[first:last] = True
        return np.asarray(chosen.take(codes))
    found = _between(codes, intervals[0])
    for interval in intervals[1:]:
        found |= _between(codes, interval)
    return found


def _between(codes: Codes, interval: Interval) -> Mask:
    first, last = interval
    if last - first == 1:
        return np.asarray(codes == first)
    # Unsigned: what is below the first wraps around to the far end.
    shifted = codes - codes.dtype.type(first)
    return np.asarray(shifted < last - first)


def _corrupt(name: str, what: str) -> CorruptFile:
    return CorruptFile(f"column {name} is truncated or altered: {what}".replace("  ", " "))
