"""A small cloud in which everything runs as it is wired for the functions, one call after another.

Stores are those of a `Cloud`; the clock is moved by hand, encoders are toys, there are no threads.
"""

from __future__ import annotations

import copy
import functools
import io
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

import numpy as np
from PIL import Image
from ulid import ULID

from lookalike.core.encoders import ENCODERS
from lookalike.core.ports import Stores
from lookalike.events import read_batch
from lookalike.settings import Settings
from lookalike.wiring import Services, build_services

CATALOGUE = "shop"
SETTLE_S, GRACE_S = 90.0, 900.0
FOREVER = float("inf")
_BATCH = 10  # messages of one invocation
TOYS = {
    name: replace(ENCODERS["efficientnet-lite0"], name=name, input_size=16, resize_side=18, dim=24)
    for name in ("toy-a", "toy-b")
}
SMALL = Settings(
    encoder="toy-a",
    refresh_s=0,
    derived_refresh_s=0,
    merge_segments=2,
    base_rows=4,
    flat_rows=4,
    shard_rows=1000,
    head_rows=0,
    head_dim=16,
    nprobe=1_000_000,
    settle_s=SETTLE_S,
    grace_s=GRACE_S,
    keep_generation_s=4 * GRACE_S,
    cache_bytes=0,  # nothing is fetched behind a search's back, in a thread of its own
)


class Clock:
    """Epoch seconds that go on by a millisecond a look, and by more when told to."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


class Inline(Executor):
    """Runs what is submitted at once, in the caller's thread."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__()

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(call(*arguments, **options))
        except Exception as error:
            future.set_exception(error)
        return future


@contextmanager
def toys_and_no_threads() -> Iterator[None]:
    """Functions that are built in here know the toy encoders and run every call at once."""
    with (
        mock.patch("lookalike.core.encoders.ENCODERS", {**ENCODERS, **TOYS}),
        mock.patch("lookalike.wiring.ThreadPoolExecutor", Inline),
        mock.patch("lookalike.core.base_build.LISTS_PER_ROOT", 2.0),
    ):
        yield


@functools.cache
def draw(seed: int) -> bytes:
    """A small photo that depends on its seed."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (6, 5, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize((24, 30), Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()


class Cloud(Protocol):
    """What plays AWS."""

    stores: Stores

    def put(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:
        """Write to the bucket of photos, as any S3 client does."""

    def receive(self) -> list[str]:
        """Take every message from the queue; their bodies."""


@dataclass(frozen=True)
class Message:
    """A message of the queue, and how often it was received."""

    body: str
    receives: int = 0


class World:
    """One cloud, what its users have put into it, and the functions that run in it.

    ``bucket`` has the seed of each photo in the bucket, None for a file that is none. ``messages``
    were not dealt with yet, ``dead`` are those that were received too often.
    """

    def __init__(
        self, cloud: Cloud, clock: Clock, toys: Callable[[str], Any], folder: Path
    ) -> None:
        self.cloud = cloud
        self.clock = clock
        self.begun = clock.now
        self.toys = toys
        self.settings = replace(SMALL, cache_dir=str(folder))
        self.bucket: dict[str, int | None] = {}
        self.kinds: dict[str, str] = {}
        self.messages: list[Message] = []
        self.dead: list[Message] = []
        self.query_id = ""
        self._serial = itertools.count(1)

    def at(self, cloud: Callable[[Clock], Cloud]) -> World:
        """Another world that is now as this one is, in a cloud made for its clock."""
        other = copy.copy(self)
        other.clock = Clock(self.clock.now)
        other.cloud = cloud(other.clock)
        other.bucket, other.kinds = dict(self.bucket), dict(self.kinds)
        other.messages, other.dead = list(self.messages), list(self.dead)
        return other

    @property
    def stores(self) -> Stores:
        return self.cloud.stores

    def system(self, stores: Stores | None = None, **settings: Any) -> Services:
        """The functions' processes, just started."""
        chosen = replace(self.settings, **settings)
        return build_services(chosen, stores or self.stores, self.new_id, self.clock, self.toys)

    def new_id(self) -> str:
        """A ULID of now."""
        at = int(self.clock() * 1000).to_bytes(6, "big")
        return str(ULID.from_bytes(at + next(self._serial).to_bytes(10, "big")))

    # What users do.

    def put(self, key: str, seed: int | None, kind: str = "") -> None:
        """Write a photo (a file that is none, for None) to the bucket, which sends an event."""
        self.bucket[key] = seed
        self.kinds.pop(key, None)
        if kind:
            self.kinds[key] = kind
        body = b"no photo" if seed is None else draw(seed)
        self._write(key, body, {"kind": kind} if kind else {})

    def describe(self, product_id: str, document: str) -> None:
        """Write a product's ``product.json``."""
        self._write(f"{CATALOGUE}/{product_id}/product.json", document.encode(), {})

    def _write(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:
        self.clock.now += 1  # S3 tells whole seconds
        self.cloud.put(key, body, metadata)
        self.tell(key)

    def remove(self, key: str) -> None:
        """Take an object away."""
        self.clock.now += 1
        self.stores.images.delete(key)
        self.bucket.pop(key, None)
        self.kinds.pop(key, None)
        self.tell(key)

    def tell(self, key: str) -> None:
        """Send the event of an object that was written or deleted."""
        self.messages.append(Message(json.dumps({"keys": [key]})))

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    # What the cloud does.

    def deliver(self, system: Services) -> bool:
        """Deliver what is in the queue once; whether nothing has to come again."""
        self.messages += map(Message, self.cloud.receive())
        received = [Message(item.body, item.receives + 1) for item in self.messages]
        self.messages = received  # whatever becomes of the process
        again: list[Message] = []
        for start in range(0, len(received), _BATCH):
            again += self.invoke(system, received[start : start + _BATCH])
        self.messages = [item for item in again if item.receives < self.settings.max_receives]
        self.dead += [item for item in again if item not in self.messages]
        return not self.messages

    def invoke(self, system: Services, messages: list[Message]) -> list[Message]:
        """What the embed function does with a batch; gives what it reports as failed."""
        records = [
            {
                "messageId": str(number),
                "body": item.body,
                "attributes": {
                    "ApproximateReceiveCount": str(item.receives),
                    "SentTimestamp": "0",
                },
            }
            for number, item in enumerate(messages)
        ]
        batch = read_batch({"Records": records}, self.settings.max_receives)
        failed = batch.failed(system.delivery.deliver(batch.delivered))
        return [messages[int(number)] for number in failed]

    def deliver_all(self, system: Services) -> None:
        while not self.deliver(system):
            pass

    def sweep(self, system: Services) -> int:
        """Sweep until the end; how many keys were asked for."""
        queued = 0
        for _ in range(10):
            report = system.sweep.run(FOREVER)
            queued += report.queued
            if report.finished:
                return queued
        raise AssertionError("the sweep never ends")

    def reindex(self, system: Services) -> None:
        """Run the scheduled function until the build is swapped in."""
        for _ in range(8):
            report = system.reindex.run(FOREVER)
            if report.catalogues[0].phase in {"", "kept"}:
                return
            self.wait(60)
        raise AssertionError(f"the build never ends: {report}")
