"""Keeps the items of moto's DynamoDB tables."""

from __future__ import annotations

from typing import Any

from moto.dynamodb.models import DynamoDBBackend, dynamodb_backends
from moto.dynamodb.models.dynamo_type import DynamoType, Item, LimitedSizeDict
from moto.dynamodb.models.table import Table

from local.aws.journal import Journal, decode_state, encode_state, encode_text
from local.aws.touched import ItemRecord, touch


def track() -> None:
    """Let moto say which items it touches."""
    put, delete = Table.put_item, Table.delete_item
    update, drop = DynamoDBBackend.update_item, DynamoDBBackend.delete_table

    def put_item(self: Any, item_attrs: dict[str, Any], *args: Any, **kwargs: Any) -> Item:
        item = put(self, item_attrs, *args, **kwargs)
        touch(ItemRecord(self.table_arn, item.hash_key, item.range_key))
        return item

    def delete_item(self: Any, hash_key: DynamoType, range_key: DynamoType | None) -> Item | None:
        touch(ItemRecord(self.table_arn, hash_key, range_key))
        return delete(self, hash_key, range_key)

    def update_item(self: Any, table_name: str, key: Any, *args: Any, **kwargs: Any) -> Item:
        table = self.get_table(table_name)
        if set(table.table_key_attrs) <= key.keys():
            # Before, since moto leaves what it has changed so far when an expression fails.
            touch(ItemRecord(table.table_arn, *self.get_keys_value(table, key)))
        return update(self, table_name, key, *args, **kwargs)

    def delete_table(self: Any, name: str) -> Table:
        table = drop(self, name)
        for item in table.all_items():
            touch(ItemRecord(table.table_arn, item.hash_key, item.range_key))
        return table

    Table.put_item = put_item  # type: ignore[method-assign]
    Table.delete_item = delete_item  # type: ignore[method-assign]
    DynamoDBBackend.update_item = update_item  # type: ignore[method-assign]
    DynamoDBBackend.delete_table = delete_table  # type: ignore[method-assign]


class Items:
    """Items between moto and the journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def save(self, record: ItemRecord) -> None:
        """Write what moto has of an item."""
        table = _table(record.table)
        item = None
        if table is not None:
            item = table.items.get(record.hash_key)
            if table.has_range_key and item is not None:
                item = item.get(record.range_key)
        name = _name(record)
        if item is None:
            self._journal.rows(
                "DELETE FROM items WHERE arn = ? AND hash_key = ? AND range_key = ?", name
            )
        else:
            state = encode_state(item.to_json()["Attributes"])
            self._journal.rows("INSERT OR REPLACE INTO items VALUES (?, ?, ?, ?)", (*name, state))

    def load(self) -> None:
        """Put everything that the journal has into moto's tables."""
        for arn, state in self._journal.rows("SELECT arn, state FROM items"):
            if (table := _table(arn)) is not None:
                _put(table, state)

    def load_item(self, record: ItemRecord) -> None:
        """Put what the journal has of an item into moto."""
        table = _table(record.table)
        if table is None:
            return
        if not table.has_range_key:
            table.items.pop(record.hash_key, None)
        elif record.hash_key in table.items:
            table.items[record.hash_key].pop(record.range_key, None)
        for (state,) in self._journal.rows(
            "SELECT state FROM items WHERE arn = ? AND hash_key = ? AND range_key = ?",
            _name(record),
        ):
            _put(table, state)


def _table(arn: str) -> Any:
    _, _, _, region, account, resource = arn.split(":")
    return dynamodb_backends[account][region].tables.get(resource.removeprefix("table/"))


def _name(record: ItemRecord) -> tuple[str, bytes, bytes]:
    return record.table, _key(record.hash_key), _key(record.range_key)


def _key(key: DynamoType | None) -> bytes:
    """The same for keys that are equal, as the numbers 1 and 1.0 are."""
    if key is None:
        return b""
    value = str(key.cast_value.normalize()) if key.is_number() else key.value
    return encode_text(f"{key.type}:{value}")


def _put(table: Any, state: str) -> None:
    item: Any = Item.__new__(Item)
    item.attrs = LimitedSizeDict()
    for name, value in decode_state(state).items():
        # Past the check of the size, which sums up all attributes again at each.
        dict.__setitem__(item.attrs, name, DynamoType(value))
    item.hash_key = item.attrs[table.hash_key_attr]
    if table.has_range_key:
        item.range_key = item.attrs[table.range_key_attr]
        table.items[item.hash_key][item.range_key] = item
    else:
        item.range_key = None
        table.items[item.hash_key] = item
