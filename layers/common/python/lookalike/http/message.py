"""A request as the API's code sees it, and an answer as it gives it, whatever carries them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

import msgspec

from lookalike.core.access import ANYBODY, Caller
from lookalike.core.attributes import is_text
from lookalike.core.errors import InvalidRequest

JSON_TYPE = "application/json"


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request.

    ``path_parameters`` are as they stand in the URL, percent-encoded, which is how API Gateway's
    REST APIs hand them on; ``query`` is decoded already; ``path`` includes the stage, if any.
    ``base_url`` is what the API's own absolute URLs begin with, stage included. ``caller`` is
    whoever the API key in ``authorization`` belongs to.
    """

    path_parameters: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, Sequence[str]] = field(default_factory=dict)
    content_type: str = ""
    body: bytes = b""
    path: str = "/"
    request_id: str = ""
    base_url: str = ""
    authorization: str = ""
    caller: Caller = ANYBODY

    def path_parameter(self, name: str) -> str:
        """A path parameter, decoded once.

        Raises
        ------
        InvalidRequest
            The escapes are not UTF-8.
        """
        raw = self.path_parameters[name]
        try:
            return utf8(unquote(raw, errors="strict"), name)
        except UnicodeDecodeError:
            raise InvalidRequest(f"“{name}” in the path is not UTF-8.", parameter=name) from None


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """One answer; a body of bytes reaches every client as it is."""

    status: int
    body: str | bytes = ""
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


def json_answer(
    value: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> HttpAnswer:
    """An answer holding a structure of dataclasses, structs and builtins."""
    return HttpAnswer(status, msgspec.json.encode(value).decode(), JSON_TYPE, headers or {})


def utf8(text: str, parameter: str) -> str:
    """Refuse text that no store can hold (lone surrogates, which carelessly decoded bytes leave).

    Raises
    ------
    InvalidRequest
        The text has no UTF-8 encoding.
    """
    if not is_text(text):
        raise InvalidRequest(f"“{parameter}” is not valid UTF-8.", parameter=parameter)
    return text
