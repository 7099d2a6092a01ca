"""Reads request bodies: JSON, multipart/form-data, a raw image. Bounded in depth and parts."""

from __future__ import annotations

import binascii
import io
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import msgspec

from lookalike.core.errors import InvalidRequest, MalformedBody, TooLarge, UnsupportedMedia
from lookalike.http.message import JSON_TYPE, HttpRequest
from lookalike.http.validation import numbers
from lookalike.services.search_request import MAX_INPUTS

MULTIPART_TYPE = "multipart/form-data"
RAW_TYPES = "image/*"
ANY_BYTES_TYPE = "application/octet-stream"
MAX_PARTS = 256
MAX_FIELD_BYTES = 65_536


@dataclass(slots=True)
class SearchFields:
    """What a search's body holds: image files as bytes, all else as the JSON body names it."""

    images: list[bytes] = field(default_factory=list)
    fields: dict[str, Any] = field(default_factory=dict)
    strict: bool = True
    """Whether values have their JSON types; those of a form are text."""


def read_search_body(request: HttpRequest) -> SearchFields:
    """Read the body of ``POST /search`` by its content type.

    Raises
    ------
    MalformedBody
        The body is not what its content type says.
    UnsupportedMedia
        No way to read that type.
    """
    media_type = request.content_type.partition(";")[0].strip().lower() or JSON_TYPE
    if media_type == JSON_TYPE:
        fields = read_json(request.body)
        return SearchFields(_base64_images(fields.pop("image", [])), fields)
    if media_type == MULTIPART_TYPE:
        return _read_form(request)
    if media_type.startswith("image/") or media_type == ANY_BYTES_TYPE:
        if not request.body:
            raise MalformedBody("The body is empty; send an image file.", parameter="image")
        return SearchFields([request.body])
    raise UnsupportedMedia(
        f"“{media_type}” is not read here; send an image as {RAW_TYPES}, a form as "
        f"{MULTIPART_TYPE} or {JSON_TYPE}."
    )


def read_json(body: bytes) -> dict[str, Any]:
    """Decode a JSON object.

    Raises
    ------
    MalformedBody
        The body is no JSON, too deep, or no object.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedBody(f"The body is not JSON: {error}.") from None
    except RecursionError:
        raise MalformedBody("The JSON in the body is nested too deeply.") from None
    if not isinstance(value, dict):
        raise MalformedBody('The body must be a JSON object, such as {"product_id": "boot-7"}.')
    return value


def _base64_images(value: object) -> list[bytes]:
    several = value if isinstance(value, list) else [value]
    if len(several) > MAX_INPUTS:
        raise InvalidRequest(
            f"“image” holds {len(several)} images; {MAX_INPUTS} are allowed.", parameter="image"
        )
    return [_base64_image(item, i) for i, item in enumerate(several)]


def _base64_image(value: object, position: int) -> bytes:
    if not isinstance(value, str):
        raise InvalidRequest(
            "“image” must be a base64 string or a list of them.", parameter="image"
        )
    if value.startswith("data:"):  # as browsers encode files
        value = value.partition(",")[2]
    try:
        encoded = "".join(value.split()).encode("ascii")  # base64 tools break lines
        data = binascii.a2b_base64(encoded, strict_mode=True)
    except (ValueError, UnicodeEncodeError) as error:
        raise MalformedBody(
            f"Image {position + 1} of “image” is not base64: {error}.", parameter="image"
        ) from None
    if not data:
        raise MalformedBody(f"Image {position + 1} of “image” is empty.", parameter="image")
    return data


def _read_form(request: HttpRequest) -> SearchFields:
    # Only this content type pays for the import (20 ms of a cold start).
    from multipart import (  # type: ignore[import-untyped]
        MultipartError,
        MultipartParser,
        ParserLimitReached,
        parse_options_header,
    )

    boundary = parse_options_header(request.content_type)[1].get("boundary", "")
    if not boundary:
        raise MalformedBody("The content type of the form names no boundary.")
    images: list[bytes] = []
    texts: dict[str, list[str]] = defaultdict(list)
    size = len(request.body)
    parser = MultipartParser(
        io.BytesIO(request.body),
        boundary,
        size,
        part_limit=MAX_PARTS,
        spool_limit=size + 1,  # the body is in memory already: no part goes to disk
        memory_limit=size + 1,
    )
    try:
        for part in parser:
            if part.name == "image":
                images.append(part.raw)
            elif part.size > MAX_FIELD_BYTES:
                raise TooLarge(
                    f"The form's field “{part.name}” is over {MAX_FIELD_BYTES} bytes.",
                    parameter=part.name,
                )
            else:
                texts[part.name].append(part.raw.decode())
    except ParserLimitReached as error:
        raise TooLarge(f"The form is too large: {error}.") from None
    except (MultipartError, ValueError, LookupError) as error:
        raise MalformedBody(f"The body is not {MULTIPART_TYPE}: {error}.") from None
    if len(images) > MAX_INPUTS:
        raise InvalidRequest(
            f"The form has {len(images)} images; {MAX_INPUTS} are allowed.", parameter="image"
        )
    if not all(images):
        raise MalformedBody("An image of the form is empty.", parameter="image")
    fields = {name: _form_value(name, values) for name, values in texts.items()}
    return SearchFields(images, fields, strict=False)


def _form_value(name: str, values: list[str]) -> object:
    """A field of a form as the JSON body would hold it; lists may be repeated fields."""
    if name in ("product_id", "upload_key", "not_like"):
        return values
    if len(values) > 1:
        raise InvalidRequest(f"“{name}” is given more than once.", parameter=name)
    if name in ("crop", "weights", "cells"):
        return numbers(values[0], name)
    return values[0]
