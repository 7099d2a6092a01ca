"""Files why an object is not searchable, and notes what may have killed the process."""

from __future__ import annotations

from collections.abc import Sequence

from lookalike.core.keys import catalogue_of, image_digest, product_of
from lookalike.core.ports import Clock, FailureTable, Stores
from lookalike.core.reconcile import Refused
from lookalike.core.types import Counts, Failure, ObjectInfo

GAVE_UP = "gave-up"
_NOTES = "~tried"


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


class GivingUp:
    """Notes which objects may have killed the process, and files failures before the last try.

    Both before a try, so that one that kills the process leaves them behind. A note is kept among
    the failures, in a partition that is no catalogue's.

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

    def suspected(self, keys: Sequence[str]) -> list[str]:
        """Those of these keys of which it was noted that a try of what they are now had begun."""
        notes = {key: self._note(key) for key in keys}
        found = self._stores.failures.get_many(note for note in notes.values() if note)
        return [key for key in keys if notes[key] in found]

    def suspect(self, key: str) -> None:
        """Note that a try begins."""
        if note := self._note(key):
            failure = Failure(_NOTES, note, GAVE_UP, f"“{key}” is tried.", "", self._clock())
            self._stores.failures.put(failure)

    def clear(self, key: str) -> None:
        """Note that the process lives."""
        if note := self._note(key):
            self._stores.failures.delete(note)

    def _note(self, key: str) -> str | None:
        """What a note about an object as it is now is kept under."""
        info = self._listed(key)
        return f"{_NOTES}/{image_digest(key, info.etag)}" if info else None

    def _listed(self, key: str) -> ObjectInfo | None:
        """Listed, not read: what keeps failing may be the reading."""
        info = next(iter(self._stores.images.list(key)), None)
        return info if info is not None and info.key == key else None
