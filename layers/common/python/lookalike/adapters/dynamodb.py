"""The tables on DynamoDB: small conditional writes and reads by key; nothing is ever scanned.

A record's fields that no key needs travel as one JSON text (``body``): docs/decisions/0003.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace

from lookalike.adapters.table import (
    Item,
    Table,
    decode_record,
    encode_record,
    pack_record,
    text,
    unchanged,
    unpack_record,
)
from lookalike.core.keys import catalogue_of
from lookalike.core.types import (
    Counts,
    Failure,
    Lineage,
    Manifest,
    Product,
    SegmentEntry,
)


class DynamoProducts:
    """Product records; implements `lookalike.core.ports.ProductTable`."""

    def __init__(self, table: str) -> None:
        self._table = Table(table)

    def get_many(self, ids: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Product]:
        """See `lookalike.core.ports.ProductTable`."""
        items = self._table.get_many([_product_key(*pair) for pair in dict.fromkeys(ids)])
        products = map(_product, items)
        return {(product.catalogue, product.product_id): product for product in products}

    def put(self, product: Product) -> Product:
        """See `lookalike.core.ports.ProductTable`."""
        revision = self._table.put_revised(
            f"product {product.product_id}",
            _product_key(product.catalogue, product.product_id),
            encode_record(replace(product, revision=None)),
            product.revision,
        )
        return replace(product, revision=revision)

    def delete(self, product: Product) -> None:
        """See `lookalike.core.ports.ProductTable`."""
        self._table.call(
            "DeleteItem",
            f"product {product.product_id}",
            Key=_product_key(product.catalogue, product.product_id),
            **unchanged(product.revision),
        )

    def page(self, catalogue: str, limit: int, after: str = "") -> tuple[list[Product], str | None]:
        """See `lookalike.core.ports.ProductTable`."""
        items, go_on = self._table.after(("catalogue", catalogue), "product_id", limit, after)
        return [_product(item) for item in items], go_on


def _product_key(catalogue: str, product_id: str) -> Item:
    return {"catalogue": text(catalogue), "product_id": text(product_id)}


def _product(item: Item) -> Product:
    return replace(decode_record(item, Product), revision=item["revision"]["S"])


class DynamoFailures:
    """Failure records; implements `lookalike.core.ports.FailureTable`."""

    def __init__(self, table: str) -> None:
        self._table = Table(table)

    def get_many(self, keys: Iterable[str]) -> dict[str, Failure]:
        """See `lookalike.core.ports.FailureTable`."""
        items = self._table.get_many([_failure_key(key) for key in dict.fromkeys(keys)])
        return {
            failure.key: failure for failure in (decode_record(item, Failure) for item in items)
        }

    def put(self, failure: Failure) -> bool:
        """See `lookalike.core.ports.FailureTable`."""
        item = _failure_key(failure.key) | {"body": encode_record(failure)}
        what = f"failure of {failure.key}"
        answer = self._table.call("PutItem", what, Item=item, ReturnValues="ALL_OLD")
        return not answer.get("Attributes")

    def delete(self, key: str) -> bool:
        """See `lookalike.core.ports.FailureTable`."""
        answer = self._table.call(
            "DeleteItem", f"failure of {key}", Key=_failure_key(key), ReturnValues="ALL_OLD"
        )
        return bool(answer.get("Attributes"))

    def page(self, catalogue: str, limit: int, after: str = "") -> tuple[list[Failure], str | None]:
        """See `lookalike.core.ports.FailureTable`."""
        items, go_on = self._table.after(("catalogue", catalogue), "key", limit, after)
        return [decode_record(item, Failure) for item in items], go_on


def _failure_key(key: str) -> Item:
    return {"catalogue": text(catalogue_of(key)), "key": text(key)}


class DynamoRegistry:
    """Appended segments and manifests; implements `lookalike.core.ports.Registry`.

    The manifest sorts behind every segment of its scope, so that one query reads it last.
    """

    def __init__(self, table: str) -> None:
        self._table = Table(table)

    def add(self, entry: SegmentEntry) -> None:
        """See `lookalike.core.ports.Registry`."""
        item = _entry_key(entry) | {"body": encode_record(entry)}
        self._table.call("PutItem", f"segment {entry.digest}", Item=item)

    def read(self, scope: str, since: float = 0.0) -> tuple[list[SegmentEntry], Manifest]:
        """See `lookalike.core.ports.Registry`."""
        manifest = Manifest(scope)
        entries = []
        bound = ("entry", _moment(since)) if since > 0 else None
        for item in self._table.partition("scope", scope, bound):
            if item["entry"]["S"] == _MANIFEST:
                manifest = replace(
                    unpack_record(item, Manifest), scope=scope, revision=item["revision"]["S"]
                )
            else:
                entries.append(decode_record(item, SegmentEntry))
        return [entry for entry in entries if entry.committed_at >= since], manifest

    def put_manifest(self, manifest: Manifest) -> Manifest:
        """See `lookalike.core.ports.Registry`."""
        revision = self._table.put_revised(
            f"manifest of {manifest.scope}",
            _manifest_key(manifest.scope),
            pack_record(replace(manifest, revision=None)),
            manifest.revision,
        )
        return replace(manifest, revision=revision)

    def remove(self, entries: Iterable[SegmentEntry]) -> None:
        """See `lookalike.core.ports.Registry`."""
        self._table.delete_many([_entry_key(entry) for entry in dict.fromkeys(entries)])

    def drop(self, scope: str) -> None:
        """See `lookalike.core.ports.Registry`."""
        items = self._table.partition("scope", scope)
        self._table.delete_many(
            [{name: item[name] for name in ("scope", "entry")} for item in items]
        )


_MANIFEST = "~manifest"


def _moment(at: float) -> str:
    """Epoch seconds as a text that sorts as they do."""
    return f"{int(at * 1e6):016x}"


def _entry_key(entry: SegmentEntry) -> Item:
    name = f"{_moment(entry.committed_at)}-{entry.digest}"
    return {"scope": text(entry.scope), "entry": text(name)}


def _manifest_key(scope: str) -> Item:
    return {"scope": text(scope), "entry": text(_MANIFEST)}


class DynamoLineages:
    """Each catalogue's generations; implements `lookalike.core.ports.LineageTable`."""

    def __init__(self, table: str) -> None:
        self._table = Table(table)

    def get(self, catalogue: str) -> Lineage | None:
        """See `lookalike.core.ports.LineageTable`."""
        item = self._table.get(_lineage_key(catalogue))
        return _lineage(item) if item else None

    def put(self, lineage: Lineage) -> Lineage:
        """See `lookalike.core.ports.LineageTable`."""
        revision = self._table.put_revised(
            f"catalogue {lineage.catalogue}",
            _lineage_key(lineage.catalogue),
            encode_record(replace(lineage, revision=None)),
            lineage.revision,
        )
        return replace(lineage, revision=revision)

    def all(self) -> list[Lineage]:
        """See `lookalike.core.ports.LineageTable`."""
        return [_lineage(item) for item in self._table.partition("kind", "lineage")]


def _lineage_key(catalogue: str) -> Item:
    return {"kind": text("lineage"), "catalogue": text(catalogue)}


def _lineage(item: Item) -> Lineage:
    return replace(decode_record(item, Lineage), revision=item["revision"]["S"])


class DynamoCounts:
    """Counts, in the generations table; implements `lookalike.core.ports.CountTable`."""

    def __init__(self, table: str) -> None:
        self._table = Table(table)

    def all(self) -> dict[str, Counts]:
        """See `lookalike.core.ports.CountTable`."""
        return {
            item["catalogue"]["S"]: Counts(**{name: int(item[name]["N"]) for name in _COUNTED})
            for item in self._table.partition("kind", "counts")
        }

    def add(self, catalogue: str, change: Counts) -> None:
        """See `lookalike.core.ports.CountTable`."""
        self._table.call(
            "UpdateItem",
            f"counts of {catalogue}",
            Key=_counts_key(catalogue),
            UpdateExpression="ADD " + ", ".join(f"#{name} :{name}" for name in _COUNTED),
            ExpressionAttributeNames={f"#{name}": name for name in _COUNTED},
            ExpressionAttributeValues={
                f":{name}": {"N": str(getattr(change, name))} for name in _COUNTED
            },
        )

    def set(self, catalogue: str, counts: Counts) -> None:
        """See `lookalike.core.ports.CountTable`."""
        values = {name: {"N": str(getattr(counts, name))} for name in _COUNTED}
        self._table.call("PutItem", f"counts of {catalogue}", Item=_counts_key(catalogue) | values)


_COUNTED = tuple(field.name for field in fields(Counts))


def _counts_key(catalogue: str) -> Item:
    return {"kind": text("counts"), "catalogue": text(catalogue)}
