"""Presigned uploads for query images that are too large for a request body."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lookalike.core.access import ANYBODY, Caller
from lookalike.core.errors import NotFound
from lookalike.core.ports import Clock, Ids, ObjectStore

_EXPIRES_S = 900
_UPLOAD_KEY = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}")  # a ULID


@dataclass(frozen=True, slots=True)
class UploadForm:
    """A form to POST the image to: ``fields`` first, then the file as ``file``."""

    upload_key: str
    url: str
    fields: dict[str, str]
    max_bytes: int
    expires_at: float


class Uploads:
    """The use case behind ``POST /uploads``.

    Parameters
    ----------
    store
        Bucket that the image is uploaded to.
    max_bytes
        Largest image.
    clock, ids
        Epoch seconds; a new upload key.
    """

    def __init__(self, store: ObjectStore, max_bytes: int, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._clock = clock
        self._ids = ids

    def create(self, caller: Caller = ANYBODY) -> UploadForm:
        """Make a form that admits one image within 15 minutes, for the caller to search with."""
        upload_key = self._ids()
        url, fields = self._store.upload_form(
            upload_object_key(upload_key, caller), self._max_bytes, _EXPIRES_S
        )
        return UploadForm(upload_key, url, fields, self._max_bytes, self._clock() + _EXPIRES_S)


def upload_object_key(upload_key: str, caller: Caller = ANYBODY) -> str:
    """Where an upload lies in the index bucket: in a folder of each API key's own.

    Raises
    ------
    NotFound
        It is no upload key.
    """
    if not _UPLOAD_KEY.fullmatch(upload_key):
        raise NotFound(f"There is no upload “{upload_key}”.", parameter="upload_key")
    return "/".join(filter(None, ("uploads", caller.key_id, upload_key)))
