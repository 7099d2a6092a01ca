"""Findings about a catalogue as people see them: how many of each kind, and page by page.

What has changed since the catalogue was checked is left out: products that are gone, photos that
were overwritten, categories that were corrected. Reads the head of a findings file and one page of
it; owns no rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lookalike.core.errors import CorruptFile, InvalidRequest, NotFound, Unavailable, Vanished
from lookalike.core.health import KINDS
from lookalike.core.health_file import (
    PAGE,
    Finding,
    FindingsHead,
    decode_findings_head,
    decode_page,
)
from lookalike.core.jobs import Artifact
from lookalike.core.ports import Stores
from lookalike.core.types import Product, View
from lookalike.services.health_photos import photo_number

MAX_PAGE = 100
_IDS_AT_ONCE = 100
_TRIES = 3


@dataclass(frozen=True, slots=True)
class FoundView:
    """One photo that a finding is about."""

    view: str
    key: str
    image_url: str
    thumbnail_url: str


@dataclass(frozen=True, slots=True)
class FoundProduct:
    """A product that a finding is about, with the views that it is about."""

    product_id: str
    title: str | None
    category: str | None
    views: list[FoundView]


@dataclass(frozen=True, slots=True)
class FindingInfo:
    """One finding: ``reason`` for a merchant, ``code`` for a program, ``evidence`` the numbers.

    ``weight`` says how bad it is or how sure, 0 to 1.
    """

    kind: str
    code: str
    reason: str
    weight: float
    evidence: dict[str, str | int | float | bool]
    products: list[FoundProduct]


@dataclass(frozen=True, slots=True)
class FindingsPage:
    """Findings of one kind, the gravest first; ``cursor`` continues, None at the end.

    ``total`` were found and ``listed`` of them kept. ``made_at`` is when the catalogue was checked,
    in epoch seconds, None if it never was. A page may be shorter than was asked for before the end.
    """

    catalogue: str
    kind: str
    total: int
    listed: int
    made_at: float | None
    findings: list[FindingInfo]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class FindingsSummary:
    """How many findings of each kind there are in so many products."""

    catalogue: str
    made_at: float | None
    products: int
    counts: dict[str, int]


class Findings:
    """The use case behind ``/findings``.

    Parameters
    ----------
    stores
        Where to read.
    url_expires_s
        Seconds for which image URLs open.
    """

    def __init__(self, stores: Stores, url_expires_s: int) -> None:
        self._stores = stores
        self._url_expires_s = url_expires_s

    def summary(self, catalogue: str) -> FindingsSummary:
        """How many findings there are; raises `NotFound`."""
        artifact = self._artifact(catalogue)
        counts = artifact.summary if artifact else {}
        return FindingsSummary(
            catalogue,
            artifact.made_at if artifact else None,
            int(counts.get("products", 0)),
            {kind: int(counts.get(kind, 0)) for kind in KINDS},
        )

    def page(
        self, catalogue: str, kind: str, limit: int = 50, cursor: str | None = None
    ) -> FindingsPage:
        """Findings of one kind that still hold.

        Raises
        ------
        NotFound
            There is no such catalogue.
        InvalidRequest
            The kind, the limit or the cursor is none.
        Unavailable
            They cannot be read now, and are made anew.
        """
        start = _check(kind, limit, cursor)
        for attempt in range(_TRIES):
            artifact = self._artifact(catalogue)
            if artifact is None:
                return FindingsPage(catalogue, kind, 0, 0, None, [], None)
            try:
                return self._page(artifact, kind, limit, start)
            except Vanished as error:  # others may have become current meanwhile
                if attempt == _TRIES - 1:
                    raise Unavailable(f"{error}; it is made anew within minutes") from error
            except CorruptFile as error:
                raise Unavailable(f"{error}; it is made anew within minutes") from error
        raise AssertionError("the last try answers or raises")

    def _page(self, artifact: Artifact, kind: str, limit: int, start: int) -> FindingsPage:
        head = self._head(artifact)
        listed = head.listed.get(kind, 0)
        kept = self._read(artifact, head, kind, start, limit)
        records = self._records(artifact.catalogue, kept)
        shown = [info for item in kept if (info := self._info(kind, item, records)) is not None]
        end = start + len(kept)
        return FindingsPage(
            artifact.catalogue,
            kind,
            head.totals.get(kind, 0),
            listed,
            artifact.made_at,
            shown,
            str(end) if end < listed else None,
        )

    def _artifact(self, catalogue: str) -> Artifact | None:
        if self._stores.lineages.get(catalogue) is None:
            raise NotFound(f"There is no catalogue “{catalogue}”.", parameter="catalogue")
        return self._stores.artifacts.current(catalogue).get("findings")

    def _head(self, artifact: Artifact) -> FindingsHead:
        data = self._range(artifact, 0, int(artifact.summary["head_bytes"]))
        return decode_findings_head(data, artifact.key)

    def _read(
        self, artifact: Artifact, head: FindingsHead, kind: str, start: int, limit: int
    ) -> list[Finding]:
        pages = head.pages.get(kind, ())
        items: list[Finding] = []
        for number in range(start // PAGE, min(-(-(start + limit) // PAGE), len(pages))):
            place, length, digest = pages[number]
            items += decode_page(self._range(artifact, place, length), digest, artifact.key)
        skipped = start % PAGE
        return items[skipped : skipped + limit]

    def _range(self, artifact: Artifact, start: int, length: int) -> bytes:
        data = self._stores.index.get_range(artifact.key, start, length)
        if data is None:
            raise Vanished(f"{artifact.key} is not in the bucket")
        return data

    def _records(self, catalogue: str, findings: Iterable[Finding]) -> dict[str, Product]:
        ids = dict.fromkeys(
            (catalogue, place.product_id) for item in findings for place in item.places
        )
        wanted = list(ids)
        found: dict[str, Product] = {}
        for start in range(0, len(wanted), _IDS_AT_ONCE):
            records = self._stores.products.get_many(wanted[start : start + _IDS_AT_ONCE])
            found |= {product.product_id: product for product in records.values()}
        return found

    def _info(self, kind: str, item: Finding, records: Mapping[str, Product]) -> FindingInfo | None:
        """A finding with what still holds of it; None when that is nothing."""
        views: dict[str, list[View]] = {}
        for place in item.places:
            product = records.get(place.product_id)
            view = product.views.get(place.key) if product else None
            if product is None or view is None:
                continue
            is_same = f"{photo_number(view.thumbnail):016x}" == place.photo
            moved = bool(item.category) and product.attributes.get("category") != item.category
            if is_same and not moved:
                views.setdefault(place.product_id, []).append(view)
        # One photo alone is no copy; a category is about no photo.
        needed = {"near-duplicate": 2, "thin-category": 0}.get(kind, 1)
        if sum(map(len, views.values())) < needed:
            return None
        products = [self._product(records[name], found) for name, found in views.items()]
        return FindingInfo(kind, item.code, item.reason, item.weight, item.evidence, products)

    def _product(self, product: Product, views: list[View]) -> FoundProduct:
        title, category = (product.attributes.get(name) for name in ("title", "category"))
        shown = [
            FoundView(
                view.name,
                view.key,
                self._stores.images.url(view.key, self._url_expires_s),
                self._stores.index.url(view.thumbnail, self._url_expires_s),
            )
            for view in views
        ]
        return FoundProduct(
            product.product_id,
            title if isinstance(title, str) else None,
            category if isinstance(category, str) else None,
            shown,
        )


def _check(kind: str, limit: int, cursor: str | None) -> int:
    """Where the page begins."""
    if kind not in KINDS:
        raise InvalidRequest(
            f"kind is “{kind}”; it is one of {', '.join(KINDS)}.", parameter="kind"
        )
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidRequest(f"limit is {limit}; it must be 1 to {MAX_PAGE}.", parameter="limit")
    if not cursor:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) <= 9):
        raise InvalidRequest(
            "The cursor is not one that a page of this list ended with.", parameter="cursor"
        )
    return int(cursor)
