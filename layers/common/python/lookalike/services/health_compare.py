"""Which photos show the same picture: candidates by hashes and neighbours, then a look at both.

A candidate counts only if the fine structure of both thumbnails is the same
(`lookalike.core.health_crops`): that is what tells copies from look-alikes.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor

import numpy as np
from PIL import Image

from lookalike.core.health import COPY, MIN_CONTRAST
from lookalike.core.health_crops import MIN_COARSE, MIN_MATCH, CropSearch, Window, match
from lookalike.core.neighbours import Int64, Neighbours
from lookalike.core.perceptual_hash import MAX_BITS, close_pairs, differing_bits
from lookalike.core.ports import ObjectStore
from lookalike.services.health_photos import read_thumbnail
from lookalike.services.health_state import Gathered

ROWS_AT_ONCE = 512
_CANDIDATES_AT_ONCE = 512  # of which thumbnails are in memory: 0.2 MB each
_NEAREST = 5  # of each row's neighbours, and those that it is a neighbour of
_MOST = 24
_MIN_COSINE = 0.45
_WHOLE = 0.95
_CROPPED = 0.9

Copies = np.ndarray[tuple[int], np.dtype[np.void]]
Candidate = tuple[int, int, Window]


class Comparison:
    """Finds the copies of a run's photos, some rows at a time.

    Parameters
    ----------
    index
        The bucket that has the thumbnails.
    pool
        Reads thumbnails side by side.
    gathered
        The rows.
    neighbours
        Of all rows.
    """

    def __init__(
        self, index: ObjectStore, pool: Executor, gathered: Gathered, neighbours: Neighbours
    ) -> None:
        self._index = index
        self._pool = pool
        self._gathered = gathered
        facts = gathered.rows.facts
        self._facts = facts
        self._is_clear = (facts["aspect"] > 0) & (facts["contrast"] >= MIN_CONTRAST)
        self._crops = CropSearch(facts["signature"], facts["aspect"])
        clear = np.flatnonzero(self._is_clear)
        pairs = clear[close_pairs(facts["hash"][clear], facts["mirrored"][clear])]
        # By the later one: a thousand copies of one photo are a thousand rows' one candidate.
        self._alike = pairs[np.argsort(pairs[:, 1], kind="stable")]
        self._near, self._near_starts = _both_ways(neighbours, gathered.rows.products)

    def copies(self, start: int, end: int) -> Copies:
        """Pairs of `COPY` that are looked at for the rows from ``start`` to ``end``.

        Those of close hashes for the later row of the two, others for the row that has the whole
        picture.
        """
        candidates = [*self._by_hash(start, end), *self._by_neighbours(start, end)]
        found = [
            self._looked_at(candidates[first : first + _CANDIDATES_AT_ONCE])
            for first in range(0, len(candidates), _CANDIDATES_AT_ONCE)
        ]
        return np.concatenate([np.empty(0, COPY), *found])

    def _looked_at(self, candidates: list[Candidate]) -> Copies:
        """Those that are copies, by their thumbnails."""
        wanted = sorted({row for left, right, _ in candidates for row in (left, right)})
        found: list[tuple[int, int, float, int, bool, bool]] = []
        thumbnails = dict(zip(wanted, self._pool.map(self._thumbnail, wanted), strict=True))
        for whole, part, window in candidates:
            ours, theirs = thumbnails[whole], thumbnails[part]
            if ours is None or theirs is None:
                continue
            correlation = match(ours, theirs, window)
            if correlation >= MIN_MATCH:
                is_part = window.width * window.height < _CROPPED
                bits = self._bits(whole, part)
                found.append((whole, part, correlation, bits, window.mirrored, is_part))
        return np.asarray(found, COPY)

    def _by_hash(self, start: int, end: int) -> Iterator[Candidate]:
        first, last = np.searchsorted(self._alike[:, 1], [start, end])
        for left, right in self._alike[first:last].tolist():
            mirrored = self._distance(left, right, "mirrored") < self._distance(left, right, "hash")
            yield left, right, Window(1.0, 0.0, 0.0, 1.0, 1.0, mirrored)

    def _by_neighbours(self, start: int, end: int) -> Iterator[Candidate]:
        for row in range(start, end):
            others = self._near[self._near_starts[row] : self._near_starts[row + 1]]
            others = others[self._is_clear[others]]
            if not self._is_clear[row] or not len(others):
                continue
            for other, window in zip(others.tolist(), self._crops.find(row, others), strict=True):
                if window is None or window.correlation < MIN_COARSE:
                    continue
                is_whole = window.width * window.height >= _WHOLE
                # Seen from the other side it is the same, and of close hashes it was asked.
                if is_whole and (other < row or self._bits(row, other) <= MAX_BITS):
                    continue
                yield row, other, window

    def _bits(self, left: int, right: int) -> int:
        return min(self._distance(left, right, name) for name in ("hash", "mirrored"))

    def _distance(self, left: int, right: int, name: str) -> int:
        ours, theirs = self._facts["hash"][left], self._facts[name][right]
        return int(differing_bits(ours, theirs))

    def _thumbnail(self, row: int) -> Image.Image | None:
        return read_thumbnail(self._index, self._gathered.thumbnails[row].decode())


def _both_ways(
    neighbours: Neighbours, products: np.ndarray[tuple[int], np.dtype[np.uint64]]
) -> tuple[Int64, Int64]:
    """For each row those near it and those that it is near to, of other products, best first.

    Rows list by list, and where each row's begin.
    """
    nearest = neighbours.rows[:, :_NEAREST]
    cosines = neighbours.cosines[:, :_NEAREST]
    line, column = np.nonzero((nearest >= 0) & (cosines >= _MIN_COSINE))
    other, cosine = nearest[line, column].astype(np.int64), cosines[line, column]
    # Details of one product's photos are views of their own, as they should be.
    differs = products[line] != products[other]
    line, other, cosine = line[differs], other[differs], cosine[differs]
    rows = len(neighbours.rows)
    ours, theirs = np.concatenate([line, other]), np.concatenate([other, line])
    _, first = np.unique(ours * rows + theirs, return_index=True)
    ours, theirs = ours[first], theirs[first]
    order = np.lexsort((-np.concatenate([cosine, cosine])[first], ours))
    ours, theirs = ours[order], theirs[order]
    starts = np.searchsorted(ours, np.arange(rows + 1))
    kept = np.arange(len(ours)) - starts[ours] < _MOST
    ours, theirs = ours[kept], theirs[kept]
    return theirs, np.searchsorted(ours, np.arange(rows + 1))
