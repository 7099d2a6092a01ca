"""Files why an object is not searchable."""

from __future__ import annotations

from lookalike.core.keys import catalogue_of
from lookalike.core.ports import FailureTable
from lookalike.core.reconcile import Refused
from lookalike.core.types import Counts, Failure


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
