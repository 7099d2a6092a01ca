"""Raw rows as compaction moves them: reads files, tells which rows count, writes runs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
import numpy.typing as npt

from lookalike.core.compaction import RUN_ROWS
from lookalike.core.errors import Conflict, CorruptFile, Vanished
from lookalike.core.keys import product_of, segment_key
from lookalike.core.ports import Clock, Stores
from lookalike.core.segment import Segment, encode_rows
from lookalike.core.types import Generation, Manifest, Product, Run
from lookalike.services.segments import read_segment, write_segment

logger = logging.getLogger(__name__)

MAX_RUN_BYTES = 48 * 2**20
_IDS_AT_ONCE = 100

Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class RowReader:
    """Reads the raw files of one scope, under one revision of its manifest.

    ``unreadable`` collects the keys of files that are not what they should be. They are named in
    the log and left where they are: nobody may take their rows for read.
    """

    def __init__(self, stores: Stores, generation: Generation, manifest: Manifest) -> None:
        self._stores = stores
        self._generation = generation
        self._revision = manifest.revision
        self.unreadable: set[str] = set()

    def key(self, digest: str) -> str:
        """The index-bucket key of a raw file."""
        return segment_key(self._generation.catalogue, digest)

    def read(self, digest: str) -> Segment | None:
        """A raw file; None when it cannot be read.

        Raises
        ------
        Conflict
            It is gone because somebody else has swapped it out.
        """
        try:
            segment = read_segment(self._stores.index, self._generation.catalogue, digest)
        except Vanished:
            _, manifest = self._stores.registry.read(self._generation.scope)
            if manifest.revision != self._revision:
                raise Conflict(f"{self._generation.scope} was compacted meanwhile") from None
            self._refuse(digest, "it is not in the bucket")
            return None
        except CorruptFile as error:
            self._refuse(digest, str(error))
            return None
        if segment.encoder != self._generation.encoder:
            self._refuse(digest, f"its rows are of another space, {segment.encoder}")
            return None
        return segment

    def _refuse(self, digest: str, why: str) -> None:
        key = self.key(digest)
        if key not in self.unreadable:
            logger.error("%s cannot be read and stays where it is: %s", key, why)
        self.unreadable.add(key)


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a segment: ``numbers`` (n,) ascending; ``committed_at`` bounds their commits."""

    segment: Segment
    numbers: Numbers
    committed_at: float

    def __len__(self) -> int:
        return len(self.numbers)


@dataclass(slots=True)
class Seen:
    """Which rows have been kept so far, by (key, version)."""

    rows: set[tuple[str, str]] = field(default_factory=set)

    def new(self, segment: Segment, kept: Mask) -> Numbers:
        """Numbers of the kept rows of a segment that were not seen yet, which are seen now."""
        numbers = []
        for number in np.flatnonzero(kept).tolist():
            row = segment.keys[number], segment.versions[number]
            if row not in self.rows:
                self.rows.add(row)
                numbers.append(number)
        return np.asarray(numbers, dtype=np.int64)


class LiveRows:
    """Says which rows count: those whose version the product's record names."""

    def __init__(self, stores: Stores, pool: Executor) -> None:
        self._products = stores.products
        self._pool = pool

    def mask(self, segment: Segment) -> Mask:
        """(rows,) whether each row of a segment counts now."""
        owners = [product_of(key) for key in segment.keys]
        versions: dict[str, str] = {}
        ids = iter(dict.fromkeys(owner for owner in owners if owner))
        batches: Iterator[list[tuple[str, str]]] = iter(lambda: list(islice(ids, _IDS_AT_ONCE)), [])
        for products in self._pool.map(self._products.get_many, batches):
            versions.update(live_versions(products.values()))
        return np.asarray(
            [
                versions.get(key) == version
                for key, version in zip(segment.keys, segment.versions, strict=True)
            ],
            dtype=np.bool_,
        )


def live_versions(products: Iterable[Product]) -> dict[str, str]:
    """The version that counts of each view, by object key."""
    return {key: view.version for product in products for key, view in product.views.items()}


class RunWriter:
    """Packs rows into as few runs as there may be, writing each when it is full."""

    def __init__(self, stores: Stores, generation: Generation, clock: Clock) -> None:
        self._stores = stores
        self._generation = generation
        self._clock = clock
        self._waiting: list[Rows] = []
        self._runs: list[Run] = []

    def add(self, rows: Rows) -> None:
        """Take rows; holds fewer than two runs' worth of them."""
        if len(rows):
            self._waiting.append(rows)
        if sum(map(len, self._waiting)) >= RUN_ROWS:
            self._flush()

    def finish(self) -> tuple[Run, ...]:
        """Write what is left; gives every run."""
        self._flush()
        return tuple(self._runs)

    def _flush(self) -> None:
        if not self._waiting:
            return
        newest_at = max(rows.committed_at for rows in self._waiting)
        joined, self._waiting = _join(self._waiting), []
        parts = -(-len(joined) // RUN_ROWS)
        for numbers in np.array_split(np.arange(len(joined)), parts):
            self._write(_take(joined, numbers), newest_at)

    def _write(self, segment: Segment, newest_at: float) -> None:
        # The time makes the name one of a kind: it can never be that of a file being deleted.
        body = encode_rows(segment, self._clock())
        if len(body) > MAX_RUN_BYTES and len(segment) > 1:
            for numbers in np.array_split(np.arange(len(segment)), 2):
                self._write(_take(segment, numbers), newest_at)
            return
        digest = write_segment(self._stores.index, self._generation.catalogue, body)
        self._runs.append(Run(digest, len(segment), len(body), newest_at))


def _take(segment: Segment, numbers: Numbers) -> Segment:
    chosen = numbers.tolist()
    return Segment(
        segment.encoder,
        segment.codes[numbers],
        segment.scales[numbers],
        tuple(segment.keys[number] for number in chosen),
        tuple(segment.versions[number] for number in chosen),
        tuple(segment.attributes[number] for number in chosen),
    )


def _join(parts: Sequence[Rows]) -> Segment:
    taken = [_take(part.segment, part.numbers) for part in parts]
    return Segment(
        taken[0].encoder,
        np.concatenate([part.codes for part in taken]),
        np.concatenate([part.scales for part in taken]),
        tuple(key for part in taken for key in part.keys),
        tuple(version for part in taken for version in part.versions),
        tuple(attributes for part in taken for attributes in part.attributes),
    )
