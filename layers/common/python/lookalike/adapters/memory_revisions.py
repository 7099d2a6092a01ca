"""Conditional writes of records in a dict, as the tables make them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TypeVar

from lookalike.core.errors import Conflict
from lookalike.core.jobs import Artifact, Job
from lookalike.core.rollups import Rollup, RollupState
from lookalike.core.types import Lineage, Manifest, Product

_Key = TypeVar("_Key")
_Revised = TypeVar("_Revised", Product, Manifest, Lineage, Artifact, Job, Rollup, RollupState)


def put_unchanged(table: dict[_Key, _Revised], key: _Key, record: _Revised) -> _Revised:
    """Write a record if the stored one has its revision, which content names as in DynamoDB."""
    stored = table.get(key)
    body = repr(replace(record, revision=None)).encode()
    revision = hashlib.blake2b(body, digest_size=12).hexdigest()
    if (stored.revision if stored else None) not in {record.revision, revision}:
        raise Conflict(f"{key} was changed meanwhile")
    table[key] = replace(record, revision=revision)
    return table[key]
