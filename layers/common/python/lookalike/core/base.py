"""A base: many rows in inverted lists, searched where they lie in a file. Owns that search.

Codes are scanned by FAISS in place, without a copy, and the best are scored again with their fine
codes. A call changes nothing that another one reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from lookalike.core.base_build import scalar_quantizer
from lookalike.core.base_layout import LOOKUP_DTYPE, Block, Float32, Int64, UInt8, key_hash
from lookalike.core.base_parts import BaseParts, ByteSource
from lookalike.core.base_selection import Selection, Selections
from lookalike.core.filters import Filter
from lookalike.core.index import Candidate

__all__ = ["Base", "ByteSource"]

RERANKED = 3
"""Rows that are scored again with their fine codes for each row that is asked for.

Recall@10 with every list read, 100,000 and a million rows of 256 dimensions: 0.973 and 0.946 by the
codes alone, 0.999 and 0.996 from 2 on.
"""


class Base:
    """One base file, opened by reading its head.

    Parameters
    ----------
    source
        The file.
    name
        Its key or file name: ``<digest>`` with or without a folder and an ending.
    head_bytes
        Length of the head.

    Raises
    ------
    CorruptFile
        The head is truncated or altered, or is not that of the file's name.
    Retry
        See `ByteSource.ensure`.
    """

    def __init__(self, source: ByteSource, name: str, head_bytes: int) -> None:
        self._parts = BaseParts(source, name, head_bytes)
        head = self._head = self._parts.head
        self._selections = Selections(self._parts)
        self._list_rows: Int64 = np.diff(head.first_rows)
        # A row's place in the body seen as a matrix with ``dim`` columns, less its number.
        starts = np.asarray([part.start - head.origin for part in head.blocks], dtype=np.int64)
        self._slot_shift: Int64 = starts // head.dim - head.first_rows[:-1]
        self._numbers: Int64 = np.arange(head.rows, dtype=np.int64)
        self._quantizer = scalar_quantizer(head.minimum, head.span)

    @property
    def digest(self) -> str:
        """BLAKE2b-128 of the head, which vouches for the whole file."""
        return self._head.digest

    @property
    def encoder(self) -> str:
        """Id of the embedding space."""
        return self._head.encoder

    @property
    def head(self) -> str:
        """Digest of the head file that the embeddings went through; "" for the identity."""
        return self._head.head

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self._head.dim

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return self._head.rows

    @property
    def centroids(self) -> Float32:
        """(lists, dim) float32, as `build_base` takes them."""
        return self._head.centroids

    def forget(self) -> None:
        """Let go of the file's bytes; the next search brings in what it needs."""
        self._parts.forget()

    def verify(self) -> None:
        """Bring in and check the whole file; raises as `search` does."""
        self._parts.verify()

    @property
    def list_rows(self) -> Int64:
        """(lists,) how many rows each inverted list has."""
        return self._list_rows

    def nearness(self, query: Float32) -> Float32:
        """(lists,) inner product of each list's centroid with a (dim,) query.

        Infinite for the one list of a flat base, which every query reads.
        """
        if self._head.lists == 1:
            return np.full(1, np.inf, dtype=np.float32)
        return np.asarray(self._head.centroids @ query)

    def passing(self, filter: Filter) -> Int64:
        """(lists,) how many rows of each list pass; raises as `search` does."""
        return self._selections.of(filter).counts

    def has(self, lists: Int64) -> bool:
        """Whether these lists are here and have been checked."""
        return self._parts.has(lists)

    def bring(self, lists: Int64) -> None:
        """Bring in lists that a search will read; raises as `search` does."""
        for batch in self._parts.batches(lists):
            self._parts.fetched(batch)

    def search(
        self, query: Float32, limit: int, lists: Int64, filter: Filter | None = None
    ) -> list[Candidate]:
        """The ``limit`` rows nearest to a (dim,) L2-normalised query, best first, ties by key.

        Where the cut falls into rows of equal score, those with the smallest keys are given.

        Parameters
        ----------
        query
            (dim,) float32, L2-normalised.
        limit
            At most so many rows; fewer only when no more rows pass.
        lists
            Numbers of the inverted lists to read, ascending.
        filter
            Only rows that pass.

        Raises
        ------
        CorruptFile
            A part that the search needs is truncated or altered.
        Retry
            See `ByteSource.ensure`.
        """
        query = np.ascontiguousarray(query, dtype=np.float32)
        selection = None if filter is None else self._selections.of(filter)
        counts = self._list_rows if selection is None else selection.counts
        lists = lists[counts[lists] > 0]
        limit = min(limit, int(counts[lists].sum()))
        if limit < 1:
            return []
        # One row more than wanted shows whether the cut falls into a tie; then all of it is needed.
        wanted = RERANKED * limit
        size = wanted + 1
        while True:
            scores, rows = self._scan(query, lists, size, selection)
            if len(rows) < size:
                break
            if scores[-1] < scores[wanted - 1]:
                rows = rows[scores >= scores[wanted - 1]]
                break
            size *= 4
        return self._best(query, np.sort(rows), limit)

    def embedding(self, key: str, version: str) -> Float32 | None:
        """The (dim,) L2-normalised embedding of one version of one view; None if it is not here."""
        wanted = np.uint64(key_hash(key, version))
        hashes = self._head.lookup_hashes
        # Equal hashes may go on from one bucket into the next.
        first = max(int(np.searchsorted(hashes, wanted, side="left")) - 1, 0)
        last = int(np.searchsorted(hashes, wanted, side="right"))
        for bucket in range(first, last):
            entries = self._parts.bucket(bucket).view(LOOKUP_DTYPE)
            start = int(np.searchsorted(entries["hash"], wanted, side="left"))
            stop = int(np.searchsorted(entries["hash"], wanted, side="right"))
            for row in entries["row"][start:stop].tolist():
                number = int(self._lists_of(row))
                place = row - int(self._head.first_rows[number])
                block = self._parts.block(number)
                if block.name(place) == (key, version):
                    return np.asarray(self._decoded(block, np.asarray([place]))[0], np.float32)
        return None

    def _scan(
        self, query: Float32, lists: Int64, size: int, selection: Selection | None
    ) -> tuple[Float32, Int64]:
        """Scores and numbers of the best ``size`` rows, best first, then by number."""
        listed = selection is not None and selection.rows is not None
        selector = selection.selector if selection is not None and not listed else None
        scores = np.full(size, -np.inf, dtype=np.float32)
        rows = np.full(size, -1, dtype=np.int64)
        heap = (faiss.swig_ptr(scores), faiss.swig_ptr(rows), size)
        with _scanner(self._quantizer, query, selector) as scanner:
            for batch in self._parts.batches(lists):
                memory = self._parts.fetched(batch)
                pieces = (
                    self._gathered(memory, batch, selection)
                    if selection is not None and listed
                    else self._codes(memory, batch)
                )
                for codes, numbers in pieces:
                    scanner.scan_codes(
                        len(numbers), faiss.swig_ptr(codes), faiss.swig_ptr(numbers), *heap
                    )
        order = np.lexsort((rows, -scores))
        order = order[rows[order] >= 0]
        return scores[order], rows[order]

    def _codes(self, memory: UInt8, lists: Int64) -> Iterator[tuple[UInt8, Int64]]:
        """Each list's codes, where they lie, and its rows' numbers."""
        for number in lists.tolist():
            start, rows = self._head.blocks[number].start, int(self._list_rows[number])
            at = int(self._head.first_rows[number])
            yield memory[start : start + rows * self.dim], self._numbers[at : at + rows]

    def _gathered(
        self, memory: UInt8, lists: Int64, selection: Selection
    ) -> Iterator[tuple[UInt8, Int64]]:
        """The codes of the passing rows of some lists, copied, and the rows' numbers."""
        rows = selection.rows_in(lists)
        last = self._head.blocks[-1]
        matrix = memory[self._head.origin : last.start + last.length].reshape(-1, self.dim)
        yield matrix[rows + np.repeat(self._slot_shift[lists], selection.counts[lists])], rows

    def _best(self, query: Float32, rows: Int64, limit: int) -> list[Candidate]:
        """The best ``limit`` of ascending rows by the score of their fine codes, ties by key."""
        list_of = self._lists_of(rows)
        numbers, firsts = np.unique(list_of, return_index=True)
        blocks = {number: self._parts.block(number) for number in numbers.tolist()}
        places = rows - self._head.first_rows[list_of]
        decoded = [
            self._decoded(block, some)
            for block, some in zip(blocks.values(), np.split(places, firsts[1:]), strict=True)
        ]
        # In doubles, then rounded: equal rows score equally wherever they stand.
        scores = np.concatenate([rows @ query for rows in decoded]).astype(np.float32)
        cut = np.partition(scores, len(rows) - limit)[len(rows) - limit]
        # A list's rows are in order of key: of those that tie, none behind its ``limit`` first
        # counts, and their keys need not be read.
        tied = np.flatnonzero(scores == cut)
        _, firsts, runs = np.unique(list_of[tied], return_index=True, return_counts=True)
        tied = tied[np.arange(len(tied)) - np.repeat(firsts, runs) < limit]
        kept = np.concatenate([np.flatnonzero(scores > cut), tied])
        embeddings = np.concatenate(decoded)[kept].astype(np.float32)
        candidates = [
            Candidate(*blocks[int(list_of[at])].name(int(places[at])), float(scores[at]), embedding)
            for at, embedding in zip(kept.tolist(), embeddings, strict=True)
        ]
        candidates.sort(key=lambda item: (-item.score, item.key, item.version))
        return candidates[:limit]

    def _decoded(self, block: Block, places: Int64) -> npt.NDArray[np.float64]:
        """(n, dim) float64, L2-normalised: some of a list's rows by their codes and fine codes."""
        rows = self._head.minimum + block.steps(places) * (self._head.span / np.float64(255))
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(rows / np.maximum(lengths, 1e-12))

    def _lists_of(self, rows: Int64 | int) -> Int64:
        """The list that each row is in."""
        return np.asarray(np.searchsorted(self._head.first_rows, rows, side="right") - 1)


@contextmanager
def _scanner(quantizer: Any, query: Float32, selector: Any) -> Iterator[Any]:
    """FAISS's scan of codes with one query; a call's own, as it holds the query."""
    scanner = quantizer.select_InvertedListScanner(
        faiss.METRIC_INNER_PRODUCT, None, False, selector, False
    )
    try:
        scanner.set_query(faiss.swig_ptr(query))
        yield scanner
    finally:
        # Python does not own it, and must not be made to: each object that SWIG is given to own
        # later takes away a reference to its module, which is gone after four
        # (SwigPyObject_dealloc decrements what only SwigPyObject_New increments).
        type(scanner).__swig_destroy__(scanner)
