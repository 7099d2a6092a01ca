"""Queues whose calls cost the same at every depth; moto looks at all messages in most of them.

A message is ready, delayed or in flight; it is filed by that, and found by its id and by every
receipt handle that it has had. Standard queues only.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

from moto.core.utils import unix_time_millis
from moto.sqs.exceptions import InvalidParameterValue, ReceiptHandleIsInvalid, SQSException
from moto.sqs.models import (
    Message,
    Queue,
    SQSBackend,
    _filter_message_attributes,
    sqs_backends,
)
from moto.sqs.utils import generate_receipt_handle

from local.aws.touched import MessageRecord, touch

READY, DELAYED, IN_FLIGHT = "ready", "delayed", "in flight"
MAX_INVISIBLE_MS = 43_200_000
_HANDLE_LENGTH = len(generate_receipt_handle())

sequence = itertools.count(1)
"""Orders messages by arrival."""
_may_dangle = False


class Messages:
    """The messages of one queue, in the order of their arrival where moto iterates.

    Parameters
    ----------
    queue_arn
        The queue, for the records of what is touched.
    """

    def __init__(self, queue_arn: str) -> None:
        self._arn = queue_arn
        self._by_id: dict[str, Any] = {}
        self._by_handle: dict[str, Any] = {}
        self._places: Counter[str | None] = Counter()
        self._ready: list[tuple[int, str]] = []
        self._waiting: list[tuple[float, str]] = []

    def __iter__(self) -> Iterator[Any]:
        return iter(sorted(self._by_id.values(), key=lambda message: message.sequence))

    def __len__(self) -> int:
        return len(self._by_id)

    def count(self, place: str) -> int:
        """How many messages are there."""
        self._wake()
        return self._places[place]

    def get(self, message_id: str) -> Any:
        """The message, or ``None``."""
        return self._by_id.get(message_id)

    def of_handle(self, handle: str) -> Any:
        """The message that has or had a receipt handle, or ``None``."""
        return self._by_handle.get(handle)

    def append(self, message: Any) -> None:
        """Take a message in."""
        if not hasattr(message, "sequence"):
            message.sequence = next(sequence)
        message.place = None
        self._by_id[message.id] = message
        for handle in message.all_receipt_handles:
            if handle:
                self._by_handle[handle] = message
        self.file(message)

    def remove(self, message: Any) -> None:
        """Let a message go."""
        touch(MessageRecord(self._arn, message.id))
        del self._by_id[message.id]
        self._leave(message)
        for handle in message.all_receipt_handles:
            self._by_handle.pop(handle or "", None)

    def clear(self) -> None:
        """Let all messages go."""
        for message in list(self._by_id.values()):
            self.remove(message)

    def received(self, message: Any) -> None:
        """File a message that has got a receipt handle."""
        self._by_handle[message.receipt_handle] = message
        self.file(message)

    def file(self, message: Any) -> None:
        """Put a message in its place, after its times have changed."""
        touch(MessageRecord(self._arn, message.id))
        was_ready = message.place == READY
        self._leave(message)
        now = unix_time_millis()
        due = max(message.delayed_until, message.visible_at)
        if message.delayed_until > now:
            message.place = DELAYED
        elif message.visible_at >= now:
            message.place = IN_FLIGHT
        else:
            message.place = READY
        self._places[message.place] += 1
        if message.place != READY:
            heapq.heappush(self._waiting, (due, message.id))
        elif not was_ready:
            heapq.heappush(self._ready, (message.sequence, message.id))

    def _leave(self, message: Any) -> None:
        if message.place is not None:
            self._places[message.place] -= 1
            message.place = None

    def ready(self) -> Iterator[Any]:
        """The messages that can be received, the oldest first; each must then be filed anew."""
        self._wake()
        while self._ready:
            _, message_id = heapq.heappop(self._ready)
            message = self._by_id.get(message_id)
            if message is not None and message.place == READY:
                # In no place until then: another entry of it in the heap means nothing.
                self._leave(message)
                yield message

    def _wake(self) -> None:
        """File those whose time has come. An entry is outdated if its message has other times."""
        now = unix_time_millis()
        while self._waiting and self._waiting[0][0] < now:
            due, message_id = heapq.heappop(self._waiting)
            message = self._by_id.get(message_id)
            if message is None or message.place == READY:
                continue
            if max(message.delayed_until, message.visible_at) <= due:
                self._leave(message)
                self._places[READY] += 1
                message.place = READY
                heapq.heappush(self._ready, (message.sequence, message.id))


def keep_queues_fast() -> None:
    """Replace what moto does with the messages of a queue."""
    make_queue = Queue.__init__

    def make_standard_queue(self: Any, *args: Any, **kwargs: Any) -> None:
        make_queue(self, *args, **kwargs)
        if self.fifo_queue:
            raise InvalidParameterValue("The local cloud has standard queues only.")
        self._messages = Messages(self.queue_arn)

    patches: list[tuple[Any, str, Any]] = [
        (Queue, "__init__", make_standard_queue),
        (Queue, "add_message", lambda self, message: self._messages.append(message)),
        (Queue, "delete_message", _delete_message),
        (Queue, "dead_letter_queue", property(_dead_letter_queue, lambda queue, found: None)),
        (Queue, "_setup_dlq", _setting_up(Queue._setup_dlq)),
        (Queue, "approximate_number_of_messages", _count_of(READY)),
        (Queue, "approximate_number_of_messages_delayed", _count_of(DELAYED)),
        (Queue, "approximate_number_of_messages_not_visible", _count_of(IN_FLIGHT)),
        (SQSBackend, "receive_message", _receive_message),
        (SQSBackend, "change_message_visibility", _change_message_visibility),
        (SQSBackend, "purge_queue", _purge_queue),
        (SQSBackend, "delete_queue", _delete_queue),
    ]
    for owner, name, patch in patches:
        setattr(owner, name, patch)


def release(queue: Any) -> None:
    """Make every message that is in flight visible again."""
    for message in list(queue._messages):
        if message.place == IN_FLIGHT:
            message.visible_at = 0.0
            queue._messages.file(message)


@contextmanager
def dead_letters_may_be_missing() -> Iterator[None]:
    """Let queues name dead-letter queues that are not there: at a start, when it was allowed."""
    global _may_dangle
    _may_dangle = True
    try:
        yield
    finally:
        _may_dangle = False


def _setting_up(original: Callable[..., None]) -> Callable[..., None]:
    def set_up(self: Any, policy: Any) -> None:
        try:
            original(self, policy)
        except SQSException:
            if not _may_dangle:
                raise

    return set_up


def _dead_letter_queue(queue: Any) -> Any:
    """As on AWS, whatever has the name now; moto holds on to a queue that is deleted."""
    if not queue.redrive_policy:
        return None
    arn = queue.redrive_policy["deadLetterTargetArn"]
    found = sqs_backends[queue.account_id][queue.region].queues.get(arn.rsplit(":", 1)[-1])
    return found if found is not None and found.queue_arn == arn else None


def _count_of(place: str) -> property:
    return property(lambda queue: queue._messages.count(place))


def _receive_message(
    self: Any,
    queue_name: str,
    count: int,
    wait_seconds_timeout: int,
    visibility_timeout: int,
    message_attribute_names: list[str] | None = None,
) -> list[Message]:
    """Answers at once: what waits for messages is ``moto_server``."""
    queue = self.get_queue(queue_name)
    oldest_ms = unix_time_millis() - queue.message_retention_period * 1000
    received: list[Message] = []
    answers: list[Message] = []
    for message in queue._messages.ready():
        if message.sent_timestamp <= oldest_ms:
            queue._messages.remove(message)
        elif _is_dead(queue, message):
            queue._messages.remove(message)
            queue.dead_letter_queue.add_message(message)
        else:
            message.mark_received(visibility_timeout=visibility_timeout)
            received.append(message)
            if len(received) == count:
                break
    for message in received:
        # Now, since with no timeout it is ready again, for the next call.
        queue._messages.received(message)
        answer = copy(message)
        _filter_message_attributes(answer, message_attribute_names or [])
        answers.append(answer)
    return answers


def _is_dead(queue: Any, message: Any) -> bool:
    return (
        queue.dead_letter_queue is not None
        and message.approximate_receive_count >= queue.redrive_policy["maxReceiveCount"]
    )


def _delete_message(self: Any, receipt_handle: str) -> None:
    """As on AWS, a message that is gone already is deleted with success."""
    message = self._messages.of_handle(receipt_handle)
    if message is not None:
        self._messages.remove(message)
    elif len(receipt_handle) != _HANDLE_LENGTH:
        raise ReceiptHandleIsInvalid


def _change_message_visibility(
    self: Any, queue_name: str, receipt_handle: str, visibility_timeout: int
) -> None:
    queue = self.get_queue(queue_name)
    message = queue._messages.of_handle(receipt_handle)
    if message is None:
        raise ReceiptHandleIsInvalid
    end = unix_time_millis() + int(visibility_timeout) * 1000
    if end - message.sent_timestamp > MAX_INVISIBLE_MS:
        raise InvalidParameterValue(
            f"Value {visibility_timeout} for parameter VisibilityTimeout is invalid. Reason: Total "
            "VisibilityTimeout for the message is beyond the limit [43200 seconds]"
        )
    message.visible_at = end if int(visibility_timeout) else 0.0
    queue._messages.file(message)


def _purge_queue(self: Any, queue_name: str) -> None:
    self.get_queue(queue_name)._messages.clear()


def _delete_queue(self: Any, queue_name: str) -> None:
    queue = self.get_queue(queue_name)
    queue._messages.clear()
    del self.queues[queue_name]
