"""One DynamoDB table: its calls, batched reads, pages of a partition, records as JSON bodies."""

from __future__ import annotations

import base64
import hashlib
import random
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from botocore import xform_name

from lookalike.adapters.aws import aws_errors, client
from lookalike.adapters.signed import SignedRequests
from lookalike.core.errors import Conflict, Unavailable

Item = dict[str, dict[str, str]]
Record = TypeVar("Record")

_BATCH_GET_LIMIT = 100  # DynamoDB's
_BATCH_WRITE_LIMIT = 25  # DynamoDB's
_BATCH_ROUNDS = 6


def text(value: str) -> dict[str, str]:
    """A string attribute."""
    return {"S": value}


def encode_record(record: object) -> dict[str, str]:
    """A record as one JSON text."""
    return text(msgspec.json.encode(record).decode())


def decode_record(item: Item, kind: type[Record]) -> Record:
    """The record in an item's body."""
    return msgspec.json.decode(item["body"]["S"], type=kind)


def pack_record(record: object) -> dict[str, str]:
    """A record that may be large, as a text of about a third of its JSON: an item has 400 kB."""
    return text(base64.b64encode(zlib.compress(msgspec.json.encode(record))).decode())


def unpack_record(item: Item, kind: type[Record]) -> Record:
    """The record that `pack_record` made an item's body of."""
    return msgspec.json.decode(zlib.decompress(base64.b64decode(item["body"]["S"])), type=kind)


def unchanged(revision: str | None) -> dict[str, Any]:
    """The condition of a write: the item has this revision; for None, there is no such item."""
    if revision is None:
        return {"ConditionExpression": "attribute_not_exists(revision)"}
    return {
        "ConditionExpression": "revision = :revision",
        "ExpressionAttributeValues": {":revision": text(revision)},
    }


class Table:
    """One table: batched reads and deletions, queries in pages."""

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
        if "RequestItems" not in parameters:
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

    def put_revised(self, what: str, key: Item, body: dict[str, str], before: str | None) -> str:
        """Write a body if the stored item still has revision ``before``; give the new revision.

        A revision is named by the content: if the same record comes back later, a decision made on
        it still stands. And a write that is sent again, since its answer was lost, finds itself.

        Raises
        ------
        Conflict
            Somebody else wrote, created or deleted the item meanwhile.
        """
        revision = hashlib.blake2b(body["S"].encode(), digest_size=12).hexdigest()
        try:
            self.call(
                "PutItem",
                what,
                Item=key | {"revision": text(revision), "body": body},
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
                **unchanged(before),
            )
        except Conflict as conflict:
            if _stored(conflict).get("revision") != text(revision):
                raise
        return revision

    def get(self, key: Item) -> Item | None:
        """One item; None when there is none."""
        item: Item | None = self.call("GetItem", Key=key, ConsistentRead=True).get("Item")
        return item

    def get_many(self, keys: list[Item]) -> list[Item]:
        """The items that exist among the keys, in no order."""
        chunks = [
            keys[start : start + _BATCH_GET_LIMIT]
            for start in range(0, len(keys), _BATCH_GET_LIMIT)
        ]
        return [item for chunk in chunks for item in self._get_chunk(chunk)]

    def _get_chunk(self, keys: list[Item]) -> Iterator[Item]:
        request: dict[str, Any] = {self.name: {"Keys": keys, "ConsistentRead": True}}
        for attempt in range(_BATCH_ROUNDS):
            answer = self.call("BatchGetItem", RequestItems=request)
            yield from answer["Responses"].get(self.name, ())
            request = answer.get("UnprocessedKeys") or {}
            if not request:
                return
            _pause(attempt)
        raise Unavailable(f"{self.name} left keys unread {_BATCH_ROUNDS} times")

    def delete_many(self, keys: Sequence[Item]) -> None:
        """Delete the items of these keys, which must differ; missing ones are no error."""
        for start in range(0, len(keys), _BATCH_WRITE_LIMIT):
            few = keys[start : start + _BATCH_WRITE_LIMIT]
            self._write_chunk([{"DeleteRequest": {"Key": key}} for key in few])

    def _write_chunk(self, requests: list[dict[str, Any]]) -> None:
        request: dict[str, Any] | None = {self.name: requests}
        for attempt in range(_BATCH_ROUNDS):
            request = self.call("BatchWriteItem", RequestItems=request).get("UnprocessedItems")
            if not request:
                return
            _pause(attempt)
        raise Unavailable(f"{self.name} left items unwritten {_BATCH_ROUNDS} times")

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

    def partition(
        self, name: str, value: str, since: tuple[str, str] | None = None
    ) -> Iterator[Item]:
        """Every item of one partition in order of the sort key.

        With ``since``, a sort key's name and value, those at or behind it.
        """
        condition, names, values = "#p = :p", {"#p": name}, {":p": text(value)}
        if since is not None:
            condition += " AND #s >= :s"
            names["#s"], values[":s"] = since[0], text(since[1])
        return self._every(condition, names, values)

    def beginning(self, partition: tuple[str, str], sort: str, prefix: str) -> Iterator[Item]:
        """Every item of one partition whose sort key begins so, in order of it."""
        names = {"#p": partition[0], "#s": sort}
        values = {":p": text(partition[1]), ":s": text(prefix)}
        return self._every("#p = :p AND begins_with(#s, :s)", names, values)

    def _every(self, condition: str, names: Mapping[str, str], values: Item) -> Iterator[Item]:
        start: dict[str, Any] = {}
        while True:
            answer = self.call(
                "Query",
                KeyConditionExpression=condition,
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=values,
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
        condition, values, names = "#p = :p", {":p": text(value)}, {"#p": name}
        if after:
            condition += " AND #s > :s"
            values[":s"] = text(after)
            names["#s"] = sort
        items, more = self.page(condition, values, names, limit)
        return items, items[-1][sort]["S"] if more and items else None


def _stored(conflict: Conflict) -> Item:
    """What a write found whose condition does not hold."""
    response = getattr(conflict.__cause__, "response", {})
    item: Item = response.get("Item", {})
    return item


def _pause(attempt: int) -> None:
    time.sleep(random.uniform(0.5, 1.0) * 0.05 * 2**attempt)  # nosec B311  # no secret
