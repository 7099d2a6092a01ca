"""What one pass of `lookalike.services.ingest` holds while it runs, and how products leave it."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, field

from lookalike.core.errors import CorruptFile, Retry, Vanished
from lookalike.core.ports import ObjectStore
from lookalike.core.reconcile import Postponed, stale_views
from lookalike.core.segment import Float32, Segment
from lookalike.core.types import Counts, Failure, Lineage, Product
from lookalike.services.feature_maps import stored_embedding
from lookalike.services.observe import Seen
from lookalike.services.segments import read_segment, row_of

logger = logging.getLogger(__name__)

ProductId = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Searchable:
    """A photo became searchable, so many seconds after it was written to the bucket."""

    key: str
    freshness_s: float


@dataclass(frozen=True, slots=True)
class Filed:
    """A failure was filed."""

    key: str
    reason: str


Outcome = Searchable | Filed
Report = Callable[[Outcome], None]


def ignore(_: Outcome) -> None:
    """Tell nobody."""


@dataclass(slots=True)
class Pass:
    """What one pass has read, decided and found undone.

    ``lineages`` are as they were when the pass began, with those of new catalogues not stored yet.
    An append that does not know of a generation is over ``settle_s`` after its announcement, so
    they must not outlive the pass. ``embeddings`` are by key, then by space. ``maps`` are files to
    be written, by their index-bucket key. Keys in ``again`` need another pass.
    """

    seen: dict[str, Seen]
    failures: dict[str, Failure]
    before: dict[ProductId, Product]
    keys_of: dict[ProductId, list[str]]
    lineages: dict[str, Lineage]
    after: dict[ProductId, Product] = field(default_factory=dict)
    embeddings: dict[str, dict[str, Float32]] = field(default_factory=dict)
    maps: dict[str, bytes] = field(default_factory=dict)
    segments: dict[tuple[str, str], Segment | None] = field(default_factory=dict)
    again: set[str] = field(default_factory=set)
    changes: defaultdict[str, Counts] = field(default_factory=lambda: defaultdict(Counts))
    outcomes: list[Outcome] = field(default_factory=list)

    def spaces(self, catalogue: str) -> list[str]:
        """Embedding spaces that a catalogue's rows are needed in, the current one first."""
        return list(dict.fromkeys(item.encoder for item in self.lineages[catalogue].generations))

    def missing(self, product_id: ProductId) -> list[str]:
        """Keys of a decided product's views that rows must be written of without an embedding."""
        after = self.after.get(product_id)
        stale = stale_views(after) if after is not None else []
        return [view.key for view in stale if view.key not in self.embeddings]

    def copy_rows(self, index: ObjectStore, product_id: ProductId) -> None:
        """Take embeddings of views whose photo is the same from where their rows were written.

        They are there in one space, and until compaction has moved them.
        """
        catalogue = product_id[0]
        for key in self.missing(product_id):
            view = self.before[product_id].views[key]
            place = (catalogue, view.segment)
            if place not in self.segments:
                self.segments[place] = _segment(index, *place)
            segment = self.segments[place]
            if segment is not None and self.spaces(catalogue) == [segment.encoder]:
                embedding = row_of(segment, view)
                if embedding is not None:
                    self.embeddings[key] = {segment.encoder: embedding}

    def pool_maps(self, index: ObjectStore, pool: Executor, product_id: ProductId) -> None:
        """Make embeddings of views whose photo is the same from their stored feature maps.

        They are there in each space that the photo was encoded in.
        """
        spaces = self.spaces(product_id[0])
        asked = [(key, space) for key in self.missing(product_id) for space in spaces]
        views = self.before[product_id].views

        def embedding_of(item: tuple[str, str]) -> Float32 | None:
            key, space = item
            return stored_embedding(index, space, key, views[key].etag)

        found: defaultdict[str, dict[str, Float32]] = defaultdict(dict)
        for (key, space), embedding in zip(asked, pool.map(embedding_of, asked), strict=True):
            if embedding is not None:
                found[key][space] = embedding
        complete = {key: item for key, item in found.items() if len(item) == len(spaces)}
        self.embeddings.update(complete)

    def note_searchable(self, product_id: ProductId, now: float) -> None:
        """Note which photos of a product whose record was written are new in it."""
        before = self.before[product_id].views
        for key, view in self.after[product_id].views.items():
            if key not in before or before[key].etag != view.etag:
                self.outcomes.append(Searchable(key, now - view.last_modified))

    def again_later(self, product_id: ProductId) -> None:
        """Leave a product to the next pass."""
        self.after.pop(product_id, None)
        self.again.update(self.keys_of[product_id])

    def give_back(self, product_id: ProductId, error: Retry) -> None:
        """Leave a product to the next delivery."""
        self.after.pop(product_id, None)
        for key in self.keys_of[product_id]:
            self.seen[key] = Seen(Postponed(error))


def _segment(index: ObjectStore, catalogue: str, digest: str) -> Segment | None:
    try:
        return read_segment(index, catalogue, digest)
    except Vanished:
        return None
    except CorruptFile:
        logger.exception("no row can be copied from a segment")
        return None
