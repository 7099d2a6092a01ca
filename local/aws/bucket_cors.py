"""Cross-origin answers by the bucket's own rules.

moto allows every origin, or applies all rules at once, and only to some requests. S3 uses the first
rule that matches origin and method, on every kind of request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Protocol

Headers = list[tuple[str, str]]


class CorsRule(Protocol):
    """A rule as moto keeps it: each field a string or a list of strings, or ``None``."""

    allowed_methods: Any
    allowed_origins: Any
    allowed_headers: Any
    exposed_headers: Any
    max_age_seconds: Any


def preflight(rules: Sequence[CorsRule], request: Mapping[str, str]) -> Headers | None:
    """Headers of the answer to an OPTIONS request, or ``None`` when no rule allows it.

    Parameters
    ----------
    rules
        The bucket's rules, in order.
    request
        The request's ``Origin``, ``Access-Control-Request-Method`` and ``-Headers``.
    """
    method = request.get("Access-Control-Request-Method", "")
    asked = _names(request.get("Access-Control-Request-Headers", ""))
    for rule in rules:
        headers = _allow(rule, request.get("Origin", ""), method)
        allowed = [pattern.lower() for pattern in _list(rule.allowed_headers)]
        if headers is None or not all(_any_match(name, allowed) for name in asked):
            continue
        headers.append(("Access-Control-Allow-Methods", ", ".join(_list(rule.allowed_methods))))
        if asked:
            headers.append(("Access-Control-Allow-Headers", ", ".join(asked)))
        if rule.max_age_seconds:
            headers.append(("Access-Control-Max-Age", str(rule.max_age_seconds)))
        return headers
    return None


def answer(rules: Sequence[CorsRule], origin: str, method: str) -> Headers:
    """Headers to add to the answer of any other request; none when no rule allows it."""
    for rule in rules:
        headers = _allow(rule, origin, method)
        if headers is not None:
            if exposed := _list(rule.exposed_headers):
                headers.append(("Access-Control-Expose-Headers", ", ".join(exposed)))
            return headers
    return []


def _allow(rule: CorsRule, origin: str, method: str) -> Headers | None:
    origins = _list(rule.allowed_origins)
    if method not in _list(rule.allowed_methods) or not _any_match(origin, origins):
        return None
    return [
        ("Access-Control-Allow-Origin", "*" if "*" in origins else origin),
        ("Vary", "Origin, Access-Control-Request-Headers, Access-Control-Request-Method"),
    ]


def _any_match(value: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in patterns)


def _names(header: str) -> list[str]:
    return [name.strip().lower() for name in header.split(",") if name.strip()]


def _list(value: Any) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)
