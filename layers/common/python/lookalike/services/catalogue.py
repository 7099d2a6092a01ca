"""Products as people see them: one, a page of them, deletion; and what the system holds."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lookalike import __version__
from lookalike.core.errors import Conflict, InvalidRequest, NotFound, Retry
from lookalike.core.keys import DEFAULT_CATALOGUE, product_of
from lookalike.core.ports import Stores
from lookalike.core.types import AttributeValue, Counts, Failure, Product, registry_scope

MAX_PAGE = 100


@dataclass(frozen=True, slots=True)
class ViewInfo:
    """One image of a product; ``width`` and ``height`` in pixels, upright."""

    view: str
    key: str
    etag: str
    width: int
    height: int
    image_url: str
    thumbnail_url: str
    searchable_at: float


@dataclass(frozen=True, slots=True)
class ProductInfo:
    """A product with its attributes and views; ``updated_at`` in epoch seconds."""

    product_id: str
    catalogue: str
    generation: str
    attributes: dict[str, AttributeValue]
    views: list[ViewInfo]
    updated_at: float


@dataclass(frozen=True, slots=True)
class ProductPage:
    """Products in order of id; ``cursor`` continues behind the last, None at the end."""

    products: list[ProductInfo]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class FailurePage:
    """Objects that could not be indexed, in order of key."""

    failures: list[Failure]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class CatalogueStats:
    """What one catalogue holds. ``rows`` counts index rows, live and superseded.

    A catalogue that holds nothing but failures has no encoder and no generation yet.
    """

    catalogue: str
    encoder: str | None
    generation: str | None
    products: int
    views: int
    failures: int
    segments: int
    rows: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Stats:
    """What the system holds."""

    catalogues: list[CatalogueStats]
    version: str = __version__


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the tables answer."""

    status: str
    catalogues: int
    version: str = __version__


class Catalogue:
    """The use case behind ``/products``, ``/stats`` and ``/health``.

    Parameters
    ----------
    stores
        Where to read.
    reconcile
        `Ingest.reconcile`, which makes a deletion take effect at once.
    url_expires_s
        Seconds for which image URLs open.
    """

    def __init__(
        self,
        stores: Stores,
        reconcile: Callable[[Sequence[str]], dict[str, Retry]],
        url_expires_s: int,
    ) -> None:
        self._stores = stores
        self._reconcile = reconcile
        self._url_expires_s = url_expires_s

    def product(self, catalogue: str, product_id: str) -> ProductInfo:
        """One product; raises `NotFound`."""
        return self._info(self._record(catalogue, product_id))

    def delete(self, catalogue: str, product_id: str) -> None:
        """Delete a product's objects from the bucket and take it out of the results.

        Raises
        ------
        NotFound
            There is no such product.
        Retry
            Not everything could be deleted; the same call finishes it.
        """
        keys = self._objects_of(catalogue, product_id)
        if not keys:
            self._record(catalogue, product_id)
        for key in keys:
            self._stores.images.delete(key)
        for error in self._reconcile(keys).values():
            # The objects are gone; if somebody else is at the product, the bucket's events end it.
            if not isinstance(error, Conflict):
                raise error

    def products(self, catalogue: str, limit: int, cursor: str | None = None) -> ProductPage:
        """A page of live products in order of id."""
        self._check(catalogue, limit)
        page, after = self._stores.products.page(catalogue, limit, _after(cursor))
        live = [self._info(product) for product in page if product.views]
        return ProductPage(live, _cursor(after))

    def failures(self, catalogue: str, limit: int, cursor: str | None = None) -> FailurePage:
        """A page of objects that could not be indexed, in order of key."""
        _check_limit(limit)
        page, after = self._stores.failures.page(catalogue, limit, _after(cursor))
        return FailurePage(page, _cursor(after))

    def stats(self) -> Stats:
        """Counts of every catalogue, from records that are kept as things change."""
        catalogues = []
        generations = {item.catalogue: item for item in self._stores.generations.catalogues()}
        counted = self._stores.counts.all()
        for catalogue in sorted(generations.keys() | counted.keys()):
            counts = counted.get(catalogue, Counts())
            item = generations.get(catalogue)
            if item is None and not counts.failures:
                continue
            live = (
                self._stores.registry.live(registry_scope(catalogue, item.generation))
                if item
                else []
            )
            catalogues.append(
                CatalogueStats(
                    catalogue,
                    item.encoder if item else None,
                    item.generation if item else None,
                    counts.products,
                    counts.views,
                    counts.failures,
                    len(live),
                    sum(entry.rows for entry in live),
                    sum(entry.size_bytes for entry in live),
                )
            )
        return Stats(catalogues)

    def health(self) -> Health:
        """Ask a table; raises `Retry` when it does not answer."""
        return Health("ok", len(self._stores.generations.catalogues()))

    def _objects_of(self, catalogue: str, product_id: str) -> list[str]:
        """Every object of a product: what is live, what failed and what is yet to be indexed."""
        prefixes = [f"{catalogue}/{product_id}/", f"{catalogue}/{product_id}."]
        if catalogue == DEFAULT_CATALOGUE:
            prefixes.append(f"{product_id}.")
        id_ = (catalogue, product_id)
        product = self._stores.products.get_many([id_]).get(id_)
        keys = set(product.object_keys if product else ())
        for prefix in prefixes:
            keys |= {info.key for info in self._stores.images.list(prefix)}
        return sorted(key for key in keys if product_of(key) == id_)

    def _record(self, catalogue: str, product_id: str) -> Product:
        id_ = (catalogue, product_id)
        product = self._stores.products.get_many([id_]).get(id_)
        if product is None:
            raise NotFound(
                f"There is no product “{product_id}” in catalogue “{catalogue}”.",
                parameter="product_id",
            )
        return product

    def _check(self, catalogue: str, limit: int) -> None:
        _check_limit(limit)
        if self._stores.generations.current(catalogue) is None:
            raise NotFound(f"There is no catalogue “{catalogue}”.", parameter="catalogue")

    def _info(self, product: Product) -> ProductInfo:
        views = [
            ViewInfo(
                view.name,
                view.key,
                view.etag,
                view.width,
                view.height,
                self._stores.images.url(view.key, self._url_expires_s),
                self._stores.index.url(view.thumbnail, self._url_expires_s),
                view.searchable_at,
            )
            for _, view in sorted(product.views.items())
        ]
        return ProductInfo(
            product.product_id,
            product.catalogue,
            product.generation,
            product.attributes,
            views,
            product.updated_at,
        )


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidRequest(f"limit is {limit}; it must be 1 to {MAX_PAGE}.", parameter="limit")


def _cursor(after: str | None) -> str | None:
    return None if after is None else base64.urlsafe_b64encode(after.encode()).decode()


def _after(cursor: str | None) -> str:
    if not cursor:
        return ""
    try:
        return base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeError):
        raise InvalidRequest(
            "The cursor is not one that a page of this list ended with.", parameter="cursor"
        ) from None
