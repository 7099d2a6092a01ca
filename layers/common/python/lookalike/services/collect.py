"""Deletes index files that were swapped out long enough ago, and finds those that nobody names.

An object is deleted only after it has been in a ``replaced`` map for the grace period: what a
reader has open stays, whatever else happened to it. Orphans enter such a map first, by the same
conditional write that everything else goes through.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace

from lookalike.core.compaction import ORPHAN_AGE_S, named_keys, replaced_bytes, room
from lookalike.core.ports import Clock, Stores
from lookalike.core.types import Lineage, Manifest, SegmentEntry

logger = logging.getLogger(__name__)

_FOLDERS = ("segments", "bases", "heads")


def collect(
    stores: Stores,
    lineage: Lineage,
    manifest: Manifest,
    entries: Sequence[SegmentEntry],
    keys: Sequence[str],
    pool: Executor,
) -> int:
    """Delete replaced objects and forget them; gives how many were deleted.

    What another generation still names is forgotten and stays: it is for that one to replace.
    """
    named = named_keys(manifest, entries)
    for other in _scopes(lineage):
        if other != manifest.scope:
            others, theirs = stores.registry.read(other)
            named |= named_keys(theirs, others)
    free = [key for key in keys if key not in named]
    list(pool.map(stores.index.delete, free))
    left = {key: at for key, at in manifest.replaced.items() if key not in set(keys)}
    stores.registry.put_manifest(replace(manifest, replaced=left))
    return len(free)


def claim_orphans(stores: Stores, catalogue: str, grace_s: float, clock: Clock) -> int:
    """Put objects that no generation names into the current one's ``replaced`` map.

    They come from steps that lost a race or were cut short, and from generations that were
    dropped. Gives how many were found; raises `Conflict` if the manifest changed meanwhile.
    """
    old_before = clock() - max(grace_s, ORPHAN_AGE_S)
    old = [
        info.key
        for folder in _FOLDERS
        for info in stores.index.list(f"{folder}/{catalogue}/")
        if info.last_modified < old_before
    ]
    # Read after the listing: what somebody has begun to use meanwhile is named by now.
    lineage = stores.lineages.get(catalogue) if old else None
    if lineage is None:
        return 0
    scopes = {scope: stores.registry.read(scope) for scope in _scopes(lineage)}
    known: set[str] = set()
    for entries, manifest in scopes.values():
        known |= named_keys(manifest, entries) | manifest.replaced.keys()
    _, current = scopes[lineage.current.scope]
    now, left = clock(), room(current)
    claimed: dict[str, float] = {}
    for key in old:
        left -= replaced_bytes(key)
        if left < 0:
            break
        if key not in known:
            claimed[key] = now
    if claimed:
        logger.info("%d index files of %s are named by nothing", len(claimed), catalogue)
        stores.registry.put_manifest(replace(current, replaced={**current.replaced, **claimed}))
    return len(claimed)


def _scopes(lineage: Lineage) -> list[str]:
    beside = [lineage.beside.generation] if lineage.beside else []
    return [generation.scope for generation in (lineage.current, *beside)]
