"""The map's file: what is drawn, what is shown of a point, and what new products are placed by.

Owns the bytes (magic ``LKPJ``, version 1, docs/map.md): the length of the head, the head, a body of
parts. Each part can be read alone; the head has a digest of each. Points of all products come
first, then details of them in pieces, then what only the map's function reads.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.core.base_layout import Part, digest_of, padded
from lookalike.core.container import FileKind, decode_container, encode_container
from lookalike.core.errors import CorruptFile
from lookalike.core.head import decode_head, encode_head
from lookalike.core.placement import Anchors

KIND = FileKind("map", b"LKPJ", 1)
ANCHORS_KIND = FileKind("anchors of a map", b"LKPA", 1)
FIRST_READ_BYTES = 2**16
"""Of the file: the head of a map of a million products fits."""

_LENGTH = struct.Struct("<Q")
_ALIGNMENT = 64

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some products of a map: Arrow streams (`lookalike.core.map_columns`) of so many rows."""

    rows: int
    points: bytes
    details: bytes


@dataclass(frozen=True, slots=True)
class MapHead:
    """What a map's file holds, and where.

    ``method`` made it; ``scale`` is the radius that the layout had by that method. Of the pieces
    (``rows``, ``points``, ``details``) the n-th ones are about the same products. ``known`` is the
    part with the hashes of the rows that are on it, ``products`` with those of product ids, both
    sorted uint64; ``anchors`` is None in a file of arrivals.
    """

    method: str
    scale: float
    rows: tuple[int, ...]
    points: tuple[Part, ...]
    details: tuple[Part, ...]
    known: Part
    products: Part
    anchors: Part | None


def encode_map(
    method: str,
    scale: float,
    chunks: Iterable[Chunk],
    known: Hashes,
    products: Hashes,
    anchors: Anchors | None = None,
) -> bytes:
    """The file for these products; ``known`` and ``products`` in any order."""
    chunks = list(chunks)
    bodies = [chunk.points for chunk in chunks] + [chunk.details for chunk in chunks]
    bodies += [np.sort(known).tobytes(), np.sort(products).tobytes()]
    if anchors is not None:
        bodies.append(encode_anchors(anchors))
    parts, laid = [], []
    start = 0
    for body in bodies:
        parts.append([start, len(body), digest_of(body).hex()])
        laid += [body, bytes(padded(len(body), _ALIGNMENT) - len(body))]
        start += padded(len(body), _ALIGNMENT)
    header: dict[str, Any] = {
        "method": method,
        "scale": scale,
        "rows": [chunk.rows for chunk in chunks],
        "parts": parts,
    }
    head = encode_container(KIND, header, {})
    return b"".join([_LENGTH.pack(len(head)), head, *laid])


def head_bytes(beginning: bytes, name: str) -> int:
    """How many bytes of a file its head ends after, told by the first ones."""
    if len(beginning) < _LENGTH.size:
        raise CorruptFile(f"map {name} is truncated: {len(beginning)} bytes")
    return int(_LENGTH.unpack_from(beginning)[0]) + _LENGTH.size


def decode_map_head(beginning: bytes, name: str) -> MapHead:
    """Read the head from a file's first bytes; ``name`` is for the error.

    Raises
    ------
    CorruptFile
        They do not hold a whole, unaltered head of a known format version.
    """
    end = head_bytes(beginning, name)
    header = decode_container(KIND, memoryview(beginning)[_LENGTH.size : end], name).header
    parts = [
        Part(end + start, length, bytes.fromhex(digest))
        for start, length, digest in header["parts"]
    ]
    pieces = len(header["rows"])
    return MapHead(
        header["method"],
        header["scale"],
        tuple(header["rows"]),
        tuple(parts[:pieces]),
        tuple(parts[pieces : 2 * pieces]),
        parts[2 * pieces],
        parts[2 * pieces + 1],
        parts[-1] if len(parts) > 2 * pieces + 2 else None,
    )


def checked(body: bytes, part: Part, name: str) -> bytes:
    """The bytes of a part, if they are those that the head tells of; else raises `CorruptFile`."""
    if len(body) != part.length or digest_of(body) != part.digest:
        raise CorruptFile(f"map {name} is truncated or altered from byte {part.start}")
    return body


def pieces_of(body: bytes, start: int, parts: Iterable[Part], name: str) -> Iterator[bytes]:
    """Parts that were read as one range from ``start``; raises `CorruptFile`."""
    for part in parts:
        first = part.start - start
        yield checked(body[first : first + part.length], part, name)


def decode_hashes(body: bytes) -> Hashes:
    """A part of hashes: (n,) uint64, sorted."""
    return np.frombuffer(body, "<u8")


def encode_anchors(anchors: Anchors) -> bytes:
    """For `decode_anchors`; coordinates are kept as float16, positions as float32."""
    return encode_container(
        ANCHORS_KIND,
        {"dim": anchors.coordinates.shape[1]},
        {
            "basis": encode_head(anchors.basis),
            "products": anchors.hashes.astype("<u8").tobytes(),
            "coordinates": anchors.coordinates.astype("<f2").tobytes(),
            "positions": anchors.positions.astype("<f4").tobytes(),
        },
    )


def decode_anchors(body: bytes, name: str) -> Anchors:
    """What new products are placed by; raises `CorruptFile`."""
    file = decode_container(ANCHORS_KIND, body, name)
    coordinates = np.frombuffer(file.section("coordinates"), "<f2")
    return Anchors(
        np.frombuffer(file.section("products"), "<u8"),
        decode_head(bytes(file.section("basis")), name),
        coordinates.reshape(-1, file.header["dim"]).astype(np.float32),
        np.frombuffer(file.section("positions"), "<f4").reshape(-1, 2).astype(np.float64),
    )
