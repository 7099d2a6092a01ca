"""Deletes what was made of photos and searches once it is of no use. Knows no photo and no record.

Whoever writes a thumbnail or a map does so anew, even if it is there, and names it in a record
within minutes. So what is older than a day by a listing that began after the records were read is
named by one of them or not needed. What is needed once more while it is being deleted gets another
name (a thumbnail) or is made again when it is asked for (a map).
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Iterator
from concurrent.futures import Executor
from itertools import islice

from lookalike.core.keys import map_key, product_of, thumbnail_key
from lookalike.core.ports import Clock, ObjectStore
from lookalike.core.types import Lineage, ObjectInfo, Product

DERIVED_AGE_S = 86_400.0
_PAGE = 100


class OutOfTime(Exception):
    """The deadline has passed."""


class Needed:
    """Which thumbnails and maps are to stay, at 8 bytes each.

    Parameters
    ----------
    lineages
        Every catalogue's generations: maps are needed in the spaces of those.
    """

    def __init__(self, lineages: Iterable[Lineage]) -> None:
        self._spaces = {item.catalogue: _spaces(item) for item in lineages}
        self._names: set[bytes] = set()

    def add_object(self, info: ObjectInfo) -> None:
        """A photo that the bucket holds may be about to get a record."""
        if id_ := product_of(info.key):
            self._add(thumbnail_key(info.key, info.etag, info.last_modified))
            self._add_maps(id_[0], info.key, info.etag)

    def add_product(self, product: Product) -> None:
        """What a record's views name."""
        for view in product.views.values():
            self._add(view.thumbnail)
            self._add_maps(product.catalogue, view.key, view.etag)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and fingerprint(name) in self._names

    def _add_maps(self, catalogue: str, key: str, etag: str) -> None:
        for space in self._spaces.get(catalogue, ()):
            self._add(map_key(space, key, etag))

    def _add(self, name: str) -> None:
        self._names.add(fingerprint(name))


class DerivedFiles:
    """Lists and deletes what is derived, up to a deadline.

    Parameters
    ----------
    index
        The bucket that has them.
    pool
        Runs deletions side by side.
    clock
        Epoch seconds.
    """

    def __init__(self, index: ObjectStore, pool: Executor, clock: Clock) -> None:
        self._index = index
        self._pool = pool
        self._clock = clock

    def delete(
        self,
        folder: str,
        before: float,
        deadline: float,
        *,
        unless: Container[str] = (),
        in_order_of_time: bool = False,
    ) -> Iterator[int]:
        """Delete what was written before an epoch second; gives how many, page by page.

        Parameters
        ----------
        folder
            Start of the names.
        before, deadline
            Epoch seconds.
        unless
            Names that stay.
        in_order_of_time
            The names are: the listing ends at the first that is young.

        Raises
        ------
        OutOfTime
            The deadline has passed; what was counted until then is deleted.
        """
        listing = self._index.list(f"{folder}/")
        while page := list(islice(listing, _PAGE)):
            if self._clock() > deadline:
                raise OutOfTime
            old = [info.key for info in page if info.last_modified < before]
            doomed = [key for key in old if key not in unless]
            list(self._pool.map(self._index.delete, doomed))
            yield len(doomed)
            if in_order_of_time and len(old) < len(page):
                return


def fingerprint(key: str) -> bytes:
    """8 bytes that stand for an object key, whatever it holds."""
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _spaces(lineage: Lineage) -> list[str]:
    beside = [lineage.beside.generation] if lineage.beside else []
    return list(dict.fromkeys(item.encoder for item in (lineage.current, *beside)))
