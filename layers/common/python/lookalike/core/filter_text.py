r"""The text form of a filter, such as ``category=shoes|boots, (price<=50 OR sale=true)``.

Owns reading and writing it, by recursive descent::

    filter    = [list]
    list      = choice {"," choice}              a choice with OR beside a comma needs parentheses
    choice    = both {"OR" both}
    both      = term {"AND" term}
    term      = {"NOT"} ("(" list ")" | condition)
    condition = name ("exists" | ("=" | "!=" | "<" | "<=" | ">" | ">=") value {"|" value})
    name, value = characters without special ones | '"' any characters '"'

In double quotes a backslash stands before ``"`` and ``\\``. Without quotes, parentheses inside a
name or a value belong to it when they are balanced. ``number(1e-12)`` is a number that text would
not be taken for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lookalike.core.attributes import typed
from lookalike.core.columns import Comparable
from lookalike.core.errors import InvalidRequest
from lookalike.core.filter_tree import (
    All,
    Condition,
    Node,
    Not,
    all_of,
    any_of,
    condition,
    invalid,
    negated,
)

MAX_DEPTH = 8
_SYMBOLS = {"<=": "lte", ">=": "gte", "!=": "ne", "<": "lt", ">": "gt", "=": "eq"}
_SYMBOL_OF = {operator: symbol for symbol, operator in _SYMBOLS.items()}
_SYMBOL = re.compile("|".join(_SYMBOLS))
_SPACE = re.compile(r"\s*")
_KEYWORD = re.compile(r'(AND|OR|NOT)(?=[\s("]|$)')
_EXISTS = re.compile(r"(?:exists|EXISTS)(?=[\s,)]|$)")
_NAME_THEN_EXISTS = re.compile(r"(.*\S)\s+(?:exists|EXISTS)", re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(r'\\(["\\])')
_NUMBER = re.compile(r"number\((-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)\)")
_CONNECTIVE = r'(?<=\s)(?:AND|OR)(?=[\s("]|$)'
_IN_NAME = re.compile(rf"[(),<>=!]|{_CONNECTIVE}")
_IN_VALUE = re.compile(rf"[(),|]|{_CONNECTIVE}")
_PLAIN = re.compile(r'[^\s(){},|"\\<>=!]+(?: [^\s(){},|"\\<>=!]+)*')
_SHOWN_CHARS = 24


def read_text(text: str) -> Node:
    """The tree that a text says; nothing at all is the filter that everything passes.

    Raises
    ------
    InvalidRequest
        The text is no filter; the message says at which character.
    """
    reader = _Reader(text)
    root = reader.list_of_choices(0)
    if reader.at < len(text):
        raise reader.failure("there is no ( that this ) closes; write values with ) in quotes.")
    return root or All(())


def write_text(node: Node) -> str:
    """The text form that `read_text` takes for the same tree."""
    if isinstance(node, All):
        return ", ".join(_written(part, inside="AND") for part in node.parts)
    return _written(node)


@dataclass(slots=True)
class _Reader:
    """A text and how far it is read. ``depth`` counts the parentheses around a part."""

    text: str
    at: int = 0

    def list_of_choices(self, depth: int) -> Node | None:
        parts: list[Node] = []
        # Where a choice without parentheses stands, which must be alone.
        bare: int | None = None
        while True:
            while self._takes(","):
                pass
            if self.at == len(self.text) or self.text[self.at] == ")":
                break
            start = self.at
            node, is_choice = self._choice(depth)
            parts.append(node)
            bare = start if is_choice else bare
            self._skip()
            if self.at < len(self.text) and self.text[self.at] not in ",)":
                raise self.failure("a comma, AND or OR is missing before this.")
        if bare is not None and len(parts) > 1:
            raise self.failure("OR beside a comma is unclear; put it in parentheses.", bare)
        return all_of(parts) if parts else None

    def _choice(self, depth: int) -> tuple[Node, bool]:
        parts = [self._both(depth)]
        while self._keyword("OR"):
            parts.append(self._both(depth))
        return any_of(parts), len(parts) > 1

    def _both(self, depth: int) -> Node:
        parts = [self._term(depth)]
        while self._keyword("AND"):
            parts.append(self._term(depth))
        return all_of(parts)

    def _term(self, depth: int) -> Node:
        negative = False
        while self._keyword("NOT"):
            negative = not negative
        start = self.at
        if not self._takes("("):
            node: Node = self._condition()
        elif depth == MAX_DEPTH:
            raise self.failure(f"parentheses go at most {MAX_DEPTH} deep.", start)
        else:
            inner = self.list_of_choices(depth + 1)
            if not self._takes(")"):
                raise self.failure("this ( is not closed.", start)
            if inner is None:
                raise self.failure("there is nothing in these parentheses.", start)
            node = inner
        return negated(node) if negative else node

    def _condition(self) -> Condition:
        self._skip()
        start = self.at
        if (word := _KEYWORD.match(self.text, start)) is not None:
            raise self.failure(f"a condition is missing before {word[1]}.", start)
        quoted = self._quoted()
        name = self._bare(_IN_NAME, start) if quoted is None else quoted
        self._skip()
        symbol = _SYMBOL.match(self.text, self.at)
        if symbol is None:
            if quoted is not None and (word := _EXISTS.match(self.text, self.at)):
                self.at = word.end()
                return condition(name, "exists", True, self._part(start))
            if quoted is None and (words := _NAME_THEN_EXISTS.fullmatch(name)):
                return condition(words[1], "exists", True, self._part(start))
            raise self.failure(
                "a condition is missing; write one like category=shoes, price<=50 or "
                "brand exists, and names or values with special characters in double quotes.",
                start,
            )
        if not name:
            raise self.failure(f"the name of an attribute is missing before {symbol[0]}.", start)
        self.at = symbol.end()
        values = [self._value()]
        while self._takes("|"):
            values.append(self._value())
        return condition(name, _SYMBOLS[symbol[0]], values, self._part(start))

    def _value(self) -> str | float:
        self._skip()
        start = self.at
        quoted = self._quoted()
        if quoted is None:
            bare = self._bare(_IN_VALUE, start)
            number = _NUMBER.fullmatch(bare)
            return float(number[1]) if number else bare
        self._skip()
        follows = self.text[self.at : self.at + 1]
        if follows and follows not in ",|)" and not _KEYWORD.match(self.text, self.at):
            raise self.failure(
                "after a value in double quotes comes a comma, |, ), AND, OR or the end; "
                'a quote inside is written \\".'
            )
        return quoted

    def _bare(self, special: re.Pattern[str], start: int) -> str:
        """A name or a value without quotes, up to what ends it."""
        opened: list[int] = []
        for found in special.finditer(self.text, start):
            if found[0] == "(":
                opened.append(found.start())
            elif found[0] == ")" and opened:
                opened.pop()
            elif not opened and (len(found[0]) == 1 or found.start() > start):
                # AND or OR at the start joins nothing: state=OR is Oregon.
                self.at = found.start()
                return self.text[start : self.at].strip()
        if opened:
            raise self.failure("this ( is not closed; in quotes it need not be.", opened[0])
        self.at = len(self.text)
        return self.text[start:].strip()

    def _quoted(self) -> str | None:
        if self.text[self.at : self.at + 1] != '"':
            return None
        found = _QUOTED.match(self.text, self.at)
        if found is None:
            raise self.failure("this double quote is not closed.")
        self.at = found.end()
        return _ESCAPED.sub(r"\1", found[1])

    def _skip(self) -> None:
        if space := _SPACE.match(self.text, self.at):
            self.at = space.end()

    def _takes(self, symbol: str) -> bool:
        self._skip()
        found = self.text.startswith(symbol, self.at)
        self.at += found
        return found

    def _keyword(self, word: str) -> bool:
        self._skip()
        found = _KEYWORD.match(self.text, self.at)
        if found is None or found[1] != word:
            return False
        self.at = found.end()
        return True

    def _part(self, start: int) -> str:
        return f"character {start + 1}, “{_shown(self.text[start : self.at])}”"

    def failure(self, detail: str, at: int | None = None) -> InvalidRequest:
        at = self.at if at is None else at
        rest = _shown(self.text[at:])
        return invalid(detail, f"character {at + 1}, “{rest}”" if rest else "its end")


def _shown(text: str) -> str:
    printable = text.encode(errors="replace").decode()
    return printable if len(printable) <= _SHOWN_CHARS else f"{printable[:_SHOWN_CHARS]}…"


def _written(node: Node, inside: str = "") -> str:
    """A part inside a group of parts that ``AND`` or ``OR`` joins; ``NOT`` also needs brackets."""
    if isinstance(node, Condition):
        return _written_condition(node)
    if isinstance(node, Not):
        return f"NOT {_written(node.part, inside='NOT')}"
    joint = "AND" if isinstance(node, All) else "OR"
    joined = f" {joint} ".join(_written(part, inside=joint) for part in node.parts)
    # AND binds tighter than OR.
    return f"({joined})" if inside == "NOT" or (inside == "AND" and joint == "OR") else joined


def _written_condition(item: Condition) -> str:
    plain = _PLAIN.fullmatch(item.attribute) and "exists" not in item.attribute.split()
    name = item.attribute if plain else _in_quotes(item.attribute)
    if item.operator == "exists":
        return f"{name} exists" if item.values[0] is True else f"NOT {name} exists"
    return f"{name}{_SYMBOL_OF[item.operator]}{'|'.join(map(_written_value, item.values))}"


def _written_value(value: Comparable) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) else _in_quotes(value)
    text = str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return text if typed(text) == value else f"number({value!r})"


def _in_quotes(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
