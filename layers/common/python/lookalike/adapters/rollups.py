"""Aggregates of the search log on DynamoDB, and the notes of which hours have been written to.

One table. Each catalogue has a partition a kind of period, in order of time; what is of no
catalogue is in partitions that begin with “#”, which no catalogue's does: a “#” behind a name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec

from lookalike.adapters.table import (
    Item,
    Table,
    encode_record,
    pack_record,
    text,
    unpack_record,
)
from lookalike.core.errors import Conflict
from lookalike.core.rollups import Rollup, RollupState, TouchedHour
from lookalike.core.search_hours import NEVER, Period, start_of

_TOUCHED, _STATE = "#touched", "#state"
_FORMS: dict[Period, str] = {"hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "week": "%Y-%m-%d"}


class DynamoRollups:
    """Aggregates; implements `lookalike.core.ports.RollupTable`."""

    def __init__(self, table: str) -> None:
        self._table = Table(table)

    def range(self, catalogue: str, period: Period, first: int, last: int) -> list[Rollup]:
        """See `lookalike.core.ports.RollupTable`."""
        items = self._between(f"{catalogue}#{period}", period, first, last)
        return [
            replace(unpack_record(item, Rollup), revision=item["revision"]["S"]) for item in items
        ]

    def put(self, rollup: Rollup) -> Rollup:
        """See `lookalike.core.ports.RollupTable`."""
        scope = f"{rollup.catalogue}#{rollup.period}"
        revision = self._table.put_revised(
            f"{rollup.period} {rollup.number} of {rollup.catalogue}",
            _key(scope, _entry(rollup.period, rollup.number)),
            pack_record(replace(rollup, revision=None)),
            rollup.revision,
        )
        return replace(rollup, revision=revision)

    def sizes(self, catalogue: str, first: int, last: int) -> dict[int, dict[str, int]]:
        """See `lookalike.core.ports.RollupTable`."""
        items = self._between(f"{catalogue}#sizes", "day", first, last)
        return {
            int(item["day"]["N"]): msgspec.json.decode(item["body"]["S"], type=dict[str, int])
            for item in items
        }

    def put_sizes(self, catalogue: str, day: int, sizes: Mapping[str, int]) -> None:
        """See `lookalike.core.ports.RollupTable`."""
        item = _key(f"{catalogue}#sizes", _entry("day", day))
        item |= {"day": {"N": str(day)}, "body": encode_record(dict(sizes))}
        self._table.call("PutItem", f"sizes of {catalogue}", Item=item)

    def touch(self, hour: int, at: float) -> None:
        """See `lookalike.core.ports.RollupTable`."""
        try:
            self._table.call(
                "UpdateItem",
                f"hour {hour}",
                Key=_key(_TOUCHED, f"{hour:08d}"),
                UpdateExpression="SET #at = :at",
                ConditionExpression="attribute_not_exists(#at) OR #at < :at",
                **_at(at),
            )
        except Conflict:
            return  # it has been since

    def touched(self) -> list[TouchedHour]:
        """See `lookalike.core.ports.RollupTable`."""
        return [
            TouchedHour(int(item["entry"]["S"]), float(item["at"]["N"]))
            for item in self._table.partition("scope", _TOUCHED)
        ]

    def settle(self, touched: TouchedHour) -> None:
        """See `lookalike.core.ports.RollupTable`."""
        try:
            self._table.call(
                "DeleteItem",
                f"hour {touched.hour}",
                Key=_key(_TOUCHED, f"{touched.hour:08d}"),
                ConditionExpression="#at = :at",
                **_at(touched.at),
            )
        except Conflict:
            return  # it has been written to since

    def state(self) -> RollupState | None:
        """See `lookalike.core.ports.RollupTable`."""
        item = self._table.get(_key(_STATE, _STATE))
        if item is None:
            return None
        return replace(unpack_record(item, RollupState), revision=item["revision"]["S"])

    def put_state(self, state: RollupState) -> RollupState:
        """See `lookalike.core.ports.RollupTable`."""
        revision = self._table.put_revised(
            "state of the roll-up",
            _key(_STATE, _STATE),
            pack_record(replace(state, revision=None)),
            state.revision,
        )
        return replace(state, revision=revision)

    def _between(self, scope: str, period: Period, first: int, last: int) -> list[Item]:
        if last < first:
            return []
        items, _ = self._table.page(
            "#p = :p AND #s BETWEEN :first AND :last",
            {
                ":p": text(scope),
                ":first": text(_entry(period, first)),
                ":last": text(_entry(period, last)),
            },
            {"#p": "scope", "#s": "entry"},
            last - first + 1,
        )
        return items


def _key(scope: str, entry: str) -> Item:
    return {"scope": text(scope), "entry": text(entry)}


def _entry(period: Period, number: int) -> str:
    start = min(start_of(period, number), NEVER)  # a range may end behind every date
    return datetime.fromtimestamp(start, UTC).strftime(_FORMS[period])


def _at(at: float) -> dict[str, Any]:
    return {
        "ExpressionAttributeNames": {"#at": "at"},
        "ExpressionAttributeValues": {":at": {"N": repr(at)}},
    }
