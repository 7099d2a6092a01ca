"""What routes do with a key around their work: count every request, and log whose it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest

from chalicelib.api import answer_of
from chalicelib.log import logger
from lookalike import wiring
from lookalike.adapters.memory import MemoryApiKeys
from lookalike.core.access import Right
from lookalike.core.errors import NotFound
from lookalike.http.message import HttpRequest
from lookalike.services.access import Access, ApiKeys


class SlowKeys(MemoryApiKeys):
    """Counts take longer than the work does, as they may on AWS."""

    def count(self, key_id: str, minute: int) -> int:
        time.sleep(0.02)
        return super().count(key_id, minute)


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlowKeys]:
    table = SlowKeys()
    with ThreadPoolExecutor(1) as pool:
        access = Access(table, True, 10.0, pool, lambda: 60.0)
        monkeypatch.setattr(wiring, "services", lambda: SimpleNamespace(access=access))
        yield table
    logger.remove_keys(["api_key_id"])


def statuses(table: SlowKeys, view: Any, *rights: Right) -> list[int]:
    """What a key with a rate of 1 gets when it asks for these rights, one after the other."""
    key, text = ApiKeys(table, lambda: 60.0).create("x", None, ("read",), 1)
    request = HttpRequest(authorization=f"Bearer {text}")
    logged = []
    found = []
    for right in rights:
        logger.remove_keys(["api_key_id"])
        found.append(answer_of(view, request, right).status)
        logged.append(logger.get_current_keys().get("api_key_id"))
    assert logged == [key.key_id] * len(rights)
    return found


def missing(request: HttpRequest) -> object:
    raise NotFound("There is no such product.")


def test_requests_that_end_in_an_error_use_up_the_rate(table: SlowKeys) -> None:
    assert statuses(table, missing, *["read"] * 4) == [404, 429, 429, 429]


def test_so_do_those_that_the_key_may_not_make(table: SlowKeys) -> None:
    assert statuses(table, missing, *["write"] * 3) == [403, 429, 429]


def test_a_refusal_is_logged_with_its_key(table: SlowKeys) -> None:
    assert statuses(table, lambda request: {}, "read", "read", "write") == [200, 429, 429]
