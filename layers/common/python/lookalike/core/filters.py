"""Filters on product attributes: which rows a search may answer with.

Owns the JSON form, ``{"category": "shoes", "price": {"lte": 50}}``; the text form,
``category=shoes,price<=50``, is read and written by `lookalike.core.filter_text`, and what the
parts mean is in `lookalike.core.filter_tree`. Both forms are described in docs/filters.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from lookalike.core.columns import Mask
from lookalike.core.errors import InvalidRequest
from lookalike.core.filter_text import MAX_DEPTH, read_text, write_text
from lookalike.core.filter_tree import (
    Columns,
    Condition,
    Node,
    all_of,
    any_of,
    condition,
    conditions_of,
    invalid,
    negated,
)
from lookalike.core.types import Attributes

MAX_CONDITIONS = 32
_GROUPS = {"and": all_of, "or": any_of}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows a search may answer with; what says the same in the same order is equal."""

    root: Node

    @property
    def attributes(self) -> frozenset[str]:
        """Names of the attributes that are asked for."""
        return frozenset(condition.attribute for condition in conditions_of(self.root))

    def matches(self, attributes: Attributes) -> bool:
        """Whether a row with these attributes passes."""
        return self.root.matches(attributes)

    def select(self, rows: int, column: Columns) -> Mask:
        """Which of ``rows`` rows pass.

        Parameters
        ----------
        rows
            How many there are.
        column
            Gives the column of an attribute, which has that many rows; None when no row has it.

        Returns
        -------
        (rows,) bool
            The same as `matches` says of each row's attributes.
        """
        return self.root.select(rows, column)

    def __str__(self) -> str:
        """The text form, which `parse_filter_text` reads as an equal filter."""
        return write_text(self.root)


def parse_filter(value: object) -> Filter:
    """Read a filter from decoded JSON, or from text through `parse_filter_text`.

    Raises
    ------
    InvalidRequest
        It is no filter; the message names the part.
    """
    if isinstance(value, str):
        return parse_filter_text(value)
    return Filter(all_of(_JsonReader().parts(value)))


def parse_filter_text(text: str) -> Filter:
    """Read a filter from its text form, or from JSON text.

    Raises
    ------
    InvalidRequest
        It is no filter; the message names the place.
    """
    if not text.lstrip().startswith("{"):
        root = read_text(text)
        if sum(1 for _ in conditions_of(root)) > MAX_CONDITIONS:
            raise _too_many()
        return Filter(root)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise invalid(f"it begins like JSON but is none ({error}).") from None
    except RecursionError:
        raise invalid("its JSON is nested too deeply.") from None
    except ValueError:
        # Python's own words, of a whole number with over 4300 digits, name a call of Python's.
        raise invalid("a number in its JSON has too many digits.") from None
    return parse_filter(value)


def _too_many() -> InvalidRequest:
    return invalid(f"it has more than the {MAX_CONDITIONS} conditions that are allowed.")


@dataclass(slots=True)
class _JsonReader:
    """Reads decoded JSON; counts conditions so that a huge filter ends early.

    ``depth`` counts the groups around a part, ``path`` names it in errors.
    """

    conditions: int = 0

    def parts(self, value: object, depth: int = 0, path: str = "") -> list[Node]:
        if not isinstance(value, Mapping):
            raise invalid('a filter is a JSON object such as {"category": "shoes"}.', path)
        parts: list[Node] = []
        for given, wanted in value.items():
            name = str(given)
            where = f"{path}.{_shown(name)}" if path else _shown(name)
            if name.lower() in (*_GROUPS, "not"):
                if depth == MAX_DEPTH:
                    raise invalid(f"and, or and not go at most {MAX_DEPTH} deep.", where)
                parts.append(self._group(name.lower(), wanted, depth + 1, where))
            elif isinstance(wanted, Mapping):
                if not wanted:
                    raise invalid('there is no test; write one such as {"lte": 50}.', where)
                for operator, operand in wanted.items():
                    parts.append(self._condition(name, str(operator), operand, where))
            else:
                operator = "in" if isinstance(wanted, list | tuple) else "eq"
                parts.append(self._condition(name, operator, wanted, where))
        return parts

    def _group(self, name: str, wanted: object, depth: int, where: str) -> Node:
        if name == "not":
            return negated(self._filled(wanted, depth, where))
        if not isinstance(wanted, list | tuple) or not wanted:
            raise invalid(f'{name} takes a list of filters, such as [{{"brand": "a"}}].', where)
        parts = [self._filled(item, depth, f"{where}[{i}]") for i, item in enumerate(wanted)]
        return _GROUPS[name](parts)

    def _filled(self, value: object, depth: int, where: str) -> Node:
        parts = self.parts(value, depth, where)
        if not parts:
            raise invalid("this filter is empty; leave it out.", where)
        return all_of(parts)

    def _condition(self, name: str, operator: str, operand: object, where: str) -> Condition:
        self.conditions += 1
        if self.conditions > MAX_CONDITIONS:
            raise _too_many()
        return condition(name, operator, operand, where)


def _shown(name: str) -> str:
    return name.encode(errors="replace").decode()[:32]
