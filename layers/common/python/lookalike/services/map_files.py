"""Reads map files in the index bucket: whole parts, and nothing else of a file.

Owns what happens when one is gone or altered: `Vanished` or `CorruptFile`, which name it.
"""

from __future__ import annotations

from dataclasses import dataclass

from lookalike.core.base_layout import Part
from lookalike.core.errors import Vanished
from lookalike.core.map_columns import Details, Points, decode_details, decode_points
from lookalike.core.map_file import (
    FIRST_READ_BYTES,
    MapHead,
    checked,
    decode_anchors,
    decode_hashes,
    decode_map_head,
    head_bytes,
    pieces_of,
)
from lookalike.core.placement import Anchors, Hashes
from lookalike.core.ports import ObjectStore


@dataclass(frozen=True, slots=True)
class MapFile:
    """A map file whose head was read; made by `open_map`."""

    store: ObjectStore
    key: str
    head: MapHead

    def points(self) -> list[Points]:
        """Every piece of the points, by one GET."""
        parts = self.head.points
        if not parts:
            return []
        start, end = parts[0].start, parts[-1].start + parts[-1].length
        body = self._range(start, end - start)
        return [decode_points(piece, self.key) for piece in pieces_of(body, start, parts, self.key)]

    def details(self, piece: int) -> Details:
        """A piece of the details."""
        return decode_details(self._part(self.head.details[piece]), self.key)

    def known(self) -> Hashes:
        """Hashes of the rows that are on the map, sorted."""
        return decode_hashes(self._part(self.head.known))

    def products(self) -> Hashes:
        """Hashes of the products that are on the map, sorted."""
        return decode_hashes(self._part(self.head.products))

    def anchors(self) -> Anchors | None:
        """What new products are placed by; None in a file of arrivals."""
        if self.head.anchors is None:
            return None
        return decode_anchors(self._part(self.head.anchors), self.key)

    def check(self) -> None:
        """Read all of it; raises `Vanished` and `CorruptFile`."""
        head = self.head
        last = [part for part in (head.known, head.products, head.anchors) if part is not None]
        for part in (*head.points, *head.details, *last):
            self._part(part)

    def _part(self, part: Part) -> bytes:
        return checked(self._range(part.start, part.length), part, self.key)

    def _range(self, start: int, length: int) -> bytes:
        return _read(self.store, self.key, start, length)


def open_map(store: ObjectStore, key: str) -> MapFile:
    """Read the head of a map file, by one GET or two.

    Raises
    ------
    Vanished
        The bucket does not hold it: there is another map by now.
    CorruptFile
        It is truncated or altered.
    """
    beginning = _read(store, key, 0, FIRST_READ_BYTES)
    end = head_bytes(beginning, key)
    if FIRST_READ_BYTES <= len(beginning) < end:
        beginning = _read(store, key, 0, end)
    return MapFile(store, key, decode_map_head(beginning, key))


def _read(store: ObjectStore, key: str, start: int, length: int) -> bytes:
    body = store.get_range(key, start, length)
    if body is None:
        raise Vanished(f"map {key} is not in the bucket")
    return body
