"""Which hours are counted when, and in which order things end."""

from __future__ import annotations

from lookalike.core.rollups import (
    LEAVING_S,
    LEFT_S,
    REST,
    SETTLE_S,
    TOUCH_EVERY_S,
    Counted,
    RollupState,
    TouchedHour,
    has_left,
    hours_due,
    is_leaving,
    is_settled,
    last_to_purge,
)
from lookalike.core.search_hours import end_of, start_of

HOUR = 472_222
NOW = start_of("hour", HOUR) + 1_800.0
RETENTION_S = 90 * 86_400


def due(touched_at: float, counted: Counted | None, now: float, **options) -> bool:
    state = RollupState(0, {HOUR: counted} if counted else {})
    touched = [TouchedHour(HOUR, touched_at)]
    return bool(hours_due(touched, state, RETENTION_S, now, **options))


def test_an_hour_that_was_never_counted_is_due_at_once():
    assert due(NOW, None, NOW)


def test_an_hour_is_counted_again_when_all_writes_have_ended_and_not_before():
    counted = Counted(NOW + 10, NOW, 0.1)
    assert not due(NOW, counted, NOW + 60)
    assert not due(NOW, counted, NOW + SETTLE_S - 1)
    assert due(NOW, counted, NOW + SETTLE_S)
    assert is_settled(TouchedHour(HOUR, NOW), NOW + SETTLE_S)
    assert not is_settled(TouchedHour(HOUR, NOW), NOW + SETTLE_S - 1)


def test_an_hour_that_was_written_to_since_is_due_unless_counting_it_takes_long():
    assert due(NOW + 30, Counted(NOW + 10, NOW, 0.1), NOW + 40)
    slow = Counted(NOW + 10, NOW, 60.0)
    assert not due(NOW + 30, slow, NOW + 10 + REST * 60 - 1)
    assert due(NOW + 30, slow, NOW + 10 + REST * 60)
    assert due(NOW + 30, slow, NOW + 40, at_once=True)


def test_hours_come_in_order_and_not_when_they_have_left():
    touched = [TouchedHour(HOUR + 1, NOW), TouchedHour(HOUR, NOW), TouchedHour(5, NOW)]
    found = hours_due(touched, RollupState(0), RETENTION_S, NOW)
    assert [item.hour for item in found] == [HOUR, HOUR + 1]


def test_feedback_ends_before_counting_and_counting_before_entries_expire():
    first_expires = start_of("hour", HOUR) + RETENTION_S
    refused, final = first_expires - LEAVING_S, first_expires - LEFT_S
    assert is_leaving(HOUR, RETENTION_S, refused) and not is_leaving(HOUR, RETENTION_S, refused - 1)
    assert has_left(HOUR, RETENTION_S, final) and not has_left(HOUR, RETENTION_S, final - 1)
    # What came at the last moment is still counted, when all writes have ended.
    assert final - refused > SETTLE_S + TOUCH_EVERY_S + 15 * 60
    assert LEFT_S >= 15 * 60  # a function that has begun to count ends before the first expires


def test_what_is_purged_has_expired_to_the_last_entry():
    for now in (NOW, NOW + 1_799, NOW + 1_801):
        last = last_to_purge(RETENTION_S, now)
        assert end_of("hour", last) + RETENTION_S <= now
        assert end_of("hour", last + 4 * 24) + RETENTION_S > now
