"""Columns of the map as Arrow IPC streams, which dashboards and notebooks read as they are.

Owns what the columns are called and hold (docs/map.md). nanoarrow writes and reads them, imported
when it does; pyarrow would not fit the map's function.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from lookalike.core.errors import CorruptFile

MAX_TEXT_CHARS = 200
"""Of a title or a category; what is longer is cut."""

Float32 = npt.NDArray[np.float32]
Hashes = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
Column = npt.NDArray[Any] | Sequence[str]

_TYPES: dict[str, type[np.generic]] = {"f": np.float32, "L": np.uint64}  # by Arrow's formats


@dataclass(frozen=True, slots=True)
class Points:
    """What a map is drawn from: n products.

    ``product`` (n,) uint64 is the hash of each product's id; ``x`` and ``y`` (n,) float32 have the
    map's radius as their unit; ``placed`` (n,) is whether a product was placed among those that
    were laid out. ``category`` and ``cluster`` are "" where there is none.
    """

    product: Hashes
    x: Float32
    y: Float32
    placed: Mask
    category: Sequence[str]
    cluster: Sequence[str]

    def __len__(self) -> int:
        return len(self.product)


@dataclass(frozen=True, slots=True)
class Details:
    """What is shown of a point that somebody looks at: n products, in the order of `Points`.

    ``thumbnail`` is a key of the index bucket.
    """

    product_id: Sequence[str]
    view: Sequence[str]
    title: Sequence[str]
    thumbnail: Sequence[str]

    def __len__(self) -> int:
        return len(self.product_id)


@dataclass(frozen=True, slots=True)
class Labels:
    """The texts of `Points`, before it is known where they lie."""

    category: Sequence[str]
    cluster: Sequence[str]


Columns = TypeVar("Columns", Points, Details, Labels)


def taken(columns: Columns, numbers: npt.NDArray[np.int64]) -> Columns:
    """Some rows of columns, in this order."""
    chosen = numbers.tolist()

    def pick(column: Column) -> Column:
        if isinstance(column, np.ndarray):
            return column[numbers]
        return [column[number] for number in chosen]

    values: list[Any] = [pick(getattr(columns, field.name)) for field in fields(columns)]
    return type(columns)(*values)


def joined(pieces: Sequence[Columns]) -> Columns:
    """Columns of which each is one piece after the other; at least one piece."""
    first = pieces[0]

    def join(name: str) -> Column:
        columns = [getattr(piece, name) for piece in pieces]
        if isinstance(columns[0], np.ndarray):
            return np.concatenate(columns)
        return list(chain.from_iterable(columns))

    values: list[Any] = [join(field.name) for field in fields(first)]
    return type(first)(*values)


def column_text(value: object) -> str:
    """An attribute's value as a column shows it."""
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value or "")
    return text[:MAX_TEXT_CHARS]


def encode_columns(columns: Points | Details | Labels) -> bytes:
    """One Arrow IPC stream with one record batch."""
    import nanoarrow
    from nanoarrow.ipc import StreamWriter

    arrays = {field.name: _array(getattr(columns, field.name)) for field in fields(columns)}
    kinds = {name: nanoarrow.Schema(array.schema) for name, array in arrays.items()}
    schema = nanoarrow.struct(kinds)
    rows = len(getattr(columns, fields(columns)[0].name))
    batch = nanoarrow.c_array_from_buffers(schema, rows, [None], children=list(arrays.values()))
    body = io.BytesIO()
    with StreamWriter.from_writable(body) as writer:
        writer.write_stream(nanoarrow.c_array_stream(nanoarrow.Array(batch)))
    return body.getvalue()


def decode_points(body: bytes, name: str) -> Points:
    """Read points; ``name`` is for the error, `CorruptFile`."""
    return Points(**_decoded(body, Points, name))


def decode_details(body: bytes, name: str) -> Details:
    """Read details; ``name`` is for the error, `CorruptFile`."""
    return Details(**_decoded(body, Details, name))


def decode_labels(body: bytes, name: str) -> Labels:
    """Read labels; ``name`` is for the error, `CorruptFile`."""
    return Labels(**_decoded(body, Labels, name))


def _array(column: Column) -> Any:
    import nanoarrow

    if not isinstance(column, np.ndarray):
        # Attributes may hold lone surrogates, Arrow's texts may not.
        texts = [text.encode("utf-8", "replace").decode() for text in column]
        return nanoarrow.c_array(texts, nanoarrow.string())
    if column.dtype == np.bool_:
        bits = np.packbits(column, bitorder="little")
        return nanoarrow.c_array_from_buffers(nanoarrow.bool_(), len(column), [None, bits])
    kind = nanoarrow.uint64() if column.dtype == np.uint64 else nanoarrow.float32()
    values = np.ascontiguousarray(column)
    return nanoarrow.c_array_from_buffers(kind, len(column), [None, values])


def _decoded(body: bytes, kind: type, name: str) -> Mapping[str, Any]:
    import nanoarrow
    from nanoarrow.ipc import InputStream

    try:
        batch = nanoarrow.Array(InputStream.from_readable(body))
    except RuntimeError as error:
        raise CorruptFile(f"{name} is no Arrow stream: {error}") from None
    columns = {
        field.name: (nanoarrow.c_schema(field).format, batch.child(number))
        for number, field in enumerate(batch.schema.fields)
    }
    wanted = {field.name for field in fields(kind)}
    if not wanted <= columns.keys():
        raise CorruptFile(f"{name} lacks the columns {sorted(wanted - columns.keys())}")
    return {column: _values(*columns[column]) for column in wanted}


def _values(kind: str, column: Any) -> Column:
    if kind == "u":
        return list(column.to_pylist())
    if kind == "b":
        bits = np.frombuffer(column.buffers[1], np.uint8)
        return np.unpackbits(bits, count=len(column), bitorder="little").astype(np.bool_)
    return np.frombuffer(column.buffers[1], _TYPES[kind], len(column))
