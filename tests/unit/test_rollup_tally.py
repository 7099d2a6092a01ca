from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import asdict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lookalike.core import top_counts
from lookalike.core.divergence import jensen_shannon
from lookalike.core.feedback import FeedbackEntry
from lookalike.core.search_hours import (
    end_of,
    hour_of,
    moment_of,
    number_at,
    shard_of,
    start_of,
    within,
)
from lookalike.core.tally import UNIT, Tally, ndcg_at
from lookalike.core.top_counts import TopCounts
from lookalike.core.types import SearchRecord
from search_log.simulated import searches, ulid


def test_ndcg_by_hand():
    assert ndcg_at([1, 0, 0], 10) == 1
    assert ndcg_at([0, 1, 0], 10) == pytest.approx(1 / math.log2(3))
    assert ndcg_at([1, 3], 10) == pytest.approx((1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)))
    assert ndcg_at([0, 0], 10) == 0
    assert ndcg_at([0] * 10 + [3], 10) == 0  # chosen, but not among the first ten


def test_one_search_by_hand():
    record = SearchRecord(
        "01HF7YAT00" + "0" * 16, 5.0, "s", "e", "g", "image", 3,
        (("a", "v", 0.8), ("b", "v", 0.7), ("c", "v", 0.6)), {"total": 12.0, "encode": 9.0},
        cluster="c4", verdict="match", match=0.93,
    )  # fmt: skip
    said = [
        FeedbackEntry(record.query_id, name, event, rank, "s", 6.0, 9.0)
        for name, event, rank in (
            ("b", "click", 2),
            ("b", "buy", 2),
            ("c", "click", 3),
            ("a", "bad", 1),
        )
    ]
    tally = Tally()
    tally.observe(record, said)
    assert (tally.searches, tally.clicked, tally.bought, tally.chosen) == (1, 1, 1, 1)
    assert (tally.clicks, tally.buys, tally.bads, tally.click_ranks) == (2, 1, 1, 5)
    assert tally.reciprocal_ranks == UNIT // 2
    expected = (3 / math.log2(3) + 1 / 2) / (3 + 1 / math.log2(3))
    assert tally.ndcg == round(UNIT * expected)
    assert tally.shown.counts == {"a": 1, "b": 1, "c": 1}
    assert tally.clicked_products.counts == {"b": 1, "c": 1}
    assert tally.scores == {40: 1} and tally.matches == {18: 1}
    assert tally.weakest == [(800_000_000, record.query_id)]
    assert asdict(tally.clusters["c4"]) == {"searches": 1, "refused": 0, "clicked": 1}


def test_parts_in_any_order_make_the_whole_and_survive_being_stored():
    searched = list(searches(300, 3.0))
    whole = Tally()
    for item in searched:
        whole.observe(*item)
    rng = random.Random(4)
    for parts in (1, 3, 40):
        tallies = [Tally() for _ in range(parts)]
        for item in searched:
            rng.choice(tallies).observe(*item)
        rng.shuffle(tallies)
        merged = Tally()
        for tally in tallies:
            stored = msgspec.json.encode(tally.trim())
            merged.merge(msgspec.json.decode(stored, type=Tally))
        assert merged.trim() == whole.trim()
    assert whole.trim() == whole


@given(
    st.lists(st.lists(st.sampled_from([f"p{number}" for number in range(40)])), max_size=6),
    st.integers(3, 30),
)
def test_counts_of_the_most_frequent_keep_their_promise(parts, kept):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(top_counts, "BUFFER", 2 * kept)
        patch.setattr(top_counts, "KEPT", kept)
        merged = TopCounts()
        for part in parts:
            counts = TopCounts()
            for name in part:
                counts.add([name])
            merged.merge(counts.trimmed())
        trimmed = merged.trimmed()
    exact = Counter(name for part in parts for name in part)
    assert len(trimmed.counts) <= kept
    for name, count in exact.items():
        found = trimmed.counts.get(name, 0)
        assert found <= count <= found + trimmed.error
    if len(exact) <= kept:
        assert trimmed.error == 0 and trimmed.counts == exact


def test_stored_names_are_bounded_in_bytes():
    counts = TopCounts()
    counts.add([f"{number:04d}" + "ü" * 120 for number in range(1_500)])
    trimmed = counts.trimmed()
    assert sum(len(name.encode()) for name in trimmed.counts) <= top_counts.KEPT_BYTES
    assert trimmed.error == 1 and len(trimmed.counts) > 100


def test_a_tally_of_the_longest_names_fits_an_item():
    rng = random.Random(0)
    tally = Tally()
    for number in range(5_000):
        names = ["".join(rng.choices("abcdefghijklmnop0123456789", k=250)) for _ in range(2)]
        record = SearchRecord(
            ulid(1e9 + number, rng), 1e9, "s", "e", "g", "image", 2,
            tuple((name, "v", rng.random()) for name in names), {"total": rng.random() * 1e4},
            cluster=f"c{number}",
        )  # fmt: skip
        said = [
            FeedbackEntry(record.query_id, name, event, 1, "s", 1.0, 2.0)
            for name in names
            for event in ("click", "buy", "bad")
        ]
        tally.observe(record, said)
    import base64
    import zlib

    body = base64.b64encode(zlib.compress(msgspec.json.encode(tally.trim())))
    assert len(body) < 390_000
    assert len(tally.clusters) <= 2_001


def test_ids_have_an_hour_and_a_shard_and_all_else_is_refused():
    rng = random.Random(0)
    for at in (0.0, 1_700_000_000.123, 8e9):
        query_id = ulid(at, rng)
        assert moment_of(query_id) == pytest.approx(at, abs=0.001)
        assert hour_of(query_id) == int(at // 3600) and shard_of(query_id) in range(4)
    for text in ("", "0" * 25, "0" * 27, "I" + "0" * 25, "8" + "0" * 25, "7" + "Z" * 25, "é" * 26):
        with pytest.raises(ValueError):
            hour_of(text)


@given(st.floats(0, 8e9), st.sampled_from(["hour", "day", "week"]))
def test_periods_are_whole(at, period):
    number = number_at(period, at)
    assert start_of(period, number) <= at < end_of(period, number)
    if period != "hour":
        parts = {"day": "hour", "week": "day"}[period]
        first, last = within(period, number, parts)
        assert last - first + 1 == {"day": 24, "week": 7}[period]
        assert start_of(parts, first) == start_of(period, number)


def test_weeks_begin_on_mondays():
    assert start_of("week", number_at("week", 1_700_000_000)) == 1_699_833_600  # 2023-11-13


def test_divergence_of_what_is_known():
    assert jensen_shannon({"a": 3, "b": 1}, {"a": 6, "b": 2}) == 0
    assert jensen_shannon({"a": 3}, {"b": 9}) == 1
    # P = (1, 0), Q = (1/2, 1/2): H(3/4, 1/4) - H(1/2, 1/2) / 2
    assert jensen_shannon({"a": 5}, {"a": 4, "b": 4}) == pytest.approx(0.311278, abs=1e-6)
    assert jensen_shannon({}, {"a": 1}) is None
