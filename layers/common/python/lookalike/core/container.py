"""The frame that index files share: a JSON header, aligned sections, a checksum.

Owns the bytes around the sections, not what is in them. Little-endian (docs/storage-format.md)::

    0   4   magic
    4   2   u16 format version
    6   2   u16 zero
    8   4   u32 length of the header
    12  …   header, JSON with "sections": {name: [offset, length]}, padded with spaces
    …       sections, each at a multiple of 64; offsets count from the end of the header
    -16 16  BLAKE2b-128 of everything before it
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lookalike.core.errors import CorruptFile

_PREFIX = struct.Struct("<4sHHI")
_DIGEST_BYTES = 16
_ALIGNMENT = 64


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of file: ``name`` is for errors, ``magic`` has four bytes."""

    name: str
    magic: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Container:
    """A file that was read: whole and unaltered."""

    header: dict[str, Any]
    _data: memoryview

    def section(self, name: str) -> memoryview:
        """The bytes of a section, without a copy."""
        offset, length = self.header["sections"][name]
        return self._data[offset : offset + length]


def encode_container(
    kind: FileKind, header: Mapping[str, Any], sections: Mapping[str, bytes]
) -> bytes:
    """The file with these sections, in their order."""
    places: dict[str, list[int]] = {}
    # Offsets count from the end of the padded header, so that the header's length is no input to
    # it.
    offset = 0
    for name, body in sections.items():
        places[name] = [offset, len(body)]
        offset += _padded(len(body))
    encoded = json_bytes({**header, "sections": places})
    encoded += b" " * (_padded(_PREFIX.size + len(encoded)) - _PREFIX.size - len(encoded))
    parts = [_PREFIX.pack(kind.magic, kind.version, 0, len(encoded)), encoded]
    for body in sections.values():
        parts += [body, bytes(_padded(len(body)) - len(body))]
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for part in parts:
        digest.update(part)
    return b"".join([*parts, digest.digest()])


def decode_container(kind: FileKind, data: bytes | memoryview, name: str) -> Container:
    """Read a file; ``name`` is for the error.

    Raises
    ------
    CorruptFile
        The bytes are not a whole, unaltered file of this kind and of a known format version.
    """
    view = memoryview(data)
    if len(view) < _PREFIX.size + _DIGEST_BYTES:
        raise CorruptFile(f"{kind.name} {name} is truncated: {len(view)} bytes")
    magic, version, _, header_length = _PREFIX.unpack_from(view)
    if magic != kind.magic:
        raise CorruptFile(f"{kind.name} {name} does not begin like a {kind.name}")
    if version != kind.version:
        raise CorruptFile(
            f"{kind.name} {name} has format version {version}; this program reads {kind.version}"
        )
    digest = hashlib.blake2b(view[:-_DIGEST_BYTES], digest_size=_DIGEST_BYTES).digest()
    if digest != view[-_DIGEST_BYTES:]:
        raise CorruptFile(
            f"{kind.name} {name} is truncated or altered: its checksum does not match"
        )
    start = _PREFIX.size + header_length
    return Container(json.loads(bytes(view[_PREFIX.size : start])), view[start:])


def json_bytes(value: object) -> bytes:
    """Compact JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _padded(length: int) -> int:
    return -(-length // _ALIGNMENT) * _ALIGNMENT
