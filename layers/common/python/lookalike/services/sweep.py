"""Compares bucket and records and asks for whatever differs to be looked at again.

Picks up lost events and buckets that existed before, sets the counts right, and has deleted what
was derived from photos and searches that are gone.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import islice

from lookalike.core.keys import PRODUCT_DOCUMENT, first_live_explanation, product_of
from lookalike.core.ports import Clock, Stores
from lookalike.core.types import Counts, ObjectInfo, Product
from lookalike.services.derived import DERIVED_AGE_S, DerivedFiles, KeySet, Needed, OutOfTime

logger = logging.getLogger(__name__)

_PAGE = 100


@dataclass(slots=True)
class SweepReport:
    """What a sweep saw and deleted.

    ``queued`` keys differ from their records; ``finished`` unless time ran out.
    """

    objects: int = 0
    products: int = 0
    queued: int = 0
    deleted_queries: int = 0
    deleted_explanations: int = 0
    deleted_thumbnails: int = 0
    deleted_maps: int = 0
    finished: bool = False


class Sweep:
    """The use case behind the *sweep* function.

    Safe beside anything: it writes only counts and hints, and deletes only what nobody can need.

    Parameters
    ----------
    stores
        Where to look.
    pool
        Runs deletions side by side.
    clock
        Epoch seconds.
    query_retention_s
        Seconds for which searches can be explained.
    """

    def __init__(
        self, stores: Stores, pool: Executor, clock: Clock, query_retention_s: float
    ) -> None:
        self._stores = stores
        self._derived = DerivedFiles(stores.index, pool, clock)
        self._clock = clock
        self._query_retention_s = query_retention_s

    def run(self, deadline: float) -> SweepReport:
        """Compare and tidy everything once, stopping at epoch second ``deadline``."""
        report = SweepReport()
        begun = self._clock()
        try:
            self._delete_expired(report, begun, deadline)
            needed = Needed(self._stores.lineages.all())
            in_bucket = self._compare_objects(report, needed, deadline)
            self._compare_products(report, needed, in_bucket, deadline)
            self._delete_unneeded(report, needed, begun - DERIVED_AGE_S, deadline)
            report.finished = True
        except OutOfTime:
            logger.warning("time ran out before the end of the sweep")
        return report

    def _delete_expired(self, report: SweepReport, now: float, deadline: float) -> None:
        """First what a shopper was promised, which is quick: its names are in order of time."""
        kept_s = self._query_retention_s
        live = first_live_explanation(now)
        for count in self._derived.delete(
            "queries", lambda info: info.last_modified < now - kept_s, deadline, in_order=True
        ):
            report.deleted_queries += count
        for count in self._derived.delete(
            "explanations", lambda info: info.key < live or kept_s == 0, deadline, in_order=True
        ):
            report.deleted_explanations += count

    def _delete_unneeded(
        self, report: SweepReport, needed: Needed, before: float, deadline: float
    ) -> None:
        def unneeded(info: ObjectInfo) -> bool:
            return info.last_modified < before and info.key not in needed

        for count in self._derived.delete("thumbnails", unneeded, deadline):
            report.deleted_thumbnails += count
        for count in self._derived.delete("maps", unneeded, deadline):
            report.deleted_maps += count

    def _compare_objects(self, report: SweepReport, needed: Needed, deadline: float) -> KeySet:
        """Ask for objects that differ from their records; gives what the bucket holds."""
        in_bucket = KeySet()
        listing = (info for info in self._stores.images.list("") if not info.key.endswith("/"))
        while page := list(islice(listing, _PAGE)):
            self._check_time(deadline)
            for info in page:
                in_bucket.add(info.key)
                needed.add_object(info)
            report.objects += len(page)
            report.queued += self._ask(self._differing(page))
        return in_bucket

    def _compare_products(
        self, report: SweepReport, needed: Needed, in_bucket: KeySet, deadline: float
    ) -> None:
        """Ask for what has left the bucket, and set the counts."""
        known = {item.catalogue for item in self._stores.lineages.all()}
        for catalogue in sorted(known | self._stores.counts.all().keys()):
            failed, asked = self._check_failures(catalogue, in_bucket)
            report.queued += asked
            counts = Counts(failures=failed)
            for records in self._pages(catalogue):
                self._check_time(deadline)
                report.products += len(records)
                for product in records:
                    needed.add_product(product)
                vanished = [
                    key
                    for product in records
                    for key in product.object_keys
                    if key not in in_bucket
                ]
                report.queued += self._ask(vanished)
                counts += Counts(
                    sum(bool(product.views) for product in records),
                    sum(len(product.views) for product in records),
                )
            self._stores.counts.set(catalogue, counts)

    def _check_time(self, deadline: float) -> None:
        if self._clock() > deadline:
            raise OutOfTime

    def _differing(self, page: list[ObjectInfo]) -> list[str]:
        """Keys whose object is neither what its record says nor what its failure says."""
        ids = {info.key: product_of(info.key) for info in page}
        products = self._stores.products.get_many(id_ for id_ in ids.values() if id_)
        failures = self._stores.failures.get_many(ids)
        differing = []
        for info in page:
            id_ = ids[info.key]
            product = products.get(id_) if id_ else None
            failure = failures.get(info.key)
            if not (failure and failure.etag == info.etag) and not _agrees(product, info):
                differing.append(info.key)
        return differing

    def _ask(self, keys: list[str]) -> int:
        if keys:
            self._stores.queue.send_keys(keys)
        return len(keys)

    def _pages(self, catalogue: str) -> Iterator[list[Product]]:
        after: str | None = ""
        while after is not None:
            records, after = self._stores.products.page(catalogue, _PAGE, after)
            yield records

    def _check_failures(self, catalogue: str, in_bucket: KeySet) -> tuple[int, int]:
        """How many failures a catalogue has, and how many keys of them have left the bucket."""
        count = asked = 0
        after: str | None = ""
        while after is not None:
            failures, after = self._stores.failures.page(catalogue, _PAGE, after)
            count += len(failures)
            asked += self._ask([item.key for item in failures if item.key not in in_bucket])
        return count, asked


def _agrees(product: Product | None, info: ObjectInfo) -> bool:
    """Whether a record describes the object as the bucket lists it; times have whole seconds."""
    if product is None:
        return False
    if view := product.views.get(info.key):
        return view.etag == info.etag and int(view.last_modified) == int(info.last_modified)
    document = product.document if info.key.endswith(f"/{PRODUCT_DOCUMENT}") else None
    return document is not None and document.etag == info.etag
