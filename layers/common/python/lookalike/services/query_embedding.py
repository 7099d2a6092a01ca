"""Turns the inputs of a search into one query embedding."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np

from lookalike.core.access import Caller
from lookalike.core.encoder import Encoder, preprocess
from lookalike.core.errors import InvalidRequest, LookalikeError, NotFound
from lookalike.core.images import Decoded, ImageLimits, crop, decode
from lookalike.core.material import (
    MAX_PARTS,
    Photo,
    QueryMaterial,
    QueryPart,
    normalized,
    scaled,
    sum_of,
)
from lookalike.core.ports import Stores
from lookalike.core.search_index import SearchIndex
from lookalike.core.segment import Float32
from lookalike.core.types import Generation, View
from lookalike.services.earlier_search import EarlierSearch, EarlierSearches
from lookalike.services.live_index import LiveIndex
from lookalike.services.query_material import MAX_PHOTO_BYTES
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


@dataclass(frozen=True, slots=True)
class Embedded:
    """A query: its embedding (dim,) float32, L2-normalised, and the index to search with it.

    ``parts`` add up to the embedding. ``photos`` are those that parts name; None when they are not
    to be kept, or too large or of too many parts to be. An earlier search that is in it expires at
    the epoch second ``expires_at``.
    """

    embedding: Float32
    index: SearchIndex
    parts: tuple[QueryPart, ...]
    photos: tuple[Photo, ...] | None
    expires_at: float = math.inf


class QueryEmbedder:
    """Embeds photos, looks up stored products and earlier searches, adds them up by weight.

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
    earlier
        Makes parts of earlier searches.
    """

    def __init__(
        self,
        stores: Stores,
        live_index: LiveIndex,
        encoder_of: Callable[[str], Encoder],
        limits: ImageLimits,
        earlier: EarlierSearches,
    ) -> None:
        self._stores = stores
        self._live_index = live_index
        self._encoder_of = encoder_of
        self._limits = limits
        self._earlier = earlier

    def embed(
        self,
        request: SearchRequest,
        generation: Generation,
        refreshed: Future[SearchIndex],
        watch: Stopwatch,
        missing: list[LookalikeError] | None = None,
    ) -> Embedded:
        """The query embedding with what it is made of, and the index whose head it went through.

        Photos are projected by the head and stored products have been; then they are one weighted
        sum, moved away from ``not_like`` (Rocchio). Inputs of weight 0 are not looked at.
        ``missing`` is as in `SearchIndex.search`.

        Raises
        ------
        InvalidRequest
            The inputs cancel each other out; an earlier search has no such part, or too many
            together with the rest.
        NotFound
            A product, an upload or an earlier search does not exist.
        Gone
            An earlier search has expired or cannot be read.
        Unindexable
            An image cannot be read.
        Retry, CorruptFile
            As `LiveIndex.get` and `SearchIndex.embedding`.
        """
        kept = _KeptPhotos(MAX_PHOTO_BYTES if request.explain else 0)
        inputs = {n: item for n, item in enumerate(request.inputs) if item.weight}
        earlier = self._found_again(inputs, generation, request.caller, watch)
        photos = self._encoded(inputs, generation, request.caller, kept, watch)
        named = {n: item.product_id for n, item in inputs.items() if item.product_id is not None}
        with watch.stage("product"):
            views = self._views(request.catalogue, {*named.values(), *request.not_like})
        if earlier:
            of_products = sum(len(views[id_]) for id_ in [*named.values(), *request.not_like])
            _check_parts(len(photos) + of_products, earlier.values())
        with watch.stage("index"):
            index = refreshed.result()
        with watch.stage("product"):
            index, stored = self._stored(views, generation, index, missing)
        units = {number: stored[product_id] for number, product_id in named.items()}
        for number, part in photos.items():
            (embedding,) = index.head.project(part.embedding[None])
            units[number] = [replace(part, embedding=embedding)]
        for number, search in earlier.items():
            with watch.stage("earlier"):
                units[number] = [
                    kept.taken_over(part, search.material)
                    for part in self._earlier.parts(search, index.head)
                ]
        unwanted = [stored[product_id] for product_id in request.not_like]
        parts = _combined(inputs, units, unwanted)
        held = kept.photos if len(parts) <= MAX_PARTS else None
        expires_at = min((item.material.expires_at for item in earlier.values()), default=math.inf)
        return Embedded(sum_of(parts), index, parts, held, expires_at)

    def _found_again(
        self,
        inputs: Mapping[int, QueryInput],
        generation: Generation,
        caller: Caller,
        watch: Stopwatch,
    ) -> dict[int, EarlierSearch]:
        found = {}
        for number, item in inputs.items():
            if item.query_id is not None:
                with watch.stage("earlier"):
                    found[number] = self._earlier.find(item, generation, caller)
        return found

    def _encoded(
        self,
        inputs: Mapping[int, QueryInput],
        generation: Generation,
        caller: Caller,
        kept: _KeptPhotos,
        watch: Stopwatch,
    ) -> dict[int, QueryPart]:
        """Parts of photos, whose embeddings are still raw: (dim_in,) float32, L2-normalised."""
        photos = {
            number: item
            for number, item in inputs.items()
            if item.product_id is None and item.query_id is None
        }
        if not photos:
            return {}
        pixels, described = [], []
        with watch.stage("decode"):
            encoder = self._encoder_of(generation.encoder)
            limits = self._limits.shared()
            for number, item in photos.items():
                body = self._body(item, caller)
                decoded = _decoded(body, item, limits, encoder)
                pixels.append(preprocess([decoded.image], encoder.record))
                photo = kept.add(Photo(body, item.crop))
                described.append((number, photo, decoded.width, decoded.height))
        with watch.stage("encode"):
            encoded = encoder.encode(np.concatenate(pixels))
        rows = zip(described, encoded.embeddings, encoded.maps, encoded.weights, strict=True)
        return {
            number: QueryPart(
                coefficient=1.0,
                embedding=embedding,
                input=number,
                photo=photo,
                maps=maps,
                weights=weights,
                width=width,
                height=height,
            )
            for (number, photo, width, height), embedding, maps, weights in rows
        }

    def _body(self, item: QueryInput, caller: Caller) -> bytes:
        if item.image is not None:
            return item.image
        key = upload_object_key(item.upload_key or "", caller)
        found = self._stores.index.get(key, self._limits.max_bytes)
        if found is None:
            raise NotFound(
                f"There is no upload “{item.upload_key}”; it may have expired.",
                parameter="upload_key",
            )
        return found[1]

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
    ) -> tuple[SearchIndex, dict[str, list[QueryPart]]]:
        """Each product's views as parts whose sum has length one, and the index that has them.

        That is a later index than the given one when that one does not know a view yet.
        """
        found = _embeddings(views, index, missing)
        if any(item is None for several in found.values() for item in several):
            index = self._live_index.get(generation, now=True)
            found = _embeddings(views, index, missing)
        parts = {}
        for product_id, several in found.items():
            known = [
                QueryPart(
                    coefficient=1.0,
                    embedding=embedding,
                    input=-1,
                    width=view.width,
                    height=view.height,
                    key=view.key,
                    etag=view.etag,
                )
                for view, embedding in zip(views[product_id], several, strict=True)
                if embedding is not None
            ]
            if not known:
                raise NotFound(
                    f"Product “{product_id}” is not in the index.", parameter="product_id"
                )
            parts[product_id] = normalized(known)
        return index, parts


def _check_parts(others: int, earlier: Collection[EarlierSearch]) -> None:
    # What an earlier search was made of is kept with every search that takes it over.
    parts = others + sum(len(search.shares) for search in earlier)
    if parts > MAX_PARTS:
        raise InvalidRequest(
            f"With an earlier search a query is made of at most {MAX_PARTS} images; this one is of "
            f"{parts}, counting each view of its products and all that the earlier one was made "
            "of. Name fewer inputs, or cells of fewer images.",
            parameter="query_id",
        )


def _decoded(body: bytes, item: QueryInput, limits: ImageLimits, encoder: Encoder) -> Decoded:
    # A crop may be a small part of the photo, so only a whole photo is decoded at reduced size.
    decoded = decode(body, limits, None if item.crop else encoder.min_side)
    return crop(decoded, item.crop) if item.crop else decoded


def _combined(
    inputs: Mapping[int, QueryInput],
    units: Mapping[int, Sequence[QueryPart]],
    unwanted: Sequence[Sequence[QueryPart]],
) -> tuple[QueryPart, ...]:
    """One query of its inputs' parts, each of which sum to length one, in the inputs' order."""
    total = sum(item.weight for item in inputs.values())
    parts = [
        # What an earlier search was not like stays what this one is not like.
        replace(part, input=number if part.coefficient > 0 else -1)
        for number, item in inputs.items()
        for part in scaled(units[number], item.weight / total)
    ]
    if unwanted:
        norm = float(np.linalg.norm(sum_of(parts))) or 1.0
        factor = -NOT_LIKE_WEIGHT * norm / len(unwanted)
        parts += [part for several in unwanted for part in scaled(several, factor)]
    return tuple(normalized(parts))


class _KeptPhotos:
    """Photos that are held until they are written: none at all once they have too many bytes."""

    def __init__(self, room_bytes: int) -> None:
        self.photos: tuple[Photo, ...] | None = ()
        self._room_bytes = room_bytes

    def add(self, photo: Photo) -> int:
        """The photo's number among those that are held."""
        self._room_bytes -= len(photo.body)
        if self.photos is None or self._room_bytes < 0:
            self.photos = None
            return 0
        self.photos += (photo,)
        return len(self.photos) - 1

    def taken_over(self, part: QueryPart, material: QueryMaterial) -> QueryPart:
        """An earlier search's part with the number that its photo has here."""
        if part.photo is None:
            return part
        return replace(part, photo=self.add(material.photos[part.photo]))


def _embeddings(
    views: Mapping[str, Sequence[View]], index: SearchIndex, missing: list[LookalikeError] | None
) -> dict[str, list[Float32 | None]]:
    return {
        product_id: [index.embedding(view.key, view.version, missing) for view in several]
        for product_id, several in views.items()
    }
