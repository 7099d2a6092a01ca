"""The sweep's comparison of records and index: every live view has a row that can be read.

As the build of a generation does before it is swapped in. A row that is missing is mended by asking
for its photo, with the word that it is to be written again. Files that cannot be read are let go of
once nothing that counts is missing: then everything in them is elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import Executor

import numpy as np

from lookalike.core.base_layout import key_hash
from lookalike.core.errors import Conflict
from lookalike.core.ports import Clock, Stores
from lookalike.core.types import Generation, Lineage, Product
from lookalike.services.derived import OutOfTime
from lookalike.services.raw_files import Hashes, RawFiles, hashed
from lookalike.services.raw_rows import live_versions
from lookalike.services.sweep_asking import Asking

logger = logging.getLogger(__name__)

_PAGE = 500
_TRIES = 3


class IndexCheck:
    """Compares a catalogue's live views with the rows of its generations.

    ``found_wrong`` says whether anything was missing or could not be read.

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

    def lineages(self) -> list[Lineage]:
        """Every catalogue's generations, in order of catalogue."""
        return self._stores.lineages.all()

    def compare(self, lineage: Lineage) -> int:
        """Compare one catalogue; gives how many of its views' rows were missing.

        Raises
        ------
        OutOfTime
            The deadline came first. A catalogue for which even a whole run is too short is named
            in the log and left.
        """
        may_give_up, self._may_give_up = self._may_give_up, False
        catalogue = lineage.catalogue
        try:
            missing = self._missing(lineage)
        except OutOfTime:
            if not may_give_up:
                raise
            logger.exception("the index of %s takes too long to compare", catalogue)
            return 0
        except Conflict as error:
            logger.warning("the index of %s is left to the next sweep: %s", catalogue, error)
            self.found_wrong = True
            return 0
        if not missing:
            return 0
        logger.warning("the index of %s lacks %d views", catalogue, len(missing))
        return self._ask(catalogue, missing)

    def _missing(self, lineage: Lineage) -> set[int]:
        """Hashes of the live views whose rows are missing; if none are, lets go of broken files."""
        # Records first: the rows of a record were appended before it was written.
        live = hashed(
            row for page in self._pages(lineage.catalogue) for row in live_versions(page).items()
        )
        missing: set[int] = set()
        broken: list[RawFiles] = []
        for generation in _searched(lineage):
            files, here = self._rows(generation)
            missing.update(np.setdiff1d(live, here).tolist())
            if files.unreadable:
                broken.append(files)
        self.found_wrong |= bool(missing or broken)
        for files in broken:
            if not missing:
                files.let_go(files.unreadable, self._clock())
        return missing

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
        """Ask for views whose rows are missing, of the records as they are now."""
        count = 0
        for page in self._pages(catalogue):
            rows = live_versions(page).items()
            keys = [key for key, version in rows if key_hash(key, version) in missing]
            self._asking.ask(keys, write_again=True)
            count += len(keys)
        return count

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
