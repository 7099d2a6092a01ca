"""A poller whose queue does not answer for a while."""

from __future__ import annotations

import asyncio

import pytest

from local import pollers
from local.functions import QueueSource
from local.sqs import SqsError
from local.worker import Outcome


class Queue:
    """One message, which is in flight from when it was received until it is deleted or released."""

    def __init__(self, fails: str) -> None:
        self._fails = fails
        self._visible = asyncio.Event()
        self._visible.set()
        self.gone = asyncio.Event()

    def _answer(self, call: str) -> None:
        if call == self._fails:
            self._fails = ""
            raise SqsError("the endpoint is gone")

    async def receive(self, count: int, wait_s: int) -> list[dict[str, object]]:
        try:
            await asyncio.wait_for(self._visible.wait(), 0.01)
        except TimeoutError:
            return []
        self._visible.clear()
        self._answer("receive")
        return [{"MessageId": "m", "ReceiptHandle": "r", "Body": "{}", "MD5OfBody": ""}]

    async def delete(self, handles: list[str]) -> None:
        if handles:
            self._answer("delete")
            self.gone.set()

    async def show_again(self, delays: list[tuple[str, int]]) -> None:
        if delays:
            self._answer("show_again")
            self._visible.set()

    async def release(self) -> None:
        if not self.gone.is_set():
            self._visible.set()


class Pool:
    """A function that fails at its first call if it is told so."""

    max_workers = 2

    def __init__(self, fails: bool) -> None:
        self._fails = fails

    async def invoke(self, payload: bytes) -> Outcome:
        error, self._fails = ("Unhandled" if self._fails else None), False
        return Outcome(b"null", error, "request", 1.0)


@pytest.mark.parametrize("call", ["receive", "delete", "show_again"])
def test_what_was_in_flight_when_the_queue_did_not_answer_comes_again(call, monkeypatch):
    monkeypatch.setattr(pollers, "_RECONNECT_S", 0.01)

    async def scenario() -> None:
        queue = Queue(call)
        source = QueueSource("arn:aws:sqs:us-east-1:1:q", 10, 0, True, None)
        pool = Pool(fails=call == "show_again")
        poller = asyncio.create_task(pollers.Poller(source, pool, queue, print).run())
        await asyncio.wait_for(queue.gone.wait(), 5)
        poller.cancel()

    asyncio.run(scenario())
