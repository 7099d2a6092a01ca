"""Explains matches: a search and a product → numbers that add up to the score, and pictures.

Everything is made of feature maps that were stored with the search and the photos, and kept in the
index bucket under the name of the pair that it is of.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from lookalike.core.encoders import parse_space
from lookalike.core.errors import CorruptFile, Gone, InvalidRequest, Retry, Unindexable, Vanished
from lookalike.core.explanation import Cells, explain
from lookalike.core.faithfulness import cell_trust
from lookalike.core.head import Head
from lookalike.core.keys import explanation_key
from lookalike.core.material import QueryMaterial
from lookalike.core.pooling import POOLINGS, pool
from lookalike.core.ports import ObjectStore
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
from lookalike.services.feature_maps import FeatureMaps, stored_map
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
    pool
        Reads feature maps side by side.
    url_expires_s
        Seconds for which the URL of a large picture opens.
    """

    def __init__(
        self,
        store: ObjectStore,
        pairs: PairFinder,
        feature_maps: FeatureMaps,
        pictures: ExplanationPictures,
        pool: Executor,
        url_expires_s: int,
    ) -> None:
        self._store = store
        self._pairs = pairs
        self._feature_maps = feature_maps
        self._pictures = pictures
        self._pool = pool
        self._url_expires_s = url_expires_s

    def explanation(self, query_id: str, product_id: str, base_url: str = "") -> Answered:
        """Explain why a product matches a search; URLs in the answer begin with ``base_url``.

        Raises
        ------
        NotFound
            There was no such search or product, or nothing is kept of the search.
        Gone
            The search has expired, the product was deleted, or a photo was replaced just now.
        InvalidRequest
            The search was made of too many images.
        Retry
            A store or the encoder cannot be reached.
        """
        pair = self._pairs.find(query_id, product_id)
        explained, hit = self._explained(pair)
        view = _view(pair, explained)
        return Answered(answer_of(explained, pair.material, pair.product_id, view, base_url), hit)

    def picture(self, query_id: str, product_id: str, wanted: PictureRequest) -> Picture:
        """Draw an explanation on its photos.

        Raises
        ------
        NotFound, Gone, InvalidRequest, Retry
            As `explanation`; also for a part that the query has not.
        Unindexable
            A photo cannot be read here.
        """
        pair = self._pairs.find(query_id, product_id)
        _check_part(wanted.part, len(pair.material.parts))
        name = explanation_key(pair.digest, wanted.name)
        media_type = f"image/{wanted.format}"
        try:
            found = self._store.get(name, MAX_BODY_BYTES)
        except Unindexable:
            return self._large(name, media_type, hit=True)
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
        return self._large(name, media_type, hit=False)

    def _large(self, name: str, media_type: str, *, hit: bool) -> Picture:
        return Picture(media_type, hit, url=self._store.url(name, self._url_expires_s))

    def _explained(self, pair: Pair) -> tuple[Explained, bool]:
        """What is kept of a pair, or else computed and kept; and which of these."""
        name = explanation_key(pair.digest, _EXPLAINED)
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
        wanted = [(part.key, part.etag) for part in material.parts if part.photo is None]
        wanted += [(view.key, view.etag) for view in pair.views]
        maps = self._maps(space, wanted)
        of_views = maps[-len(pair.views) :]
        stored = iter(maps)
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

    def _maps(self, space: str, wanted: Sequence[tuple[str, str]]) -> list[Float32]:
        """The feature map of each (key, ETag)."""
        stored = self._pool.map(lambda item: stored_map(self._store, space, *item), wanted)
        # What is missing is made of photos one after another, to hold one image at a time.
        return [
            self._feature_maps.read(space, *item) if maps is None else maps
            for item, maps in zip(wanted, list(stored), strict=True)
        ]

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
        _, pooling = parse_space(space)
        weights = POOLINGS[pooling](maps[None])[0]
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
