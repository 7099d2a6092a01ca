"""Facts of photos, out of their thumbnails: what is known already, and what has to be looked at."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor

import numpy as np
from PIL import Image

from lookalike.core.base_layout import key_hash
from lookalike.core.errors import CorruptFile, Unindexable
from lookalike.core.health import Int64, Mask, UInt64
from lookalike.core.health_file import THUMBNAIL_BYTES, PartRows, decode_facts
from lookalike.core.image_quality import FACTS, Facts, photo_facts
from lookalike.core.images import ImageLimits, decode
from lookalike.core.jobs import Artifact
from lookalike.core.ports import ObjectStore, Stores
from lookalike.core.segment import quantize
from lookalike.core.shown import product_hash
from lookalike.core.types import View
from lookalike.services.live_embeddings import Block

logger = logging.getLogger(__name__)

PHOTOS_AT_ONCE = 512
MAX_FACTS_BYTES = 2**31
MAX_THUMBNAIL_BYTES = 2**20
# Thumbnails are ours and have 256 × 256 pixels at most; of a WebP half as many are let through.
_LIMITS = ImageLimits(MAX_THUMBNAIL_BYTES, 2 * 256 * 256)
_CATEGORY = "category"


def photo_number(thumbnail: str) -> int:
    """What names an upload of a photo among facts: a hash of its thumbnail's key."""
    return key_hash(thumbnail, "")


def read_thumbnail(index: ObjectStore, key: str) -> Image.Image | None:
    """A thumbnail, RGB; None when there is none that can be read."""
    try:
        found = index.get(key, MAX_THUMBNAIL_BYTES)
        return decode(found[1], _LIMITS).image if found else None
    except Unindexable as error:
        logger.warning("the thumbnail %s cannot be read: %s", key, error)
        return None


class PhotoFacts:
    """Gives the facts of photos, looking at those only that are not known.

    Parameters
    ----------
    stores
        Where to read.
    pool
        Reads and decodes thumbnails side by side.
    known
        The artifact of the facts that are known.
    """

    def __init__(self, stores: Stores, pool: Executor, known: Artifact | None) -> None:
        self._index = stores.index
        self._pool = pool
        self._known = _read(stores.index, known)
        self._found: dict[int, Facts | None] = {}

    @property
    def found(self) -> Facts:
        """(n,) of `FACTS` that were looked at since `forget`."""
        rows = [row for row in self._found.values() if row is not None]
        return np.asarray(rows, FACTS) if rows else np.empty(0, FACTS)

    def remember(self, facts: Facts) -> None:
        """Take what `found` gave before."""
        self._found |= {int(row["photo"]): row for row in facts}

    def forget(self) -> None:
        """Let go of what was looked at."""
        self._found = {}

    def look_at(self, thumbnails: Sequence[str], may_go_on: Callable[[], bool]) -> bool:
        """Look at those that are not known, some at a time; False when it may not go on."""
        numbers = self._numbers(thumbnails)
        _, is_known = self._places(numbers)
        missing = [
            row
            for row in np.flatnonzero(~is_known).tolist()
            if int(numbers[row]) not in self._found
        ]
        for start in range(0, len(missing), PHOTOS_AT_ONCE):
            if start and not may_go_on():
                return False
            some = missing[start : start + PHOTOS_AT_ONCE]
            looked_at = self._pool.map(self._look, [thumbnails[row] for row in some])
            self._found |= zip(numbers[some].tolist(), looked_at, strict=True)
        return True

    def of(self, thumbnails: Sequence[str]) -> Facts:
        """(n,) of `FACTS`; an aspect of 0 says that there is no such thumbnail."""
        self.look_at(thumbnails, lambda: True)
        numbers = self._numbers(thumbnails)
        places, is_known = self._places(numbers)
        facts = np.zeros(len(thumbnails), FACTS)
        facts["photo"] = numbers
        facts[is_known] = self._known[places[is_known]]
        for row in np.flatnonzero(~is_known).tolist():
            found = self._found[int(numbers[row])]
            if found is not None:
                facts[row] = found
        return facts

    def _numbers(self, thumbnails: Sequence[str]) -> UInt64:
        return np.fromiter(map(photo_number, thumbnails), np.uint64, len(thumbnails))

    def _places(self, numbers: UInt64) -> tuple[Int64, Mask]:
        """Where among what is known each photo is, and whether it is there."""
        places = np.searchsorted(self._known["photo"], numbers)
        places = np.minimum(places, max(len(self._known) - 1, 0))
        if not len(self._known):
            return places, np.zeros(len(numbers), np.bool_)
        return places, self._known["photo"][places] == numbers

    def _look(self, thumbnail: str) -> Facts | None:
        image = read_thumbnail(self._index, thumbnail)
        return None if image is None else photo_facts(image, photo_number(thumbnail))


def thumbnails_of(block: Block) -> list[str]:
    """The thumbnail of each row."""
    return [
        product.views[key].thumbnail
        for key, product in zip(block.keys, block.products, strict=True)
    ]


def part_of(block: Block, photos: PhotoFacts) -> PartRows:
    """A block of live rows with what is known of their photos."""
    views: list[View] = [
        product.views[key] for key, product in zip(block.keys, block.products, strict=True)
    ]
    names: dict[str, int] = {}
    categories = []
    for product in block.products:
        category = product.attributes.get(_CATEGORY)
        named = isinstance(category, str) and bool(category)
        categories.append(names.setdefault(str(category), len(names)) if named else -1)
    codes, scales = quantize(block.embeddings)
    thumbnails = thumbnails_of(block)
    return PartRows(
        codes=codes,
        scales=scales,
        facts=photos.of(thumbnails),
        products=_hashes([product.product_id for product in block.products]),
        views=_hashes(block.keys),
        sides=np.asarray([min(view.width, view.height) for view in views], np.int32),
        since=np.asarray([view.searchable_at for view in views], np.float64),
        categories=np.asarray(categories, np.int32),
        thumbnails=np.asarray([key.encode() for key in thumbnails], f"S{THUMBNAIL_BYTES}"),
        names=tuple(names),
        keys=block.keys,
        product_ids=tuple(product.product_id for product in block.products),
    )


def _hashes(texts: Sequence[str]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    return np.fromiter(map(product_hash, texts), np.uint64, len(texts))


def _read(index: ObjectStore, artifact: Artifact | None) -> Facts:
    nothing = np.empty(0, FACTS)
    if artifact is None:
        return nothing
    try:
        found = index.get(artifact.key, MAX_FACTS_BYTES)
        return decode_facts(found[1], artifact.key) if found else nothing
    except (CorruptFile, Unindexable):
        logger.exception("the facts of %s are found anew", artifact.catalogue)
        return nothing
