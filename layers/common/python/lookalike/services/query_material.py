"""Keeps what searches were made with for a while, so that they can be explained and searched on."""

from __future__ import annotations

import logging
import re
from concurrent.futures import Executor, Future, wait

from ulid import ULID

from lookalike.core.access import ANYBODY, Caller
from lookalike.core.errors import CorruptFile, Gone, LookalikeError, NotFound, Unindexable
from lookalike.core.keys import query_key
from lookalike.core.material import QueryMaterial, decode_material, encode_material
from lookalike.core.ports import Clock, ObjectStore

logger = logging.getLogger(__name__)

MAX_KEEP_S = 2.0
"""Seconds that an answer waits for its material to be written; later it goes without."""
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

    def delete(self, query_id: str) -> None:
        """Forget a search's material, if there is any."""
        self._store.delete(query_key(query_id))

    def read(self, query_id: str, caller: Caller = ANYBODY) -> QueryMaterial:
        """What a search was made with.

        Raises
        ------
        NotFound
            There was no such search that the caller may know of, it was not to be explained, or
            nothing is kept here.
        Gone
            It is longer ago than material is kept, or what is there cannot be read.
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
        material = self._stored(query_id)
        if material is None or not caller.sees(material.catalogue):
            searched_at = ULID.from_str(query_id).timestamp
            if searched_at + self.retention_s <= now:
                raise self._expired(query_id)
            raise NotFound(
                f"There is no search “{query_id}”, or nothing was kept of it (explain=false).",
                parameter="query_id",
            )
        if material.expires_at <= now:
            raise self._expired(query_id)
        return material

    def _stored(self, query_id: str) -> QueryMaterial | None:
        name = query_key(query_id)
        try:
            found = self._store.get(name, _MAX_FILE_BYTES)
            return decode_material(found[1], name) if found else None
        except (CorruptFile, Unindexable) as error:
            logger.exception("the material of search %s cannot be read", query_id)
            raise Gone(
                f"What was kept of the search “{query_id}” cannot be read. Search again.",
                parameter="query_id",
            ) from error

    def _expired(self, query_id: str) -> Gone:
        return Gone(
            f"The search “{query_id}” has expired: what is searched with is kept for "
            f"{self.retention_s / 3600:g} hours. Search again.",
            parameter="query_id",
        )


class Keeping:
    """One search's material on its way into the bucket, beside the search.

    A context: of a search that fails in it nothing stays there.

    Parameters
    ----------
    materials
        Where it goes.
    pool
        Writes it.
    query_id
        Of the search.
    """

    def __init__(self, materials: QueryMaterials, pool: Executor, query_id: str) -> None:
        self._materials = materials
        self._pool = pool
        self.query_id = query_id
        self._written: Future[None] | None = None
        self._expires_at = 0.0

    def __enter__(self) -> Keeping:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.take_back()

    @property
    def begun(self) -> bool:
        """Whether anything is to be kept."""
        return self._written is not None

    def begin(self, material: QueryMaterial) -> None:
        """Begin to write the material."""
        self._expires_at = material.expires_at
        self._written = self._pool.submit(self._materials.write, material)

    def expires_at(self) -> float | None:
        """Wait for the write; when the material expires, None when it is not kept.

        What could not be written in time is taken back, now or when its write ends.
        """
        if self._written is None:
            return None
        try:
            error = self._written.exception(MAX_KEEP_S)
        except TimeoutError as late:
            error = late
        if error is None:
            return self._expires_at
        logger.error("search %s cannot be explained: %r", self.query_id, error)
        if not self._written.cancel():
            self._written.add_done_callback(lambda _: self._pool.submit(self._delete))
        return None

    def take_back(self) -> None:
        """Wait for the write and undo it."""
        written, self._written = self._written, None
        if written is not None and not written.cancel():
            wait([written])
            self._delete()

    def _delete(self) -> None:
        try:
            self._materials.delete(self.query_id)
        except LookalikeError as error:
            logger.error("search %s stays until it expires: %r", self.query_id, error)
