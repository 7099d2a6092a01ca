"""Products as people see them: one, a page of them, deletion; and what the system holds."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lookalike import __version__
from lookalike.core.access import ANYBODY, Caller
from lookalike.core.compaction import live_entries
from lookalike.core.errors import Conflict, InvalidRequest, NotFound, Retry
from lookalike.core.generations import following
from lookalike.core.keys import DEFAULT_CATALOGUE, MAX_KEY_BYTES, product_of
from lookalike.core.ports import Stores
from lookalike.core.types import (
    AttributeValue,
    BaseEntry,
    Build,
    Counts,
    Failure,
    Lineage,
    Product,
    Run,
    SegmentEntry,
)
from lookalike.services.clusters import Clusters

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
class BuildStats:
    """The generation beside the current one: ``done`` of ``total`` views are in it.

    ``skipped`` of them could not be read. ``phase`` is one of `lookalike.core.types.Build`; times
    are epoch seconds. ``next_encoder`` is that of the generation to be built when this one, on its
    way out, has gone.
    """

    generation: str
    encoder: str
    phase: str
    done: int
    total: int
    skipped: int
    started_at: float
    changed_at: float
    next_encoder: str = ""


@dataclass(frozen=True, slots=True)
class CatalogueStats:
    """What one catalogue holds, and the index of its current generation.

    ``rows`` counts index rows, live and superseded; ``segments`` are those that compaction has yet
    to merge; ``size_bytes`` is what the index files take in the bucket. A catalogue that holds
    nothing but failures has no encoder and no generation yet.
    """

    catalogue: str
    encoder: str | None
    generation: str | None
    products: int
    views: int
    failures: int
    segments: int = 0
    runs: int = 0
    bases: int = 0
    shards: int = 0
    rows: int = 0
    size_bytes: int = 0
    build: BuildStats | None = None


@dataclass(frozen=True, slots=True)
class Stats:
    """What the caller's catalogues hold."""

    catalogues: list[CatalogueStats]
    version: str = __version__


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the tables answer."""

    status: str
    version: str = __version__


class Catalogue:
    """The use case behind ``/products``, ``/stats`` and ``/health``.

    Parameters
    ----------
    stores
        Where to read.
    clusters
        Which products are in which cluster.
    reconcile
        `Ingest.reconcile`, which makes a deletion take effect at once.
    url_expires_s
        Seconds for which image URLs open.
    """

    def __init__(
        self,
        stores: Stores,
        clusters: Clusters,
        reconcile: Callable[[Sequence[str]], dict[str, Retry]],
        url_expires_s: int,
    ) -> None:
        self._stores = stores
        self._clusters = clusters
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

    def cluster(
        self, catalogue: str, cluster_id: str, limit: int, cursor: str | None = None
    ) -> ProductPage:
        """A page of the live products in a cluster, in order of id.

        Raises
        ------
        NotFound
            There is no such catalogue, or it has no such cluster.
        """
        _check_limit(limit)
        ids, after = self._clusters.members(catalogue, cluster_id, limit, _after(cursor))
        found = self._stores.products.get_many((catalogue, product_id) for product_id in ids)
        records = [found.get((catalogue, product_id)) for product_id in ids]
        live = [self._info(product) for product in records if product and product.views]
        return ProductPage(live, _cursor(after))

    def failures(self, catalogue: str, limit: int, cursor: str | None = None) -> FailurePage:
        """A page of objects that could not be indexed, in order of key."""
        _check_limit(limit)
        page, after = self._stores.failures.page(catalogue, limit, _after(cursor))
        return FailurePage(page, _cursor(after))

    def stats(self, caller: Caller = ANYBODY) -> Stats:
        """Counts of the caller's catalogues, from records that are kept as things change."""
        lineages = {item.catalogue: item for item in self._stores.lineages.all()}
        counted = self._stores.counts.all()
        known = {name: counted.get(name, Counts()) for name in lineages.keys() | counted.keys()}
        return Stats(
            [
                self._stats(catalogue, counts, lineages.get(catalogue))
                for catalogue, counts in sorted(known.items())
                if caller.sees(catalogue) and (catalogue in lineages or counts.failures)
            ]
        )

    def _stats(self, catalogue: str, counts: Counts, lineage: Lineage | None) -> CatalogueStats:
        counted = (counts.products, counts.views, counts.failures)
        if lineage is None:
            return CatalogueStats(catalogue, None, None, *counted)
        current = lineage.current
        entries, manifest = self._stores.registry.read(current.scope)
        appended = live_entries(manifest, entries)
        shards = manifest.shards
        runs = [run for shard in shards for run in shard.runs]
        bases = [shard.base for shard in shards if shard.base is not None]
        stored: list[SegmentEntry | BaseEntry | Run] = [*appended, *bases, *runs]
        # The runs that a base covers hold the same rows once more, as raw embeddings.
        covered = {run.digest for shard in shards for run in shard.covered}
        searched = [item for item in stored if item.digest not in covered]
        return CatalogueStats(
            catalogue,
            current.encoder,
            current.generation,
            *counted,
            segments=len(appended),
            runs=len(runs),
            bases=len(bases),
            shards=len(shards),
            rows=sum(item.rows for item in searched),
            size_bytes=sum(item.size_bytes for item in stored),
            build=_build_stats(lineage, lineage.beside) if lineage.beside else None,
        )

    def health(self) -> Health:
        """Ask a table; raises `Retry` when it does not answer."""
        self._stores.lineages.get(DEFAULT_CATALOGUE)
        return Health("ok")

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
        if self._stores.lineages.get(catalogue) is None:
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


def _build_stats(lineage: Lineage, build: Build) -> BuildStats:
    after = following(lineage)
    return BuildStats(
        build.generation.generation,
        build.generation.encoder,
        build.phase,
        build.done,
        build.total,
        build.skipped,
        build.started_at,
        build.changed_at,
        after.encoder if after else "",
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
        after = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True)
        if len(after) <= MAX_KEY_BYTES:  # more than the tables may be asked for
            return after.decode()
    except (binascii.Error, UnicodeError):
        pass
    raise InvalidRequest(
        "The cursor is not one that a page of this list ended with.", parameter="cursor"
    )
