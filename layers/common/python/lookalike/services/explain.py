"""Explains matches: a search and a product → numbers that add up to the score, and pictures.

Everything is made of feature maps that were stored with the search and the photos, and kept in the
index bucket under the name of the pair that it is of.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from lookalike.core.access import ANYBODY, Caller
from lookalike.core.errors import (
    CorruptFile,
    Gone,
    InvalidRequest,
    Retry,
    Unavailable,
    Unindexable,
    Vanished,
)
from lookalike.core.explanation import Cells, explain
from lookalike.core.faithfulness import cell_trust
from lookalike.core.head import Head
from lookalike.core.material import QueryMaterial
from lookalike.core.pooling import pool
from lookalike.core.ports import Clock, ObjectStore
from lookalike.core.segment import Float32
from lookalike.core.types import View
from lookalike.services.explained_pair import Pair, PairFinder, nearest
from lookalike.services.explanation_answer import (
    Explained,
    ExplanationAnswer,
    answer_of,
    main_part,
)
from lookalike.services.explanation_pictures import ExplanationPictures, PictureRequest
from lookalike.services.feature_maps import FeatureMaps, pooling_weights
from lookalike.services.segments import read_head

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 4_400_000
"""Largest picture that goes in an answer: a Lambda gives 6 MB, in base64."""
_MAX_EXPLAINED_BYTES = 64 * 2**20
_EXPLAINED = "explanation.json"
_SEED = 0


@dataclass(frozen=True, slots=True)
class Answered:
    """An explanation; ``hit`` when nothing had to be computed."""

    answer: ExplanationAnswer
    hit: bool


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture's file, or (``body`` is None) the URL of one that is too large for an answer."""

    media_type: str
    hit: bool
    body: bytes | None = None
    url: str = ""


class Explanations:
    """The use case behind ``GET /explanations/…``.

    Parameters
    ----------
    store
        The index bucket.
    pairs
        Finds the search and the product.
    feature_maps
        Feature maps of stored products.
    pictures
        Draws on photos.
    url_expires_s
        Seconds for which the URL of a large picture opens, unless the search expires sooner.
    clock
        Epoch seconds.
    """

    def __init__(
        self,
        store: ObjectStore,
        pairs: PairFinder,
        feature_maps: FeatureMaps,
        pictures: ExplanationPictures,
        url_expires_s: int,
        clock: Clock,
    ) -> None:
        self._store = store
        self._pairs = pairs
        self._feature_maps = feature_maps
        self._pictures = pictures
        self._url_expires_s = url_expires_s
        self._clock = clock

    def explanation(
        self, query_id: str, product_id: str, base_url: str = "", caller: Caller = ANYBODY
    ) -> Answered:
        """Explain why a product matches a search; URLs in the answer begin with ``base_url``.

        Raises
        ------
        NotFound
            There was no such search that the caller may know of, no such product, or nothing is
            kept of the search.
        Gone
            The search has expired, the product was deleted, or what was searched with has left:
            the index, the encoder, a stored photo.
        Retry
            A store or the encoder cannot be reached, or the product's photo was replaced just now.
        """
        pair = self._pairs.find(query_id, product_id, caller)
        explained, hit = self._explained(pair)
        view = _view(pair, explained)
        return Answered(answer_of(explained, pair.material, pair.product_id, view, base_url), hit)

    def picture(
        self, query_id: str, product_id: str, wanted: PictureRequest, caller: Caller = ANYBODY
    ) -> Picture:
        """Draw an explanation on its photos.

        Raises
        ------
        NotFound, Gone, Retry
            As `explanation`.
        InvalidRequest
            The query has no such part.
        Unindexable
            A photo cannot be read here.
        """
        pair = self._pairs.find(query_id, product_id, caller)
        parts = len(pair.material.parts)
        _check_part(wanted.part, parts)
        if parts == 1:
            wanted = replace(wanted, part=None)  # one name for one picture
        if wanted.of != "result":
            self._check_photo(pair, wanted.part)
        name = pair.object_key(wanted.name)
        media_type = f"image/{wanted.format}"
        try:
            found = self._store.get(name, MAX_BODY_BYTES)
        except Unindexable:
            return self._large(pair, name, media_type, hit=True)
        if found is not None:
            return Picture(media_type, True, found[1])
        explained, _ = self._explained(pair)
        view = _view(pair, explained)
        body = self._pictures.draw(wanted, pair.material, view, explained)
        kept = self._keep(name, body, media_type)
        if len(body) <= MAX_BODY_BYTES:
            return Picture(media_type, False, body)
        if kept is not None:
            raise kept
        return self._large(pair, name, media_type, hit=False)

    def _check_photo(self, pair: Pair, part: int | None) -> None:
        """Refuse to show a photo that was searched with and has left, drawn already or not."""
        if not pair.left:
            return
        if part is None and len(pair.material.parts) > 1:
            part = main_part(self._explained(pair)[0].explanation)
        part = part or 0
        if part in pair.left:
            raise Gone(
                f"The photo “{pair.material.parts[part].key}” that was searched with has been "
                "replaced or deleted.",
                parameter="query_id",
            )

    def _large(self, pair: Pair, name: str, media_type: str, *, hit: bool) -> Picture:
        left_s = max(1, int(pair.material.expires_at - self._clock()))
        url = self._store.url(name, min(self._url_expires_s, left_s))
        return Picture(media_type, hit, url=url)

    def _explained(self, pair: Pair) -> tuple[Explained, bool]:
        """What is kept of a pair, or else computed and kept; and which of these."""
        name = pair.object_key(_EXPLAINED)
        found = self._store.get(name, _MAX_EXPLAINED_BYTES)
        if found is not None:
            try:
                return msgspec.json.decode(found[1], type=Explained, dec_hook=_array), True
            except msgspec.DecodeError as error:
                logger.error("%s is not what was written: %s", name, error)
        explained = self._computed(pair)
        body = msgspec.json.encode(explained, enc_hook=np.ndarray.tolist)
        self._keep(name, body, "application/json")
        return explained, False

    def _keep(self, name: str, body: bytes, media_type: str) -> Retry | None:
        """Write to the cache; what fails there fails no answer that does without."""
        try:
            self._store.put(name, body, media_type)
        except Retry as error:
            logger.error("%s is not kept: %s", name, error)
            return error
        return None

    def _computed(self, pair: Pair) -> Explained:
        material = pair.material
        space = material.encoder
        try:
            stored = iter(self._maps_of_parts(material))
            of_views = self._maps_of_views(pair)
        except Unavailable as error:
            if self._pairs.in_use(material):
                raise
            raise Gone(
                f"The search was made with the encoder {space}, which its catalogue has no more. "
                "Search again.",
                parameter="query_id",
            ) from error
        parts = [
            _cells(
                next(stored) if part.maps is None else part.maps,
                part.weights,
                space,
                part.embedding,
                part.coefficient,
            )
            for part in material.parts
        ]
        view, result, head = self._result(pair, of_views)
        explanation = explain(parts, result, head)
        assert result.embedding is not None
        main = main_part(explanation)
        heat = (explanation.query[main].gradcam, explanation.result.gradcam)
        return Explained(
            view.key,
            explanation,
            cell_trust(parts[main], result.embedding, head, heat[0], _SEED),
            cell_trust(result, material.embedding, head, heat[1], _SEED),
        )

    def _maps_of_parts(self, material: QueryMaterial) -> list[Float32]:
        """The feature maps of the stored photos that were searched with."""
        wanted = [(part.key, part.etag) for part in material.parts if part.photo is None]
        try:
            return self._feature_maps.read_many(material.encoder, wanted)
        except Gone as error:
            raise Gone(error.detail, parameter="query_id") from error

    def _maps_of_views(self, pair: Pair) -> list[Float32]:
        """The feature maps of the views that may be the nearest."""
        wanted = [(view.key, view.etag) for view in pair.views]
        try:
            return self._feature_maps.read_many(pair.material.encoder, wanted)
        except Gone as error:
            raise Retry(f"{error.detail} Its record does not say so yet.") from error

    def _result(self, pair: Pair, maps: Sequence[Float32]) -> tuple[View, Cells, Head]:
        """The view that is nearest to the query, its cells, and the head of both."""
        space = pair.material.encoder
        if pair.embedding is not None and pair.head is not None:
            return pair.views[0], _cells(maps[0], None, space, pair.embedding), pair.head
        head = self._head(pair.material, dim=len(maps[0]))
        cells = [_cells(item, None, space) for item in maps]
        raw = np.concatenate([pool(item.maps[None], item.weights[None]) for item in cells])
        embeddings = list(head.project(raw))
        best = nearest(embeddings, pair.material.embedding)
        result = _cells(maps[best], cells[best].weights, space, embeddings[best])
        return pair.views[best], result, head

    def _head(self, material: QueryMaterial, dim: int) -> Head:
        if not material.head:
            return Head.identity(dim)
        try:
            return read_head(self._store, material.catalogue, material.head)
        except (Vanished, CorruptFile) as error:
            raise Gone(
                "The index that was searched has been replaced and deleted. Search again.",
                parameter="query_id",
            ) from error


def _cells(
    maps: Float32,
    weights: Float32 | None,
    space: str,
    embedding: Float32 | None = None,
    coefficient: float = 1.0,
) -> Cells:
    """An image's cells, with the pooling's weights when there are no others."""
    if weights is None:
        weights = pooling_weights(space, maps)
    return Cells(maps, weights, embedding, coefficient)


def _view(pair: Pair, explained: Explained) -> View:
    return next(view for view in pair.views if view.key == explained.key)


def _check_part(part: int | None, parts: int) -> None:
    if part is not None and part >= parts:
        raise InvalidRequest(
            f"part is {part}; the query's images are 0 to {parts - 1}.", parameter="part"
        )


def _array(kind: type, value: object) -> Any:
    return np.asarray(value)
