"""Keeps what searches were made with for a while, so that they can be explained and searched on."""

from __future__ import annotations

import re

from ulid import ULID

from lookalike.core.errors import Gone, NotFound
from lookalike.core.keys import query_key
from lookalike.core.material import QueryMaterial, decode_material, encode_material
from lookalike.core.ports import Clock, ObjectStore

MAX_PHOTO_BYTES = 50_000_000
"""Photos that are kept of one search, in bytes; a search with more is not kept."""

_MAX_FILE_BYTES = 2 * MAX_PHOTO_BYTES
_QUERY_ID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")  # a ULID
_TYPE = "application/octet-stream"


class QueryMaterials:
    """Query material in the index bucket.

    Parameters
    ----------
    store
        The index bucket.
    retention_s
        Seconds for which material is kept; 0 keeps none.
    clock
        Epoch seconds.
    """

    def __init__(self, store: ObjectStore, retention_s: float, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.retention_s = retention_s

    @property
    def kept(self) -> bool:
        """Whether anything is kept at all."""
        return self.retention_s > 0

    def write(self, material: QueryMaterial) -> None:
        """Keep a search's material; what is there of the same search is replaced."""
        self._store.put(query_key(material.query_id), encode_material(material), _TYPE)

    def read(self, query_id: str) -> QueryMaterial:
        """What a search was made with.

        Raises
        ------
        NotFound
            There was no such search, it was not to be explained, or nothing is kept here.
        Gone
            It is longer ago than material is kept.
        CorruptFile
            The file is not what was written.
        """
        if not self.kept:
            raise NotFound(
                "Searches are not kept here, so they can be neither explained nor searched on: "
                "LOOKALIKE_QUERY_RETENTION_S is 0.",
                parameter="query_id",
            )
        if not _QUERY_ID.fullmatch(query_id):
            raise NotFound(
                f"“{query_id[:60]}” is no search's id; use the query_id of an answer.",
                parameter="query_id",
            )
        now = self._clock()
        found = self._store.get(query_key(query_id), _MAX_FILE_BYTES)
        if found is None:
            searched_at = ULID.from_str(query_id).timestamp
            if searched_at + self.retention_s <= now:
                raise self._expired(query_id)
            raise NotFound(
                f"There is no search “{query_id}”, or it was made with explain=false.",
                parameter="query_id",
            )
        material = decode_material(found[1], query_key(query_id))
        if material.expires_at <= now:
            raise self._expired(query_id)
        return material

    def _expired(self, query_id: str) -> Gone:
        return Gone(
            f"The search “{query_id}” has expired: searches are kept for "
            f"{self.retention_s / 3600:g} hours. Search again.",
            parameter="query_id",
        )
