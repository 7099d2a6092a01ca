"""What a search was made with, kept so that its results can be explained and parts of it searched.

A query embedding is q = Σ_p c_p·e_p over its parts: the photos, the views of stored products, the
views of products that it is not like. Owns the file (magic ``LKQM``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Photo:
    """An image as it was sent; ``crop`` is the part that was searched, as that was given."""

    body: bytes
    crop: Box | None = None


@dataclass(frozen=True, slots=True)
class QueryPart:
    """One image's share of a query.

    ``coefficient`` is c_p, below 0 for what the query is not like. ``embedding`` is e_p, (dim,)
    float32, L2-normalised, as the search used it. ``input`` numbers the input of the request that
    it came with: images, products, uploads, then the earlier search; -1 for ``not_like``.

    A photo has ``photo`` (its number in `QueryMaterial.photos`), ``maps`` (C, h, w) and ``weights``
    (h, w) that sum to 1; ``width`` and ``height`` are those of the upright image, or of its crop,
    in pixels. A view of a stored product has ``key``, ``etag`` and, when only a part of it was
    searched, ``weights``; its map is stored with the view.
    """

    coefficient: float
    embedding: Float32
    input: int
    photo: int | None = None
    maps: Float32 | None = None
    weights: Float32 | None = None
    width: int = 0
    height: int = 0
    key: str = ""
    etag: str = ""


@dataclass(frozen=True, slots=True)
class QueryMaterial:
    """One search. ``head`` is the digest of its head's file; times are epoch seconds."""

    query_id: str
    catalogue: str
    generation: str
    encoder: str
    head: str
    created_at: float
    expires_at: float
    parts: tuple[QueryPart, ...]
    photos: tuple[Photo, ...] = ()

    @property
    def embedding(self) -> Float32:
        """The query embedding that was searched with: (dim,) float32, L2-normalised."""
        parts = np.stack([part.embedding for part in self.parts])
        coefficients = np.asarray([part.coefficient for part in self.parts], dtype=np.float32)
        return np.asarray(coefficients @ parts, dtype=np.float32)
