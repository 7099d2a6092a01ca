"""The search log on DynamoDB: entries by hour, that are given out only until they expire."""

from __future__ import annotations

from datetime import UTC, datetime

from lookalike.adapters.table import Item, Table, decode_record, encode_record, text
from lookalike.core.search_hours import HOUR_S, SHARDS, hour_of, shard_of
from lookalike.core.types import SearchRecord

_RECENT_HOURS = 24


class DynamoSearchLog:
    """The search log; implements `lookalike.core.ports.SearchLog`.

    The partition is the hour and a shard, both read off the query id (a ULID), so that one search
    is found by its id alone and the newest by walking back through the hours.
    """

    def __init__(self, table: str, retention_days: int) -> None:
        self._table = Table(table)
        self._retention_s = retention_days * 86_400

    def write(self, record: SearchRecord) -> None:
        """See `lookalike.core.ports.SearchLog`."""
        item = _search_key(record.query_id) | {
            "expires_at": {"N": str(int(record.at) + self._retention_s)},
            "body": encode_record(record),
        }
        self._table.call("PutItem", f"search {record.query_id}", Item=item)

    def get(self, query_id: str, now: float) -> SearchRecord | None:
        """See `lookalike.core.ports.SearchLog`."""
        try:
            key = _search_key(query_id)
        except ValueError:
            return None
        item = self._table.get(key)
        return decode_record(item, SearchRecord) if item and not has_expired(item, now) else None

    def recent(self, limit: int, now: float) -> list[SearchRecord]:
        """See `lookalike.core.ports.SearchLog`."""
        found: list[SearchRecord] = []
        hour = int(now // HOUR_S)
        for back in range(_RECENT_HOURS):
            for shard in range(SHARDS):
                items, _ = self._table.page(
                    "#p = :p",
                    {":p": text(bucket_of(hour - back, shard))},
                    {"#p": "bucket"},
                    limit,
                    forward=False,
                )
                live = [item for item in items if not has_expired(item, now)]
                found += [decode_record(item, SearchRecord) for item in live]
            if len(found) >= limit:
                break
        return sorted(found, key=lambda item: item.query_id, reverse=True)[:limit]

    def page(
        self, hour: int, shard: int, after: str, limit: int, now: float
    ) -> tuple[list[SearchRecord], str | None]:
        """See `lookalike.core.ports.SearchLog`."""
        partition = ("bucket", bucket_of(hour, shard))
        items, go_on = self._table.after(partition, "query_id", limit, after)
        live = [item for item in items if not has_expired(item, now)]
        return [decode_record(item, SearchRecord) for item in live], go_on

    def delete(self, hour: int, limit: int) -> int:
        """See `lookalike.core.ports.SearchLog`."""
        return delete_hour(self._table, "query_id", hour, limit)


def bucket_of(hour: int, shard: int) -> str:
    """The partition of an hour's shard."""
    return f"{datetime.fromtimestamp(hour * HOUR_S, UTC):%Y-%m-%dT%H}#{shard}"


def has_expired(item: Item, now: float) -> bool:
    """Whether DynamoDB may delete an item, which it does days later, and moto never."""
    return float(item["expires_at"]["N"]) <= now


def delete_hour(table: Table, sort: str, hour: int, limit: int) -> int:
    """Delete at most ``limit`` items of an hour's partitions; how many there were."""
    deleted = 0
    for shard in range(SHARDS):
        partition = bucket_of(hour, shard)
        if deleted == limit:
            break
        items, _ = table.after(("bucket", partition), sort, limit - deleted, "")
        table.delete_many([{"bucket": item["bucket"], sort: item[sort]} for item in items])
        deleted += len(items)
    return deleted


def _search_key(query_id: str) -> Item:
    bucket = bucket_of(hour_of(query_id), shard_of(query_id))
    return {"bucket": text(bucket), "query_id": text(query_id)}
