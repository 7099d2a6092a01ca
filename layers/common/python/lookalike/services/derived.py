"""Deletes what was made of photos and searches once it is of no use. Knows no photo and no record.

Whoever writes a thumbnail or a map does so anew, even if it is there, and names it in a record
within minutes. So what is older than a day by a listing that began after the records were read is
named by one of them or not needed. What is needed once more while it is being deleted gets another
name (a thumbnail) or is made again when it is asked for (a map).
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from itertools import islice

import numpy as np

from lookalike.core.keys import map_key, product_of, thumbnail_key
from lookalike.core.ports import Clock, ObjectStore
from lookalike.core.types import Lineage, ObjectInfo, Product

DERIVED_AGE_S = 86_400.0
HASH_BYTES = 8
_PAGE = 100


class OutOfTime(Exception):
    """The deadline has passed."""


class KeySet:
    """Object keys, at 8 bytes each: a hash stands for a key, whatever it holds.

    Parameters
    ----------
    stored
        What `to_bytes` gave.
    """

    def __init__(self, stored: bytes = b"") -> None:
        self._hashes = array("Q", stored)
        self._sorted = True

    def add(self, key: str) -> None:
        """Add a key."""
        self._hashes.append(_hash(key))
        self._sorted = False

    def __contains__(self, key: str) -> bool:
        if not self._sorted:
            np.frombuffer(self._hashes, dtype=np.uint64).sort()
            self._sorted = True
        wanted = _hash(key)
        place = bisect_left(self._hashes, wanted)
        return place < len(self._hashes) and self._hashes[place] == wanted

    def without(self, other: KeySet) -> KeySet:
        """The keys of this that are not in another."""
        ours, theirs = (np.frombuffer(item._hashes, dtype=np.uint64) for item in (self, other))
        return KeySet(np.setdiff1d(ours, theirs).tobytes())

    def to_bytes(self) -> bytes:
        """The set, each key once."""
        hashes: bytes = np.unique(np.frombuffer(self._hashes, dtype=np.uint64)).tobytes()
        self._hashes, self._sorted = array("Q", hashes), True
        return hashes


class Needed:
    """Which thumbnails and maps are to stay.

    Parameters
    ----------
    lineages
        Every catalogue's generations: maps are needed in the spaces of those.
    names
        What is known to stay; grows.
    """

    def __init__(self, lineages: Iterable[Lineage], names: KeySet) -> None:
        self._spaces = {item.catalogue: _spaces(item) for item in lineages}
        self._names = names

    def add_object(self, info: ObjectInfo) -> None:
        """A photo that the bucket holds may be about to get a record."""
        if id_ := product_of(info.key):
            self._names.add(thumbnail_key(info.key, info.etag, info.last_modified))
            self._add_maps(id_[0], info.key, info.etag)

    def add_product(self, product: Product) -> None:
        """What a record's views name."""
        for view in product.views.values():
            self._names.add(view.thumbnail)
            self._add_maps(product.catalogue, view.key, view.etag)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def _add_maps(self, catalogue: str, key: str, etag: str) -> None:
        for space in self._spaces.get(catalogue, ()):
            self._names.add(map_key(space, key, etag))


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
        doomed: Callable[[ObjectInfo], bool],
        deadline: float,
        after: str = "",
        *,
        in_order: bool = False,
    ) -> Iterator[tuple[str, int]]:
        """Delete what is doomed; gives page by page where to go on after it, and how many.

        Parameters
        ----------
        folder
            Start of the names.
        doomed
            Says of an object whether it goes.
        deadline
            Epoch seconds.
        after
            Name to go on behind.
        in_order
            By their names what goes comes first: the listing ends soon after what stays begins.

        Raises
        ------
        OutOfTime
            The deadline has passed, at least one page being done.
        """
        listing = self._index.list(f"{folder}/", after)
        while page := list(islice(listing, _PAGE)):
            keys = [info.key for info in page if doomed(info)]
            list(self._pool.map(self._index.delete, keys))
            yield page[-1].key, len(keys)
            if in_order and len(keys) < len(page):
                return
            if self._clock() > deadline:
                raise OutOfTime


def _hash(key: str) -> int:
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES).digest()
    return int.from_bytes(digest, "little")


def _spaces(lineage: Lineage) -> list[str]:
    beside = [lineage.beside.generation] if lineage.beside else []
    return list(dict.fromkeys(item.encoder for item in (lineage.current, *beside)))
