"""SQS event source mappings: queues to functions in batches, as Lambda's own pollers do it.

Differs in one thing: what failed becomes visible again after 1, 2, 4… seconds, not after the
queue's visibility timeout, so that a retry on a laptop does not take minutes.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from local.functions import QueueSource
from local.runtime import FunctionPool
from local.sqs import MAX_BATCH, Message, SqsClient, SqsError
from local.template import REGION

LONG_POLL_S = 20
MAX_RETRY_DELAY_S = 60
_RECONNECT_S = 0.5


class Poller:
    """Moves messages of one queue to one function.

    Parameters
    ----------
    source
        The mapping.
    pool
        The function; as many batches are under way as it has processes.
    queue
        Client of the queue.
    report
        Called with a line for the log.
    """

    def __init__(
        self,
        source: QueueSource,
        pool: FunctionPool,
        queue: SqsClient,
        report: Callable[[str], None],
    ) -> None:
        self._source = source
        self._pool = pool
        self._queue = queue
        self._report = report
        self._slots = asyncio.Semaphore(pool.max_workers)
        self._batches: set[asyncio.Task[None]] = set()
        self._was_cut_off = False

    async def run(self) -> None:
        """Poll until cancelled."""
        await self._release()
        while True:
            # One loop a queue: two that receive at once would only compete for the same messages.
            await self._slots.acquire()
            try:
                messages = await self._gather()
            except SqsError as error:
                self._report(f"polling {self._source.queue_name}: {error}")
                self._was_cut_off = True
                self._slots.release()
                await asyncio.sleep(_RECONNECT_S)
                continue
            except asyncio.CancelledError:
                self._slots.release()
                raise
            batch = asyncio.create_task(self._deliver(messages))
            self._batches.add(batch)
            batch.add_done_callback(self._done)

    async def _release(self) -> None:
        """Nobody but this poller consumes the queue: what is in flight was a crashed one's."""
        while True:
            try:
                return await self._queue.release()
            except SqsError as error:
                self._report(f"polling {self._source.queue_name}: {error}")
                await asyncio.sleep(_RECONNECT_S)

    async def _take_back(self) -> None:
        """What was in flight when the queue did not answer comes again now, not in minutes.

        That is what it gave out in an answer that was lost, or what could not be deleted.
        """
        await asyncio.gather(*self._batches, return_exceptions=True)
        self._was_cut_off = False
        await self._release()

    def _done(self, batch: asyncio.Task[None]) -> None:
        self._batches.discard(batch)
        self._slots.release()
        if not batch.cancelled() and (error := batch.exception()):
            self._report(f"delivering from {self._source.queue_name}: {error!r}")
            self._was_cut_off = True

    async def _gather(self) -> list[Message]:
        """One batch: what is there at once, or with a window what arrives within it."""
        source = self._source
        messages: list[Message] = []
        while not messages:
            if self._was_cut_off:
                await self._take_back()
            messages = await self._queue.receive(min(source.batch_size, MAX_BATCH), LONG_POLL_S)
        loop = asyncio.get_running_loop()
        closes = loop.time() + source.window_s
        while len(messages) < source.batch_size and (left := closes - loop.time()) > 0:
            more = await self._queue.receive(
                source.batch_size - len(messages), min(LONG_POLL_S, math.ceil(left))
            )
            messages.extend(more)
        return messages

    async def _deliver(self, messages: Sequence[Message]) -> None:
        event = {"Records": [record(item, self._source.queue_arn) for item in messages]}
        outcome = await self._pool.invoke(msgspec.json.encode(event))
        identifiers = [item["MessageId"] for item in messages]
        if outcome.error is not None:
            failed = set(identifiers)
        elif self._source.reports_item_failures:
            failed = failed_items(outcome.payload, identifiers)
        else:
            failed = set()
        await self._queue.delete(
            [item["ReceiptHandle"] for item in messages if item["MessageId"] not in failed]
        )
        await self._queue.show_again(
            [
                (item["ReceiptHandle"], retry_delay_s(item))
                for item in messages
                if item["MessageId"] in failed
            ]
        )


def record(message: Message, queue_arn: str) -> dict[str, Any]:
    """One message in the shape of Lambda's SQS event."""
    return {
        "messageId": message["MessageId"],
        "receiptHandle": message["ReceiptHandle"],
        "body": message["Body"],
        "attributes": dict(message.get("Attributes") or {}),
        "messageAttributes": {
            name: {
                "stringValue": value.get("StringValue"),
                "binaryValue": value.get("BinaryValue"),
                "stringListValues": [],
                "binaryListValues": [],
                "dataType": value["DataType"],
            }
            for name, value in (message.get("MessageAttributes") or {}).items()
        },
        "md5OfBody": message["MD5OfBody"],
        "eventSource": "aws:sqs",
        "eventSourceARN": queue_arn,
        "awsRegion": REGION,
    }


def failed_items(payload: bytes, identifiers: Sequence[str]) -> set[str]:
    """Message ids that a function reports as failed (``ReportBatchItemFailures``).

    As with Lambda, an empty answer or list means that all succeeded, and anything malformed (no
    JSON object, a missing, empty or unknown ``itemIdentifier``) that all failed.
    """
    everything = set(identifiers)
    try:
        answer = msgspec.json.decode(payload or b"null")
        if not answer:
            return set()
        reported = answer.get("batchItemFailures")
        failed = {item["itemIdentifier"] for item in reported or []}
    except (msgspec.MsgspecError, AttributeError, KeyError, TypeError):
        return everything
    return failed if failed <= everything else everything


def retry_delay_s(message: Message) -> int:
    """Seconds until a failed message is visible again: 1, 2, 4… by how often it was received."""
    received = int((message.get("Attributes") or {}).get("ApproximateReceiveCount", "1"))
    return int(min(MAX_RETRY_DELAY_S, 2 ** min(received - 1, 10)))
