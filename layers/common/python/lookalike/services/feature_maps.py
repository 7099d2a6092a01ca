"""The feature maps of views: as ingestion has stored them, else made of their photos once more."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import numpy as np

from lookalike.core.encoder import Encoder
from lookalike.core.encoders import parse_space
from lookalike.core.errors import CorruptFile, Gone, Unindexable
from lookalike.core.feature_map import Float32, decode_map, encode_map
from lookalike.core.images import ImageLimits, decode
from lookalike.core.keys import map_key
from lookalike.core.pooling import POOLINGS, pool
from lookalike.core.ports import ObjectStore

logger = logging.getLogger(__name__)

MAX_MAP_BYTES = 4 * 2**20
MAP_TYPE = "application/octet-stream"


class FeatureMaps:
    """Gives the map of any version of a photo that the bucket holds, and keeps what was missing.

    Parameters
    ----------
    images
        The bucket that photos are uploaded to.
    index
        The bucket that has the maps.
    encoder_of
        Gives the encoder of an embedding space id.
    limits
        Bounds on an image.
    pool
        Reads several maps side by side.
    """

    def __init__(
        self,
        images: ObjectStore,
        index: ObjectStore,
        encoder_of: Callable[[str], Encoder],
        limits: ImageLimits,
        pool: Executor,
    ) -> None:
        self._images = images
        self._index = index
        self._encoder_of = encoder_of
        self._limits = limits
        self._pool = pool

    def read_many(self, space: str, wanted: Sequence[tuple[str, str]]) -> list[Float32]:
        """The (C, h, w) float32 feature maps of photos in an embedding space, in their order.

        Parameters
        ----------
        space
            Id of the embedding space.
        wanted
            (key, ETag) of each photo; one that is named twice is read once.

        Raises
        ------
        Gone
            A map is not stored, and the bucket holds no photo of that ETag under that key.
        """
        photos = list(dict.fromkeys(wanted))
        stored = self._pool.map(lambda photo: stored_map(self._index, space, *photo), photos)
        # What is missing is made of photos one after another, to hold one image at a time.
        maps = {
            photo: self._made(space, *photo) if found is None else found
            for photo, found in zip(photos, list(stored), strict=True)
        }
        return [maps[photo] for photo in wanted]

    def _made(self, space: str, key: str, etag: str) -> Float32:
        name, body = map_key(space, key, etag), encode_map(self._encode(space, key, etag))
        self._index.put(name, body, MAP_TYPE)
        return decode_map(body, name)  # as everybody after this will read it

    def _encode(self, space: str, key: str, etag: str) -> Float32:
        try:
            found = self._images.get(key, self._limits.max_bytes)
            if found is None or found[0].etag != etag:
                raise Gone(f"The photo “{key}” has been deleted or overwritten.")
            encoder = self._encoder_of(space)
            image = decode(found[1], self._limits, min_side=encoder.min_side).image
        except Unindexable as error:
            raise Gone(f"The photo “{key}” is no longer read: {error}") from error
        encoded: Float32 = encoder.embed([image]).maps[0]
        return encoded


def stored_map(index: ObjectStore, space: str, key: str, etag: str) -> Float32 | None:
    """The (C, h, w) float32 map of a photo, unless it is not stored or cannot be read."""
    name = map_key(space, key, etag)
    try:
        found = index.get(name, MAX_MAP_BYTES)
        return decode_map(found[1], name) if found else None
    except (CorruptFile, Unindexable):
        logger.exception("the photo %s has to be encoded again", key)
        return None


def pooling_weights(space: str, maps: Float32) -> Float32:
    """(h, w) float32, summing to 1: how an embedding space weighs the cells of a (C, h, w) map."""
    _, pooling = parse_space(space)
    weights: Float32 = POOLINGS[pooling](maps[np.newaxis])[0]
    return weights


def stored_embedding(index: ObjectStore, space: str, key: str, etag: str) -> Float32 | None:
    """The (dim,) raw embedding of a photo, L2-normalised, of its stored map if there is one."""
    maps = stored_map(index, space, key, etag)
    if maps is None:
        return None
    embedding: Float32 = pool(maps[np.newaxis], pooling_weights(space, maps)[np.newaxis])[0]
    return embedding
