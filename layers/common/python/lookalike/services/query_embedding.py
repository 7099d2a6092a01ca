"""Turns the inputs of a search into one query embedding."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from lookalike.core.encoder import Encoder, preprocess
from lookalike.core.errors import InvalidRequest, NotFound
from lookalike.core.images import ImageLimits, crop, decode
from lookalike.core.index import ExactIndex
from lookalike.core.ports import Stores
from lookalike.core.segment import Float32
from lookalike.core.types import Generation
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
        refreshed: Future[ExactIndex],
        watch: Stopwatch,
    ) -> Float32:
        """(dim,) float32, L2-normalised.

        The weighted sum, moved away from ``not_like`` (Rocchio).
        """
        query = np.zeros(generation.dim, dtype=np.float32)
        total = sum(item.weight for item in request.inputs)
        pixels: list[Float32] = []
        weights: list[float] = []
        for item in request.inputs:
            if item.product_id is not None:
                with watch.stage("product"):
                    embedding = self._stored(
                        request.catalogue, item.product_id, generation, refreshed
                    )
                query += item.weight / total * embedding
            else:
                with watch.stage("decode"):
                    encoder = self._encoder_of(generation.encoder)
                    pixels.append(self._decoded(item, encoder))
                weights.append(item.weight / total)
        if pixels:
            with watch.stage("encode"):
                encoded = self._encoder_of(generation.encoder).encode(np.concatenate(pixels))
            query += np.asarray(weights, dtype=np.float32) @ encoded.embeddings
        if request.not_like:
            with watch.stage("product"):
                unwanted = [
                    self._stored(request.catalogue, product_id, generation, refreshed)
                    for product_id in request.not_like
                ]
            norm = float(np.linalg.norm(query)) or 1.0
            query -= NOT_LIKE_WEIGHT * norm * np.mean(unwanted, axis=0)
        norm = float(np.linalg.norm(query))
        if norm < 1e-6:
            raise InvalidRequest("The inputs cancel each other out: nothing is left to look for.")
        return np.asarray(query / norm, dtype=np.float32)

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

    def _stored(
        self, catalogue: str, product_id: str, generation: Generation, refreshed: Future[ExactIndex]
    ) -> Float32:
        """Mean of the embeddings of a product's live views, L2-normalised: (dim,) float32."""
        id_ = (catalogue, product_id)
        product = self._stores.products.get_many([id_]).get(id_)
        if product is None or not product.views:
            raise NotFound(f"There is no product “{product_id}”.", parameter="product_id")
        index, views = refreshed.result(), product.views.values()
        found = [index.embedding(view.key, view.version) for view in views]
        if any(embedding is None for embedding in found):
            index = self._live_index.get(generation, now=True)
            found = [index.embedding(view.key, view.version) for view in views]
        embeddings = [embedding for embedding in found if embedding is not None]
        if not embeddings:
            raise NotFound(f"Product “{product_id}” is not in the index.", parameter="product_id")
        mean = np.mean(embeddings, axis=0)
        return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), dtype=np.float32)
