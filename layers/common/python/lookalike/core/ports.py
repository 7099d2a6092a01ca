"""What the core and the services need from the outside world, as small protocols.

`lookalike.adapters.memory` implements all of them without a network; the contract tests hold the
real adapters and those to the same behaviour. Every method may raise `Unavailable`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from lookalike.core.access import ApiKey
from lookalike.core.feedback import FeedbackEntry
from lookalike.core.jobs import Artifact, Job, JobName
from lookalike.core.rollups import Rollup, RollupState, TouchedHour
from lookalike.core.search_hours import Period
from lookalike.core.types import (
    Counts,
    Failure,
    Lineage,
    Manifest,
    ObjectInfo,
    Product,
    SearchRecord,
    SegmentEntry,
)


class ObjectStore(Protocol):
    """One bucket."""

    def head(self, key: str) -> ObjectInfo | None:
        """Describe an object; None when the bucket does not hold it."""

    def get(self, key: str, max_bytes: int) -> tuple[ObjectInfo, bytes] | None:
        """Read an object; None when the bucket does not hold it.

        Raises
        ------
        Unindexable
            ``too-large`` when it is over ``max_bytes``; its body is not read then.
        """

    def get_range(self, key: str, start: int, length: int) -> bytes | None:
        """Read ``length`` bytes from ``start``; None when the bucket does not hold the object.

        Fewer bytes are given where the object ends earlier.
        """

    def put(self, key: str, body: bytes, content_type: str, *, if_absent: bool = False) -> None:
        """Write an object; with ``if_absent`` an object that is there already is left as it is."""

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""

    def replace(self, key: str, body: bytes, content_type: str, etag: str | None) -> str:
        """Write an object if it still has this ETag (None: if it is not there); give the new ETag.

        Raises
        ------
        Conflict
            Somebody else wrote, created or deleted it meanwhile.
        """

    def list(self, prefix: str, after: str = "") -> Iterator[ObjectInfo]:
        """Objects under a prefix in key order, read in pages as the iterator is consumed.

        Only those whose keys come behind ``after``.
        """

    def url(self, key: str, expires_s: int) -> str:
        """A URL that opens the object in a browser until it expires."""

    def upload_form(self, key: str, max_bytes: int, expires_s: int) -> tuple[str, dict[str, str]]:
        """A presigned POST: (url, form fields) that admit one object of at most ``max_bytes``.

        Its key and its type, ``application/octet-stream``, are fixed.
        """


class ProductTable(Protocol):
    """Product records by (catalogue, product_id)."""

    def get_many(self, ids: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Product]:
        """The records that exist among ``(catalogue, product_id)`` pairs."""

    def put(self, product: Product) -> Product:
        """Write the record if the stored one still has ``product.revision``; give the new one.

        Raises
        ------
        Conflict
            Somebody else wrote, created or deleted the record meanwhile.
        """

    def delete(self, product: Product) -> None:
        """Remove the record if it still has ``product.revision``, else raise `Conflict`."""

    def page(self, catalogue: str, limit: int, after: str = "") -> tuple[list[Product], str | None]:
        """Records in product_id order behind ``after``, and the id to go on from."""


class FailureTable(Protocol):
    """Failure records by (catalogue, key)."""

    def get_many(self, keys: Iterable[str]) -> dict[str, Failure]:
        """The failures that exist among object keys."""

    def put(self, failure: Failure) -> bool:
        """Write or replace a failure; whether there was none before."""

    def delete(self, key: str) -> bool:
        """Forget the failure of an object key; whether there was one."""

    def page(self, catalogue: str, limit: int, after: str = "") -> tuple[list[Failure], str | None]:
        """Failures of a catalogue in key order after ``after``, and where the next page starts."""


class Registry(Protocol):
    """Which segments writers have appended to a scope, and what compaction has made of them."""

    def add(self, entry: SegmentEntry) -> None:
        """Append a segment; adding the same entry again changes nothing."""

    def read(self, scope: str, since: float = 0.0) -> tuple[list[SegmentEntry], Manifest]:
        """Segments committed at or after ``since`` in order of commit, and the manifest.

        The manifest is read after the segments: one that was removed meanwhile is in it.
        """

    def put_manifest(self, manifest: Manifest) -> Manifest:
        """Write the manifest if the stored one still has its revision; give the new one.

        Raises
        ------
        Conflict
            Somebody else wrote it meanwhile.
        """

    def remove(self, entries: Iterable[SegmentEntry]) -> None:
        """Forget appended segments; one that is not there is no error."""

    def drop(self, scope: str) -> None:
        """Forget a scope: its segments and its manifest."""


class LineageTable(Protocol):
    """Each catalogue's generations."""

    def get(self, catalogue: str) -> Lineage | None:
        """The catalogue's record; None for a catalogue that has never held anything."""

    def put(self, lineage: Lineage) -> Lineage:
        """Write the record if the stored one still has its revision; give the new one.

        Raises
        ------
        Conflict
            Somebody else wrote or created the record meanwhile.
        """

    def all(self) -> list[Lineage]:
        """Every catalogue's record, in order of catalogue."""


class CountTable(Protocol):
    """How much each catalogue holds, kept by those who change it and set right by the sweep."""

    def all(self) -> dict[str, Counts]:
        """The counts of every catalogue that has ever held something, even if only failures."""

    def add(self, catalogue: str, change: Counts) -> None:
        """Add a change (fields may be negative) to a catalogue's counts."""

    def set(self, catalogue: str, counts: Counts) -> None:
        """Replace a catalogue's counts."""


class SearchLog(Protocol):
    """The searches that were answered. What has expired is not given out, deleted or not."""

    def write(self, record: SearchRecord) -> None:
        """Keep one search."""

    def get(self, query_id: str, now: float) -> SearchRecord | None:
        """One search by its id, unless it has expired by epoch second ``now``."""

    def recent(self, limit: int, now: float) -> list[SearchRecord]:
        """The newest searches at epoch second ``now``, newest first, at most 24 hours back."""

    def page(
        self, hour: int, shard: int, after: str, limit: int, now: float
    ) -> tuple[list[SearchRecord], str | None]:
        """Searches of an hour's shard in order of id, behind ``after``, and where to go on."""

    def delete(self, hour: int, limit: int) -> int:
        """Delete at most so many searches of an hour; how many there were."""


class FeedbackTable(Protocol):
    """What shoppers did with results, kept as long as the searches; nothing expired is given."""

    def put(self, entry: FeedbackEntry) -> bool:
        """Keep an event; False, and nothing changes, if it is kept already."""

    def page(
        self, hour: int, shard: int, after: str, limit: int, now: float
    ) -> tuple[list[FeedbackEntry], str | None]:
        """Events on the searches of an hour's shard in order of their ids, and where to go on.

        ``after`` is such a place, or a search's id, whose own events are the first then.
        """

    def delete(self, hour: int, limit: int) -> int:
        """Delete at most so many events on searches of an hour; how many there were."""


class RollupTable(Protocol):
    """Aggregates of the search log, and which hours have been written to."""

    def range(self, catalogue: str, period: Period, first: int, last: int) -> list[Rollup]:
        """The aggregates of a catalogue from one period to another, in order."""

    def put(self, rollup: Rollup) -> Rollup:
        """Write an aggregate if the stored one still has its revision; give the new one.

        Raises
        ------
        Conflict
            Somebody else wrote it meanwhile.
        """

    def sizes(self, catalogue: str, first: int, last: int) -> dict[int, dict[str, int]]:
        """How many products each cluster had on days from one to another."""

    def put_sizes(self, catalogue: str, day: int, sizes: Mapping[str, int]) -> None:
        """Write or replace how many products each cluster has on a day."""

    def touch(self, hour: int, at: float) -> None:
        """Say that an hour is written to at epoch second ``at``; the latest time stays."""

    def touched(self) -> list[TouchedHour]:
        """The hours that have been written to since they were settled, in order."""

    def settle(self, touched: TouchedHour) -> None:
        """Forget that an hour was written to, unless it has been again since."""

    def state(self) -> RollupState | None:
        """How far the roll-up is; None before the first."""

    def put_state(self, state: RollupState) -> RollupState:
        """Write the state if the stored one still has its revision; give the new one.

        Raises
        ------
        Conflict
            Somebody else wrote it meanwhile.
        """


class ApiKeyTable(Protocol):
    """API keys by id, and how often each was used."""

    def get(self, key_id: str) -> ApiKey | None:
        """A key by its id."""

    def put(self, key: ApiKey) -> None:
        """Write or replace a key."""

    def all(self) -> list[ApiKey]:
        """Every key, in order of id."""

    def count(self, key_id: str, minute: int) -> int:
        """Count a request in a minute since the epoch; how many there are of it with this one."""


class ArtifactTable(Protocol):
    """What scheduled work has made of each catalogue: one record a kind."""

    def remove(self, artifact: Artifact) -> None:
        """Forget an artifact if it is current still; one that is not there is no error.

        Raises
        ------
        Conflict
            Another one is current.
        """

    def current(self, catalogue: str) -> dict[str, Artifact]:
        """What there is of a catalogue, by kind."""

    def put(self, artifact: Artifact) -> Artifact:
        """Write the record if the stored one still has its revision; give the new one.

        Raises
        ------
        Conflict
            Somebody else wrote or created the record meanwhile.
        """


class JobTable(Protocol):
    """How far scheduled work on each catalogue is: one record a job."""

    def get(self, catalogue: str, name: JobName) -> Job | None:
        """How far a job is; None when it has never been begun."""

    def put(self, job: Job) -> Job:
        """Write the record if the stored one still has its revision; give the new one.

        Raises
        ------
        Conflict
            Somebody else wrote or created the record meanwhile.
        """

    def all(self, catalogue: str) -> list[Job]:
        """Every job of a catalogue, in order of name."""


class ClusterNames(Protocol):
    """Names that people have given to clusters."""

    def all(self, catalogue: str) -> dict[str, str]:
        """The names that were given in a catalogue, by cluster id."""

    def put(self, catalogue: str, cluster_id: str, name: str | None) -> None:
        """Give a cluster a name, or with None take it away."""


class Queue(Protocol):
    """The ingest queue."""

    def send_keys(self, keys: Sequence[str], *, write_again: bool = False) -> None:
        """Ask for objects to be looked at again, as bucket events would.

        With ``write_again`` their rows are written even if nothing has changed.
        """

    def backlog(self) -> int:
        """About how many messages wait or are being worked on."""


class Clock(Protocol):
    """Time, injected."""

    def __call__(self) -> float:
        """Seconds since the epoch."""


class Ids(Protocol):
    """Identifiers, injected."""

    def __call__(self) -> str:
        """A new id that sorts by the time it was made (a ULID)."""


@dataclass(frozen=True, slots=True)
class Stores:
    """Every port, as one set a process.

    ``images`` is the merchant's bucket.

    ``index`` is ours: segments, bases, heads, thumbnails, maps, queries, explanations,
    uploads, notes of tries, the sweep's state, what scheduled work makes and works with.
    """

    images: ObjectStore
    index: ObjectStore
    products: ProductTable
    failures: FailureTable
    registry: Registry
    lineages: LineageTable
    counts: CountTable
    log: SearchLog
    queue: Queue
    api_keys: ApiKeyTable
    artifacts: ArtifactTable
    jobs: JobTable
    cluster_names: ClusterNames
    feedback: FeedbackTable
    rollups: RollupTable
