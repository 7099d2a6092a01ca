"""The rows that a calibration is fitted on, drawn from a stream that may end anywhere.

Owns the sample and its file among a run's working objects.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import msgspec
import numpy as np

from lookalike.core.base_layout import key_hash
from lookalike.core.calibration import MIN_ROWS
from lookalike.core.calibration_pairs import Relevance
from lookalike.core.segment import Float32
from lookalike.services.live_embeddings import Block, RowsCursor

SAMPLE_ROWS = 4_096
_TOO_LIKELY = 0.9
"""Two photos at random match more often than this: that says nothing of what was searched for."""


@dataclass(slots=True)
class SampleRow:
    """One row: who it is, and of which product and category. ``hash`` says its place."""

    hash: int
    key: str
    product_id: str
    category: str | None
    views: int


@dataclass(slots=True)
class Sample:
    """The rows with the smallest hashes so far, of ``seen`` rows, in order of hash.

    ``raw`` is (n, dim_in) float32, L2-normalised. ``cursor`` is where the stream goes on.
    """

    raw: Float32
    rows: list[SampleRow] = field(default_factory=list)
    seen: int = 0
    cursor: RowsCursor = field(default_factory=RowsCursor)

    @classmethod
    def empty(cls) -> Sample:
        """A sample of nothing."""
        return cls(np.empty((0, 0), dtype=np.float32))

    @property
    def is_everything(self) -> bool:
        """Whether no row had to be left out."""
        return self.seen == len(self.rows)

    def add(self, block: Block) -> None:
        """Take in a block."""
        rows = [
            SampleRow(
                key_hash(key, ""),
                key,
                product.product_id,
                _category(product.attributes.get("category")),
                len(product.views),
            )
            for key, product in zip(block.keys, block.products, strict=True)
        ]
        self.seen += len(rows)
        raw = np.concatenate([self.raw, block.raw]) if self.rows else block.raw
        every = [*self.rows, *rows]
        kept = sorted(range(len(every)), key=lambda number: every[number].hash)[:SAMPLE_ROWS]
        self.rows, self.raw = [every[number] for number in kept], raw[kept]

    def relevance(self) -> Relevance | None:
        """What a good match can be taken to be: by category, else by product; None for neither.

        Categories say nothing where nearly all photos are in one, or each product has its own.
        """
        products = {(row.product_id, row.category) for row in self.rows if row.category is not None}
        sizes = Counter(category for _, category in products)
        known = [row.category for row in self.rows if row.category is not None]
        chance = sum((count / len(known)) ** 2 for count in Counter(known).values())
        others = sum(sizes[category] > 1 for category in known)
        if others and 2 * others >= len(self.rows) and chance < _TOO_LIKELY:
            return Relevance("category")
        if sum(row.views > 1 for row in self.rows) >= MIN_ROWS:
            return Relevance("product")
        return None

    def labels(self, relevance: Relevance) -> list[str | None]:
        """What each row has in common with those that match it."""
        return [relevance.label(row.product_id, row.category) for row in self.rows]

    def asked(self, relevance: Relevance, limit: int) -> list[int]:
        """Numbers of the first rows that a search with can find a match of."""
        is_by_product = relevance.name == "product"
        return [
            number
            for number, row in enumerate(self.rows)
            if (row.views > 1 if is_by_product else row.category is not None)
        ][:limit]

    def encode(self) -> bytes:
        """For `decode`, later."""
        width = self.raw.shape[1]
        raw = self.raw.astype("<f4").tobytes()
        return msgspec.msgpack.encode((self.rows, self.seen, width, raw, self.cursor.encode()))

    @classmethod
    def decode(cls, body: bytes) -> Sample:
        """What `encode` gave."""
        kind = tuple[list[SampleRow], int, int, bytes, bytes]
        rows, seen, width, raw, cursor = msgspec.msgpack.decode(body, type=kind)
        embeddings = np.frombuffer(raw, "<f4").reshape(len(rows), width)
        return cls(embeddings, rows, seen, RowsCursor.decode(cursor))


def _category(value: object) -> str | None:
    if value is None or value == "":
        return None
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
