"""Compares bucket and records and asks for whatever differs to be looked at again.

Picks up lost events and buckets that existed before, and sets the counts right.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from lookalike.core.errors import Unindexable
from lookalike.core.keys import parse_key
from lookalike.core.ports import Clock, Stores
from lookalike.core.types import Counts, ObjectInfo, Product

logger = logging.getLogger(__name__)

_PAGE = 100


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep saw.

    ``queued`` keys differ from their records; ``finished`` unless time ran out.
    """

    objects: int
    products: int
    queued: int
    finished: bool


class Sweep:
    """The use case behind the *sweep* function.

    Safe beside anything: it writes only counts and hints.
    """

    def __init__(self, stores: Stores, clock: Clock) -> None:
        self._stores = stores
        self._clock = clock

    def run(self, deadline: float) -> SweepReport:
        """Compare everything once, stopping at epoch second ``deadline``."""
        in_bucket: set[bytes] = set()
        objects = queued = products = 0
        listing = (info for info in self._stores.images.list("") if not info.key.endswith("/"))
        while page := list(islice(listing, _PAGE)):
            if self._clock() > deadline:
                return SweepReport(objects, products, queued, finished=False)
            in_bucket.update(_fingerprint(info.key) for info in page)
            objects += len(page)
            queued += self._ask(self._differing(page))
        known = {item.catalogue for item in self._stores.generations.catalogues()}
        for catalogue in sorted(known | self._stores.counts.all().keys()):
            counts = Counts(failures=self._count_failures(catalogue))
            for records in self._pages(catalogue):
                if self._clock() > deadline:
                    return SweepReport(objects, products, queued, finished=False)
                products += len(records)
                vanished = [
                    key
                    for product in records
                    for key in product.views
                    if _fingerprint(key) not in in_bucket
                ]
                queued += self._ask(vanished)
                counts += Counts(
                    sum(bool(product.views) for product in records),
                    sum(len(product.views) for product in records),
                )
            self._stores.counts.set(catalogue, counts)
        return SweepReport(objects, products, queued, finished=True)

    def _differing(self, page: list[ObjectInfo]) -> list[str]:
        """Keys whose object is neither what its record says nor what its failure says."""
        ids = {info.key: _product_id(info.key) for info in page}
        products = self._stores.products.get_many(id_ for id_ in ids.values() if id_)
        failures = self._stores.failures.get_many(ids)
        differing = []
        for info in page:
            id_ = ids[info.key]
            product = products.get(id_) if id_ else None
            failure = failures.get(info.key)
            known = failure.etag if failure else _recorded_etag(product, info.key)
            if known != info.etag:
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

    def _count_failures(self, catalogue: str) -> int:
        count, after = 0, ""
        while True:
            failures, go_on = self._stores.failures.page(catalogue, _PAGE, after)
            count += len(failures)
            if go_on is None:
                return count
            after = go_on


def _recorded_etag(product: Product | None, key: str) -> str | None:
    if product is None:
        return None
    if view := product.views.get(key):
        return view.etag
    return product.document.etag if product.document and key.endswith("/product.json") else None


def _product_id(key: str) -> tuple[str, str] | None:
    try:
        parsed = parse_key(key)
    except Unindexable:
        return None
    return parsed.catalogue, parsed.product_id


def _fingerprint(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
