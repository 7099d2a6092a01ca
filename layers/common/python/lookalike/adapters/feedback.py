"""Feedback on DynamoDB, beside the searches that it is about: the same partitions, the same end."""

from __future__ import annotations

from lookalike.adapters.search_log import bucket_of, delete_hour, has_expired
from lookalike.adapters.table import Table, decode_record, encode_record, text
from lookalike.core.errors import Conflict
from lookalike.core.feedback import FeedbackEntry
from lookalike.core.search_hours import hour_of, shard_of


class DynamoFeedback:
    """Events by search; implements `lookalike.core.ports.FeedbackTable`.

    The partition is that of the search, and the sort key begins with its id, so that an hour's
    events come in the order of its searches.
    """

    def __init__(self, table: str) -> None:
        self._table = Table(table)

    def put(self, entry: FeedbackEntry) -> bool:
        """See `lookalike.core.ports.FeedbackTable`."""
        query_id = entry.query_id
        item = {
            "bucket": text(bucket_of(hour_of(query_id), shard_of(query_id))),
            "entry": text(f"{query_id}#{entry.event}#{entry.product_id}"),
            "expires_at": {"N": str(int(entry.expires_at))},
            "body": encode_record(entry),
        }
        try:
            self._table.call(
                "PutItem",
                f"feedback on search {query_id}",
                Item=item,
                ConditionExpression="attribute_not_exists(body)",
            )
        except Conflict:
            return False
        return True

    def page(
        self, hour: int, shard: int, after: str, limit: int, now: float
    ) -> tuple[list[FeedbackEntry], str | None]:
        """See `lookalike.core.ports.FeedbackTable`."""
        partition = ("bucket", bucket_of(hour, shard))
        items, go_on = self._table.after(partition, "entry", limit, after)
        live = [item for item in items if not has_expired(item, now)]
        return [decode_record(item, FeedbackEntry) for item in live], go_on

    def delete(self, hour: int, limit: int) -> int:
        """See `lookalike.core.ports.FeedbackTable`."""
        return delete_hour(self._table, "entry", hour, limit)
