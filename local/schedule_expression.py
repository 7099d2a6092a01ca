"""EventBridge's schedule expressions: ``rate(5 minutes)`` and ``cron(0 3 * * ? *)``, in UTC.

Croniter and its like read Unix cron, which has no year, no ``?`` and other numbers for weekdays.
``L``, ``W`` and ``#`` are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

_RATE = re.compile(r"rate\((\d+) (minute|minutes|hour|hours|day|days)\)")
_CRON = re.compile(r"cron\((.+)\)")
_MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
_WEEKDAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
_LAST_YEAR = 2199


class ScheduleError(ValueError):
    """A schedule expression that is not understood."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Every so often, from the start of the local cloud."""

    interval: timedelta

    def next_after(self, moment: datetime) -> datetime:
        """One interval later."""
        return moment + self.interval


@dataclass(frozen=True, slots=True)
class Cron:
    """At the minutes that match six fields; an unset day field (``?``) is ``None``."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int] | None
    months: frozenset[int]
    weekdays: frozenset[int] | None
    years: frozenset[int]

    def next_after(self, moment: datetime) -> datetime:
        """The first matching minute after a moment.

        Raises
        ------
        ScheduleError
            No moment up to the year 2199 matches.
        """
        candidate = moment.astimezone(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
        while candidate.year <= _LAST_YEAR:
            if candidate.year not in self.years:
                candidate = datetime(candidate.year + 1, 1, 1, tzinfo=UTC)
            elif candidate.month not in self.months:
                month_start = candidate.replace(day=1, hour=0, minute=0)
                candidate = (month_start + timedelta(days=32)).replace(day=1)
            elif not self._day_matches(candidate):
                candidate = candidate.replace(hour=0, minute=0) + timedelta(days=1)
            elif candidate.hour not in self.hours:
                candidate = candidate.replace(minute=0) + timedelta(hours=1)
            elif candidate.minute not in self.minutes:
                candidate += timedelta(minutes=1)
            else:
                return candidate
        raise ScheduleError("The schedule never matches again.")

    def _day_matches(self, moment: datetime) -> bool:
        if self.weekdays is None:
            return self.days is None or moment.day in self.days
        return moment.isoweekday() % 7 + 1 in self.weekdays


def parse_schedule(expression: str) -> Rate | Cron:
    """Read an expression.

    Raises
    ------
    ScheduleError
        Names what is not understood.
    """
    rate = _RATE.fullmatch(expression.strip())
    if rate:
        count, unit = int(rate[1]), rate[2].rstrip("s") + "s"
        if count < 1 or (count == 1) == rate[2].endswith("s"):
            raise ScheduleError(f"{expression!r}: use a number above 0 and its singular or plural.")
        return Rate(timedelta(**{unit: count}))
    cron = _CRON.fullmatch(expression.strip())
    fields = cron[1].split() if cron else []
    if len(fields) != 6:
        raise ScheduleError(
            f"{expression!r} is neither rate(value unit) nor "
            "cron(minutes hours day month weekday year)."
        )
    if (fields[2] == "?") == (fields[4] == "?"):
        raise ScheduleError(f"{expression!r}: one of day and weekday, not both, must be “?”.")
    return Cron(
        minutes=_values(fields[0], 0, 59),
        hours=_values(fields[1], 0, 23),
        days=None if fields[2] == "?" else _values(fields[2], 1, 31),
        months=_values(fields[3], 1, 12, _MONTHS),
        weekdays=None if fields[4] == "?" else _values(fields[4], 1, 7, _WEEKDAYS),
        years=_values(fields[5], 1970, _LAST_YEAR),
    )


def _values(field: str, low: int, high: int, names: list[str] | None = None) -> frozenset[int]:
    """Values of one field: ``*``, numbers or names, ranges, steps and lists of these."""
    values: set[int] = set()
    for part in field.split(","):
        span, slash, step_text = part.partition("/")
        step = _number(step_text, 1, high, None) if slash else 1
        if span == "*":
            first, last = low, high
        else:
            start, dash, end = span.partition("-")
            first = _number(start, low, high, names)
            last = _number(end, low, high, names) if dash else (high if slash else first)
        if last < first:
            raise ScheduleError(f"The range {part!r} runs backwards.")
        values.update(range(first, last + 1, step))
    return frozenset(values)


def _number(text: str, low: int, high: int, names: list[str] | None) -> int:
    if names and text.upper() in names:
        return names.index(text.upper()) + 1
    if not text.isdecimal() or not low <= int(text) <= high:
        raise ScheduleError(f"{text!r} is not a value between {low} and {high}.")
    return int(text)
