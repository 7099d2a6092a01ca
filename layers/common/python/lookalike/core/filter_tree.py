"""The tree of conditions that a filter is. Owns what each part means, and not how it is written.

``matches`` asks one row, ``select`` asks columns of rows, and both give the same answer: texts
compare casefolded, numbers as doubles, truth values only with each other, and what is written as
text counts as the number or truth value that it says (`lookalike.core.columns.comparable`). A list
passes when any of its values does; an empty one is as good as missing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from lookalike.core.attributes import MAX_NAME_CHARS, MAX_TEXT_CHARS, is_text
from lookalike.core.columns import Column, Comparable, Mask, comparable, comparables
from lookalike.core.errors import InvalidRequest
from lookalike.core.types import Attributes

MAX_VALUES = 256
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "lt": lambda left, right: left < right,
    "lte": lambda left, right: left <= right,
    "gt": lambda left, right: left > right,
    "gte": lambda left, right: left >= right,
}
_OPPOSITES = {"eq": "ne", "ne": "eq"}
RANGES = tuple(_COMPARE)
OPERATORS = ("eq", "ne", "in", *RANGES, "exists")
Columns = Callable[[str], Column | None]


@dataclass(frozen=True, slots=True, eq=False)
class Condition:
    """One test of one attribute.

    ``eq`` passes with any of its values, ``ne`` with none of them (so it passes when the attribute
    is missing), a range (``lt``, ``lte``, ``gt``, ``gte``) and ``exists`` have one value.
    """

    attribute: str
    operator: str
    values: tuple[Comparable, ...]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Condition) and self._identity() == other._identity()

    def __hash__(self) -> int:
        return hash(self._identity())

    def _identity(self) -> tuple[object, ...]:
        # The types too, because True == 1.
        return self.attribute, self.operator, tuple((type(x), x) for x in self.values)

    def matches(self, attributes: Attributes) -> bool:
        """Whether a row with these attributes passes."""
        found = comparables(attributes.get(self.attribute))
        if self.operator == "exists":
            return bool(found) is self.values[0]
        if self.operator in _COMPARE:
            bound, holds = self.values[0], _COMPARE[self.operator]
            return any(
                type(item) is type(bound) and not isinstance(item, bool) and holds(item, bound)
                for item in found
            )
        present = {(type(item), item) for item in found}
        equal = any((type(wanted), wanted) in present for wanted in self.values)
        return equal is (self.operator == "eq")

    def select(self, rows: int, column: Columns) -> Mask:
        """(rows,) bool: which rows pass."""
        values = column(self.attribute)
        passes_without = self.operator == "ne" or (
            self.operator == "exists" and self.values[0] is False
        )
        if values is None:
            return np.full(rows, passes_without)
        if self.operator == "exists":
            intervals = values.exists()
        elif self.operator in _COMPARE:
            intervals = values.compare(self.operator, self.values[0])
        else:
            intervals = values.equal(self.values)
        found = values.select(intervals)
        return ~found if passes_without else found


@dataclass(frozen=True, slots=True)
class Not:
    """Passes when its part does not."""

    part: Node

    def matches(self, attributes: Attributes) -> bool:
        """Whether a row with these attributes passes."""
        return not self.part.matches(attributes)

    def select(self, rows: int, column: Columns) -> Mask:
        """(rows,) bool: which rows pass."""
        return ~self.part.select(rows, column)


@dataclass(frozen=True, slots=True)
class All:
    """Passes when all of its parts do, so without parts it always does."""

    parts: tuple[Node, ...]

    def matches(self, attributes: Attributes) -> bool:
        """Whether a row with these attributes passes."""
        return all(part.matches(attributes) for part in self.parts)

    def select(self, rows: int, column: Columns) -> Mask:
        """(rows,) bool: which rows pass."""
        found = np.ones(rows, dtype=np.bool_)
        for part in self.parts:
            found &= part.select(rows, column)
        return found


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Passes when any of its parts does."""

    parts: tuple[Node, ...]

    def matches(self, attributes: Attributes) -> bool:
        """Whether a row with these attributes passes."""
        return any(part.matches(attributes) for part in self.parts)

    def select(self, rows: int, column: Columns) -> Mask:
        """(rows,) bool: which rows pass."""
        found = np.zeros(rows, dtype=np.bool_)
        for part in self.parts:
            found |= part.select(rows, column)
        return found


Node = Condition | Not | All | AnyOf


def conditions_of(node: Node) -> Iterator[Condition]:
    """Every condition of a tree, from left to right."""
    if isinstance(node, Condition):
        yield node
    else:
        for part in (node.part,) if isinstance(node, Not) else node.parts:
            yield from conditions_of(part)


def all_of(parts: Iterable[Node]) -> Node:
    """All parts hold; groups of the same kind become one, so that there is one way to say it."""
    flat = tuple(
        chain.from_iterable(part.parts if isinstance(part, All) else (part,) for part in parts)
    )
    return flat[0] if len(flat) == 1 else All(flat)


def any_of(parts: Iterable[Node]) -> Node:
    """One of the parts holds; there is at least one."""
    flat = tuple(
        chain.from_iterable(part.parts if isinstance(part, AnyOf) else (part,) for part in parts)
    )
    return flat[0] if len(flat) == 1 else AnyOf(flat)


def negated(part: Node) -> Node:
    """The part does not hold."""
    if isinstance(part, Not):
        return part.part
    if isinstance(part, Condition) and part.operator in _OPPOSITES:
        return Condition(part.attribute, _OPPOSITES[part.operator], part.values)
    if isinstance(part, Condition) and part.operator == "exists":
        return Condition(part.attribute, "exists", (part.values[0] is False,))
    return Not(part)


def condition(attribute: str, operator: str, operand: object, where: str = "") -> Condition:
    """A condition as somebody wrote it, checked.

    Parameters
    ----------
    attribute, operator
        Its name in any case; one of `OPERATORS`.
    operand
        A value, or a list of them for ``in``, ``eq`` and ``ne``.
    where
        The part of the filter that it stands in, for errors.

    Raises
    ------
    InvalidRequest
        The name, the operator or a value is not allowed.
    """
    name = attribute.lower()
    where = where or f"“{name[:MAX_NAME_CHARS]}”"
    if not is_text(name):
        raise invalid("an attribute's name holds characters that are no Unicode text.")
    if not 0 < len(name) <= MAX_NAME_CHARS:
        raise invalid(f"the name of an attribute has 1 to {MAX_NAME_CHARS} characters.", where)
    if operator not in OPERATORS:
        given = operator.encode(errors="replace").decode()[:32]
        raise invalid(f"there is no test “{given}”; write one of {', '.join(OPERATORS)}.", where)
    if operator == "exists":
        if not isinstance(operand, bool):
            raise invalid("exists takes true or false.", where)
        return Condition(name, operator, (operand,))
    several = isinstance(operand, list | tuple)
    operands = operand if isinstance(operand, list | tuple) else (operand,)
    if several and operator in RANGES and len(operands) != 1:
        raise invalid(f"{operator} compares with one value; {len(operands)} are given.", where)
    if (operator == "in" and not several) or not operands:
        raise invalid(f"{operator} takes a list of 1 to {MAX_VALUES} values.", where)
    if len(operands) > MAX_VALUES:
        raise invalid(
            f"a condition has at most {MAX_VALUES} values; {len(operands)} are given.", where
        )
    # The type is a part of the key because True == 1.
    values = dict.fromkeys((type(item), item) for item in (_value(x, where) for x in operands))
    return Condition(name, "eq" if operator == "in" else operator, tuple(x for _, x in values))


def _value(operand: object, where: str) -> Comparable:
    if operand is None:
        raise invalid('null is no value; {"exists": false} is passed by what has none.', where)
    if isinstance(operand, str) and not is_text(operand):
        raise invalid("a value holds characters that are no Unicode text.", where)
    value = comparable(operand) if isinstance(operand, str | int | float | bool) else None
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        raise invalid("a value must be a text, a finite number, true or false.", where)
    if isinstance(value, str) and len(value) > MAX_TEXT_CHARS:
        raise invalid(f"a value may have at most {MAX_TEXT_CHARS} characters.", where)
    return value


def invalid(detail: str, where: str = "") -> InvalidRequest:
    """The refusal of a filter: what is wrong, and in which part."""
    return InvalidRequest(
        f"The filter is wrong at {where}: {detail}" if where else f"The filter is wrong: {detail}",
        parameter="filter",
    )
