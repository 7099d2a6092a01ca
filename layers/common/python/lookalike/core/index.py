"""Rows that are in no base yet, in memory: appended segments, and a shard's fresh runs.

Owns their search; knows no store and no product. Rows are never removed here: which of them count
is for the product records to say.

Few rows are searched exactly. From `FILED_ROWS` on they are filed under cells, which are the
centroids of a base's lists, and a query reads those of the nearest cells, as it will once they are
in the base.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from lookalike.core.columns import Column, columns_of
from lookalike.core.errors import CorruptFile
from lookalike.core.filters import Filter
from lookalike.core.head import Head
from lookalike.core.probing import ROWS_PER_RESULT
from lookalike.core.row_scan import Rows, inverted_lists, nearest_rows, search_lists
from lookalike.core.segment import Float32, Segment
from lookalike.core.types import AttributeValue

FILED_ROWS = 1_024
"""Rows that are searched exactly before any is filed."""
WAITING_ROWS = 256
"""Rows that may wait to be filed: searched exactly, they cost as much as those of the cells."""
FILED_COMPARISONS = 1_000_000
"""Comparisons of a row with a cell at a time: they take about 20 ms."""
MAX_CELLS = 16_384
"""Cells beyond which rows are not filed: to find the nearest reads as much as so many rows."""

_RANKED = 4
_RERANKED = 4
_SEALED_ROWS = 1_024
_MASKS = 16
_FIRST_CAPACITY = 64

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Candidate:
    """One row that a query reached.

    ``score`` is the cosine of query and row; ``embedding`` is the row's, (dim,) float32,
    L2-normalised, as the index has it.
    """

    key: str
    version: str
    score: float
    embedding: Float32 = field(compare=False, repr=False)


def best_first(candidate: Candidate) -> tuple[float, str, str]:
    """The order of answers: by score, ties by key, then by version."""
    return -candidate.score, candidate.key, candidate.version


@dataclass(frozen=True, slots=True)
class _Filed:
    """The first ``rows`` rows by cell.

    ``cell_of`` is (rows,), ``sizes`` (cells,) rows. ``lists`` is a FAISS index with an inverted
    list a cell, in SQ8: a quarter of the bytes, which is what reading rows costs.
    """

    rows: int
    cell_of: Rows
    sizes: Rows
    lists: Any


@dataclass(frozen=True, slots=True)
class _Block:
    """Attributes of the rows from ``first`` up to ``end`` as columns."""

    first: int
    end: int
    columns: dict[str, Column]


class FreshRows:
    """Rows of segments, projected through a head.

    One thread may add and file while any number search: what they see only grows.

    Parameters
    ----------
    encoder
        Id of the embedding space; segments of another are refused.
    head
        Turns raw embeddings into those that are searched.
    cells
        (cells, dim) float32: what rows are filed under; None to search exactly always.
    """

    def __init__(self, encoder: str, head: Head, cells: Float32 | None = None) -> None:
        self.encoder = encoder
        self.head = head
        self.cells = cells if cells is not None and len(cells) > 1 else None
        self._ranges: dict[str, tuple[int, int]] = {}
        self._keys: list[str] = []
        self._versions: list[str] = []
        self._row_of: dict[tuple[str, str], int] = {}
        self._embeddings: Float32 = np.empty((0, head.dim_out), dtype=np.float32)
        self._attributes: list[dict[str, AttributeValue]] = []
        self._blocks: tuple[_Block, ...] = ()
        empty = np.empty(0, dtype=np.int64)
        self._filed = _Filed(0, empty, empty, None)
        self._masks: OrderedDict[Filter, Mask] = OrderedDict()
        self._masking = threading.Lock()

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, digest: str) -> bool:
        return digest in self._ranges

    def add(self, digest: str, segment: Segment) -> None:
        """Take in a segment once; a second time changes nothing. Amortised O(rows of the segment).

        Raises
        ------
        CorruptFile
            The segment is of another encoder or length than these rows.
        """
        if digest in self._ranges:
            return
        if segment.encoder != self.encoder or segment.codes.shape[1] != self.head.dim_in:
            raise CorruptFile(
                f"segment {digest} holds {segment.encoder} embeddings of length "
                f"{segment.codes.shape[1]}; this index holds {self.encoder} of {self.head.dim_in}"
            )
        self._append(
            digest,
            self.head.project(segment.embeddings()),
            segment.keys,
            segment.versions,
            segment.attributes,
        )

    def may_become(self, digests: Collection[str], cells: Float32 | None) -> bool:
        """Whether adding is enough to hold just the segments ``digests``, filed if possible."""
        return self._ranges.keys() <= set(digests) and (self.cells is not None or cells is None)

    def take(self, other: FreshRows, digest: str) -> bool:
        """Take in a segment as ``other`` of the same head has it; whether it does have it."""
        if digest not in other._ranges:
            return False
        if digest not in self._ranges:
            start, end = other._ranges[digest]
            self._append(
                digest,
                other._embeddings[start:end],
                other._keys[start:end],
                other._versions[start:end],
                other._attributes[start:end],
            )
        return True

    def file(self, comparisons: int = FILED_COMPARISONS) -> None:
        """File rows under their cells, if enough of them wait for it; call it again for the rest.

        Parameters
        ----------
        comparisons
            At most so many of a row with a cell.
        """
        filed, end = self._filed, len(self)
        if self.cells is None or end < FILED_ROWS or end - filed.rows < WAITING_ROWS:
            return
        end = min(end, filed.rows + max(comparisons // len(self.cells), 1))
        embeddings = self._embeddings[:end]
        _, nearest = faiss.knn(
            embeddings[filed.rows :], self.cells, 1, metric=faiss.METRIC_INNER_PRODUCT
        )
        cell_of = np.concatenate([filed.cell_of, nearest[:, 0]])
        sizes = np.bincount(cell_of, minlength=len(self.cells))
        self._filed = _Filed(
            end, cell_of, sizes, inverted_lists(embeddings, cell_of, len(self.cells))
        )

    def embedding(self, key: str, version: str) -> Float32 | None:
        """The (dim,) embedding of one version of one view, if it is here."""
        row = self._row_of.get((key, version))
        if row is None:
            return None
        embedding: Float32 = self._embeddings[row]
        return embedding

    def search(
        self,
        query: Float32,
        limit: int,
        *,
        nprobe: int = 1,
        filter: Filter | None = None,
        exact: bool = False,
        floor: float = -np.inf,
    ) -> list[Candidate]:
        """The rows nearest to a (dim,) float32 query of length 1, best first, ties by key.

        Parameters
        ----------
        query
            (dim,) float32, L2-normalised, in the head's output space.
        limit
            At most so many rows; fewer only when there are no more.
        nprobe
            Cells whose filed rows are read, at least.
        filter
            Only rows with attributes that pass.
        exact
            Read all rows.
        floor
            Rows of a lower score are left out.
        """
        # In this order: what is read later has at least as many rows.
        filed, count, embeddings = self._filed, len(self), self._embeddings
        if not count:
            return []
        if filter is not None:
            rows = np.flatnonzero(self._mask(filter, count))
            if not exact and len(rows) > FILED_ROWS:
                rows = self._near_among(rows, query, limit, nprobe, filed)
        elif exact or filed.rows == 0:
            rows = None
        else:
            rows = self._near(count, query, limit, nprobe, filed)
        found, scores = nearest_rows(query, embeddings[:count], rows, limit)
        candidates = [
            Candidate(self._keys[row], self._versions[row], score, embeddings[row])
            for row, score in zip(found, scores, strict=True)
            if score >= floor
        ]
        return sorted(candidates, key=best_first)[:limit]

    def _near(self, count: int, query: Float32, limit: int, nprobe: int, filed: _Filed) -> Rows:
        """Rows of the nearest cells that score best in SQ8, and all that are not filed yet."""
        cells, cell_scores = self._nearest_cells(query, filed.sizes, limit, nprobe)
        wanted = _RERANKED * limit
        size = wanted + 1
        while True:
            scores, rows = search_lists(filed.lists, query, cells, cell_scores, size)
            # Of rows that are equal, the cut may not take some and leave others.
            if rows[-1] < 0 or scores[-1] < scores[wanted - 1]:
                break
            size *= 4
        kept = rows[(rows >= 0) & (scores >= scores[wanted - 1])]
        return np.concatenate([kept, np.arange(filed.rows, count)])

    def _near_among(
        self, rows: Rows, query: Float32, limit: int, nprobe: int, filed: _Filed
    ) -> Rows:
        """Of these ascending rows those in the nearest cells, and all that are not filed yet."""
        split = int(np.searchsorted(rows, filed.rows))
        if not split:
            return rows
        assert self.cells is not None
        cell_of = filed.cell_of[rows[:split]]
        sizes = np.bincount(cell_of, minlength=len(self.cells))
        chosen = np.zeros(len(self.cells), dtype=np.bool_)
        chosen[self._nearest_cells(query, sizes, limit, nprobe)[0]] = True
        return np.concatenate([rows[:split][chosen[cell_of]], rows[split:]])

    def _nearest_cells(
        self, query: Float32, sizes: Rows, limit: int, nprobe: int
    ) -> tuple[Rows, Float32]:
        """Cells in order of nearness until ``nprobe`` and enough rows are reached."""
        assert self.cells is not None
        scores = self.cells @ query
        for ranked in (_RANKED * nprobe, len(scores)):
            if ranked < len(scores):
                cells = np.argpartition(scores, -ranked)[-ranked:]
                cells = cells[np.argsort(-scores[cells])]
            else:
                cells = np.argsort(-scores)
            reached = np.cumsum(sizes[cells])
            if reached[-1] >= ROWS_PER_RESULT * limit:
                break
        enough = int(np.searchsorted(reached, ROWS_PER_RESULT * limit)) + 1
        cells = cells[: max(nprobe, enough)]
        return cells, scores[cells]

    def _mask(self, filter: Filter, count: int) -> Mask:
        """(count,) bool: which rows pass. What is known of a filter is only extended."""
        with self._masking:
            mask = self._masks.pop(filter, np.empty(0, dtype=np.bool_))
            if len(mask) < count:
                mask = self._extended(filter, mask, count)
            self._masks[filter] = mask
            if len(self._masks) > _MASKS:
                self._masks.popitem(last=False)
        return mask[:count]

    def _extended(self, filter: Filter, mask: Mask, count: int) -> Mask:
        parts, known = [mask], len(mask)
        for block in self._blocks:
            if block.end > known:
                passed = filter.select(block.end - block.first, block.columns.get)
                parts.append(passed[known - block.first :])
                known = block.end
        rest = [filter.matches(attributes) for attributes in self._attributes[known:count]]
        return np.concatenate([*parts, np.asarray(rest, dtype=np.bool_)])

    def _append(
        self,
        digest: str,
        embeddings: Float32,
        keys: Sequence[str],
        versions: Sequence[str],
        attributes: Sequence[dict[str, AttributeValue]],
    ) -> None:
        start, end = len(self), len(self) + len(keys)
        if end > len(self._embeddings):
            grown = np.empty((max(end, 2 * start, _FIRST_CAPACITY), self.head.dim_out), np.float32)
            grown[:start] = self._embeddings[:start]
            self._embeddings = grown
        self._embeddings[start:end] = embeddings
        self._versions += versions
        self._attributes += attributes
        # Last, as a search in another thread takes their number for the number of rows.
        self._keys += keys
        for row, name in enumerate(zip(keys, versions, strict=True), start):
            self._row_of[name] = row
        self._ranges[digest] = (start, end)
        sealed = self._blocks[-1].end if self._blocks else 0
        if end - sealed >= _SEALED_ROWS:
            columns = columns_of(self._attributes[sealed:end])
            self._blocks = (*self._blocks, _Block(sealed, end, columns))
