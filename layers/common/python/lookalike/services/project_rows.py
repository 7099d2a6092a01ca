"""What the map shows of live rows: products, where they are to be placed, and what is said of them.

Owns which row stands for a product; knows neither maps nor runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lookalike.core.clusters import product_hash
from lookalike.core.errors import CorruptFile, Vanished
from lookalike.core.head import Head
from lookalike.core.jobs import Artifact
from lookalike.core.map_columns import Details, Labels, column_text
from lookalike.core.placement import Float32, Hashes, Mask
from lookalike.core.ports import ObjectStore
from lookalike.services.clusters import ClusterFinder, read_clustering
from lookalike.services.live_embeddings import Block
from lookalike.services.raw_files import hashed


def open_finder(
    store: ObjectStore, artifact: Artifact | None, encoder: str, head: Head
) -> ClusterFinder | None:
    """Says which cluster embeddings are in; None when there are none in this space."""
    if artifact is None or artifact.encoder != encoder:
        return None
    try:
        clustering = read_clustering(store, artifact)
    except (Vanished, CorruptFile):
        return None
    return ClusterFinder(clustering, clustering.centroids(head)) if clustering.clusters else None


@dataclass(slots=True)
class Rows:
    """Rows that were gathered, each of which may stand for its product.

    A product stands where its first view is. While photos come and go, the first one may be another
    than it was a moment ago: so the row of a product that was not seen before is gathered whichever
    view it is of, and ``first`` tells.
    """

    finder: ClusterFinder | None
    seen: set[int]
    products: list[int] = field(default_factory=list)
    rows: list[Hashes] = field(default_factory=list)
    first: list[bool] = field(default_factory=list)
    embeddings: list[Float32] = field(default_factory=list)
    details: list[tuple[str, str, str, str]] = field(default_factory=list)
    category: list[str] = field(default_factory=list)
    cluster: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.products)

    def add(self, block: Block) -> None:
        """Gather what a block has of products."""
        first = block.first
        chosen = []
        for number, product in enumerate(block.products):
            hash_ = product_hash(product.product_id)
            if not first[number] and hash_ in self.seen:
                continue
            self.seen.add(hash_)
            chosen.append(number)
            view = product.views[block.keys[number]]
            attributes = product.attributes
            title = column_text(attributes.get("title"))
            self.products.append(hash_)
            self.first.append(bool(first[number]))
            self.details.append((product.product_id, view.name, title, view.thumbnail))
            self.category.append(column_text(attributes.get("category")))
        if not chosen:
            return
        embeddings = block.embeddings[chosen]
        self.embeddings.append(embeddings)
        self.rows.append(hashed((block.keys[n], block.versions[n]) for n in chosen))
        self.cluster += self.finder.ids(embeddings) if self.finder else [""] * len(chosen)

    @property
    def product_hashes(self) -> Hashes:
        """(n,) uint64."""
        return np.array(self.products, dtype=np.uint64)

    @property
    def row_hashes(self) -> Hashes:
        """(n,) uint64."""
        return np.concatenate(self.rows)

    @property
    def is_first(self) -> Mask:
        """(n,) whether each is its product's first view."""
        return np.array(self.first, dtype=np.bool_)

    @property
    def labels(self) -> Labels:
        """The texts of the points."""
        return Labels(self.category, self.cluster)

    @property
    def columns(self) -> Details:
        """What is shown of the points."""
        ids, views, titles, thumbnails = zip(*self.details, strict=True)
        return Details(ids, views, titles, thumbnails)


def one_a_product(products: Hashes, first: Mask) -> Mask:
    """(n,) which rows stay: of each product the last one that was its first view, else the last."""
    numbers = np.arange(len(products)) + first * len(products)
    order = np.lexsort((numbers, products))
    ordered = products[order]
    kept = np.zeros(len(products), dtype=np.bool_)
    kept[order[np.append(ordered[1:] != ordered[:-1], True)]] = True
    return kept
