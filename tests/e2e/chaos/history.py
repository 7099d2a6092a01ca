"""What the clients of a chaos run did, what was killed when, and what must be true because of it.

An operation that was acknowledged has happened; one whose answer was lost may have.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

CATALOGUES = ("north", "south")
IMAGE, DOCUMENT = "image/jpeg", "application/json"


class Lost(Exception):
    """Nobody knows whether the operation took effect."""


@dataclass(frozen=True)
class Content:
    """An object as it was put; ``reason`` is why it cannot be indexed, empty if it can."""

    body: bytes
    metadata: Mapping[str, str] = field(default_factory=dict)
    content_type: str = IMAGE
    reason: str = ""

    @property
    def etag(self) -> str:
        return hashlib.md5(self.body).hexdigest()

    @property
    def is_searchable(self) -> bool:
        return self.content_type == IMAGE and not self.reason


@dataclass(eq=False)
class Slot:
    """A key of the bucket and everything that it may hold now (None: nothing).

    ``since`` is when what it holds became certain; None while that is not certain.
    """

    key: str
    possible: tuple[Content | None, ...] = (None,)
    since: float | None = 0.0
    past: list[Content] = field(default_factory=list)
    events: list[tuple[float, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def catalogue(self) -> str:
        return self.key.split("/")[0]

    @property
    def product_id(self) -> str:
        return self.key.split("/")[1]

    @property
    def view(self) -> str:
        return self.key.split("/")[2].removesuffix(".jpg")

    @property
    def is_document(self) -> bool:
        return self.key.endswith(".json")

    def note(self, text: str) -> None:
        self.events.append((time.time(), text))

    def certain(self) -> tuple[float, Content | None] | None:
        """Since when it holds what; None when that is not certain."""
        since, possible = self.since, self.possible
        return (since, possible[0]) if since is not None and len(possible) == 1 else None


class History:
    """Every key of a run, every kill, and what was found wrong.

    Parameters
    ----------
    products
        How many products the clients work on.
    draw
        Draws a photo that depends on its number, JPEG.
    """

    def __init__(self, products: int, draw: Callable[[int], bytes]) -> None:
        self.slots = [
            Slot(f"{CATALOGUES[number % 2]}/p{number:03d}/{name}")
            for number in range(products)
            for name in ("a.jpg", "b.jpg", "product.json")
        ]
        self.kills: list[tuple[float, str]] = []
        self.differences: list[str] = []
        self.outcomes: Counter[str] = Counter()
        self.answers: Counter[int] = Counter()
        self.clicks: set[tuple[str, str]] = set()
        self.begun_at = time.time()
        self.worst_lag_s = 0.0
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self._draw = draw
        self._numbers = itertools.count(1)
        self._done = 0
        self._progress = threading.Condition()

    def of_product(self, catalogue: str, product_id: str) -> list[Slot]:
        return [
            slot
            for slot in self.slots
            if (slot.catalogue, slot.product_id) == (catalogue, product_id)
        ]

    def of_catalogue(self, catalogue: str) -> list[Slot]:
        return [slot for slot in self.slots if slot.catalogue == catalogue]

    def photo(self) -> Content:
        number = next(self._numbers)
        return Content(self._draw(number), {"stamp": f"s{number}"})

    def damaged(self, choice: int) -> Content:
        """What can never be indexed, each time another."""
        number = next(self._numbers)
        bodies = {
            "not-an-image": b"text %d" % number,
            "corrupt-image": self._draw(number)[:1000],
        }
        reason = list(bodies)[choice % len(bodies)]
        return Content(bodies[reason], reason=reason)

    def document(self, is_bad: bool) -> Content:
        number = next(self._numbers)
        if is_bad:
            return Content(b'{"price": NaN, "n": %d}' % number, {}, DOCUMENT, "bad-metadata")
        return Content(json.dumps({"note": f"n{number}"}).encode(), {}, DOCUMENT)

    @contextmanager
    def attempt(self, what: str, slots: Sequence[Slot], content: Content | None) -> Iterator[None]:
        """An operation that makes the slots hold ``content``; a `Lost` inside leaves it open."""
        for slot in slots:
            slot.since = None
            slot.past += [item for item in slot.possible if item is not None]
            slot.possible = (*slot.possible, content)
            slot.note(f"{what} begins" + (f" ({content.etag[:8]})" if content else ""))
        try:
            yield
        except Lost as error:
            self._end(f"{what} lost", slots, f": {error}")
            return
        for slot in slots:
            slot.possible = (content,)
            slot.since = time.time()
        self._end(f"{what} acknowledged", slots)

    def _end(self, outcome: str, slots: Sequence[Slot], detail: str = "") -> None:
        for slot in slots:
            slot.note(outcome + detail)
        with self._progress:
            self.outcomes[outcome] += 1
            self._done += 1
            self._progress.notify_all()

    def wait_for(self, operations: int, stop: threading.Event) -> None:
        """Return when so many operations have ended, or at ``stop``."""
        with self._progress:
            while self._done < operations and not stop.is_set():
                self._progress.wait(1)

    @property
    def operations(self) -> int:
        return self._done

    def killed(self, what: str) -> None:
        self.kills.append((time.time(), what))

    def differs(self, sentence: str, slots: Sequence[Slot] = ()) -> None:
        """Keep a difference; print it with all that happened to its keys, kills in between."""
        lines = [f"{_clock(time.time())} DIFFERENCE {sentence}"]
        for slot in slots:
            events = [*slot.events, *((at, f"    kill of {what}") for at, what in self.kills)]
            lines.append(f"  {slot.key}")
            lines += [f"    {_clock(at)} {text}" for at, text in sorted(events)]
        self.differences.append(sentence)
        print("\n".join(lines), flush=True)

    @property
    def kills_by_kind(self) -> dict[str, int]:
        return dict(sorted(Counter(what.split()[0] for _, what in self.kills).items()))


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%H:%M:%S.%f")[:-3]
