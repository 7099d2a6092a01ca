"""Turns the inputs of a search into one query embedding."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from lookalike.core.encoder import Encoder, preprocess
from lookalike.core.errors import InvalidRequest, LookalikeError, NotFound
from lookalike.core.images import ImageLimits, crop, decode
from lookalike.core.ports import Stores
from lookalike.core.search_index import SearchIndex
from lookalike.core.segment import Float32
from lookalike.core.types import Generation, View
from lookalike.services.live_index import LiveIndex
from lookalike.services.search_request import QueryInput, SearchRequest
from lookalike.services.uploads import upload_object_key

# Rocchio's γ: how far a query moves away from the mean of what it is not like.
NOT_LIKE_WEIGHT = 0.5


@dataclass(slots=True)
class Stopwatch:
    """Milliseconds by stage; a stage that is entered again adds up."""

    took_ms: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            elapsed = (time.perf_counter() - start) * 1000
            self.took_ms[name] = round(self.took_ms.get(name, 0.0) + elapsed, 3)


class QueryEmbedder:
    """Embeds photos, looks up stored products, and adds them up by weight.

    Parameters
    ----------
    stores
        Where products and uploads are read.
    live_index
        The index in memory, which has the embeddings of stored products.
    encoder_of
        Gives the encoder of an embedding space id.
    limits
        Bounds on a query image.
    """

    def __init__(
        self,
        stores: Stores,
        live_index: LiveIndex,
        encoder_of: Callable[[str], Encoder],
        limits: ImageLimits,
    ) -> None:
        self._stores = stores
        self._live_index = live_index
        self._encoder_of = encoder_of
        self._limits = limits

    def embed(
        self,
        request: SearchRequest,
        generation: Generation,
        refreshed: Future[SearchIndex],
        watch: Stopwatch,
        missing: list[LookalikeError] | None = None,
    ) -> tuple[Float32, SearchIndex]:
        """The query embedding, and the index whose head it went through.

        Photos are projected by the head and stored products have been; then they are one weighted
        sum, moved away from ``not_like`` (Rocchio). ``missing`` is as in `SearchIndex.search`.

        Returns
        -------
        query
            (dim,) float32, L2-normalised.
        index
            To be searched.

        Raises
        ------
        InvalidRequest
            The inputs cancel each other out.
        NotFound
            A product or an upload does not exist.
        Unindexable
            An image cannot be read.
        Retry, CorruptFile
            As `LiveIndex.get` and `SearchIndex.embedding`.
        """
        photos = [item for item in request.inputs if item.product_id is None]
        named = [item for item in request.inputs if item.product_id is not None]
        raw = self._encoded(photos, generation, watch) if photos else None
        ids = [item.product_id or "" for item in named]
        with watch.stage("product"):
            views = self._views(request.catalogue, {*ids, *request.not_like})
        with watch.stage("index"):
            index = refreshed.result()
        with watch.stage("product"):
            index, stored = self._stored(views, generation, index, missing)
        embeddings = [stored[product_id] for product_id in ids]
        if raw is not None:
            embeddings += list(index.head.project(raw))
        weights = np.asarray([item.weight for item in (*named, *photos)], dtype=np.float32)
        query = weights / weights.sum() @ np.stack(embeddings)
        if request.not_like:
            unwanted = np.mean([stored[product_id] for product_id in request.not_like], axis=0)
            query -= NOT_LIKE_WEIGHT * (float(np.linalg.norm(query)) or 1.0) * unwanted
        norm = float(np.linalg.norm(query))
        if norm < 1e-6:
            raise InvalidRequest("The inputs cancel each other out: nothing is left to look for.")
        return np.asarray(query / norm, dtype=np.float32), index

    def _encoded(
        self, photos: Sequence[QueryInput], generation: Generation, watch: Stopwatch
    ) -> Float32:
        """Raw embeddings of photos: (photos, dim) float32, L2-normalised."""
        with watch.stage("decode"):
            encoder = self._encoder_of(generation.encoder)
            pixels = np.concatenate([self._decoded(item, encoder) for item in photos])
        with watch.stage("encode"):
            return encoder.encode(pixels).embeddings

    def _decoded(self, item: QueryInput, encoder: Encoder) -> Float32:
        body = item.image
        if body is None:
            found = self._stores.index.get(
                upload_object_key(item.upload_key or ""), self._limits.max_bytes
            )
            if found is None:
                raise NotFound(
                    f"There is no upload “{item.upload_key}”; it may have expired.",
                    parameter="upload_key",
                )
            body = found[1]
        # A crop may be a small part of the photo, so only a whole photo is decoded at reduced size.
        decoded = decode(body, self._limits, None if item.crop else encoder.min_side)
        if item.crop:
            decoded = crop(decoded, item.crop)
        return preprocess([decoded.image], encoder.record)

    def _views(self, catalogue: str, product_ids: Collection[str]) -> dict[str, list[View]]:
        """Live views of products; raises `NotFound` naming the first that has none."""
        if not product_ids:
            return {}
        found = self._stores.products.get_many((catalogue, item) for item in product_ids)
        views = {
            product_id: list(product.views.values()) for (_, product_id), product in found.items()
        }
        for product_id in product_ids:
            if not views.get(product_id):
                raise NotFound(f"There is no product “{product_id}”.", parameter="product_id")
        return views

    def _stored(
        self,
        views: Mapping[str, Sequence[View]],
        generation: Generation,
        index: SearchIndex,
        missing: list[LookalikeError] | None,
    ) -> tuple[SearchIndex, dict[str, Float32]]:
        """Each product's mean embedding, (dim,) float32, L2-normalised, and the index that has it.

        That is a later index than the given one when that one does not know a view yet.
        """
        found = _embeddings(views, index, missing)
        if any(item is None for several in found.values() for item in several):
            index = self._live_index.get(generation, now=True)
            found = _embeddings(views, index, missing)
        means = {}
        for product_id, several in found.items():
            known = [embedding for embedding in several if embedding is not None]
            if not known:
                raise NotFound(
                    f"Product “{product_id}” is not in the index.", parameter="product_id"
                )
            mean = np.mean(known, axis=0)
            means[product_id] = np.asarray(
                mean / max(float(np.linalg.norm(mean)), 1e-12), np.float32
            )
        return index, means


def _embeddings(
    views: Mapping[str, Sequence[View]], index: SearchIndex, missing: list[LookalikeError] | None
) -> dict[str, list[Float32 | None]]:
    return {
        product_id: [index.embedding(view.key, view.version, missing) for view in several]
        for product_id, several in views.items()
    }
