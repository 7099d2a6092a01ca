"""The sweep's comparison of records and index: every live view has a row that can be read.

As the build of a generation does before it is swapped in. And it has its thumbnail and its feature
maps. What is missing is mended by asking for the photo, with the word that its row is to be written
again; all that is made of it is made with it. Files that cannot be read are let go of once nothing
that counts is missing: then everything in them is elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from concurrent.futures import Executor

import numpy as np

from lookalike.core.base_layout import key_hash
from lookalike.core.errors import Conflict
from lookalike.core.keys import map_key
from lookalike.core.ports import Clock, Stores
from lookalike.core.types import Generation, Lineage, Product
from lookalike.services.derived import KeySet, OutOfTime
from lookalike.services.raw_files import Hashes, RawFiles, hashed
from lookalike.services.raw_rows import live_versions
from lookalike.services.sweep_asking import Asking

logger = logging.getLogger(__name__)

_PAGE = 500
_TRIES = 3


class IndexCheck:
    """Compares a catalogue's live views with what the index bucket holds of them.

    ``found_wrong`` says whether anything was missing or could not be read, ``given_up`` how many
    catalogues are too large to be compared.

    Parameters
    ----------
    stores
        Where to look.
    pool
        Reads files side by side.
    clock
        Epoch seconds.
    asking
        Asks for keys.
    deadline
        Epoch second at which to stop.
    has_whole_run
        Whether there is as much time for the first catalogue as there will ever be.
    """

    def __init__(
        self,
        stores: Stores,
        pool: Executor,
        clock: Clock,
        asking: Asking,
        deadline: float,
        *,
        has_whole_run: bool,
    ) -> None:
        self._stores = stores
        self._pool = pool
        self._clock = clock
        self._asking = asking
        self._deadline = deadline
        self._may_give_up = has_whole_run
        self.found_wrong = False
        self.given_up = 0

    def compare(self, lineage: Lineage, lacking: KeySet) -> int:
        """Compare one catalogue; gives how many of its views lacked anything.

        Parameters
        ----------
        lineage
            Its generations.
        lacking
            Names of thumbnails and maps that were not there when the bucket was listed.

        Raises
        ------
        OutOfTime
            The deadline came first. A catalogue for which even a whole run is too short is named
            in the log and left.
        """
        may_give_up, self._may_give_up = self._may_give_up, False
        catalogue = lineage.catalogue
        try:
            missing, broken = self._missing(lineage, lacking)
            lost = self._ask(catalogue, missing) if missing else 0
            if not lost:
                for files in broken:
                    files.let_go(files.unreadable, self._clock())
        except OutOfTime:
            if not may_give_up:
                raise
            logger.exception("the index of %s takes too long to compare", catalogue)
            self.given_up += 1
            return 0
        except Conflict as error:
            logger.warning("the index of %s is left to the next sweep: %s", catalogue, error)
            self.found_wrong = True
            return 0
        self.found_wrong |= bool(lost or broken)
        if lost:
            logger.warning("the index of %s lacks %d views, or their files", catalogue, lost)
        return lost

    def _missing(self, lineage: Lineage, lacking: KeySet) -> tuple[set[int], list[RawFiles]]:
        """Hashes of the live views that lack anything, as far as one look tells; broken files."""
        # Records first: the rows of a record were appended before it was written.
        missing: set[int] = set()
        spaces = {item.encoder for item in _searched(lineage)}
        rows: list[Hashes] = [np.empty(0, np.uint64)]
        for page in self._pages(lineage.catalogue):
            rows.append(hashed(live_versions(page).items()))
            missing |= self._without_files(page, spaces, lacking)
        live = np.concatenate(rows)
        broken: list[RawFiles] = []
        for generation in _searched(lineage):
            files, here = self._rows(generation)
            missing.update(np.setdiff1d(live, here).tolist())
            if files.unreadable:
                broken.append(files)
        return missing, broken

    def _rows(self, generation: Generation) -> tuple[RawFiles, Hashes]:
        """Hashes of the (key, version) of every raw row that can be read."""
        for _ in range(_TRIES):
            files = RawFiles(self._stores, generation, self._pool)
            try:
                found = []
                for hashes in files.hashes():
                    self._check_time()
                    found.append(hashes)
                return files, np.concatenate([np.empty(0, np.uint64), *found])
            except Conflict as error:  # compaction was quicker
                lost_race = error
        raise lost_race

    def _ask(self, catalogue: str, missing: set[int]) -> int:
        """Ask for views that lack anything, of the records as they are now; gives how many."""
        count = 0
        for page in self._pages(catalogue):
            rows = live_versions(page).items()
            keys = [key for key, version in rows if key_hash(key, version) in missing]
            self._asking.ask(keys, write_again=True)
            count += len(keys)
        return count

    def _without_files(
        self, page: list[Product], spaces: Collection[str], lacking: KeySet
    ) -> set[int]:
        """Hashes of the views whose thumbnail is missing, or a map."""
        suspected = [
            (view, name)
            for product in page
            for view in product.views.values()
            for name in (view.thumbnail, *(map_key(s, view.key, view.etag) for s in spaces))
            if name in lacking
        ]
        there = self._pool.map(lambda item: self._is_there(item[1]), suspected)
        return {
            key_hash(view.key, view.version)
            for (view, _), is_there in zip(suspected, there, strict=True)
            if not is_there
        }

    def _is_there(self, name: str) -> bool:
        """Listed, not read: the sweep may read nothing that is made of photos."""
        found = next(iter(self._stores.index.list(name)), None)
        return found is not None and found.key == name

    def _pages(self, catalogue: str) -> Iterator[list[Product]]:
        after: str | None = ""
        while after is not None:
            self._check_time()
            page, after = self._stores.products.page(catalogue, _PAGE, after)
            yield page

    def _check_time(self) -> None:
        if self._clock() > self._deadline:
            raise OutOfTime


def _searched(lineage: Lineage) -> tuple[Generation, ...]:
    """The generation in use, and the one that it may be rolled back to; a build checks itself."""
    beside = lineage.beside
    is_kept = beside is not None and beside.phase == "kept"
    return (lineage.current, beside.generation) if beside and is_kept else (lineage.current,)
