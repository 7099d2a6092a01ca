"""Compares bucket and records and asks for whatever differs to be looked at again.

Picks up lost events and buckets that existed before, and sets the counts right.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from lookalike.core.keys import PRODUCT_DOCUMENT, product_of
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
        known = {item.catalogue for item in self._stores.lineages.all()}
        for catalogue in sorted(known | self._stores.counts.all().keys()):
            failed, asked = self._check_failures(catalogue, in_bucket)
            queued += asked
            counts = Counts(failures=failed)
            for records in self._pages(catalogue):
                if self._clock() > deadline:
                    return SweepReport(objects, products, queued, finished=False)
                products += len(records)
                vanished = [
                    key
                    for product in records
                    for key in product.object_keys
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

    def _check_failures(self, catalogue: str, in_bucket: set[bytes]) -> tuple[int, int]:
        """How many failures a catalogue has, and how many keys of them have left the bucket."""
        count = asked = 0
        after: str | None = ""
        while after is not None:
            failures, after = self._stores.failures.page(catalogue, _PAGE, after)
            count += len(failures)
            asked += self._ask(
                [item.key for item in failures if _fingerprint(item.key) not in in_bucket]
            )
        return count, asked


def _agrees(product: Product | None, info: ObjectInfo) -> bool:
    """Whether a record describes the object as the bucket lists it; times have whole seconds."""
    if product is None:
        return False
    if view := product.views.get(info.key):
        return view.etag == info.etag and int(view.last_modified) == int(info.last_modified)
    document = product.document if info.key.endswith(f"/{PRODUCT_DOCUMENT}") else None
    return document is not None and document.etag == info.etag


def _fingerprint(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
