"""The nouns that parts pass to each other.

Frozen, validated where they are made, trusted after that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from lookalike.core.keys import PRODUCT_DOCUMENT

Scalar = str | int | float | bool
AttributeValue = Scalar | tuple[Scalar, ...]
Attributes = Mapping[str, AttributeValue]


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What the bucket says about an object without its body.

    ``last_modified`` is in seconds since the epoch; ``metadata`` is S3 user metadata, decoded to
    text.
    """

    key: str
    etag: str
    size_bytes: int
    last_modified: float
    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class View:
    """One live image of a product.

    ``version`` names the row that counts in the index; ``segment`` and ``row`` say where that row
    was written (a hint: compaction moves rows).
    """

    key: str
    etag: str
    version: str
    segment: str
    row: int
    width: int
    height: int
    thumbnail: str
    last_modified: float
    searchable_at: float
    attributes: Attributes = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The view's public name: the file name without its extension."""
        return self.key.rsplit("/", 1)[-1].rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class Document:
    """What a product's ``product.json`` said when it was last read."""

    etag: str
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Product:
    """The record that decides what is live: one per (catalogue, product_id).

    ``views`` maps object keys to views. ``revision`` is the store's token for conditional writes
    and is None for a record that was never stored.
    """

    catalogue: str
    product_id: str
    generation: str
    views: Mapping[str, View] = field(default_factory=dict)
    document: Document | None = None
    updated_at: float = 0.0
    revision: str | None = None

    @property
    def object_keys(self) -> list[str]:
        """Bucket objects that the record stands on: its views, and its document if it has one."""
        document = f"{self.catalogue}/{self.product_id}/{PRODUCT_DOCUMENT}"
        return [*self.views, *([document] if self.document is not None else [])]

    @property
    def attributes(self) -> dict[str, AttributeValue]:
        """Metadata of the product: its views' in key order, then ``product.json``, which wins."""
        merged: dict[str, AttributeValue] = {}
        for key in sorted(self.views):
            merged.update(self.views[key].attributes)
        if self.document is not None:
            merged.update(self.document.attributes)
        return merged


def row_version(etag: str, attributes: Attributes) -> str:
    """16 hex digits that name one row's content.

    Its image (by ETag) with its product's attributes.
    """
    canonical = json.dumps([etag, dict(attributes)], sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an object is not searchable, in words a merchant understands. ``at`` in epoch seconds."""

    catalogue: str
    key: str
    reason: str
    detail: str
    etag: str
    at: float
    tries: int = 1


@dataclass(frozen=True, slots=True)
class Delivered:
    """A key as it was delivered: how often, whether for the last time, and what was asked.

    With ``write_again`` its row is written even if nothing has changed.
    """

    key: str
    receives: int = 1
    is_last: bool = False
    write_again: bool = False


@dataclass(frozen=True, slots=True)
class Generation:
    """Everything built with one encoder, one head and one set of shard centroids.

    ``encoder`` is the id of its embedding space (`lookalike.core.encoders.space_id`). What has been
    built so far is in the generation's `Manifest`.
    """

    catalogue: str
    generation: str
    encoder: str

    @property
    def scope(self) -> str:
        """The registry's partition: rows of different scopes are never compared."""
        return f"{self.catalogue}/{self.generation}"


@dataclass(frozen=True, slots=True)
class Build:
    """How far the generation beside the current one is.

    ``phase`` is ``announced`` (every append goes to both from now on), ``filling`` (rows that were
    there before are brought over), ``compacting`` (head, shards and bases are made), ``ready``
    (may be swapped in), ``kept`` (it was current, and still takes every append, for a rollback) or
    ``dropping`` (it takes no more appends, and goes when those that had begun have ended).
    ``cursor`` is where filling goes on; ``done`` of ``total`` views are brought over, ``skipped``
    of them could not be read. Times are epoch seconds.
    """

    generation: Generation
    phase: str
    started_at: float
    changed_at: float
    cursor: str = ""
    done: int = 0
    total: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Lineage:
    """A catalogue's generations: the one that queries use and at most one beside it.

    Rows are appended to both, so that exchanging them is one conditional write of this record.
    ``serial`` numbers generations. ``revision`` is the store's token for conditional writes.
    """

    catalogue: str
    current: Generation
    beside: Build | None = None
    serial: int = 1
    revision: str | None = None

    @property
    def generations(self) -> tuple[Generation, ...]:
        """Every generation that takes appends, the current one first."""
        beside = self.beside
        if beside is None or beside.phase == "dropping":
            return (self.current,)
        return (self.current, beside.generation)


@dataclass(frozen=True, slots=True)
class Counts:
    """How much a catalogue holds: live products, live views, objects that failed."""

    products: int = 0
    views: int = 0
    failures: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.products + other.products,
            self.views + other.views,
            self.failures + other.failures,
        )


@dataclass(frozen=True, slots=True)
class SegmentEntry:
    """A segment as a writer appended it to one scope. ``committed_at`` is in epoch seconds."""

    scope: str
    digest: str
    rows: int
    size_bytes: int
    committed_at: float


@dataclass(frozen=True, slots=True)
class Run:
    """A segment that compaction wrote (or took over); ``newest_at`` is its newest row's commit."""

    digest: str
    rows: int
    size_bytes: int
    newest_at: float


@dataclass(frozen=True, slots=True)
class BaseEntry:
    """A shard's base. ``head_bytes`` is how much of the file must be read to open it.

    ``trained_rows`` is how many rows its lists were trained on. ``newest_at`` is its newest row's
    commit and ``built_at`` when it was built, in epoch seconds.
    """

    digest: str
    rows: int
    lists: int
    size_bytes: int
    head_bytes: int
    trained_rows: int
    newest_at: float
    built_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Shard:
    """One routing partition of a generation.

    ``covered`` runs hold the raw embeddings of the base's rows; ``fresh`` runs are searched beside
    the base.
    """

    base: BaseEntry | None = None
    covered: tuple[Run, ...] = ()
    fresh: tuple[Run, ...] = ()

    @property
    def runs(self) -> tuple[Run, ...]:
        """All runs, covered ones first."""
        return self.covered + self.fresh


@dataclass(frozen=True, slots=True)
class Manifest:
    """What compaction has made of a scope: written by it alone, whole, conditionally.

    Live rows of the scope are those of the shards and of every appended segment that is not in
    ``replaced``: index-bucket keys of objects that were swapped out, with the epoch second of the
    swap, until they are deleted. ``head`` names the generation's head file ("" for the identity),
    which was fitted on ``fitted_rows`` rows, or a sample of so many. ``fullest_rows`` is how many
    rows the fullest shard had when the generation was made, 0 when nobody looked. ``revision`` is
    the store's token for conditional writes, None before the first write.
    """

    scope: str
    head: str = ""
    fitted_rows: int = 0
    shards: tuple[Shard, ...] = (Shard(),)
    replaced: Mapping[str, float] = field(default_factory=dict)
    revision: str | None = None
    fullest_rows: int = 0


@dataclass(frozen=True, slots=True)
class SearchRecord:
    """One search as the log keeps it. Scores are cosines, times are milliseconds.

    ``match`` is the probability that the best result is a good match and ``verdict`` what was said
    of the search, None and "" where nothing is calibrated; ``cluster`` is the group of products
    that the query is nearest to, "" where there is none.
    """

    query_id: str
    at: float
    catalogue: str
    encoder: str
    generation: str
    kind: str
    k: int
    results: tuple[tuple[str, str, float], ...]  # (product_id, view, score)
    took_ms: Mapping[str, float]
    filter: str = ""
    match: float | None = None
    verdict: str = ""
    cluster: str = ""
