"""Checks decoded values against structs, with errors for people."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from lookalike.core.errors import InvalidRequest
from lookalike.http.message import utf8

Shape = TypeVar("Shape", bound=msgspec.Struct)
_PATH = re.compile(r"(?P<what>.*) - at `\$\.(?P<path>.+)`", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)
_SHOWN_CHARACTERS = 60
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""What a gateway, which decodes the query before we see it, makes of bytes that are not UTF-8."""


def checked(values: Mapping[str, Any], shape: type[Shape], *, strict: bool = True) -> Shape:
    """Convert decoded values to a struct; with ``strict=False``, text may stand for numbers.

    Raises
    ------
    InvalidRequest
        Names the parameter, its value and what is allowed.
    """
    try:
        return msgspec.convert(values, shape, strict=strict)
    except msgspec.ValidationError as error:
        raise _explained(str(error), values, shape) from None


def query_parameters(query: Mapping[str, Sequence[str]], shape: type[Shape]) -> Shape:
    """Check the query parameters of a request.

    Raises
    ------
    InvalidRequest
        One is unknown, given twice, not UTF-8, or has a value that is not allowed.
    """
    values: dict[str, str] = {}
    for name, given in query.items():
        if len(given) != 1 and name in shape.__struct_fields__:
            raise InvalidRequest(f"“{name}” is given more than once.", parameter=name)
        values[name] = utf8(given[0] if given else "", name)
        if REPLACEMENT in values[name]:
            raise InvalidRequest(
                f"“{name}” is not valid UTF-8, or it holds the character U+FFFD, which stands for "
                "bytes that are not and which no query parameter may hold.",
                parameter=name,
            )
    return checked(values, shape, strict=False)


def numbers(text: str, parameter: str) -> object:
    """A list of numbers in a form: ``1,0.5`` or JSON.

    Raises
    ------
    InvalidRequest
        The text is neither.
    """
    try:
        if text.lstrip().startswith("["):
            return msgspec.json.decode(text)
        return [float(item) for item in text.split(",")]
    except (ValueError, RecursionError, msgspec.DecodeError):
        raise InvalidRequest(
            f"“{parameter}” is {_shown(text)}; write numbers with commas between them, or JSON.",
            parameter=parameter,
        ) from None


def _explained(message: str, values: Mapping[str, Any], shape: type[msgspec.Struct]) -> Exception:
    if unknown := _UNKNOWN.match(message):
        name = unknown["name"]
        allowed = ", ".join(shape.__struct_fields__)
        return InvalidRequest(
            f"“{_cut(name)}” is not known here; "
            + (f"allowed: {allowed}." if allowed else "there are no parameters."),
            parameter=_cut(name),
        )
    found = _PATH.fullmatch(message)
    if found is None:
        return InvalidRequest(f"{message}.")
    path = found["path"]
    name = re.split(r"[.\[]", path)[0]
    what = found["what"].replace("`", "")
    description = _description(shape, name)
    detail = f"“{path}” is not allowed: {what[:1].lower()}{what[1:]}; given {name}: "
    return InvalidRequest(f"{detail}{_shown(values.get(name))}. {description}", parameter=path)


def _description(shape: type[msgspec.Struct], name: str) -> str:
    """What the API's description says of a parameter, so that errors and OpenAPI agree."""
    _, components = msgspec.json.schema_components([shape])
    properties = components[shape.__name__]["properties"]
    schema = properties.get(name, {})
    for part in (schema, *schema.get("anyOf", ())):
        if "description" in part:
            return str(part["description"])
    return ""


def _shown(value: object) -> str:
    return _cut(msgspec.json.encode(value).decode())


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
