"""A cloud in memory, which can be copied."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, cast

from lookalike.adapters.memory import MemoryObjectStore
from lookalike.core.ports import Clock, Stores


class MemoryCloud:
    """Stores in memory: ``stores``, but for the buckets, which have the world's clock."""

    def __init__(self, stores: Stores, clock: Clock) -> None:
        self.images = MemoryObjectStore(clock)
        self.stores = replace(stores, images=self.images, index=MemoryObjectStore(clock))
        self.queue: Any = stores.queue

    def put(self, key: str, body: bytes, metadata: Mapping[str, str]) -> None:
        self.images.put_object(key, body, "", metadata)

    def receive(self) -> list[str]:
        bodies, self.queue.bodies = self.queue.bodies, []
        return bodies

    def copied(self, clock: Clock) -> MemoryCloud:
        """The same content, under another clock."""
        other = copy.copy(self)
        other.stores = copied(self.stores)
        other.images, other.queue = cast(Any, other.stores.images), other.stores.queue
        for store in (other.stores.images, other.stores.index):
            cast(Any, store)._clock = clock
        return other


def copied(stores: Stores) -> Stores:
    """Stores in memory with the same content, all of which is immutable."""
    return Stores(**{item.name: _copied(getattr(stores, item.name)) for item in fields(Stores)})


def _copied(store: Any) -> Any:
    other = copy.copy(store)
    for name, value in vars(store).items():
        if isinstance(value, dict):
            inner = {
                key: copy.copy(item) if isinstance(item, dict) else item
                for key, item in value.items()
            }
            setattr(other, name, inner)
        elif isinstance(value, list):
            setattr(other, name, copy.copy(value))
    return other
