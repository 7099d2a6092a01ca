"""Finds what is to be explained: a search, and the view of a product that is nearest to it now.

A product is explained by the photos that it has now, never by one that was overwritten.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lookalike.core.access import ANYBODY, Caller
from lookalike.core.errors import CorruptFile, Gone, LookalikeError, NotFound, Vanished
from lookalike.core.head import Head
from lookalike.core.keys import MAX_NAME_BYTES, content_digest, explanation_key, product_of
from lookalike.core.material import QueryMaterial, fingerprint
from lookalike.core.ports import Stores
from lookalike.core.search_index import SearchIndex
from lookalike.core.segment import Float32
from lookalike.core.types import Generation, Product, View
from lookalike.services.live_index import LiveIndex
from lookalike.services.query_material import QueryMaterials

logger = logging.getLogger(__name__)

FORMAT = 1
"""Of what is cached; a change of it leaves everything behind that was cached before."""
MAX_VIEWS = 16
"""Views of a product that are compared by their feature maps when the index cannot say."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A search and a product.

    ``views`` has the view that is explained, with its ``embedding`` (dim,) and ``head`` from the
    index. Where the generation that was searched is not searched any more, it has all that may be
    it, and the other two are None: feature maps and the head's file tell. ``digest`` names what is
    explained: of equal digests the explanation is the same. ``left`` numbers the query's images
    that are of stored photos which have been replaced or deleted since.
    """

    material: QueryMaterial
    product_id: str
    views: tuple[View, ...]
    digest: str
    embedding: Float32 | None = None
    head: Head | None = None
    left: frozenset[int] = frozenset()

    def object_key(self, name: str) -> str:
        """Where something of this pair is cached, until the search expires."""
        return explanation_key(self.material.expires_at, self.digest, name)


class PairFinder:
    """Finds pairs.

    Parameters
    ----------
    stores
        Where product records, generations and the search log are read.
    materials
        What searches were made with.
    live_index
        The index in memory.
    generation
        `Query.generation`: what a catalogue is searched with.
    """

    def __init__(
        self,
        stores: Stores,
        materials: QueryMaterials,
        live_index: LiveIndex,
        generation: Callable[..., Generation],
    ) -> None:
        self._stores = stores
        self._materials = materials
        self._live_index = live_index
        self._generation = generation

    def find(self, query_id: str, product_id: str, caller: Caller = ANYBODY) -> Pair:
        """Find the search and the product.

        Raises
        ------
        NotFound
            There was no such search that the caller may know of, nothing is kept of it, or there
            was never such a product.
        Gone
            The search has expired; the product has been deleted.
        Retry
            A store cannot be reached.
        """
        material = self._materials.read(query_id, caller)
        id_ = (material.catalogue, product_id)
        of_parts = [product_of(part.key) for part in material.parts]
        wanted = {item for item in of_parts if item is not None}
        if 0 < len(product_id.encode()) <= MAX_NAME_BYTES:
            wanted.add(id_)
        records = self._stores.products.get_many(wanted)
        product = records.get(id_)
        if product is None or not product.views:
            raise self._missing(material, id_, was_there=id_ in of_parts)
        stored = {key: view for record in records.values() for key, view in record.views.items()}
        left = frozenset(
            number
            for number, part in enumerate(material.parts)
            if part.key and (part.key not in stored or stored[part.key].etag != part.etag)
        )
        return replace(self._pair(material, product), left=left)

    def in_use(self, material: QueryMaterial) -> bool:
        """Whether a generation of the catalogue still has the encoder that was searched with."""
        lineage = self._stores.lineages.get(material.catalogue)
        generations = lineage.generations if lineage is not None else ()
        return any(generation.encoder == material.encoder for generation in generations)

    def _missing(
        self, material: QueryMaterial, id_: tuple[str, str], *, was_there: bool
    ) -> Gone | NotFound:
        """Why there is no such product: deleted since the search, or never known."""
        if not was_there and len(id_[1].encode()) <= MAX_NAME_BYTES:
            searched = self._stores.log.get(material.query_id, material.created_at)
            results = searched.results if searched is not None else ()
            was_there = any(id_[1] == result[0] for result in results)
        if was_there:
            return Gone(
                f"The product “{id_[1]}” has been deleted since that search.",
                parameter="product_id",
            )
        return NotFound(
            f"There is no product “{id_[1][:60]}” in catalogue “{id_[0]}”.", parameter="product_id"
        )

    def _pair(self, material: QueryMaterial, product: Product) -> Pair:
        try:
            found = self._indexed(material, product, None)
        except (Vanished, CorruptFile) as error:
            # As for a search: files leave only after others took their place.
            logger.warning("looking again: %s", error)
            found = self._indexed(material, product, [])
        if found is None:
            views = self._candidates(material, product)
            named = [f"{view.key}\n{view.etag}" for view in views]
            return Pair(material, product.product_id, views, _digest(material, *named))
        view, embedding, head = found
        # To the digits that answers have: a row loses some more when compaction takes it up.
        score = f"{float(material.embedding @ embedding):.6f}"
        digest = _digest(material, view.key, view.etag, score)
        return Pair(material, product.product_id, (view,), digest, embedding, head)

    def _indexed(
        self, material: QueryMaterial, product: Product, missing: list[LookalikeError] | None
    ) -> tuple[View, Float32, Head] | None:
        """The nearest view that the index has, if it is still the one that was searched."""
        again = missing is not None
        generation = self._generation(material.catalogue, now=again)
        searched = Generation(material.catalogue, material.generation, material.encoder)
        if generation != searched:
            return None
        index = self._live_index.get(generation, now=again)
        embeddings = _embeddings(index, product, missing)
        if len(embeddings) < len(product.views):
            # One is newer than the index in this process.
            index = self._live_index.get(generation, now=True)
            embeddings = _embeddings(index, product, missing)
        if not embeddings or index.head.digest != material.head:
            return None
        best = nearest([embedding for _, embedding in embeddings], material.embedding)
        return *embeddings[best], index.head

    def _candidates(self, material: QueryMaterial, product: Product) -> tuple[View, ...]:
        """Views that may be the nearest; of very many first the one that was found then."""
        views = sorted(product.views.values(), key=lambda view: view.key)
        if len(views) > MAX_VIEWS:
            searched = self._stores.log.get(material.query_id, material.created_at)
            results = searched.results if searched is not None else ()
            named = {name for product_id, name, _ in results if product_id == product.product_id}
            views.sort(key=lambda view: view.name not in named)
        return tuple(views[:MAX_VIEWS])


def nearest(embeddings: Sequence[Float32], query: Float32) -> int:
    """Which of several (dim,) embeddings is nearest to a query embedding; ties to the first."""
    return int(np.argmax([float(query @ embedding) for embedding in embeddings]))


def _embeddings(
    index: SearchIndex, product: Product, missing: list[LookalikeError] | None
) -> list[tuple[View, Float32]]:
    found = (
        (view, index.embedding(view.key, view.version, missing))
        for _, view in sorted(product.views.items())
    )
    return [(view, embedding) for view, embedding in found if embedding is not None]


def _digest(material: QueryMaterial, *result: str) -> str:
    """The pair's name; keys and ETags have no line breaks."""
    return content_digest("\n".join([str(FORMAT), fingerprint(material), *result]).encode())
