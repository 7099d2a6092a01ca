"""The calendar of the search log: which hour and shard a search belongs to, and longer periods.

Hours, days and weeks are numbers since the epoch, in UTC; a week begins on a Monday.
"""

from __future__ import annotations

import re
from typing import Literal

Period = Literal["hour", "day", "week"]
PERIODS: tuple[Period, ...] = ("hour", "day", "week")
HOUR_S = 3_600
DAY_S = 86_400
SHARDS = 4
"""Write heat of the search log, and of feedback, is spread over so many partitions an hour."""
NEVER = 2**33
"""Epoch second behind every search that there can be, in the year 2242."""

_LENGTH_S: dict[Period, int] = {"hour": HOUR_S, "day": DAY_S, "week": 7 * DAY_S}
_FIRST_S: dict[Period, int] = {"hour": 0, "day": 0, "week": -3 * DAY_S}  # 1970 began on a Thursday
_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES = {letter: value for value, letter in enumerate(_LETTERS)}
_QUERY_ID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
_TIME_LETTERS = 10


def moment_of(query_id: str) -> float:
    """When a search began, in epoch seconds; its id is a ULID, which begins with the milliseconds.

    Raises
    ------
    ValueError
        This is no search's id.
    """
    if not _QUERY_ID.fullmatch(query_id):
        raise ValueError(f"{query_id[:60]!r} is no search's id")
    milliseconds = 0
    for letter in query_id[:_TIME_LETTERS]:
        milliseconds = milliseconds * 32 + _VALUES[letter]
    if milliseconds >= NEVER * 1000:
        raise ValueError(f"{query_id!r} is of a time that has no calendar")
    return milliseconds / 1000


def hour_of(query_id: str) -> int:
    """The hour that a search belongs to; raises `ValueError` for what is no search's id."""
    return number_at("hour", moment_of(query_id))


def shard_of(query_id: str) -> int:
    """Which of its hour's `SHARDS` a search is in."""
    return _VALUES[query_id[-1]] % SHARDS


def number_at(period: Period, at: float) -> int:
    """The number of the hour, day or week that epoch second ``at`` is in."""
    return int((at - _FIRST_S[period]) // _LENGTH_S[period])


def start_of(period: Period, number: int) -> int:
    """The epoch second at which an hour, day or week begins."""
    return number * _LENGTH_S[period] + _FIRST_S[period]


def end_of(period: Period, number: int) -> int:
    """The epoch second at which the next hour, day or week begins."""
    return start_of(period, number + 1)


def within(period: Period, number: int, parts: Period) -> tuple[int, int]:
    """The first and the last hour of a day, or day of a week: a period in terms of a shorter."""
    first = number_at(parts, start_of(period, number))
    return first, number_at(parts, end_of(period, number) - 1)
