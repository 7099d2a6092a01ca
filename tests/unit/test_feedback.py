"""Feedback is taken on what was shown, by who may know of it, as long as it can be counted."""

from __future__ import annotations

import pytest

from lookalike.adapters.memory import memory_stores_of
from lookalike.core.access import Caller
from lookalike.core.errors import (
    Gone,
    InvalidRequest,
    MalformedBody,
    NotFound,
    UnsupportedMedia,
)
from lookalike.core.rollups import LEAVING_S
from lookalike.core.search_hours import SHARDS, hour_of, start_of
from lookalike.core.types import SearchRecord
from lookalike.http.feedback_parameters import read_feedback
from lookalike.http.message import HttpRequest
from lookalike.services.counted_writes import CountedWrites
from lookalike.services.feedback import Feedback, FeedbackRequest

ID = "01HF7YAT00" + "0" * 16
AT = 1_700_000_000.0
RETENTION_S = 90 * 86_400


class World:
    def __init__(self) -> None:
        self.now = AT + 5
        self.stores = memory_stores_of(self.clock)
        writes = CountedWrites(self.stores, RETENTION_S, self.clock)
        self.feedback = Feedback(self.stores, writes, RETENTION_S, self.clock)
        results = (("boot-1", "front", 0.9), ("boot-7", "side", 0.8))
        writes.write(SearchRecord(ID, AT, "shoes", "e", "g", "image", 10, results, {"total": 5.0}))

    def clock(self) -> float:
        return self.now

    def kept(self):
        hour = hour_of(ID)
        pages = [self.stores.feedback.page(hour, shard, "", 9, AT) for shard in range(SHARDS)]
        return [entry for page, _ in pages for entry in page]


@pytest.fixture
def world() -> World:
    return World()


def asked(query_id=ID, product_id="boot-7", event="click", rank=2) -> FeedbackRequest:
    return FeedbackRequest(query_id, product_id, event, rank)


def test_an_event_is_kept_once(world):
    world.feedback.record(asked())
    world.now += 10
    world.feedback.record(asked())
    (kept,) = world.kept()
    assert (kept.product_id, kept.event, kept.rank, kept.catalogue) == (
        "boot-7",
        "click",
        2,
        "shoes",
    )
    assert kept.at == AT + 5 and kept.expires_at == AT + RETENTION_S
    world.feedback.record(asked(event="buy"))
    world.feedback.record(asked(product_id="boot-1", rank=1))
    assert len(world.kept()) == 3


@pytest.mark.parametrize(
    ("request_", "parameter"),
    [
        (asked(product_id="boot-2"), "product_id"),
        (asked(product_id=""), "product_id"),
        (asked(rank=1), "rank"),
        (asked(rank=3), "rank"),
        (asked(rank=0), "rank"),
        (asked(rank=-1), "rank"),
    ],
)
def test_what_was_not_shown_there_is_refused(world, request_, parameter):
    with pytest.raises(InvalidRequest) as caught:
        world.feedback.record(request_)
    assert caught.value.parameter == parameter
    assert world.kept() == []


@pytest.mark.parametrize("query_id", ["", "x", "01HF7YAT01" + "0" * 16, "7" + "Z" * 25, "é" * 26])
def test_searches_that_there_were_not_are_not_found(world, query_id):
    with pytest.raises(NotFound):
        world.feedback.record(asked(query_id=query_id))


def test_searches_of_others_are_not_found_either(world):
    with pytest.raises(NotFound) as caught:
        world.feedback.record(asked(), Caller("k", frozenset({"bags"})))
    with pytest.raises(NotFound) as never:
        other = "01HF7YAT01" + "0" * 16
        world.feedback.record(asked(query_id=other), Caller("k", frozenset({"bags"})))
    assert caught.value.detail == never.value.detail.replace(other, ID)
    world.feedback.record(asked(), Caller("k", frozenset({"shoes"})))
    assert len(world.kept()) == 1


def test_it_is_too_late_before_the_hour_leaves_the_log(world):
    end = start_of("hour", hour_of(ID)) + RETENTION_S - LEAVING_S
    world.now = end - 1
    world.feedback.record(asked())
    world.now = end
    with pytest.raises(Gone):
        world.feedback.record(asked(event="buy"))
    with pytest.raises(Gone):
        world.feedback.record(asked(query_id="0" * 26))
    assert len(world.kept()) == 1


def test_the_hour_is_touched_before_the_event_is_kept(world):
    for touched in world.stores.rollups.touched():
        world.stores.rollups.settle(touched)
    world.now += 3_600
    world.feedback.record(asked())
    (touched,) = world.stores.rollups.touched()
    assert (touched.hour, touched.at) == (hour_of(ID), world.now)


BODY = b'{"query_id": "q", "product_id": "p", "event": "click", "rank": 1}'


def test_requests_are_read():
    request = HttpRequest(body=BODY, content_type="application/json; charset=utf-8")
    assert read_feedback(request) == FeedbackRequest("q", "p", "click", 1)


@pytest.mark.parametrize(
    "changed",
    [
        (b"click", b"like"),
        (b'"rank": 1', b'"rank": 0'),
        (b'"rank": 1', b'"rank": 101'),
        (b'"rank": 1', b'"rank": 1.5'),
        (b'"rank": 1', b'"rank": "1"'),
        (b', "rank": 1', b""),
        (b'"rank"', b'"at"'),
        (b'"p"', b'"' + b"p" * 300 + b'"'),
        (b'"q"', b"null"),
    ],
    ids=str,
)
def test_fields_that_are_wrong_are_named(changed):
    with pytest.raises(InvalidRequest) as caught:
        read_feedback(HttpRequest(body=BODY.replace(*changed)))
    assert caught.value.parameter or "`rank`" in caught.value.detail


def test_bodies_that_are_none_are_refused():
    for body in (b"", b"[]", b"{", b"\xff", b'{"query_id": "\\ud800"}'):
        with pytest.raises((MalformedBody, InvalidRequest)):
            read_feedback(HttpRequest(body=body))
    with pytest.raises(UnsupportedMedia):
        read_feedback(HttpRequest(body=BODY, content_type="text/plain"))
    with pytest.raises(InvalidRequest):
        read_feedback(HttpRequest(body=BODY, query={"catalogue": ["s"]}))
