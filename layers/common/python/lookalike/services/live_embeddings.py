"""A catalogue's live embeddings, streamed from its generation's raw files in bounded memory.

Owns which rows count and that each is given once, also when compaction moves rows meanwhile or when
the stream is gone on with later; what is made of them, scheduled work knows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from lookalike.core.errors import Conflict
from lookalike.core.head import Head
from lookalike.core.keys import product_of
from lookalike.core.ports import Stores
from lookalike.core.segment import Float32, Segment, dequantize
from lookalike.core.types import Generation, Product, Run, SegmentEntry
from lookalike.services.raw_files import hashed, raw_files
from lookalike.services.raw_rows import RowReader
from lookalike.services.segments import read_head

logger = logging.getLogger(__name__)

BLOCK_ROWS = 8_192
"""Rows of one block at most: 42 MB of raw embeddings of length 1,280."""
_FILES_AHEAD = 2
_IDS_AT_ONCE = 100
_LOST_RACES = 20

Mask = npt.NDArray[np.bool_]
ProductId = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Block:
    """Live rows: ``raw`` (n, dim_in) and ``embeddings`` (n, dim_out), both float32, L2-normalised.

    ``products`` are the records that name the rows, one a row.
    """

    keys: tuple[str, ...]
    versions: tuple[str, ...]
    raw: Float32
    embeddings: Float32
    products: tuple[Product, ...]

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def first(self) -> Mask:
        """(n,) whether each row is the first view, in order of key, of its product."""
        return np.asarray(
            [
                key == min(product.views)
                for key, product in zip(self.keys, self.products, strict=True)
            ],
            dtype=np.bool_,
        )


@dataclass(slots=True)
class RowsCursor:
    """Which files were streamed to their end, and which rows were given."""

    done: set[str] = field(default_factory=set)
    seen: set[int] = field(default_factory=set)

    def encode(self) -> bytes:
        """For `decode`, later."""
        seen = np.fromiter(self.seen, np.uint64, len(self.seen))
        return msgspec.msgpack.encode((sorted(self.done), np.sort(seen).tobytes()))

    @classmethod
    def decode(cls, body: bytes) -> RowsCursor:
        """What `encode` gave."""
        done, seen = msgspec.msgpack.decode(body, type=tuple[list[str], bytes])
        return cls(set(done), set(np.frombuffer(seen, np.uint64).tolist()))


class LiveEmbeddings:
    """Opens generations.

    Parameters
    ----------
    stores
        Where to read.
    pool
        Reads files and records side by side.
    """

    def __init__(self, stores: Stores, pool: Executor) -> None:
        self._stores = stores
        self._pool = pool

    def open(self, generation: Generation) -> LiveRows:
        """The rows of a generation, under its head of now.

        Raises
        ------
        Vanished
            The generation was dropped.
        CorruptFile
            Its head is damaged.
        """
        return LiveRows(self._stores, self._pool, generation)


class LiveRows:
    """The live rows of one generation; made by `LiveEmbeddings.open`.

    ``unreadable`` are keys of files that are not what they should be; their rows are missing.
    """

    def __init__(self, stores: Stores, pool: Executor, generation: Generation) -> None:
        self._stores = stores
        self._pool = pool
        self.generation = generation
        self.unreadable: set[str] = set()
        self._read_registry()
        self.head_digest = self._manifest.head
        self._head: Head | None = None
        if self.head_digest:
            self._head = read_head(stores.index, generation.catalogue, self.head_digest)

    @property
    def files(self) -> list[Run | SegmentEntry]:
        """Every raw file once."""
        return raw_files(self._manifest, self._entries)

    @property
    def rows(self) -> int:
        """About how many rows there are, dead ones included."""
        return sum(file.rows for file in self.files)

    @property
    def newest_at(self) -> float:
        """When the newest row was committed, in epoch seconds; 0 when there is none."""
        return max(map(_newest, self.files), default=0.0)

    @property
    def has_another_head(self) -> bool:
        """Whether the generation has got another head since this was opened."""
        self._read_registry()
        return self._manifest.head != self.head_digest

    def head(self, dim: int) -> Head:
        """The head that raw embeddings of length ``dim`` go through."""
        return self._head or Head.identity(dim)

    def blocks(self, cursor: RowsCursor, *, since: float = 0.0) -> Iterator[Block]:
        """Every live row that the cursor has not seen, in no order; the cursor goes along.

        Those that were committed when this was opened: what arrives while the blocks are read may
        be among them or not. A block is in the cursor when the next one is asked for. So whoever
        saves the cursor saves what was made of the blocks before with it.

        Parameters
        ----------
        cursor
            Changed while the blocks are read; an empty one for all rows.
        since
            Only of files that have rows committed at this epoch second or later.

        Raises
        ------
        Conflict
            Compaction moved rows again and again.
        """
        for _ in range(_LOST_RACES):
            try:
                yield from self._pass(cursor, since)
                return
            except Conflict:
                self._read_registry()
        raise Conflict(f"{self.generation.scope} kept being compacted")

    def _read_registry(self) -> None:
        self._entries, self._manifest = self._stores.registry.read(self.generation.scope)

    def _left(self, cursor: RowsCursor, since: float) -> list[str]:
        return [
            file.digest
            for file in self.files
            if file.digest not in cursor.done and _newest(file) >= since
        ]

    def _pass(self, cursor: RowsCursor, since: float) -> Iterator[Block]:
        """Files of the registry as it was read last, some of them read ahead."""
        reader = RowReader(self._stores, self.generation, self._manifest)
        digests = self._left(cursor, since)
        ahead: dict[str, Future[Segment | None]] = {}
        try:
            for number, digest in enumerate(digests):
                for wanted in digests[number : number + 1 + _FILES_AHEAD]:
                    if wanted not in ahead:
                        ahead[wanted] = self._pool.submit(reader.read, wanted)
                segment = ahead.pop(digest).result()
                self.unreadable |= reader.unreadable
                if segment is not None:
                    yield from self._blocks_of(segment, cursor)
                cursor.done.add(digest)
        finally:
            for read in ahead.values():
                read.cancel()

    def _blocks_of(self, segment: Segment, cursor: RowsCursor) -> Iterator[Block]:
        for start in range(0, len(segment), BLOCK_ROWS):
            end = min(start + BLOCK_ROWS, len(segment))
            hashes = hashed(zip(segment.keys[start:end], segment.versions[start:end], strict=True))
            new = {
                name: number
                for number, name in enumerate(hashes.tolist(), start)
                if name not in cursor.seen
            }
            live = self._live(segment, list(new.values()))
            if live:
                yield self._block(segment, live)
            # A row that does not count may do so when compaction has moved it: its record is
            # written after it.
            cursor.seen.update(name for name, number in new.items() if number in live)

    def _live(self, segment: Segment, numbers: list[int]) -> dict[int, Product]:
        """Of these rows those that count, each with the record that says so."""
        owners = {number: product_of(segment.keys[number]) for number in numbers}
        ids = list(dict.fromkeys(owner for owner in owners.values() if owner))
        batches = [ids[start : start + _IDS_AT_ONCE] for start in range(0, len(ids), _IDS_AT_ONCE)]
        records: dict[ProductId, Product] = {}
        for found in self._pool.map(self._stores.products.get_many, batches):
            records.update(found)
        live = {}
        for number, owner in owners.items():
            product = records.get(owner) if owner else None
            view = product.views.get(segment.keys[number]) if product else None
            if product and view and view.version == segment.versions[number]:
                live[number] = product
        return live

    def _block(self, segment: Segment, live: dict[int, Product]) -> Block:
        numbers = list(live)
        raw = dequantize(segment.codes[numbers], segment.scales[numbers])
        return Block(
            tuple(segment.keys[number] for number in numbers),
            tuple(segment.versions[number] for number in numbers),
            raw,
            self.head(raw.shape[1]).project(raw),
            tuple(live.values()),
        )


def _newest(file: Run | SegmentEntry) -> float:
    return file.newest_at if isinstance(file, Run) else file.committed_at
