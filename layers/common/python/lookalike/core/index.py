"""The searchable rows of one registry scope, in memory.

Owns exact search; knows no store and no product.

Rows come from segments and are never removed here: which of them count is for the product records
to say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import faiss
import numpy as np

from lookalike.core.errors import CorruptFile
from lookalike.core.segment import Float32, Segment
from lookalike.core.types import AttributeValue


@dataclass(frozen=True, slots=True)
class Candidate:
    """One row that a query reached. ``score`` is the cosine of query and row."""

    key: str
    version: str
    score: float


class ExactIndex:
    """Brute-force inner product over all rows of one scope.

    Parameters
    ----------
    encoder
        Id of the encoder whose embeddings these are; segments of another are refused.
    dim
        Length of an embedding.
    """

    def __init__(self, encoder: str, dim: int) -> None:
        self.encoder = encoder
        self.dim = dim
        self.segments: set[str] = set()
        self.attributes: list[dict[str, AttributeValue]] = []
        self._keys: list[str] = []
        self._versions: list[str] = []
        self._rows_of: defaultdict[str, list[int]] = defaultdict(list)
        self._embeddings: Float32 = np.empty((0, dim), dtype=np.float32)

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, digest: str, segment: Segment) -> None:
        """Take in a segment once; a second time changes nothing. Amortised O(rows of the segment).

        Raises
        ------
        CorruptFile
            The segment is of another encoder or length than this index.
        """
        if digest in self.segments:
            return
        if segment.encoder != self.encoder or segment.codes.shape[1] != self.dim:
            raise CorruptFile(
                f"segment {digest} holds {segment.encoder} embeddings of length "
                f"{segment.codes.shape[1]}; this index holds {self.encoder} of {self.dim}"
            )
        start, end = len(self), len(self) + len(segment)
        if end > len(self._embeddings):
            grown = np.empty((max(end, 2 * start, 1024), self.dim), dtype=np.float32)
            grown[:start] = self._embeddings[:start]
            self._embeddings = grown
        self._embeddings[start:end] = segment.embeddings()
        self._versions += segment.versions
        self.attributes += segment.attributes
        # Last, as a search in another thread takes their number for the number of rows.
        self._keys += segment.keys
        for row, key in enumerate(segment.keys, start):
            self._rows_of[key].append(row)
        self.segments.add(digest)

    def embedding(self, key: str, version: str) -> Float32 | None:
        """The (dim,) embedding of one version of one view, if it has been taken in."""
        for row in self._rows_of.get(key, ()):
            if self._versions[row] == version:
                embedding: Float32 = self._embeddings[row]
                return embedding
        return None

    def select(self, accepts: Callable[[dict[str, AttributeValue]], bool]) -> Sequence[int]:
        """Rows whose attributes are accepted, in ascending order."""
        return [row for row, attributes in enumerate(self.attributes) if accepts(attributes)]

    def search(
        self, query: Float32, limit: int, rows: Sequence[int] | None = None
    ) -> list[Candidate]:
        """The ``limit`` rows nearest to a (dim,) L2-normalised query, best first, ties by key.

        Parameters
        ----------
        query
            (dim,) float32, L2-normalised.
        limit
            At most so many rows; fewer only when there are no more.
        rows
            Search only these rows; None for all.
        """
        chosen = None if rows is None else np.asarray(rows, dtype=np.int64)
        embeddings = self._embeddings[: len(self)] if chosen is None else self._embeddings[chosen]
        limit = min(limit, len(embeddings))
        if limit == 0:
            return []
        scores, nearest = faiss.knn(
            np.ascontiguousarray(query[None]), embeddings, limit, metric=faiss.METRIC_INNER_PRODUCT
        )
        found = nearest[0] if chosen is None else chosen[nearest[0]]
        candidates = [
            Candidate(self._keys[row], self._versions[row], float(score))
            for row, score in zip(found, scores[0], strict=True)
        ]
        return sorted(candidates, key=lambda item: (-item.score, item.key))
