"""API keys and the requests of each in a minute, in one DynamoDB table."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

import msgspec

from lookalike.adapters.table import Item, Table, decode_record, encode_record, text
from lookalike.core.access import ApiKey

_MINUTE_S = 60
_KEEP_MINUTES = 2

logger = logging.getLogger(__name__)


class DynamoApiKeys:
    """Implements `lookalike.core.ports.ApiKeyTable`.

    Keys share a partition, which is read by key, or as a whole when they are listed. Each key's
    counts have a partition of their own, and leave by the table's time to live. A record that
    cannot be read is logged, and opens nothing: its key is unknown.
    """

    def __init__(self, table: str) -> None:
        self._table = Table(table)

    def get(self, key_id: str) -> ApiKey | None:
        """See `lookalike.core.ports.ApiKeyTable`."""
        item = self._table.get(_key_of(key_id))
        return next(_readable([item]), None) if item else None

    def put(self, key: ApiKey) -> None:
        """See `lookalike.core.ports.ApiKeyTable`."""
        item = _key_of(key.key_id) | {"body": encode_record(key)}
        self._table.call("PutItem", f"API key {key.key_id}", Item=item)

    def all(self) -> list[ApiKey]:
        """See `lookalike.core.ports.ApiKeyTable`."""
        return list(_readable(self._table.partition("kind", "key")))

    def count(self, key_id: str, minute: int) -> int:
        """See `lookalike.core.ports.ApiKeyTable`."""
        answer = self._table.call(
            "UpdateItem",
            f"requests of the API key {key_id}",
            Key={"kind": text(f"used {key_id}"), "id": text(str(minute))},
            UpdateExpression="ADD #used :one SET #expires = :expires",
            ExpressionAttributeNames={"#used": "used", "#expires": "expires_at"},
            ExpressionAttributeValues={
                ":one": {"N": "1"},
                ":expires": {"N": str((minute + _KEEP_MINUTES) * _MINUTE_S)},
            },
            ReturnValues="UPDATED_NEW",
        )
        return int(answer["Attributes"]["used"]["N"])


def _readable(items: Iterable[Item]) -> Iterator[ApiKey]:
    for item in items:
        try:
            yield decode_record(item, ApiKey)
        except (KeyError, msgspec.DecodeError):
            logger.error("the record of the API key %s cannot be read", item["id"]["S"])


def _key_of(key_id: str) -> Item:
    return {"kind": text("key"), "id": text(key_id)}
