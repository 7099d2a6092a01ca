"""Files why an object is not searchable, and notes what may have killed the process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lookalike.core.errors import Unindexable
from lookalike.core.keys import catalogue_of, note_key, product_of
from lookalike.core.ports import Clock, FailureTable, Stores
from lookalike.core.reconcile import Refused
from lookalike.core.types import Counts, Failure, ObjectInfo

GAVE_UP = "gave-up"
NOTE_AGE_S = 86_400.0
_NOTE_TYPE = "text/plain"
_MAX_NOTE_BYTES = 100


def file_failure(
    table: FailureTable, key: str, refused: Refused, known: Failure | None, at: float
) -> Counts:
    """Write a failure record; gives what that adds to the catalogue's counts.

    Parameters
    ----------
    table
        Where to.
    key, refused
        The object, and why it cannot be indexed.
    known
        The failure on file before; tries of the same content are counted on.
    at
        Epoch seconds.
    """
    tries = known.tries + 1 if known is not None and known.etag == refused.etag else 1
    is_new = table.put(
        Failure(catalogue_of(key), key, refused.reason, refused.detail, refused.etag, at, tries)
    )
    return Counts(failures=int(is_new))


@dataclass(frozen=True, slots=True)
class Note:
    """How many ``tries`` of an object began and did not end; ``name`` is empty if it is gone."""

    name: str
    tries: int


class GivingUp:
    """Notes which objects may have killed the process, and files failures before the last try.

    Both before a try, so that one that kills the process leaves them behind. A note is an object in
    the index bucket; a day later nothing heeds it, and the sweep deletes it.

    Parameters
    ----------
    stores
        Where to read and write.
    clock
        Epoch seconds.
    """

    def __init__(self, stores: Stores, clock: Clock) -> None:
        self._stores = stores
        self._clock = clock

    def file(self, keys: Sequence[str]) -> list[str]:
        """File failures for those of these keys that are not searchable; gives which."""
        if not keys:
            return []
        known = self._stores.failures.get_many(keys)
        ids = {key: product_of(key) for key in keys}
        products = self._stores.products.get_many(id_ for id_ in ids.values() if id_)
        filed = []
        for key in keys:
            info = self._listed(key)
            id_ = ids[key]
            product = products.get(id_) if id_ else None
            live = product.views.get(key) if product else None
            if info is None or (live is not None and live.etag == info.etag):
                continue
            refused = Refused(
                info.etag,
                info.last_modified,
                GAVE_UP,
                "Indexing kept failing, though nothing is known to be wrong with the file; try it "
                "again with `lookalike failures retry`. The cause is in the embed function's log.",
            )
            change = file_failure(
                self._stores.failures, key, refused, known.get(key), self._clock()
            )
            self._stores.counts.add(catalogue_of(key), change)
            filed.append(key)
        return filed

    def note_of(self, key: str) -> Note:
        """What was noted of tries of an object as it is now."""
        info = self._listed(key)
        if info is None:
            return Note("", 0)
        name = note_key(key, info.etag)
        try:
            found = self._stores.index.get(name, _MAX_NOTE_BYTES)
        except Unindexable:
            found = None
        if found is None or found[0].last_modified < self._clock() - NOTE_AGE_S:
            return Note(name, 0)
        return Note(name, int(found[1]) if found[1].isdigit() else 1)

    def begin(self, note: Note) -> None:
        """Note that one more try begins."""
        if note.name:
            self._stores.index.put(note.name, str(note.tries + 1).encode(), _NOTE_TYPE)

    def end(self, note: Note) -> None:
        """Note that the process lives."""
        if note.name:
            self._stores.index.delete(note.name)

    def _listed(self, key: str) -> ObjectInfo | None:
        """Listed, not read: what keeps failing may be the reading."""
        info = next(iter(self._stores.images.list(key)), None)
        return info if info is not None and info.key == key else None
