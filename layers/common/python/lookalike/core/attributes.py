"""Product metadata as typed attributes: read from S3 user metadata and from ``product.json``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from typing import Any, NoReturn

from lookalike.core.errors import Unindexable
from lookalike.core.types import AttributeValue, Scalar

MAX_ATTRIBUTES = 64
MAX_NAME_CHARS = 64
MAX_TEXT_CHARS = 2_000
MAX_LIST_ITEMS = 64

# A number as a person writes one. "007" and "1e5" stay text, so that article numbers survive.
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,14})(\.\d{1,9})?")


def is_text(value: str) -> bool:
    """Whether a string is Unicode text: lone surrogates, which JSON can carry, are not."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def typed(text: str) -> Scalar:
    """Text as the number that it plainly is, else as text.

    ``"49.90"`` → 49.9, ``"007"`` → ``"007"``.
    """
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        return text
    return float(text) if "." in text else int(text)


def from_user_metadata(metadata: Mapping[str, str]) -> dict[str, AttributeValue]:
    """Attributes from S3 user metadata; a value may be an RFC 2047 encoded word."""
    attributes: dict[str, AttributeValue] = {}
    for name in sorted(metadata)[:MAX_ATTRIBUTES]:
        value = _decoded(metadata[name]).strip()
        if value:
            attributes[name.lower()[:MAX_NAME_CHARS]] = typed(value[:MAX_TEXT_CHARS])
    return attributes


def _decoded(value: str) -> str:
    if "=?" not in value:
        return value
    try:
        decoded = str(make_header(decode_header(value)))
    except (HeaderParseError, UnicodeError, LookupError, ValueError):
        return value
    return decoded if is_text(decoded) else value


def from_document(body: bytes) -> dict[str, AttributeValue]:
    """Attributes from a ``product.json``.

    One JSON object of texts, numbers, booleans or lists of them.

    Null values are left out. Raises `Unindexable` (``bad-metadata``) naming what is wrong.
    """
    try:
        document = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Unindexable("bad-metadata", f"product.json is not valid JSON: {error}.") from None
    if not isinstance(document, dict):
        raise Unindexable("bad-metadata", "product.json must hold one JSON object.")
    if len(document) > MAX_ATTRIBUTES:
        raise Unindexable("bad-metadata", f"product.json has over {MAX_ATTRIBUTES} attributes.")
    attributes: dict[str, AttributeValue] = {}
    for name, value in document.items():
        if not is_text(name):
            raise Unindexable("bad-metadata", "An attribute's name is not valid Unicode text.")
        if not name or len(name) > MAX_NAME_CHARS:
            raise Unindexable(
                "bad-metadata", f"An attribute name must have 1 to {MAX_NAME_CHARS} characters."
            )
        if value is None:
            continue
        if isinstance(value, list):
            if len(value) > MAX_LIST_ITEMS:
                raise Unindexable("bad-metadata", f"“{name}” lists over {MAX_LIST_ITEMS} values.")
            attributes[name.lower()] = tuple(_scalar(name, item) for item in value)
        else:
            attributes[name.lower()] = _scalar(name, value)
    return attributes


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _scalar(name: str, value: Any) -> Scalar:
    if isinstance(value, str):
        if len(value) > MAX_TEXT_CHARS:
            raise Unindexable(
                "bad-metadata", f"“{name}” is longer than {MAX_TEXT_CHARS} characters."
            )
        if not is_text(value):
            raise Unindexable("bad-metadata", f"“{name}” is not valid Unicode text.")
        return value
    if isinstance(value, bool | int) and abs(value) < 2**53:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise Unindexable(
        "bad-metadata",
        f"“{name}” must be a text, a number, true, false, or a list of those.",
    )
