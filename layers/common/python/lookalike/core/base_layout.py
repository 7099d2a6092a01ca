"""Where everything is in a base file. Owns the bytes; knows no search and no store.

A base (``LKBS``, version 1) is a head followed by a body (docs/storage-format.md). The head is a
container (`lookalike.core.container`) that is read alone; it holds a digest of every part of the
body, so that the digest which ends it, and names the file, vouches for all of it. The body's parts
are one block a list, one a filter column and the buckets of the lookup by key; each can be fetched
and checked alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.core.container import FileKind, decode_container
from lookalike.core.errors import CorruptFile

KIND = FileKind("base", b"LKBS", 1)
LOOKUP_ROWS = 4096
"""Rows in one bucket of the lookup by key: 48 kB, which one GET brings in about its latency."""
VERSION_BYTES = 8
LOOKUP_DTYPE = np.dtype([("hash", "<u8"), ("row", "<u4")])

Float32 = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Part:
    """One piece of the body: where it is in the file, and the BLAKE2b-64 of its bytes."""

    start: int
    length: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class BaseHead:
    """A decoded head. Offsets count from the beginning of the file.

    ``list_rows`` is (lists,) and ``first_rows`` (lists + 1,), rows being numbered list by list.
    ``minimum`` and ``span`` are (dim,): code c stands for ``minimum + (c + 0.5) / 255 * span``,
    and with its fine code f for ``minimum + (c + (f + 0.5) / 16) / 255 * span``. Blocks begin at
    multiples of ``dim`` from ``origin``, so that the body is a matrix with ``dim`` columns, which
    codes are gathered from.
    """

    digest: str
    encoder: str
    head: str
    dim: int
    rows: int
    origin: int
    size: int
    centroids: Float32
    first_rows: Int64
    minimum: Float32
    span: Float32
    blocks: tuple[Part, ...]
    columns: dict[str, Part]
    lookup_hashes: npt.NDArray[np.uint64]
    lookup: tuple[Part, ...]

    @property
    def lists(self) -> int:
        """How many inverted lists there are."""
        return len(self.blocks)


def digest_of(data: bytes | memoryview) -> bytes:
    """BLAKE2b-64, by which the head vouches for a part of the body."""
    return hashlib.blake2b(data, digest_size=8).digest()


def key_hash(key: str, version: str) -> int:
    """What the lookup sorts rows by: BLAKE2b-64 of version and key."""
    return int.from_bytes(digest_of(f"{version}{key}".encode()), "little")


def padded(length: int, multiple: int) -> int:
    """The smallest multiple that is not less."""
    return -(-length // multiple) * multiple


def fine_codes(embeddings: Float32, codes: UInt8, minimum: Float32, span: Float32) -> UInt8:
    """(n, dim) uint8 from 0 to 15: which 16th of its code's step each component is in."""
    steps = (embeddings - minimum) / np.where(span > 0, span, 1) * np.float32(255) - codes
    return np.clip(steps * 16, 0, 15).astype(np.uint8)


def encode_block(codes: UInt8, fine: UInt8, versions: Sequence[str], keys: Sequence[str]) -> bytes:
    """A list's block: codes, fine codes, 8 bytes a version, u32 ends of the keys, their UTF-8 text.

    Two fine codes share a byte, the even component's in its low half. Padded to a multiple of the
    row length; empty for a list without rows.
    """
    packed = fine[:, ::2].copy()
    packed[:, : fine.shape[1] // 2] |= fine[:, 1::2] << 4
    texts = [key.encode() for key in keys]
    ends = np.cumsum([len(text) for text in texts], dtype="<u4")
    versions_bytes = bytes.fromhex("".join(versions))
    block = b"".join([codes.tobytes(), packed.tobytes(), versions_bytes, ends.tobytes(), *texts])
    return block + bytes(padded(len(block), codes.shape[1]) - len(block))


@dataclass(frozen=True, slots=True)
class Block:
    """A list's block, read where it lies."""

    data: UInt8
    rows: int
    dim: int

    def steps(self, places: Int64) -> Float32:
        """(n, dim) float32: codes with their fine codes, in steps of the codes, of some rows."""
        half = (self.dim + 1) // 2
        end = self.rows * self.dim
        codes = self.data[:end].reshape(self.rows, self.dim)[places]
        packed = self.data[end : end + self.rows * half].reshape(self.rows, half)[places]
        fine = np.empty((len(places), 2 * half), dtype=np.uint8)
        fine[:, ::2], fine[:, 1::2] = packed & 15, packed >> 4
        return codes + (fine[:, : self.dim] + np.float32(0.5)) / np.float32(16)

    def name(self, row: int) -> tuple[str, str]:
        """Key and version of the list's ``row``-th row."""
        versions = self.rows * (self.dim + (self.dim + 1) // 2)
        ends_at = versions + self.rows * VERSION_BYTES
        text_at = ends_at + self.rows * 4
        ends = self.data[ends_at:text_at].view("<u4")
        start, end = (int(ends[row - 1]) if row else 0), int(ends[row])
        version = self.data[versions + row * VERSION_BYTES : versions + (row + 1) * VERSION_BYTES]
        text = self.data[text_at + start : text_at + end].tobytes()
        return text.decode(), version.tobytes().hex()


def decode_head(data: bytes | memoryview, name: str) -> BaseHead:
    """Read a base's head; ``name`` is for the error.

    Raises
    ------
    CorruptFile
        The bytes are not a whole, unaltered head of a known format version.
    """
    file = decode_container(KIND, data, name)
    header: dict[str, Any] = file.header
    dim, lists = int(header["dim"]), int(header["lists"])
    origin = len(data)

    def section(key: str, dtype: str) -> npt.NDArray[Any]:
        return np.frombuffer(file.section(key), dtype=dtype)

    list_rows = section("list_rows", "<u4").astype(np.int64)
    list_bytes = section("list_bytes", "<u4").astype(np.int64)
    blocks = _parts(origin, list_bytes, bytes(file.section("list_digests")))
    end = origin + int(list_bytes.sum())
    columns: dict[str, Part] = {}
    for column, length, digest in json.loads(bytes(file.section("columns"))):
        columns[column] = Part(end, length, bytes.fromhex(digest))
        end += length
    rows = int(header["rows"])
    hashes = section("lookup_hashes", "<u8")
    sizes = np.full(len(hashes), LOOKUP_ROWS, dtype=np.int64)
    sizes[-1] = rows - LOOKUP_ROWS * (len(hashes) - 1)
    lookup = _parts(end, sizes * LOOKUP_DTYPE.itemsize, bytes(file.section("lookup_digests")))
    return BaseHead(
        digest=bytes(data[-16:]).hex(),
        encoder=str(header["encoder"]),
        head=str(header["head"]),
        dim=dim,
        rows=rows,
        origin=origin,
        size=end + rows * LOOKUP_DTYPE.itemsize,
        centroids=section("centroids", "<f2").astype(np.float32).reshape(lists, dim),
        first_rows=np.concatenate([[0], np.cumsum(list_rows)]),
        minimum=section("minimum", "<f4"),
        span=section("span", "<f4"),
        blocks=blocks,
        columns=columns,
        lookup_hashes=hashes,
        lookup=lookup,
    )


def check(part: Part, memory: UInt8, name: str, what: str) -> None:
    """Compare a part of a file with its digest.

    Raises
    ------
    CorruptFile
        The bytes are not those that the head vouches for.
    """
    if digest_of(memory[part.start : part.start + part.length].data) != part.digest:
        raise CorruptFile(
            f"base {name} is truncated or altered: the checksum of {what} does not match"
        )


def _parts(start: int, lengths: Iterable[int], digests: bytes) -> tuple[Part, ...]:
    parts: list[Part] = []
    for number, length in enumerate(lengths):
        parts.append(Part(start, int(length), digests[number * 8 : number * 8 + 8]))
        start += int(length)
    return tuple(parts)
