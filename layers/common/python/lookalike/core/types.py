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
class Generation:
    """Everything built with one encoder for one catalogue. ``dim`` is of the indexed embedding."""

    catalogue: str
    generation: str
    encoder: str
    dim: int


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
    """A live segment of one registry scope (``<catalogue>/<generation>/<shard>``)."""

    scope: str
    digest: str
    rows: int
    size_bytes: int
    committed_at: float


@dataclass(frozen=True, slots=True)
class SearchRecord:
    """One search as the log keeps it. Scores are cosines, times are milliseconds."""

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


def registry_scope(catalogue: str, generation: str, shard: str = "0") -> str:
    """The registry's partition: rows of different scopes are never compared."""
    return f"{catalogue}/{generation}/{shard}"
