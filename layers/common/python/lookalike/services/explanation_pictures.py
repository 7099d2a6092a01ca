"""Draws explanations on the photos that they are of, at the photos' own resolution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from lookalike.core.encoders import EncoderRecord, parse_space
from lookalike.core.errors import Retry, Unindexable
from lookalike.core.explanation import Side
from lookalike.core.geometry import seen_square
from lookalike.core.images import ImageLimits, crop, decode
from lookalike.core.material import Box, QueryMaterial
from lookalike.core.overlay import (
    HeatKind,
    PictureFormat,
    Square,
    encode_picture,
    render_overlay,
)
from lookalike.core.pair_picture import MAX_HEIGHT, MAX_WIDTH, render_pair
from lookalike.core.ports import ObjectStore
from lookalike.core.types import View
from lookalike.services.explanation_answer import Explained, main_part

PictureOf = Literal["query", "result", "pair"]

PICTURE_SIDES = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8000)
"""What the longer side of a picture may be asked to be; few, as each picture is kept."""
MAX_PICTURE_PIXELS = 24_000_000
"""Pixels of a photo that is drawn at its own resolution; larger ones are reduced."""


@dataclass(frozen=True, slots=True)
class PictureRequest:
    """Which picture: ``part`` is the image of the query, None for that with most of the score.

    ``max_side`` bounds the photo's longer side in pixels, the largest of `PICTURE_SIDES` by
    default. A ``pair`` has one size and one map.
    """

    of: PictureOf
    format: PictureFormat = "png"
    map: HeatKind = "gradcam"
    part: int | None = None
    max_side: int | None = None

    @property
    def longest(self) -> int:
        """``max_side``, rounded down to one of `PICTURE_SIDES`."""
        sides = PICTURE_SIDES
        return max(side for side in sides if side <= (self.max_side or sides[-1]))

    @property
    def name(self) -> str:
        """The name of this picture among those of its pair."""
        part = "main" if self.part is None or self.of == "result" else self.part
        shown = "" if self.of == "pair" else f"-{self.map}-{self.longest}"
        return f"{self.of}-{part}{shown}.{self.format}"


@dataclass(frozen=True, slots=True)
class _Base:
    """A photo, upright, and the (left, top, side) in its pixels that the network has seen."""

    image: Image.Image
    square: Square


class ExplanationPictures:
    """Draws pictures.

    Parameters
    ----------
    images
        The merchant's bucket.
    limits
        Bounds on a photo.
    """

    def __init__(self, images: ObjectStore, limits: ImageLimits) -> None:
        self._images = images
        self._limits = limits

    def draw(
        self,
        wanted: PictureRequest,
        material: QueryMaterial,
        view: View,
        explained: Explained,
    ) -> bytes:
        """The picture's file.

        Raises
        ------
        Retry
            A stored photo has been replaced or deleted, and the records do not say so yet.
        Unindexable
            A photo cannot be read here.
        """
        record, _ = parse_space(material.encoder)
        explanation = explained.explanation
        if wanted.of == "result":
            base = self._result(view, record, wanted)
            return _overlay(base, explanation.result, wanted)
        main = main_part(explanation)
        part = main if wanted.part is None else wanted.part
        base = self._query(material, part, record, wanted)
        if wanted.of == "query":
            return _overlay(base, explanation.query[part], wanted)
        result = self._result(view, record, wanted)
        trusts = [explained.result_trust, *([explained.query_trust] if part == main else [])]
        drawn = render_pair(
            base.image,
            base.square,
            result.image,
            result.square,
            explanation,
            part,
            doubtful=any(trust.better_than_chance is False for trust in trusts),
        )
        return encode_picture(drawn, wanted.format)

    def _query(
        self, material: QueryMaterial, number: int, record: EncoderRecord, wanted: PictureRequest
    ) -> _Base:
        part = material.parts[number]
        size = (part.width, part.height)
        if part.photo is None:
            return self._base(self._photo(part.key, part.etag), None, size, record, wanted)
        photo = material.photos[part.photo]
        return self._base(photo.body, photo.crop, size, record, wanted)

    def _result(self, view: View, record: EncoderRecord, wanted: PictureRequest) -> _Base:
        body = self._photo(view.key, view.etag)
        return self._base(body, None, (view.width, view.height), record, wanted)

    def _photo(self, key: str, etag: str) -> bytes:
        """The version of a photo that its record names."""
        try:
            found = self._images.get(key, self._limits.max_bytes)
        except Unindexable:
            found = None
        if found is None or found[0].etag != etag:
            raise Retry(f"The photo {key} has just been replaced or deleted.")
        return found[1]

    def _base(
        self,
        body: bytes,
        box: Box | None,
        size: tuple[int, int],
        record: EncoderRecord,
        wanted: PictureRequest,
    ) -> _Base:
        """Decode a photo, of which ``size`` is the upright whole's or the crop's."""
        if box is None:
            # No larger than it will be drawn, where the format allows that.
            min_side = max(1, math.floor(min(size) * _scale(size, wanted)))
            decoded = decode(body, self._limits, min_side)
        else:
            decoded = crop(decode(body, self._limits), box)
        image = decoded.image
        scale = _scale(image.size, wanted)
        if scale < 1:
            width, height = (max(1, math.floor(side * scale)) for side in image.size)
            image = image.resize((width, height), Image.Resampling.HAMMING, reducing_gap=2.0)
        return _Base(image, seen_square(*image.size, record))


def _overlay(base: _Base, side: Side, wanted: PictureRequest) -> bytes:
    heat = {
        "gradcam": side.gradcam,
        "contributions": side.contributions,
        "pulls": side.pulls,
    }[wanted.map]
    drawn = render_overlay(base.image, base.square, heat, kind=wanted.map)
    return encode_picture(drawn, wanted.format)


def _scale(size: tuple[int, int], wanted: PictureRequest) -> float:
    """What a photo of (width, height) is reduced by to be drawn; at most 1."""
    width, height = size
    if wanted.of == "pair":
        # Twice what it will have there, where it is reduced once more.
        return min(1.0, 2 * min(MAX_WIDTH / width, MAX_HEIGHT / height))
    return min(1.0, wanted.longest / max(size), math.sqrt(MAX_PICTURE_PIXELS / (width * height)))
