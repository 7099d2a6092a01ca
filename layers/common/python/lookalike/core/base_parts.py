"""Parts of a base file as a search gets at them: brought in, and checked before their first use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

import numpy as np
import numpy.typing as npt

from lookalike.core.base_layout import (
    BaseHead,
    Block,
    Int64,
    Part,
    UInt8,
    check,
    decode_head,
)
from lookalike.core.errors import CorruptFile

BATCH_BYTES = 32_000_000
"""Parts that are brought in at once, so that a search of everything needs no more than that."""


class ByteSource(Protocol):
    """An immutable file of ``size`` bytes, parts of which may be far away."""

    size: int

    def ensure(self, ranges: Sequence[tuple[int, int]]) -> UInt8:
        """Bring in (start, length) ranges, in parallel.

        Returns
        -------
        (size,) uint8, read-only: the file, valid in these ranges for as long as the array is held.
        The same array means that what was valid before still is.

        Raises
        ------
        Unavailable
            The store cannot be reached right now.
        Vanished
            The object has left the bucket.
        CorruptFile
            The object is shorter than it should be.
        """

    def refuse(self) -> None:
        """Forget all bytes: some of them were not what they should be."""


@dataclass(slots=True)
class _Checked:
    """The file as it is at hand, and which of its parts have been compared with their digests."""

    memory: UInt8
    parts: npt.NDArray[np.bool_]


class BaseParts:
    """A base file's head, which is read at once, and its parts, which are read when asked for.

    Parts are numbered: lists first, then filter columns, then the buckets of the lookup by key.
    A local copy that is altered is given up for the object once; altered again, it is refused.

    Parameters
    ----------
    source, name, head_bytes
        See `lookalike.core.base.Base`.

    Raises
    ------
    CorruptFile
        The head is truncated or altered, or is not that of the file's name.
    """

    def __init__(self, source: ByteSource, name: str, head_bytes: int) -> None:
        self._source = source
        self._name = name
        try:
            memory, head = _opened(source, name, head_bytes)
        except CorruptFile:
            source.refuse()
            memory, head = _opened(source, name, head_bytes)
        self.head = head
        self._parts: tuple[Part, ...] = (*head.blocks, *head.columns.values(), *head.lookup)
        self._sizes = np.asarray([part.length for part in self._parts], dtype=np.int64)
        self._columns = {column: head.lists + i for i, column in enumerate(head.columns)}
        self._first_bucket = head.lists + len(head.columns)
        self._checked = _Checked(memory, np.zeros(len(self._parts), dtype=np.bool_))

    def forget(self) -> None:
        """Let go of the file's bytes."""
        self._checked = _Checked(np.empty(0, dtype=np.uint8), np.zeros(0, dtype=np.bool_))

    def verify(self) -> None:
        """Bring in and check every part; raises as `fetched` does."""
        for batch in self.batches(np.arange(len(self._parts))):
            self.fetched(batch)

    def batches(self, numbers: Int64) -> list[Int64]:
        """Numbers of parts in runs of about `BATCH_BYTES`."""
        sizes = np.cumsum(self._sizes[numbers])
        return np.split(numbers, np.flatnonzero(np.diff(sizes // BATCH_BYTES)) + 1)

    def has(self, numbers: Int64) -> bool:
        """Whether these parts are here and have been checked."""
        checked = self._checked.parts
        return len(checked) > 0 and bool(checked[numbers].all())

    def fetched(self, numbers: Int64) -> UInt8:
        """The file, valid and unaltered in these parts.

        Raises
        ------
        CorruptFile
            One of them is truncated or altered.
        Retry
            See `ByteSource.ensure`.
        """
        try:
            return self._verified(numbers)
        except CorruptFile:
            self._source.refuse()
        try:
            return self._verified(numbers)
        except CorruptFile:
            self._source.refuse()
            self.forget()
            raise

    def block(self, number: int) -> Block:
        """A list's block."""
        rows = int(self.head.first_rows[number + 1] - self.head.first_rows[number])
        return Block(self._read(number), rows, self.head.dim)

    def column(self, name: str) -> UInt8 | None:
        """A filter column's bytes; None when no row has the attribute."""
        number = self._columns.get(name)
        return None if number is None else self._read(number)

    def bucket(self, number: int) -> UInt8:
        """The bytes of a bucket of the lookup by key."""
        return self._read(self._first_bucket + number)

    def _read(self, number: int) -> UInt8:
        part = self._parts[number]
        memory = self.fetched(np.asarray([number], dtype=np.int64))
        return memory[part.start : part.start + part.length]

    def _verified(self, numbers: Int64) -> UInt8:
        wanted = [self._parts[number] for number in numbers.tolist()]
        memory = self._source.ensure([(part.start, part.length) for part in wanted])
        checked = self._checked
        if memory is not checked.memory:
            checked = _Checked(memory, np.zeros(len(self._parts), dtype=np.bool_))
        for place in np.flatnonzero(~checked.parts[numbers]).tolist():
            number = int(numbers[place])
            check(wanted[place], memory, self._name, self._what(number))
            checked.parts[number] = True
        self._checked = checked
        return memory

    def _what(self, number: int) -> str:
        if number < self.head.lists:
            return f"list {number}"
        return "the lookup by key" if number >= self._first_bucket else "a filter column"


def _opened(source: ByteSource, name: str, head_bytes: int) -> tuple[UInt8, BaseHead]:
    if head_bytes > source.size:
        raise CorruptFile(f"base {name} is truncated: {source.size} bytes")
    memory = source.ensure([(0, head_bytes)])
    head = decode_head(memory[:head_bytes].tobytes(), name)
    if head.digest != PurePosixPath(name).stem:
        raise CorruptFile(f"base {name} holds another base: {head.digest}")
    if head.size != source.size:
        raise CorruptFile(f"base {name} has {source.size} bytes; its head says {head.size}")
    return memory, head
