"""A segment: an immutable file of embeddings, their keys, versions and attributes. Owns the bytes.

A container (`lookalike.core.container`, magic ``LKSG``, version 1) with the sections codes int8
(rows, dim), scales f32 (rows), versions 8 bytes a row, keys JSON, attributes JSON columns. An
embedding is stored as int8 codes with one scale a row: e ≈ scale · codes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.core.container import FileKind, decode_container, encode_container, json_bytes
from lookalike.core.types import Attributes, AttributeValue

KIND = FileKind("segment", b"LKSG", 1)

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


def encode_segment(encoder: str, rows: Sequence[Row], committed_at: float = 0.0) -> bytes:
    """The file for these rows. The same rows in any order give the same bytes.

    ``committed_at`` (epoch seconds) goes into the header: a photo that is deleted and uploaded
    again gets a segment of another name, which nothing takes for the one that was compacted away.

    Raises
    ------
    ValueError
        There are no rows, or their embeddings differ in length.
    """
    if not rows:
        raise ValueError("a segment has at least one row")
    ordered = sorted(rows, key=lambda row: (row.key, row.version))
    codes, scales = quantize(np.stack([row.embedding for row in ordered]).astype(np.float32))
    segment = Segment(
        encoder,
        codes,
        scales,
        tuple(row.key for row in ordered),
        tuple(row.version for row in ordered),
        tuple(dict(row.attributes) for row in ordered),
    )
    return encode_rows(segment, committed_at)


def encode_rows(segment: Segment, committed_at: float = 0.0) -> bytes:
    """The file for rows that are quantized already, in their order, without any loss."""
    header: dict[str, Any] = {
        "encoder": segment.encoder,
        "dim": segment.codes.shape[1],
        "rows": len(segment),
    }
    if committed_at:
        header["committed_at"] = committed_at
    return encode_container(
        KIND,
        header,
        {
            "codes": segment.codes.tobytes(),
            "scales": segment.scales.astype("<f4").tobytes(),
            "versions": bytes.fromhex("".join(segment.versions)),
            "keys": json_bytes(segment.keys),
            "attributes": json_bytes(_columns(segment.attributes)),
        },
    )


def decode_segment(data: bytes, name: str) -> Segment:
    """Read a segment file; ``name`` is for the error.

    Raises
    ------
    CorruptFile
        The bytes are not a whole, unaltered segment of a known format version.
    """
    file = decode_container(KIND, data, name)
    rows, dim = file.header["rows"], file.header["dim"]
    versions = file.section("versions").hex()
    return Segment(
        encoder=file.header["encoder"],
        codes=np.frombuffer(file.section("codes"), dtype=np.int8).reshape(rows, dim),
        scales=np.frombuffer(file.section("scales"), dtype="<f4"),
        keys=tuple(json.loads(bytes(file.section("keys")))),
        versions=tuple(versions[i : i + 16] for i in range(0, len(versions), 16)),
        attributes=_rows(json.loads(bytes(file.section("attributes"))), rows),
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
