from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from local.schedule_expression import ScheduleError, parse_schedule
from local.scheduler import scheduled_event


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("rate(15 minutes)", "2026-01-01 10:07:30", "2026-01-01 10:22:30"),
        ("rate(1 hour)", "2026-01-01 23:30:00", "2026-01-02 00:30:00"),
        ("rate(2 days)", "2026-02-27 00:00:00", "2026-03-01 00:00:00"),
        ("cron(0 3 * * ? *)", "2026-01-01 03:00:00", "2026-01-02 03:00:00"),
        ("cron(0 3 * * ? *)", "2026-01-01 02:59:59", "2026-01-01 03:00:00"),
        ("cron(0/15 * * * ? *)", "2026-01-01 10:14:59", "2026-01-01 10:15:00"),
        ("cron(*/20 8-10 * * ? *)", "2026-01-01 10:40:00", "2026-01-02 08:00:00"),
        # 1 January 2026 is a Thursday; 2 is Monday for AWS, not Tuesday as for Unix.
        ("cron(30 6 ? * 2 *)", "2026-01-01 00:00:00", "2026-01-05 06:30:00"),
        ("cron(30 6 ? * MON-FRI *)", "2026-01-02 07:00:00", "2026-01-05 06:30:00"),
        ("cron(0 0 ? * SUN *)", "2026-01-01 00:00:00", "2026-01-04 00:00:00"),
        ("cron(0 0 29 2 ? *)", "2026-01-01 00:00:00", "2028-02-29 00:00:00"),
        ("cron(0 0 31 * ? *)", "2026-04-01 00:00:00", "2026-05-31 00:00:00"),
        ("cron(59 23 31 DEC ? 2027)", "2026-06-01 00:00:00", "2027-12-31 23:59:00"),
        ("cron(5,10 0 1 JAN,jul ? *)", "2026-01-01 00:05:00", "2026-01-01 00:10:00"),
    ],
)
def test_next_time(expression: str, after: str, expected: str) -> None:
    assert parse_schedule(expression).next_after(moment(after)) == moment(expected)


@pytest.mark.parametrize(
    "expression",
    [
        "every 5 minutes",
        "rate(1 minutes)",
        "rate(5 minute)",
        "rate(0 minutes)",
        "rate(1.5 hours)",
        "cron(0 3 * * *)",
        "cron(0 3 * * * *)",
        "cron(0 3 ? * ? *)",
        "cron(60 3 * * ? *)",
        "cron(0 24 * * ? *)",
        "cron(0 3 L * ? *)",
        "cron(0 3 15W * ? *)",
        "cron(0 3 ? * 6#3 *)",
        "cron(30-10 3 * * ? *)",
        "cron(0 3 * FOO ? *)",
    ],
)
def test_refuses_what_it_does_not_understand(expression: str) -> None:
    with pytest.raises(ScheduleError):
        parse_schedule(expression)


def test_a_schedule_that_never_matches_again_says_so() -> None:
    with pytest.raises(ScheduleError, match="never"):
        parse_schedule("cron(0 0 30 2 ? *)").next_after(moment("2026-01-01 00:00:00"))


def test_every_match_of_a_cron_schedule_is_found_in_order() -> None:
    schedule = parse_schedule("cron(0/7 1-3 ? * MON,WED *)")
    start, end = moment("2026-03-01 00:00:00"), moment("2026-03-15 00:00:00")
    expected = [
        candidate
        for minutes in range(int((end - start) / timedelta(minutes=1)))
        if (candidate := start + timedelta(minutes=minutes)).weekday() in (0, 2)
        and candidate.hour in (1, 2, 3)
        and candidate.minute % 7 == 0
    ]
    found, at = [], start - timedelta(minutes=1)
    while (at := schedule.next_after(at)) < end:
        found.append(at)
    assert found == expected


def test_the_event_is_eventbridges() -> None:
    event = scheduled_event("Nightly", moment("2026-01-02 03:00:00"))
    assert event.pop("id") != scheduled_event("Nightly", moment("2026-01-02 03:00:00"))["id"]
    assert event == {
        "version": "0",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "123456789012",
        "time": "2026-01-02T03:00:00Z",
        "region": "us-east-1",
        "resources": ["arn:aws:events:us-east-1:123456789012:rule/Nightly"],
        "detail": {},
    }
