"""“Why?” answers about what was clicked, whatever finishes meanwhile."""

from __future__ import annotations

import asyncio
import base64
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("panel")

from dashboard.client import Problem
from dashboard.pages.search import SearchPage
from dashboard.pages.why import WhyDialog
from dashboard.state import State

ANSWER = {
    "score": 0.9,
    "foreground_share": 0.5,
    "background_share": None,
    "trust": {"better_than_chance": None},
}


class FakeApi:
    """Explanations that are answered when the test says so."""

    def __init__(self) -> None:
        self.waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}

    async def explanation(self, url: str) -> dict[str, Any]:
        self.waiting[url] = asyncio.get_running_loop().create_future()
        return await self.waiting[url]

    async def pair_picture(self, url: str) -> bytes:
        return url.encode()


def result(name: str) -> dict[str, Any]:
    return {
        "product_id": name,
        "title": name.upper(),
        "score": 0.9,
        "attributes": {},
        "explanation_url": f"http://api/explanations/Q/{name}",
    }


async def asked(api: FakeApi, url: str) -> asyncio.Future[dict[str, Any]]:
    """The request for an explanation, once it has been made."""
    while url not in api.waiting:
        await asyncio.sleep(0)
    return api.waiting[url]


@pytest.mark.parametrize("late", ["answer", "problem"])
def test_an_answer_that_comes_late_is_not_shown(late: str) -> None:
    async def run() -> None:
        api = FakeApi()
        dialog = WhyDialog(api)
        urls = [str(result(name)["explanation_url"]) for name in "ab"]
        first = asyncio.create_task(dialog.explain(result("a")))
        slow = await asked(api, urls[0])
        second = asyncio.create_task(dialog.explain(result("b")))
        (await asked(api, urls[1])).set_result(ANSWER | {"score": 0.7})
        await second
        shown = dialog._body.object
        pair = base64.b64encode(urls[1].encode()).decode()
        assert "0.700" in shown and pair in shown and "<dd>–</dd>" in shown
        if late == "answer":
            slow.set_result(ANSWER)
        else:
            slow.set_exception(Problem("Gone", "It has expired."))
        await first
        assert dialog._body.object == shown
        assert dialog._layout.title == "B"

    asyncio.run(run())


def test_a_click_is_on_a_result_and_not_on_a_place() -> None:
    async def run() -> None:
        api = FakeApi()
        page = SearchPage(api, State())
        explained: list[Any] = []

        async def explain(item: Any) -> None:
            explained.append(item)

        page._why = SimpleNamespace(explain=explain)
        old, new = result("a"), result("b")
        for found in (old, new):
            page._show({"results": [found], "took_ms": {"total": 1.0}})
        for item in (old, new):
            await page._on_why(SimpleNamespace(new=item["explanation_url"]))
        assert explained == [new]
        assert page._results.asked == ""

    asyncio.run(run())
