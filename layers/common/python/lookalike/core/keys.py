"""What a bucket key means, and where derived objects live.

The one place that parses or builds keys.

Image bucket: ``<catalogue>/<product_id>/<view>.<ext>``, ``<catalogue>/<file>.<ext>`` (one view
named after the file), a bare ``<file>.<ext>`` (catalogue ``default``), and
``<catalogue>/<product_id>/product.json`` for metadata.
"""

from __future__ import annotations

import hashlib
import math
import unicodedata
from dataclasses import dataclass

from lookalike.core.errors import Unindexable

DEFAULT_CATALOGUE = "default"
PRODUCT_DOCUMENT = "product.json"
IMAGE_EXTENSIONS = frozenset(
    {"jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "heic", "heif"}
)
MAX_KEY_BYTES = 1024  # S3's own limit
MAX_NAME_BYTES = 255
_HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class ObjectKey:
    """A parsed key of the image bucket.

    ``view`` is empty for a product document (``product.json``).
    """

    key: str
    catalogue: str
    product_id: str
    view: str

    @property
    def is_document(self) -> bool:
        """Whether this is the product's ``product.json`` rather than an image."""
        return not self.view


def catalogue_of(key: str) -> str:
    """The catalogue under which a key's failure is filed, whether or not the key is valid."""
    head, slash, _ = key.partition("/")
    return head if slash and head else DEFAULT_CATALOGUE


def parse_key(key: str) -> ObjectKey:
    """Read a key of the image bucket.

    Raises
    ------
    Unindexable
        ``bad-key`` for empty, dotted or control-character names, too many levels or too long names;
        ``unsupported-type`` for an extension that is no image.
    """
    if len(key.encode("utf-8", "surrogatepass")) > MAX_KEY_BYTES:
        raise Unindexable("bad-key", f"The key is longer than {MAX_KEY_BYTES} bytes.")
    parts = key.split("/")
    for part in parts:
        _check_name(part)
    if len(parts) > 3:
        raise Unindexable(
            "bad-key",
            f"The key has {len(parts)} levels; use <catalogue>/<product>/<view>.<ext> "
            "or <catalogue>/<product>.<ext>.",
        )
    if len(parts) == 1:
        parts = [DEFAULT_CATALOGUE, *parts]
    catalogue, file_name = parts[0], parts[-1]
    if file_name == PRODUCT_DOCUMENT and len(parts) == 3:
        return ObjectKey(key, catalogue, parts[1], "")
    stem, dot, extension = file_name.rpartition(".")
    if not dot or not stem or extension.lower() not in IMAGE_EXTENSIONS:
        allowed = ", ".join(sorted(IMAGE_EXTENSIONS))
        raise Unindexable(
            "unsupported-type",
            f"“{file_name}” does not end like an image file; these are read: {allowed}.",
        )
    _check_name(stem)
    product_id = parts[1] if len(parts) == 3 else stem
    return ObjectKey(key, catalogue, product_id, stem)


def product_of(key: str) -> tuple[str, str] | None:
    """(catalogue, product_id) of a key; None for one that names no image and no document."""
    try:
        parsed = parse_key(key)
    except Unindexable:
        return None
    return parsed.catalogue, parsed.product_id


def is_catalogue(name: str) -> bool:
    """Whether a catalogue can have this name: whether keys can begin with it."""
    return product_of(f"{name}/x.jpg") == (name, "x")


def _check_name(name: str) -> None:
    if not name or name in {".", ".."}:
        raise Unindexable("bad-key", "A folder or file name in the key is empty, “.” or “..”.")
    if any(unicodedata.category(char) in {"Cc", "Cs"} for char in name):
        raise Unindexable("bad-key", "The key contains control characters.")
    if len(name.encode()) > MAX_NAME_BYTES:
        raise Unindexable("bad-key", f"A name in the key is longer than {MAX_NAME_BYTES} bytes.")


def content_digest(data: bytes) -> str:
    """32 hex digits of BLAKE2b-128: the name of an immutable object."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def segment_key(catalogue: str, digest: str) -> str:
    """Where a segment lives in the index bucket; generations of a catalogue may share it."""
    return f"segments/{catalogue}/{digest}.seg"


def base_key(catalogue: str, digest: str) -> str:
    """Where a base lives in the index bucket."""
    return f"bases/{catalogue}/{digest}.base"


def head_key(catalogue: str, digest: str) -> str:
    """Where a generation's head lives in the index bucket."""
    return f"heads/{catalogue}/{digest}.head"


def image_digest(key: str, etag: str) -> str:
    """32 hex digits that name one version of one image: what is derived of it is named so."""
    return hashlib.blake2b(f"{key}\n{etag}".encode(), digest_size=16).hexdigest()


def thumbnail_key(key: str, etag: str, uploaded_at: float) -> str:
    """Where the WebP thumbnail of one upload of an image lives in the index bucket.

    The same image uploaded again has another name: what a sweep is about to delete for being old
    and of no use cannot come back.
    """
    upload = f"{etag}\n{int(uploaded_at)}"
    return f"thumbnails/{image_digest(key, upload)}.webp"


def map_key(space: str, key: str, etag: str) -> str:
    """Where the feature map of one version of one image lives in the index bucket."""
    return f"maps/{space}/{image_digest(key, etag)}.map"


def note_key(key: str, etag: str) -> str:
    """Where it is noted in the index bucket that a try of one version of an object has begun."""
    return f"tried/{image_digest(key, etag)}"


def query_key(query_id: str) -> str:
    """Where what a search was made with lives in the index bucket; in order of time (ULIDs)."""
    return f"queries/{query_id}.query"


def explanation_key(expires_at: float, pair: str, name: str) -> str:
    """Where a cached explanation lives in the index bucket; in order of the hour that it expires.

    ``expires_at`` is the search's, in epoch seconds, and ``pair`` names what is explained.
    """
    return f"{_expiry(math.ceil(expires_at / _HOUR_S))}/{pair}/{name}"


def first_live_explanation(now: float) -> str:
    """What the keys of all explanations that have expired by epoch second ``now`` come before."""
    return _expiry(math.floor(now / _HOUR_S) + 1)


def _expiry(hour: int) -> str:
    return f"explanations/{hour:08d}"
