"""Figures of spans, drift, and the searches that shoppers have judged."""

from __future__ import annotations

import random

import pytest

from lookalike.adapters.memory import memory_stores_of
from lookalike.core.feedback import FeedbackEntry
from lookalike.core.rollups import Rollup
from lookalike.core.search_hours import DAY_S, hour_of, number_at, start_of
from lookalike.core.tally import ClusterTally, Tally
from lookalike.core.types import SearchRecord
from lookalike.services.analytics import Analytics, figures_of
from search_log.simulated import ulid

MONDAY = start_of("week", 2_811)


@pytest.fixture
def now() -> list[float]:
    return [MONDAY + 3.5 * DAY_S]


@pytest.fixture
def stores(now):
    return memory_stores_of(lambda: now[0])


def tally(searches: int, clusters: dict[str, int] | None = None) -> Tally:
    named = {name: ClusterTally(count) for name, count in (clusters or {}).items()}
    return Tally(searches=searches, clusters=named)


def put(stores, period: str, number: int, found: Tally) -> None:
    stores.rollups.put(Rollup("s", period, number, found, 1.0))


def test_figures_of_nothing_have_no_shares():
    figures = figures_of(Tally(), 0, 1)
    assert figures.searches == 0
    missing = ("click_through", "mrr", "ndcg", "p50_ms", "mean_ms", "mean_click_position")
    assert [getattr(figures, name) for name in missing] == [None] * len(missing)
    assert figures.no_good_match_share is None and figures.top_score_p50 is None


def test_shares_of_verdicts_are_of_searches_that_got_one():
    found = Tally(
        searches=10, verdicts={"": 2, "match": 5, "low_confidence": 1, "no_good_match": 2}
    )
    figures = figures_of(found, 0, 1)
    assert figures.no_good_match_share == 0.25 and figures.low_confidence_share == 0.125


def test_scores_are_told_by_the_middle_of_their_step():
    figures = figures_of(Tally(searches=4, scores={-1: 1, 40: 2, 41: 1}, matches={18: 4}), 0, 1)
    assert figures.top_score_p50 == pytest.approx(0.81)
    assert figures.top_score_p10 == pytest.approx(-0.01)
    assert figures.match_p50 == pytest.approx(0.925)


def test_a_span_is_made_of_as_few_aggregates_as_there_are(stores, now, monkeypatch):
    """Weeks in the middle, days and hours at the ends; each part is worth a power of its own."""
    since, until = MONDAY + 5 * DAY_S + 22 * 3_600, MONDAY + 15 * DAY_S + 2 * 3_600
    hours = [number_at("hour", since) + step for step in range(-2, 2)]
    hours += [number_at("hour", until) + step for step in range(-2, 2)]
    for place, hour in enumerate(hours):
        put(stores, "hour", hour, tally(10**place))
    for place, day in enumerate((6, 14, 15)):
        put(stores, "day", number_at("day", MONDAY + day * DAY_S), tally(10 ** (8 + place)))
    put(stores, "week", 2_812, tally(10**11))
    overview = Analytics(stores, lambda: now[0]).overview("s", since, until)
    inside = [10**2, 10**3, 10**4, 10**5, 10**8, 10**9, 10**11]
    assert overview.figures.searches == sum(inside)


def test_series_hold_what_begins_in_the_span(stores, now):
    for day in (19_675, 19_676, 19_678):
        put(stores, "day", day, tally(day))
    analytics = Analytics(stores, lambda: now[0])
    start = start_of("day", 19_675)
    found = analytics.series("s", "day", start + 1, start + 3 * DAY_S)
    assert [item.searches for item in found] == [19_676]
    found = analytics.series("s", "day", start, start + 3 * DAY_S + 1)
    assert [item.searches for item in found] == [19_675, 19_676, 19_678]
    assert analytics.series("other", "day", 0, 2**32) == []


def test_drift_is_told_from_week_to_week(stores, now):
    put(stores, "week", 2_808, tally(99, {"c1": 99}))
    put(stores, "week", 2_809, tally(400, {"c1": 400}))
    put(stores, "week", 2_810, tally(400, {"c1": 200, "c2": 200}))
    put(stores, "week", 2_811, tally(400, {"c2": 200, "c3": 200}))
    day = number_at("day", MONDAY)
    for back, sizes in ((9, {"c9": 1}), (1, {"c1": 5}), (0, {"c1": 1}), (-3, {"c1": 3, "c2": 3})):
        stores.rollups.put_sizes("s", day - back, sizes)
    drift = Analytics(stores, lambda: now[0]).drift("s", weeks=3)
    assert [item.start for item in drift] == [MONDAY - 2 * 7 * DAY_S, MONDAY - 7 * DAY_S, MONDAY]
    assert [item.queries for item in drift] == [None, pytest.approx(0.311278, abs=1e-6), 0.5]
    assert drift[2].moved == [("c1", -0.5), ("c3", 0.5)]
    # The catalogue: each week by its last day; this one's is the day that was recorded last.
    assert [item.catalogue for item in drift] == [None, 1.0, pytest.approx(0.311278, abs=1e-6)]


def judged_world(stores, at: float, number: int) -> list[str]:
    rng = random.Random(at)
    ids = []
    for place in range(number):
        query_id = ulid(at + place, rng)
        record = SearchRecord(
            query_id, at, "s", "e", "g", "image", 10, (("a", "v", 0.9), ("b", "v", 0.8)), {}
        )
        stores.log.write(record)
        said = [("a", "click", 1), ("a", "buy", 1), ("b", "bad", 2)]
        for name, event, rank in said[: 1 + place % 3]:
            stores.feedback.put(
                FeedbackEntry(query_id, name, event, rank, "s", at, at + 90 * DAY_S)
            )
        ids.append(query_id)
    put(stores, "hour", hour_of(ids[0]), Tally(searches=number, clicks=number))
    return ids


def test_judged_searches_come_newest_first(stores, now):
    old = judged_world(stores, MONDAY - 6 * DAY_S, 3)
    new = judged_world(stores, MONDAY + 2 * DAY_S, 4)
    stores.feedback.put(FeedbackEntry(new[0], "x", "click", 1, "other", 1.0, 2**33))
    put(stores, "hour", hour_of(new[0]) + 1, Tally(searches=5))
    for week in (2_810, 2_811):
        put(stores, "week", week, tally(4))
    analytics = Analytics(stores, lambda: now[0])
    found = list(analytics.judged("s", 100, MONDAY - 10 * DAY_S))
    assert [item.record.query_id for item in found] == [*reversed(new), *reversed(old)]
    assert [item.gains for item in found[-3:]] == [{"a": 3, "b": 0}, {"a": 3}, {"a": 1}]
    assert len(list(analytics.judged("s", 5, 0.0))) == 5
    assert len(list(analytics.judged("s", 100, MONDAY))) == 4
    assert list(analytics.judged("other", 100)) == []
