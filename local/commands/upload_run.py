"""Carries out an upload: puts files side by side, skips what is there, watches the records.

One thread decides and watches; a pool reads, hashes and sends. Nothing is held per file but its
plan, and no file is hashed whose product has no record yet.
"""

from __future__ import annotations

import hashlib
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

from local.commands.upload_plan import PlannedFile
from lookalike.core.attributes import from_user_metadata
from lookalike.core.keys import parse_key
from lookalike.core.ports import Clock, FailureTable, ProductTable
from lookalike.core.types import Attributes, Failure, Product

THREADS = 8
_BATCH = 100  # keys that one read of a table takes
_AHEAD = 2 * _BATCH
_POLL_S = 0.3
_SLOW_POLL_S = 1.0
_GAVE_UP = "gave-up"

Put = Callable[[PlannedFile], str]
"""Uploads one file and gives the object's ETag; raises OSError if the file cannot be read."""


@dataclass(frozen=True, slots=True)
class FailedFile:
    """A file that is not searchable, and why. ``known``: failed before, so not sent again."""

    path: str
    key: str
    reason: str
    detail: str
    known: bool = False


@dataclass(slots=True)
class UploadReport:
    """What came of an upload; ``latencies_s`` are seconds from a put's return to searchable."""

    total: int = 0
    uploaded: int = 0
    searchable: int = 0
    unchanged: int = 0
    failed: list[FailedFile] = field(default_factory=list)
    waiting: list[PlannedFile] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    started_at: float = 0.0
    finished_at: float = 0.0

    @property
    def known_failures(self) -> int:
        """Files that had failed before and were not sent again."""
        return sum(item.known for item in self.failed)

    @property
    def duration_s(self) -> float:
        """Seconds from the start to the last file that became searchable (or was sent)."""
        return max(self.finished_at - self.started_at, 1e-9)


@dataclass(frozen=True, slots=True)
class _Sent:
    file: PlannedFile
    etag: str
    at: float
    is_new: bool
    """Whether its content is new: only then does it become searchable at some moment."""
    failure: Failure | None
    """What was filed of the key before it was sent."""


_Outcome = _Sent | FailedFile | None


class Upload:
    """One upload: files are sent, in one go or several, then watched.

    Parameters
    ----------
    products, failures
        Records that say what is searchable and what failed.
    put
        Uploads one file.
    clock
        Epoch seconds.
    patience_s
        Seconds without any progress after which files that are not searchable are given up.
    on_change
        Called with the report as it grows.
    pause
        Waits for some seconds.
    """

    def __init__(
        self,
        products: ProductTable,
        failures: FailureTable,
        put: Put,
        clock: Clock = time.time,
        patience_s: float = 180.0,
        on_change: Callable[[UploadReport], None] = lambda report: None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._products = products
        self._failures = failures
        self._put = put
        self._clock = clock
        self._patience_s = patience_s
        self._on_change = on_change
        self._pause = pause
        self._pending: deque[_Sent] = deque()
        now = clock()
        self._progress_at = now
        self.report = UploadReport(started_at=now, finished_at=now)

    def send(self, files: Sequence[PlannedFile], *, watch: bool = True) -> None:
        """Put what differs from the records into the bucket.

        Parameters
        ----------
        files
            The plan, or the next part of it.
        watch
            Whether `finish` is to wait for these files.

        Raises
        ------
        Retry
            The bucket or a table cannot be reached; running again goes on where this stopped.
        """
        self.report.total += len(files)
        self._progress_at = polled_at = self._clock()
        batches = _batches(files)
        done: SimpleQueue[Future[_Outcome]] = SimpleQueue()
        running = 0
        with ThreadPoolExecutor(THREADS, thread_name_prefix="upload") as pool:
            try:
                while True:
                    while running < _AHEAD and (batch := next(batches, None)):
                        running += self._start(batch, pool, done)
                    if not running:
                        return
                    with suppress(Empty):
                        outcome = done.get(timeout=_POLL_S).result()
                        running -= 1
                        self._collect(outcome, watch)
                    if self._clock() - polled_at >= _SLOW_POLL_S:
                        self._poll()
                        polled_at = self._clock()
                    self._on_change(self.report)
            finally:
                pool.shutdown(cancel_futures=True)

    def finish(self) -> None:
        """Wait until each file that was sent is searchable or has failed, or patience ends.

        Raises
        ------
        Retry
            A table cannot be reached.
        """
        self._progress_at = self._clock()
        while self._pending:
            self._poll()
            self._on_change(self.report)
            if not self._pending:
                return
            if self._clock() - self._progress_at > self._patience_s:
                self.report.waiting += [sent.file for sent in self._pending]
                return
            self._pause(_POLL_S if len(self._pending) <= _BATCH else _SLOW_POLL_S)

    def _start(
        self,
        batch: Sequence[PlannedFile],
        pool: ThreadPoolExecutor,
        done: SimpleQueue[Future[_Outcome]],
    ) -> int:
        products = self._products.get_many({_product_id(file) for file in batch})
        failures = self._failures.get_many(file.key for file in batch)
        for file in batch:
            product, failure = products.get(_product_id(file)), failures.get(file.key)
            pool.submit(self._send, file, product, failure).add_done_callback(done.put)
        return len(batch)

    def _send(
        self, file: PlannedFile, product: Product | None, failure: Failure | None
    ) -> _Outcome:
        """Put one file; None if it is searchable as it is."""
        try:
            stored = _stored(file, product)
            digest = "" if failure is None and stored is None else _md5(file.path)
            if stored is not None and stored[0] == digest and _agrees(file, stored[1]):
                return None
            if failure is not None and failure.etag == digest and failure.reason != _GAVE_UP:
                return FailedFile(file.path, file.key, failure.reason, failure.detail, known=True)
            etag = self._put(file)
        except OSError as error:
            return FailedFile(
                file.path, file.key, "unreadable", f"The file cannot be read: {error.strerror}."
            )
        is_new = stored is None or stored[0] != etag
        return _Sent(file, etag, self._clock(), is_new, failure)

    def _collect(self, outcome: _Outcome, watch: bool) -> None:
        report = self.report
        self._progress_at = self._clock()
        if outcome is None:
            report.unchanged += 1
        elif isinstance(outcome, FailedFile):
            report.failed.append(outcome)
        else:
            report.uploaded += 1
            report.finished_at = max(report.finished_at, outcome.at)
            if watch:
                self._pending.append(outcome)

    def _poll(self) -> None:
        """Look at the oldest files; at more while most of those looked at are done."""
        while self._pending:
            count = min(_BATCH, len(self._pending))
            chunk = [self._pending.popleft() for _ in range(count)]
            undone = self._look(chunk)
            if len(undone) < count:
                self._progress_at = self._clock()
                self._pending.extendleft(reversed(undone))
            else:
                # Nothing moved: whatever holds these up must not hide the rest.
                self._pending.extend(undone)
            if 2 * len(undone) > count:
                return

    def _look(self, chunk: Sequence[_Sent]) -> list[_Sent]:
        """Enter what is searchable or failed into the report; give the rest."""
        products = self._products.get_many({_product_id(sent.file) for sent in chunk})
        unseen = [sent for sent in chunk if not self._found(sent, products)]
        if not unseen:
            return []
        failures = self._failures.get_many(sent.file.key for sent in unseen)
        undone = []
        for sent in unseen:
            failure = failures.get(sent.file.key)
            if failure is None or failure.etag != sent.etag or failure == sent.failure:
                undone.append(sent)
                continue
            self.report.failed.append(
                FailedFile(sent.file.path, sent.file.key, failure.reason, failure.detail)
            )
        return undone

    def _found(self, sent: _Sent, products: Mapping[tuple[str, str], Product]) -> bool:
        product = products.get(_product_id(sent.file))
        stored = _stored(sent.file, product)
        if stored is None or stored[0] != sent.etag or not _agrees(sent.file, stored[1]):
            return False
        self.report.searchable += 1
        view = product.views.get(sent.file.key) if product else None
        if view is not None and sent.is_new:
            self.report.latencies_s.append(max(view.searchable_at - sent.at, 0.0))
            self.report.finished_at = max(self.report.finished_at, view.searchable_at)
        return True


def _batches(files: Sequence[PlannedFile]) -> Iterator[list[PlannedFile]]:
    rest = iter(files)
    while batch := list(itertools.islice(rest, _BATCH)):
        yield batch


def _product_id(file: PlannedFile) -> tuple[str, str]:
    parsed = parse_key(file.key)
    return parsed.catalogue, parsed.product_id


def _stored(file: PlannedFile, product: Product | None) -> tuple[str, Attributes] | None:
    """The ETag and attributes that the record has of a file's object."""
    if product is None:
        return None
    if view := product.views.get(file.key):
        return view.etag, view.attributes
    if product.document is not None and parse_key(file.key).is_document:
        return product.document.etag, {}
    return None


def _agrees(file: PlannedFile, attributes: Attributes) -> bool:
    """Whether a record has a file's metadata; a file without any agrees with all."""
    return file.metadata is None or from_user_metadata(file.metadata) == dict(attributes)


def _md5(path: str) -> str:
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
