"""Invokes functions by the template's schedules. A failed run is logged, not repeated."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from local.functions import Schedule
from local.runtime import FunctionPool
from local.schedule_expression import parse_schedule
from local.template import ACCOUNT_ID, REGION


class ScheduledFunction:
    """One schedule of one function.

    Parameters
    ----------
    schedule
        When, and with what input.
    pool
        The function.
    report
        Called with a line for the log.
    """

    def __init__(
        self, schedule: Schedule, pool: FunctionPool, report: Callable[[str], None]
    ) -> None:
        self.schedule = schedule
        self.next_run: datetime | None = None
        self._timing = parse_schedule(schedule.expression)
        self._pool = pool
        self._report = report

    async def run(self) -> None:
        """Invoke at every time until cancelled; times missed while it runs are skipped."""
        previous = datetime.now(UTC)
        while True:
            self.next_run = self._timing.next_after(previous)
            await asyncio.sleep(max(0.0, (self.next_run - datetime.now(UTC)).total_seconds()))
            due = self.next_run
            payload = (self.schedule.input or "").encode() or msgspec.json.encode(
                scheduled_event(self.schedule.name, due)
            )
            outcome = await self._pool.invoke(payload)
            if outcome.error:
                self._report(f"schedule {self.schedule.name}: {outcome.payload[:500]!r}")
            previous = max(due, datetime.now(UTC))


def scheduled_event(
    rule: str, moment: datetime, detail: dict[str, Any] | None = None
) -> dict[str, Any]:
    """EventBridge's event for a schedule; ``detail`` is what is asked for by hand."""
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": ACCOUNT_ID,
        "time": moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": REGION,
        "resources": [f"arn:aws:events:{REGION}:{ACCOUNT_ID}:rule/{rule}"],
        "detail": detail or {},
    }
