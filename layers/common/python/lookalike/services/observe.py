"""Looks at bucket objects and says what they are now. Writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field

from lookalike.core.attributes import from_document, from_user_metadata
from lookalike.core.encoder import Encoder, preprocess
from lookalike.core.errors import Retry, Unindexable
from lookalike.core.images import ImageLimits, decode, thumbnail_webp
from lookalike.core.keys import ObjectKey, parse_key, thumbnail_key
from lookalike.core.ports import ObjectStore
from lookalike.core.reconcile import (
    Gone,
    NewDocument,
    NewView,
    Observation,
    Postponed,
    Refused,
    Touched,
    Unchanged,
)
from lookalike.core.segment import Float32
from lookalike.core.types import Document, ObjectInfo, View


@dataclass(frozen=True, slots=True)
class Seen:
    """One object as it was seen.

    A `NewView` brings its thumbnail and, by embedding space, its pixels (1, 3, S, S).
    """

    observation: Observation
    pixels: Mapping[str, Float32] = field(default_factory=dict)
    thumbnail: bytes = b""


@dataclass(frozen=True, slots=True)
class _Fetched:
    info: ObjectInfo
    body: bytes


class Observer:
    """Reads objects side by side and decodes them one after another, to hold one image at a time.

    Parameters
    ----------
    images
        The bucket that photos are uploaded to.
    limits
        Bounds on an image, checked before it is read or decoded.
    document_bytes
        Largest ``product.json``.
    """

    def __init__(self, images: ObjectStore, limits: ImageLimits, document_bytes: int) -> None:
        self._images = images
        self._limits = limits
        self._document_bytes = document_bytes

    def parse(self, keys: Sequence[str]) -> dict[str, ObjectKey]:
        """The keys among these that name an image or a product document."""
        parsed = ((key, _parsed(key)) for key in keys)
        return {key: item for key, item in parsed if isinstance(item, ObjectKey)}

    def observe(
        self,
        keys: Sequence[str],
        views: Mapping[str, View],
        documents: Mapping[str, Document | None],
        encoders_of: Callable[[str], Sequence[Encoder]],
        pool: Executor,
    ) -> dict[str, Seen]:
        """Look at each key.

        Parameters
        ----------
        keys
            Object keys.
        views
            What the records say of those that are live; they are read only if they differ.
        documents
            What the records say of product documents, for the keys that are documents.
        encoders_of
            Gives the encoders to prepare an image of a key for; asked only when there is one.
        pool
            Runs the reads.
        """

        def read(key: str) -> Observation | _Fetched:
            item = _parsed(key)
            try:
                if isinstance(item, Unindexable):
                    return self._refuse(key, item)
                if item.is_document:
                    return self._document(key, documents[key])
                return self._image(key, views.get(key))
            except Retry as error:
                # One object that cannot be read must not take its neighbours along.
                return Postponed(error)

        seen: dict[str, Seen] = {}
        for key, found in zip(keys, pool.map(read, keys), strict=True):
            if isinstance(found, _Fetched):
                seen[key] = self._decoded(key, found, encoders_of(key))
            else:
                seen[key] = Seen(found)
        return seen

    def _image(self, key: str, view: View | None) -> Observation | _Fetched:
        if view is not None:
            info = self._images.head(key)
            if info is None:
                return Gone()
            if info.etag == view.etag:
                attributes = from_user_metadata(info.metadata)
                # Two writes may share a second, which is all that S3 tells.
                if (info.last_modified, attributes) == (view.last_modified, view.attributes):
                    return Unchanged()
                return Touched(info.etag, info.last_modified, attributes)
        try:
            found = self._images.get(key, self._limits.max_bytes)
        except Unindexable as error:
            return self._refuse(key, error)
        return _Fetched(*found) if found else Gone()

    def _document(self, key: str, known: Document | None) -> Observation:
        try:
            found = self._images.get(key, self._document_bytes)
        except Unindexable as error:
            return self._refuse(key, error)
        if found is None:
            return Gone()
        info, body = found
        if known is not None and known.etag == info.etag:
            return Unchanged()
        try:
            return NewDocument(info.etag, info.last_modified, from_document(body))
        except Unindexable as error:
            return Refused(info.etag, info.last_modified, error.reason, error.detail)

    def _refuse(self, key: str, error: Unindexable) -> Observation:
        info = self._images.head(key)
        if info is None:
            return Gone()
        return Refused(info.etag, info.last_modified, error.reason, error.detail)

    def _decoded(self, key: str, fetched: _Fetched, encoders: Sequence[Encoder]) -> Seen:
        info = fetched.info
        min_side = max(encoder.min_side for encoder in encoders)
        try:
            decoded = decode(fetched.body, self._limits, min_side=min_side)
        except Unindexable as error:
            return Seen(Refused(info.etag, info.last_modified, error.reason, error.detail))
        observation = NewView(
            info.etag,
            info.last_modified,
            from_user_metadata(info.metadata),
            decoded.width,
            decoded.height,
            thumbnail_key(key, info.etag, info.last_modified),
        )
        pixels = {
            encoder.space: preprocess([decoded.image], encoder.record) for encoder in encoders
        }
        return Seen(observation, pixels, thumbnail_webp(decoded))


def _parsed(key: str) -> ObjectKey | Unindexable:
    try:
        return parse_key(key)
    except Unindexable as error:
        return error
