"""Contents of moto's S3 objects: in memory until they are committed, then only in the journal.

moto keeps each in a temporary file that spills to disk at random places; here ``FakeKey.value``
reads what is asked for, when it is asked for. A ranged GET reads the chunks of its range.
"""

from __future__ import annotations

import hashlib
from typing import Any, SupportsIndex

from moto.s3.models import FakeKey
from moto.s3.responses import S3Response

from local.aws.journal import Journal

_reads_lazily = False


class Body:
    """One content.

    Parameters
    ----------
    content
        It, when it is new.
    journal, number, size
        Where it is, when it has been committed.
    """

    __slots__ = ("_content", "_journal", "number", "size")

    def __init__(
        self,
        content: bytes | None = None,
        *,
        journal: Journal | None = None,
        number: int | None = None,
        size: int = 0,
    ) -> None:
        self._content = content
        self._journal = journal
        self.number = number
        self.size = size if content is None else len(content)

    def content(self) -> bytes:
        """All of it."""
        return self._read(0, self.size)

    def md5(self) -> str:
        """Its digest, hexadecimal."""
        return hashlib.md5(self.content(), usedforsecurity=False).hexdigest()

    def write(self, journal: Journal) -> bool:
        """Write it in the journal's transaction; ``False`` when it is there already."""
        if self.number is not None:
            return False
        self.number = journal.write_body(self.content())
        self._journal = journal
        return True

    def forget(self) -> None:
        """Let go of the memory, once the transaction is committed."""
        self._content = None

    def __len__(self) -> int:
        return self.size

    def __bool__(self) -> bool:
        return self.size > 0

    def __getitem__(self, part: slice[SupportsIndex, SupportsIndex, None]) -> bytes:
        start, end, _ = part.indices(self.size)
        return self._read(start, end)

    def _read(self, start: int, end: int) -> bytes:
        if self._content is not None:
            return self._content[start:end]
        if self._journal is None or self.number is None or start >= end:
            return b""
        return self._journal.read_body(self.number, start, end)


def keep_bodies() -> None:
    """Give moto's objects bodies. Whatever disposes of an object leaves its body to the commit."""
    patches = {
        "value": property(_value, _set_value),
        "etag": property(_etag),
        "dispose": lambda self, garbage=False: None,
        "__del__": lambda self: None,
        "__copy__": _copy,
        "__deepcopy__": lambda self, memo: _copy(self),
    }
    for name, patch in patches.items():
        setattr(FakeKey, name, patch)
    get_object, key_response = S3Response.get_object, S3Response.key_response

    def get_object_lazily(self: Any) -> Any:
        global _reads_lazily
        _reads_lazily = bool(self.headers.get("Range"))
        try:
            return get_object(self)
        finally:
            _reads_lazily = False

    def key_response_in_full(self: Any, *args: Any, **kwargs: Any) -> Any:
        status, headers, body = key_response(self, *args, **kwargs)
        return status, headers, body.content() if isinstance(body, Body) else body

    S3Response.get_object = get_object_lazily  # type: ignore[method-assign]
    S3Response.key_response = key_response_in_full  # type: ignore[method-assign]


def _value(key: Any) -> bytes | Body:
    body: Body = key.body
    return body if _reads_lazily else body.content()


def _set_value(key: Any, content: bytes | str) -> None:
    key.body = Body(content.encode() if isinstance(content, str) else bytes(content))
    key.contentsize = key.body.size
    if (unused := key.__dict__.pop("_value_buffer", None)) is not None:
        unused.close()


def _copy(key: Any) -> Any:
    """For lists of versions, in which moto marks the latest; contents do not change."""
    twin = FakeKey.__new__(FakeKey)
    twin.__dict__.update(key.__dict__)
    return twin


def _etag(key: Any) -> str:
    if key._etag is None:
        key._etag = key.body.md5()
    return f'"{key._etag}"'
