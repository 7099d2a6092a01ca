"""A segment: an immutable file of embeddings, their keys, versions and attributes. Owns the bytes.

Layout, little-endian, version 1 (docs/storage-format.md)::

    0   4   magic  b"LKSG"
    4   2   u16 format version
    6   2   u16 zero
    8   4   u32 length of the header
    12  …   header, JSON: {"encoder", "dim", "rows", "sections": {name: [offset, length]}}
    …       sections, each at a multiple of 64: codes int8 (rows, dim), scales f32 (rows),
            versions 8 bytes a row, keys JSON, attributes JSON columns
    -16 16  BLAKE2b-128 of everything before it

An embedding is stored as int8 codes with one scale a row: e ≈ scale · codes.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.core.errors import CorruptFile
from lookalike.core.types import Attributes, AttributeValue

MAGIC = b"LKSG"
FORMAT_VERSION = 1
_PREFIX = struct.Struct("<4sHHI")
_DIGEST_BYTES = 16
_ALIGNMENT = 64

Float32 = npt.NDArray[np.float32]
Int8 = npt.NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Row:
    """One view to be stored: ``embedding`` is (dim,) float32, ``version`` 16 hex digits."""

    key: str
    version: str
    embedding: Float32
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Segment:
    """A decoded segment; arrays are read-only views of the file's bytes.

    ``codes`` is (rows, dim) int8, ``scales`` is (rows,) float32.
    """

    encoder: str
    codes: Int8
    scales: Float32
    keys: tuple[str, ...]
    versions: tuple[str, ...]
    attributes: tuple[dict[str, AttributeValue], ...]

    def __len__(self) -> int:
        return len(self.keys)

    def embeddings(self) -> Float32:
        """(rows, dim) float32, L2-normalised."""
        return dequantize(self.codes, self.scales)


def quantize(embeddings: Float32) -> tuple[Int8, Float32]:
    """int8 codes (n, dim) and scales (n,) with ``embeddings ≈ scales[:, None] * codes``."""
    peaks = np.abs(embeddings).max(axis=1)
    scales = (np.where(peaks > 0, peaks, 1.0) / 127).astype(np.float32)
    return np.rint(embeddings / scales[:, None]).astype(np.int8), scales


def dequantize(codes: Int8, scales: Float32) -> Float32:
    """Undo `quantize` up to rounding and L2-normalise: (n, dim) float32."""
    embeddings = codes.astype(np.float32) * scales[:, None]
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return np.asarray(embeddings / np.maximum(norms, 1e-12), dtype=np.float32)


def encode_segment(encoder: str, rows: Sequence[Row]) -> bytes:
    """The file for these rows. The same rows in any order give the same bytes.

    Raises
    ------
    ValueError
        There are no rows, or their embeddings differ in length.
    """
    if not rows:
        raise ValueError("a segment has at least one row")
    ordered = sorted(rows, key=lambda row: (row.key, row.version))
    embeddings = np.stack([row.embedding for row in ordered]).astype(np.float32)
    codes, scales = quantize(embeddings)
    sections = {
        "codes": codes.tobytes(),
        "scales": scales.astype("<f4").tobytes(),
        "versions": b"".join(bytes.fromhex(row.version) for row in ordered),
        "keys": _json([row.key for row in ordered]),
        "attributes": _json(_columns([row.attributes for row in ordered])),
    }
    header: dict[str, Any] = {"encoder": encoder, "dim": codes.shape[1], "rows": len(ordered)}
    # Offsets count from the end of the padded header, so that the header's length is no input to
    # it.
    offset, header["sections"] = 0, {}
    for name, body in sections.items():
        header["sections"][name] = [offset, len(body)]
        offset += _padded(len(body))
    encoded = _json(header)
    encoded += b" " * (_padded(_PREFIX.size + len(encoded)) - _PREFIX.size - len(encoded))
    parts = [_PREFIX.pack(MAGIC, FORMAT_VERSION, 0, len(encoded)), encoded]
    parts += [body + bytes(_padded(len(body)) - len(body)) for body in sections.values()]
    data = b"".join(parts)
    return data + _digest(data)


def decode_segment(data: bytes, name: str) -> Segment:
    """Read a segment file; ``name`` is for the error.

    Raises
    ------
    CorruptFile
        The bytes are not a whole, unaltered segment of a known format version.
    """
    if len(data) < _PREFIX.size + _DIGEST_BYTES:
        raise CorruptFile(f"segment {name} is truncated: {len(data)} bytes")
    magic, version, _, header_length = _PREFIX.unpack_from(data)
    if magic != MAGIC:
        raise CorruptFile(f"segment {name} does not begin like a segment")
    if version != FORMAT_VERSION:
        raise CorruptFile(
            f"segment {name} has format version {version}; this program reads {FORMAT_VERSION}"
        )
    if _digest(data[:-_DIGEST_BYTES]) != data[-_DIGEST_BYTES:]:
        raise CorruptFile(f"segment {name} is truncated or altered: its checksum does not match")
    header = json.loads(data[_PREFIX.size : _PREFIX.size + header_length])
    base, rows, dim = _PREFIX.size + header_length, header["rows"], header["dim"]

    def section(key: str) -> bytes:
        offset, length = header["sections"][key]
        return data[base + offset : base + offset + length]

    versions = section("versions").hex()
    return Segment(
        encoder=header["encoder"],
        codes=np.frombuffer(section("codes"), dtype=np.int8).reshape(rows, dim),
        scales=np.frombuffer(section("scales"), dtype="<f4"),
        keys=tuple(json.loads(section("keys"))),
        versions=tuple(versions[i : i + 16] for i in range(0, len(versions), 16)),
        attributes=_rows(json.loads(section("attributes")), rows),
    )


def _columns(rows: Sequence[Attributes]) -> dict[str, list[Any]]:
    names = sorted({name for row in rows for name in row})
    return {name: [row.get(name) for row in rows] for name in names}


def _rows(columns: dict[str, list[Any]], count: int) -> tuple[dict[str, AttributeValue], ...]:
    rows: tuple[dict[str, AttributeValue], ...] = tuple({} for _ in range(count))
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            if value is not None:
                row[name] = tuple(value) if isinstance(value, list) else value
    return rows


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _padded(length: int) -> int:
    return -(-length // _ALIGNMENT) * _ALIGNMENT


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
