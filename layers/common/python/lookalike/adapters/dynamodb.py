"""The tables on DynamoDB: small conditional writes and reads by key; nothing is ever scanned.

A record's fields that no key needs travel as one JSON text (``body``): encoding nested maps in
DynamoDB's
own types costs several times the CPU, and nothing filters on them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from botocore import xform_name
from ulid import ULID

from lookalike.adapters.aws import aws_errors, client
from lookalike.adapters.signed import SignedRequests
from lookalike.core.errors import Conflict, Unavailable
from lookalike.core.keys import catalogue_of
from lookalike.core.types import (
    Counts,
    Failure,
    Generation,
    Product,
    SearchRecord,
    SegmentEntry,
)

Item = dict[str, dict[str, str]]
Record = TypeVar("Record")

_BATCH_GET_LIMIT = 100  # DynamoDB's
_BATCH_GET_ROUNDS = 6
_RECENT_HOURS = 24
_SEARCH_SHARDS = 4  # write heat of the search log is spread over so many partitions an hour


def _text(value: str) -> dict[str, str]:
    return {"S": value}


def _body(record: object) -> dict[str, str]:
    return _text(msgspec.json.encode(record).decode())


def _record(item: Item, kind: type[Record]) -> Record:
    return msgspec.json.decode(item["body"]["S"], type=kind)


class _Table:
    """One table: batched reads, one-page queries."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._signed = SignedRequests("dynamodb")

    def call(self, operation: str, what: str = "", **parameters: Any) -> dict[str, Any]:
        """Run one operation (its API name) with the API's own parameters; ``what`` is for errors.

        Raises
        ------
        Conflict
            The operation's condition does not hold.
        Unavailable
            Anything else that keeps it from being done.
        """
        if operation != "BatchGetItem":
            parameters["TableName"] = self.name
        answer = self._signed.send(
            "POST",
            "/",
            {
                "X-Amz-Target": f"DynamoDB_20120810.{operation}",
                "Content-Type": "application/x-amz-json-1.0",
            },
            msgspec.json.encode(parameters),
        )
        if answer is not None and answer.status == 200:
            found: dict[str, Any] = msgspec.json.decode(answer.body)
            return found
        with aws_errors(what or self.name):
            found = getattr(client("dynamodb"), xform_name(operation))(**parameters)
        return found

    def get(self, key: Item) -> Item | None:
        item: Item | None = self.call("GetItem", Key=key, ConsistentRead=True).get("Item")
        return item

    def get_many(self, keys: list[Item]) -> list[Item]:
        chunks = [
            keys[start : start + _BATCH_GET_LIMIT]
            for start in range(0, len(keys), _BATCH_GET_LIMIT)
        ]
        return [item for chunk in chunks for item in self._get_chunk(chunk)]

    def _get_chunk(self, keys: list[Item]) -> Iterator[Item]:
        request: dict[str, Any] = {self.name: {"Keys": keys, "ConsistentRead": True}}
        for _ in range(_BATCH_GET_ROUNDS):
            answer = self.call("BatchGetItem", RequestItems=request)
            yield from answer["Responses"].get(self.name, ())
            request = answer.get("UnprocessedKeys") or {}
            if not request:
                return
        raise Unavailable(f"{self.name} left keys unread {_BATCH_GET_ROUNDS} times")

    def page(
        self,
        condition: str,
        values: Item,
        names: Mapping[str, str],
        limit: int,
        forward: bool = True,
    ) -> tuple[list[Item], bool]:
        """Up to ``limit`` items in order of the sort key, and whether there are more."""
        items: list[Item] = []
        start: dict[str, Any] = {}
        while True:
            answer = self.call(
                "Query",
                KeyConditionExpression=condition,
                ExpressionAttributeValues=values,
                ExpressionAttributeNames=names,
                ConsistentRead=True,
                ScanIndexForward=forward,
                Limit=limit - len(items),
                **start,
            )
            items += answer["Items"]
            last = answer.get("LastEvaluatedKey")
            if last is None or len(items) >= limit:
                return items, last is not None
            start = {"ExclusiveStartKey": last}

    def partition(self, name: str, value: str) -> Iterator[Item]:
        """Every item of one partition."""
        start: dict[str, Any] = {}
        while True:
            answer = self.call(
                "Query",
                KeyConditionExpression="#p = :p",
                ExpressionAttributeNames={"#p": name},
                ExpressionAttributeValues={":p": _text(value)},
                ConsistentRead=True,
                **start,
            )
            yield from answer["Items"]
            if (last := answer.get("LastEvaluatedKey")) is None:
                return
            start = {"ExclusiveStartKey": last}

    def after(
        self, partition: tuple[str, str], sort: str, limit: int, after: str
    ) -> tuple[list[Item], str | None]:
        """A page of one partition behind sort key ``after``, and the sort key to go on from."""
        name, value = partition
        condition, values, names = "#p = :p", {":p": _text(value)}, {"#p": name}
        if after:
            condition += " AND #s > :s"
            values[":s"] = _text(after)
            names["#s"] = sort
        items, more = self.page(condition, values, names, limit)
        return items, items[-1][sort]["S"] if more and items else None


class DynamoProducts:
    """Product records; implements `lookalike.core.ports.ProductTable`."""

    def __init__(self, table: str) -> None:
        self._table = _Table(table)

    def get_many(self, ids: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Product]:
        """See `lookalike.core.ports.ProductTable`."""
        items = self._table.get_many([_product_key(*pair) for pair in dict.fromkeys(ids)])
        products = map(_product, items)
        return {(product.catalogue, product.product_id): product for product in products}

    def put(self, product: Product) -> Product:
        """See `lookalike.core.ports.ProductTable`."""
        body = _body(replace(product, revision=None))
        # Named by content: if the same record comes back later, a decision made on it still stands.
        revision = hashlib.blake2b(body["S"].encode(), digest_size=12).hexdigest()
        item = _product_key(product.catalogue, product.product_id)
        item |= {"revision": _text(revision), "body": body}
        self._table.call(
            "PutItem", f"product {product.product_id}", Item=item, **_unchanged(product)
        )
        return replace(product, revision=revision)

    def delete(self, product: Product) -> None:
        """See `lookalike.core.ports.ProductTable`."""
        self._table.call(
            "DeleteItem",
            f"product {product.product_id}",
            Key=_product_key(product.catalogue, product.product_id),
            **_unchanged(product),
        )

    def page(self, catalogue: str, limit: int, after: str = "") -> tuple[list[Product], str | None]:
        """See `lookalike.core.ports.ProductTable`."""
        items, go_on = self._table.after(("catalogue", catalogue), "product_id", limit, after)
        return [_product(item) for item in items], go_on


def _product_key(catalogue: str, product_id: str) -> Item:
    return {"catalogue": _text(catalogue), "product_id": _text(product_id)}


def _product(item: Item) -> Product:
    return replace(_record(item, Product), revision=item["revision"]["S"])


def _unchanged(product: Product) -> dict[str, Any]:
    if product.revision is None:
        return {"ConditionExpression": "attribute_not_exists(revision)"}
    return {
        "ConditionExpression": "revision = :revision",
        "ExpressionAttributeValues": {":revision": _text(product.revision)},
    }


class DynamoFailures:
    """Failure records; implements `lookalike.core.ports.FailureTable`."""

    def __init__(self, table: str) -> None:
        self._table = _Table(table)

    def get_many(self, keys: Iterable[str]) -> dict[str, Failure]:
        """See `lookalike.core.ports.FailureTable`."""
        items = self._table.get_many([_failure_key(key) for key in dict.fromkeys(keys)])
        return {failure.key: failure for failure in (_record(item, Failure) for item in items)}

    def put(self, failure: Failure) -> None:
        """See `lookalike.core.ports.FailureTable`."""
        item = _failure_key(failure.key) | {"body": _body(failure)}
        self._table.call("PutItem", f"failure of {failure.key}", Item=item)

    def delete(self, key: str) -> None:
        """See `lookalike.core.ports.FailureTable`."""
        self._table.call("DeleteItem", f"failure of {key}", Key=_failure_key(key))

    def page(self, catalogue: str, limit: int, after: str = "") -> tuple[list[Failure], str | None]:
        """See `lookalike.core.ports.FailureTable`."""
        items, go_on = self._table.after(("catalogue", catalogue), "key", limit, after)
        return [_record(item, Failure) for item in items], go_on


def _failure_key(key: str) -> Item:
    return {"catalogue": _text(catalogue_of(key)), "key": _text(key)}


class DynamoRegistry:
    """Live segments; implements `lookalike.core.ports.Registry`."""

    def __init__(self, table: str) -> None:
        self._table = _Table(table)

    def add(self, entry: SegmentEntry) -> None:
        """See `lookalike.core.ports.Registry`."""
        item = {"scope": _text(entry.scope), "digest": _text(entry.digest), "body": _body(entry)}
        with suppress(Conflict):
            self._table.call(
                "PutItem",
                f"segment {entry.digest}",
                Item=item,
                ConditionExpression="attribute_not_exists(digest)",
            )

    def live(self, scope: str) -> list[SegmentEntry]:
        """See `lookalike.core.ports.Registry`."""
        return [_record(item, SegmentEntry) for item in self._table.partition("scope", scope)]


class DynamoGenerations:
    """Current generations; implements `lookalike.core.ports.GenerationTable`."""

    def __init__(self, table: str) -> None:
        self._table = _Table(table)

    def current(self, catalogue: str) -> Generation | None:
        """See `lookalike.core.ports.GenerationTable`."""
        item = self._table.get({"kind": _text("current"), "catalogue": _text(catalogue)})
        return _record(item, Generation) if item else None

    def create(self, generation: Generation) -> Generation:
        """See `lookalike.core.ports.GenerationTable`."""
        key = {"kind": _text("current"), "catalogue": _text(generation.catalogue)}
        try:
            self._table.call(
                "PutItem",
                f"catalogue {generation.catalogue}",
                Item=key | {"body": _body(generation)},
                ConditionExpression="attribute_not_exists(body)",
            )
        except Conflict:
            return self.current(generation.catalogue) or generation
        return generation

    def catalogues(self) -> list[Generation]:
        """See `lookalike.core.ports.GenerationTable`."""
        return [_record(item, Generation) for item in self._table.partition("kind", "current")]


class DynamoCounts:
    """Counts, in the generations table; implements `lookalike.core.ports.CountTable`."""

    def __init__(self, table: str) -> None:
        self._table = _Table(table)

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
    return {"kind": _text("counts"), "catalogue": _text(catalogue)}


class DynamoSearchLog:
    """The search log; implements `lookalike.core.ports.SearchLog`.

    The partition is the hour and a shard, both read off the query id (a ULID), so that one search
    is found by its id alone and the newest by walking back through the hours.
    """

    def __init__(self, table: str, retention_days: int) -> None:
        self._table = _Table(table)
        self._retention_s = retention_days * 86_400

    def write(self, record: SearchRecord) -> None:
        """See `lookalike.core.ports.SearchLog`."""
        item = _search_key(record.query_id) | {
            "expires_at": {"N": str(int(record.at) + self._retention_s)},
            "body": _body(record),
        }
        self._table.call("PutItem", f"search {record.query_id}", Item=item)

    def get(self, query_id: str) -> SearchRecord | None:
        """See `lookalike.core.ports.SearchLog`."""
        try:
            key = _search_key(query_id)
        except ValueError:
            return None
        item = self._table.get(key)
        return _record(item, SearchRecord) if item else None

    def recent(self, limit: int, now: float) -> list[SearchRecord]:
        """See `lookalike.core.ports.SearchLog`."""
        found: list[SearchRecord] = []
        for hours_back in range(_RECENT_HOURS):
            hour = _hour(now - hours_back * 3600)
            for shard in range(_SEARCH_SHARDS):
                items, _ = self._table.page(
                    "#p = :p",
                    {":p": _text(f"{hour}#{shard}")},
                    {"#p": "bucket"},
                    limit,
                    forward=False,
                )
                found += [_record(item, SearchRecord) for item in items]
            if len(found) >= limit:
                break
        return sorted(found, key=lambda item: item.query_id, reverse=True)[:limit]


def _hour(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H")


def _search_key(query_id: str) -> Item:
    ulid = ULID.from_str(query_id)
    shard = ulid.bytes[-1] % _SEARCH_SHARDS
    return {"bucket": _text(f"{_hour(ulid.timestamp)}#{shard}"), "query_id": _text(query_id)}
