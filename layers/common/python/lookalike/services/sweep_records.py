"""The sweep's comparison of bucket and records, in both directions, page by page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Executor
from itertools import islice

from lookalike.core.errors import Retry
from lookalike.core.keys import PRODUCT_DOCUMENT, product_of
from lookalike.core.ports import Stores
from lookalike.core.types import Counts, ObjectInfo, Product
from lookalike.services.derived import KeySet, Needed
from lookalike.services.sweep_asking import Asking

_PAGE = 100


class RecordCheck:
    """Asks for objects that differ from their records, and for what has left the bucket.

    Parameters
    ----------
    stores
        Where to look.
    pool
        Looks at objects side by side.
    asking
        Asks for keys.
    in_bucket
        Keys that the bucket holds, as far as they were seen; grows.
    needed
        What is derived and to stay; grows.
    """

    def __init__(
        self, stores: Stores, pool: Executor, asking: Asking, in_bucket: KeySet, needed: Needed
    ) -> None:
        self._stores = stores
        self._pool = pool
        self._asking = asking
        self._in_bucket = in_bucket
        self._needed = needed

    def compare_objects(self, after: str) -> Iterator[tuple[str, int]]:
        """Objects behind ``after`` with their records: (key to go on behind, objects) a page."""
        listing = self._stores.images.list("", after)
        objects = (info for info in listing if not info.key.endswith("/"))
        while page := list(islice(objects, _PAGE)):
            for info in page:
                self._in_bucket.add(info.key)
                self._needed.add_object(info)
            self._asking.ask(self._differing(page))
            yield page[-1].key, len(page)

    def catalogues(self) -> list[str]:
        """Every catalogue that has ever held anything, in order."""
        known = {item.catalogue for item in self._stores.lineages.all()}
        return sorted(known | self._stores.counts.all().keys())

    def compare_products(self, catalogue: str, after: str) -> Iterator[tuple[str, int, Counts]]:
        """A catalogue's records with the bucket: (product to go on behind, products) a page.

        And what is to be counted of it, with the first page also of the catalogue's failures. The
        last page gives no product to go on behind.
        """
        counts = Counts(failures=0 if after else self._compare_failures(catalogue))
        further: str | None = after
        while further is not None:
            records, further = self._stores.products.page(catalogue, _PAGE, further)
            for product in records:
                self._needed.add_product(product)
            self._ask_for_vanished([key for item in records for key in item.object_keys])
            counts += Counts(
                sum(bool(product.views) for product in records),
                sum(len(product.views) for product in records),
            )
            yield further or "", len(records), counts
            counts = Counts()

    def _compare_failures(self, catalogue: str) -> int:
        """Failures of what has left the bucket; gives how many there are in all."""
        count = 0
        after: str | None = ""
        while after is not None:
            failures, after = self._stores.failures.page(catalogue, _PAGE, after)
            count += len(failures)
            self._ask_for_vanished([item.key for item in failures])
        return count

    def _ask_for_vanished(self, keys: Sequence[str]) -> None:
        """Ask for keys that the listing did not show and that have not come since."""
        unseen = [key for key in keys if key not in self._in_bucket]
        vanished = self._pool.map(self._has_vanished, unseen)
        self._asking.ask([key for key, gone in zip(unseen, vanished, strict=True) if gone])

    def _has_vanished(self, key: str) -> bool:
        try:
            return self._stores.images.head(key) is None
        except Retry:
            return True  # one key that cannot be asked about must not hold up all others

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


def _agrees(product: Product | None, info: ObjectInfo) -> bool:
    """Whether a record describes the object as the bucket lists it; times have whole seconds."""
    if product is None:
        return False
    if view := product.views.get(info.key):
        return view.etag == info.etag and int(view.last_modified) == int(info.last_modified)
    document = product.document if info.key.endswith(f"/{PRODUCT_DOCUMENT}") else None
    return document is not None and document.etag == info.etag
