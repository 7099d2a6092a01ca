"""Decides what a product's record should say, given what its bucket objects are.

Pure: reads and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from lookalike.core.errors import Retry
from lookalike.core.types import Attributes, Counts, Document, Product, View, row_version


@dataclass(frozen=True, slots=True)
class Gone:
    """The bucket does not hold the object."""


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The object is the one the record describes."""


@dataclass(frozen=True, slots=True)
class Touched:
    """Written again with the same content; its S3 metadata may differ."""

    etag: str
    last_modified: float
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class NewView:
    """An image that was decoded: upright ``width`` × ``height`` pixels."""

    etag: str
    last_modified: float
    attributes: Attributes
    width: int
    height: int
    thumbnail: str


@dataclass(frozen=True, slots=True)
class NewDocument:
    """A ``product.json`` that was read."""

    etag: str
    last_modified: float
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Refused:
    """An object that cannot be indexed as it is."""

    etag: str
    last_modified: float
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Postponed:
    """The object could not be read just now: nothing is known of it, so nothing is decided."""

    error: Retry


Observation = Gone | Unchanged | Touched | NewView | NewDocument | Refused | Postponed


# A record must stay under DynamoDB's 400 kB: at most 2 kB of S3 metadata a view, and a document.
MAX_VIEWS = 100


def refuse_excess(product: Product, seen: Mapping[str, Observation]) -> dict[str, Observation]:
    """What was seen, with new views beyond the limit refused (``too-many-views``)."""
    room = MAX_VIEWS - len(product.views)
    refused = dict(seen)
    for key in sorted(seen):
        observation = seen[key]
        if isinstance(observation, NewView) and key not in product.views:
            room -= 1
            if room < 0:
                refused[key] = Refused(
                    observation.etag,
                    observation.last_modified,
                    "too-many-views",
                    f"The product has {MAX_VIEWS} views already; more are not indexed.",
                )
    return refused


def decide(product: Product, seen: Mapping[str, Observation], now: float) -> Product:
    """The record that agrees with what was seen.

    Parameters
    ----------
    product
        The record as stored, or an empty one.
    seen
        Observations by object key; keys ending in ``/product.json`` are the product's document.
    now
        Epoch seconds, for the record's ``updated_at``.

    Returns
    -------
    Product
        ``product`` itself when nothing changes. Views whose row must be written (see `stale_views`)
        have an empty ``segment``; those whose photo is new have no ``searchable_at`` yet.
    """
    views = dict(product.views)
    document = product.document
    for key, observation in seen.items():
        is_document = key.endswith("/product.json")
        match observation:
            case Unchanged() | Postponed():
                pass
            case NewDocument(etag, _, attributes):
                document = Document(etag, attributes)
            case Gone() | Refused() if is_document:
                document = None
            case Gone() | Refused():
                views.pop(key, None)
            case Touched(_, last_modified, attributes):
                views[key] = replace(views[key], last_modified=last_modified, attributes=attributes)
            case NewView(etag, last_modified, attributes, width, height, thumbnail):
                known = views.get(key)
                since = known.searchable_at if known is not None and known.etag == etag else 0.0
                views[key] = View(
                    key=key,
                    etag=etag,
                    version="",
                    segment="",
                    row=0,
                    width=width,
                    height=height,
                    thumbnail=thumbnail,
                    last_modified=last_modified,
                    searchable_at=since,
                    attributes=attributes,
                )
    if views == product.views and document == product.document:
        return product
    decided = replace(product, views=views, document=document, updated_at=now)
    attributes = decided.attributes
    for key, view in views.items():
        version = row_version(view.etag, attributes)
        if version != view.version:
            views[key] = replace(view, version=version, segment="", row=0)
    return decided


def stale_views(decided: Product) -> list[View]:
    """Views of a decided record whose row is not in the index yet, in key order."""
    return [view for _, view in sorted(decided.views.items()) if not view.segment]


def is_empty(product: Product) -> bool:
    """Whether nothing of the product is left, so that its record should go."""
    return not product.views and product.document is None


def count_change(before: Product, after: Product) -> Counts:
    """What going from one record to another adds to the catalogue's counts."""
    return Counts(
        products=bool(after.views) - bool(before.views),
        views=len(after.views) - len(before.views),
    )
