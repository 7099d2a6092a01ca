"""The stores that the services work on, together: one set a process."""

from __future__ import annotations

from dataclasses import dataclass

from lookalike.core.ports import (
    CountTable,
    FailureTable,
    GenerationTable,
    ObjectStore,
    ProductTable,
    Queue,
    Registry,
    SearchLog,
)


@dataclass(frozen=True, slots=True)
class Stores:
    """``images`` is the merchant's bucket.

    ``index`` is ours: segments, thumbnails, query uploads.
    """

    images: ObjectStore
    index: ObjectStore
    products: ProductTable
    failures: FailureTable
    registry: Registry
    generations: GenerationTable
    counts: CountTable
    log: SearchLog
    queue: Queue
