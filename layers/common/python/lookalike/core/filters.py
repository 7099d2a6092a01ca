"""Filters on product attributes: parsed and checked once, then asked of many attribute sets.

JSON form: ``{"category": "shoes", "price": {"lte": 50}, "brand": ["a", "b"]}``; all parts must
hold. Text form: ``category=shoes,price<=50,brand=a|b,colour!=red``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lookalike.core.attributes import MAX_NAME_CHARS, MAX_TEXT_CHARS, is_text, typed
from lookalike.core.errors import InvalidRequest
from lookalike.core.types import Attributes, Scalar

MAX_CONDITIONS = 32
MAX_VALUES = 256
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "lt": lambda left, right: left < right,
    "lte": lambda left, right: left <= right,
    "gt": lambda left, right: left > right,
    "gte": lambda left, right: left >= right,
}
OPERATORS = ("eq", "ne", "in", "exists", *_COMPARE)
_TEXT_OPERATORS = {"<=": "lte", ">=": "gte", "!=": "ne", "<": "lt", ">": "gt", "=": "eq"}
_TEXT_CONDITION = re.compile(r"\s*([^<>=!,]+?)\s*(<=|>=|!=|<|>|=)\s*(.*?)\s*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Condition:
    """One test of one attribute. A list attribute passes when any of its values does."""

    attribute: str
    operator: str
    values: tuple[Scalar, ...]

    def matches(self, attributes: Attributes) -> bool:
        """Whether a product with these attributes passes."""
        value = attributes.get(self.attribute)
        if self.operator == "exists":
            return (value is not None) == self.values[0]
        present = () if value is None else value if isinstance(value, tuple) else (value,)
        found = [_comparable(item) for item in present]
        if self.operator == "ne":
            return not any(_equal(item, self.values[0]) for item in found)
        if self.operator in ("eq", "in"):
            return any(_equal(item, wanted) for item in found for wanted in self.values)
        bound, holds = self.values[0], _COMPARE[self.operator]
        return any(
            isinstance(item, str) == isinstance(bound, str) and holds(item, bound) for item in found
        )


@dataclass(frozen=True, slots=True)
class Filter:
    """All conditions must hold."""

    conditions: tuple[Condition, ...]

    def matches(self, attributes: Attributes) -> bool:
        """Whether a product with these attributes passes every condition."""
        return all(condition.matches(attributes) for condition in self.conditions)

    def __str__(self) -> str:
        parts = (
            f"{item.attribute} {item.operator} {'|'.join(map(str, item.values))}"
            for item in self.conditions
        )
        return ", ".join(parts)


def parse_filter(value: object) -> Filter:
    """Read a filter from decoded JSON, or from text through `parse_filter_text`.

    Raises
    ------
    InvalidRequest
        The filter is not of the form above; the message names the part.
    """
    if isinstance(value, str):
        return parse_filter_text(value)
    if not isinstance(value, Mapping):
        raise _invalid('A filter is a JSON object such as {"category": "shoes"}.')
    conditions: list[Condition] = []
    for name, wanted in value.items():
        attribute = str(name).lower()
        if isinstance(wanted, Mapping):
            conditions += [_condition(attribute, op, operand) for op, operand in wanted.items()]
        elif isinstance(wanted, list | tuple):
            conditions.append(_condition(attribute, "in", wanted))
        else:
            conditions.append(_condition(attribute, "eq", wanted))
    return _checked(conditions)


def parse_filter_text(text: str) -> Filter:
    """Read a filter from ``name<op>value`` parts joined by commas, or from JSON text.

    Raises
    ------
    InvalidRequest
        The text is of neither form; the message names the part.
    """
    if text.lstrip().startswith("{"):
        try:
            return parse_filter(json.loads(text))
        except (ValueError, RecursionError):
            raise _invalid("The filter looks like JSON but cannot be read as JSON.") from None
    conditions: list[Condition] = []
    for part in filter(str.strip, text.split(",")):
        match = _TEXT_CONDITION.fullmatch(part)
        if match is None:
            raise _invalid(f"“{part}” is no condition; write one like category=shoes or price<=50.")
        name, symbol, operand = match.groups()
        operator = _TEXT_OPERATORS[symbol]
        if operator == "eq" and "|" in operand:
            conditions.append(_condition(name.lower(), "in", operand.split("|")))
        else:
            conditions.append(_condition(name.lower(), operator, operand))
    return _checked(conditions)


def _checked(conditions: list[Condition]) -> Filter:
    if len(conditions) > MAX_CONDITIONS:
        raise _invalid(f"A filter may have at most {MAX_CONDITIONS} conditions.")
    return Filter(tuple(conditions))


def _condition(attribute: str, operator: object, operand: object) -> Condition:
    several = operand if isinstance(operand, list | tuple) else [operand]
    if not all(is_text(part) for part in (attribute, operator, *several) if isinstance(part, str)):
        raise _invalid("The filter holds characters that are no Unicode text.")
    if len(attribute) > MAX_NAME_CHARS:
        raise _invalid(f"An attribute's name has at most {MAX_NAME_CHARS} characters.")
    if operator == "exists":
        if not isinstance(operand, bool):
            raise _invalid(f"“{attribute}”: exists takes true or false.")
        return Condition(attribute, "exists", (operand,))
    if operator not in OPERATORS:
        allowed = ", ".join(OPERATORS)
        raise _invalid(f"“{attribute}”: no operator “{operator}”; there are {allowed}.")
    operands = operand if operator == "in" else (operand,)
    if not isinstance(operands, list | tuple) or not 0 < len(operands) <= MAX_VALUES:
        raise _invalid(f"“{attribute}”: in takes a list of 1 to {MAX_VALUES} values.")
    for item in operands:
        if isinstance(item, str) and len(item) > MAX_TEXT_CHARS:
            raise _invalid(f"“{attribute}”: a value may have at most {MAX_TEXT_CHARS} characters.")
        if not isinstance(item, str | int | float | bool) or item != item:
            raise _invalid(f"“{attribute}”: a value must be a text, a number, true or false.")
    return Condition(attribute, str(operator), tuple(_comparable(item) for item in operands))


def _comparable(value: Scalar) -> Scalar:
    """Numbers written as text compare as numbers, whichever side wrote them so."""
    return typed(value) if isinstance(value, str) else value


def _equal(left: Scalar, right: Scalar) -> bool:
    if isinstance(left, str) and isinstance(right, str):
        return left.casefold() == right.casefold()
    return left == right and isinstance(left, bool) == isinstance(right, bool)


def _invalid(detail: str) -> InvalidRequest:
    return InvalidRequest(detail, parameter="filter")
