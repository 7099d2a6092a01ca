"""Decides what compaction of a scope does next, given its registry. Pure: reads and writes nothing.

Rows go from appended segments to runs, one a shard, and from runs to the shard's base. Every step
ends in one conditional write of the manifest, so that a reader sees the state before it or after.
Nothing is deleted that has not been in a ``replaced`` map for the grace period.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from lookalike.core.keys import base_key, head_key, segment_key
from lookalike.core.types import Manifest, Run, SegmentEntry, Shard

RUN_ROWS = 32_768
"""Rows of one run, which is read whole."""
STEP_ROWS = 4 * RUN_ROWS
"""Rows that one merge holds in memory."""
MAX_FRESH_ROWS = 20_000
"""Rows beside a base, searched exactly, from which it is rebuilt however large it is."""
FRESH_SHARE = 0.1
"""Share of a base's rows from which the fresh ones beside it are too many."""
DEAD_SHARE = 0.25
"""Share of rows that no record names from which a base is rebuilt."""
DEAD_PAUSE_S = 3600.0
"""Between two rebuilds for dead rows: counts may be off, and rebuilding does not mend them."""
ORPHAN_AGE_S = 3600.0
"""Age of an object below which somebody may be about to name it."""

_COLLECTED_AT_ONCE = 1000
_MANIFEST_BYTES = 200_000  # of the 400 kB that an item of the table may have
_REPLACED_BYTES = 30  # of one replaced key, beside the key


@dataclass(frozen=True, slots=True)
class CompactionPolicy:
    """The settings of the same names (`lookalike.settings.Settings`)."""

    merge_segments: int
    base_rows: int
    flat_rows: int
    settle_s: float
    grace_s: float


@dataclass(frozen=True, slots=True)
class Forget:
    """Take merged segments off the registry: somebody stopped right behind the swap."""

    entries: tuple[SegmentEntry, ...]


@dataclass(frozen=True, slots=True)
class Merge:
    """Make one run a shard of these appended segments."""

    entries: tuple[SegmentEntry, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """Distribute these runs of the last shard, which no head routes to, over the others."""

    runs: tuple[Run, ...]


@dataclass(frozen=True, slots=True)
class Rebuild:
    """Make a base of all of a shard's live rows; ``retrain`` its lists or keep those it has."""

    shard: int
    retrain: bool


@dataclass(frozen=True, slots=True)
class Collect:
    """Delete these objects, if no other generation names them, and forget them."""

    keys: tuple[str, ...]


_Source = TypeVar("_Source", Run, SegmentEntry)
Step = Forget | Merge | Route | Rebuild | Collect


def plan(
    manifest: Manifest,
    entries: Sequence[SegmentEntry],
    live_views: int | None,
    policy: CompactionPolicy,
    now: float,
    *,
    shards: int = 1,
    build_bases: bool = True,
    blocked: Collection[str] = frozenset(),
    lost: Collection[str] = frozenset(),
) -> Step | None:
    """What to do next; None when there is nothing to do.

    Parameters
    ----------
    manifest, entries
        The scope as the registry has it.
    live_views
        Live views of the catalogue, as far as they are known; they may be a little off.
    policy
        Thresholds.
    now
        Epoch seconds.
    shards
        How many shards the manifest's head routes to. One more in the manifest holds what is yet
        to be routed.
    build_bases
        False for a generation that has no head yet.
    blocked
        Keys of files that cannot be read and of shards (`blocked_shard`) that cannot be rebuilt.
    lost
        Keys of bases that are not in the bucket as the manifest describes them.
    """
    catalogue = catalogue_of_scope(manifest.scope)
    appended = live_entries(manifest, entries)
    if len(appended) < len(entries):
        merged = set(entries) - set(appended)
        return Forget(tuple(entry for entry in entries if entry in merged))
    if len(manifest.shards) > shards:
        unrouted = [
            run
            for run in manifest.shards[-1].fresh
            if segment_key(catalogue, run.digest) not in blocked
        ]
        if unrouted or not manifest.shards[-1].fresh:
            return Route(tuple(_first_rows(unrouted)))
    readable = [e for e in appended if segment_key(catalogue, e.digest) not in blocked]
    if len(readable) >= policy.merge_segments and (merge := _merge(manifest, readable, policy)):
        return merge
    if build_bases:
        unlocked = {n: s for n, s in enumerate(manifest.shards) if blocked_shard(n) not in blocked}
        for number, shard in unlocked.items():
            if shard.base and base_key(catalogue, shard.base.digest) in lost:
                return Rebuild(number, retrain=True)
        if rebuild := _rebuild(manifest, appended, live_views, policy, now, blocked):
            return rebuild
    due = _due(manifest, policy, now)
    return Collect(due) if due else None


def catalogue_of_scope(scope: str) -> str:
    """The catalogue of a registry scope."""
    return scope.partition("/")[0]


def live_entries(manifest: Manifest, entries: Iterable[SegmentEntry]) -> list[SegmentEntry]:
    """Appended segments whose rows are not in the shards yet."""
    catalogue = catalogue_of_scope(manifest.scope)
    return [e for e in entries if segment_key(catalogue, e.digest) not in manifest.replaced]


def searched_rows(manifest: Manifest, entries: Iterable[SegmentEntry]) -> int:
    """Rows that a search of the scope sees, dead ones and duplicates included."""
    shards = manifest.shards
    bases = sum(shard.base.rows for shard in shards if shard.base)
    fresh = sum(run.rows for shard in shards for run in shard.fresh)
    return bases + fresh + sum(entry.rows for entry in live_entries(manifest, entries))


def named_keys(manifest: Manifest, entries: Iterable[SegmentEntry]) -> set[str]:
    """Index-bucket keys of every object that the scope's live rows are in."""
    catalogue = catalogue_of_scope(manifest.scope)
    keys = {segment_key(catalogue, e.digest) for e in live_entries(manifest, entries)}
    for shard in manifest.shards:
        keys.update(segment_key(catalogue, run.digest) for run in shard.runs)
        if shard.base:
            keys.add(base_key(catalogue, shard.base.digest))
    if manifest.head:
        keys.add(head_key(catalogue, manifest.head))
    return keys


def swapped(
    manifest: Manifest,
    now: float,
    *,
    shards: Sequence[Shard],
    head: tuple[str, int] | None = None,
    merged: Iterable[SegmentEntry] = (),
) -> Manifest:
    """The manifest with other shards: what it no longer names is in ``replaced``.

    Nothing that the shards name may be there already. Whatever compaction writes has a name of its
    own, with the time in it, so it never is.

    Parameters
    ----------
    manifest
        As it is.
    now
        Epoch seconds.
    shards
        As they shall be.
    head
        (digest, fitted rows) of another head.
    merged
        Appended segments whose rows are in the new shards.
    """
    catalogue = catalogue_of_scope(manifest.scope)
    digest, fitted = head or (manifest.head, manifest.fitted_rows)
    after = replace(manifest, shards=tuple(shards), head=digest, fitted_rows=fitted)
    named = named_keys(after, ())
    gone = named_keys(manifest, ()) - named
    gone |= {segment_key(catalogue, entry.digest) for entry in merged} - named
    return replace(after, replaced={**manifest.replaced, **dict.fromkeys(sorted(gone), now)})


def absorbed(shard: Shard, incoming: int) -> list[Run]:
    """Fresh runs to merge along with ``incoming`` rows.

    Each is at most twice as large as what it is merged with, so that a shard has few runs (their
    number grows with the logarithm of their rows) and a row is rewritten as seldom.
    """
    chosen = []
    for run in sorted(shard.fresh, key=lambda run: (run.rows, run.digest)):
        if run.rows > 2 * incoming or incoming + run.rows > RUN_ROWS:
            break
        chosen.append(run)
        incoming += run.rows
    return chosen


def is_due(shard: Shard, fresh_rows: int, policy: CompactionPolicy) -> bool:
    """Whether so many rows beside the base are too many."""
    base_rows = shard.base.rows if shard.base else 0
    allowed = min(FRESH_SHARE * base_rows, MAX_FRESH_ROWS)
    return fresh_rows >= max(policy.base_rows, allowed, 1)


def blocked_shard(shard: int) -> str:
    """How ``blocked`` names a shard."""
    return f"shard {shard}"


def room(manifest: Manifest) -> int:
    """How many more bytes of replaced keys the manifest may take."""
    return _MANIFEST_BYTES - sum(len(key) + _REPLACED_BYTES for key in manifest.replaced)


def replaced_bytes(key: str) -> int:
    """What a replaced key takes in a manifest."""
    return len(key) + _REPLACED_BYTES


def _merge(
    manifest: Manifest, readable: list[SegmentEntry], policy: CompactionPolicy
) -> Merge | None:
    catalogue = catalogue_of_scope(manifest.scope)
    left = room(manifest)
    chosen = []
    for entry in _first_rows(readable):
        left -= replaced_bytes(segment_key(catalogue, entry.digest))
        if left < 0:
            break
        chosen.append(entry)
    return Merge(tuple(chosen)) if len(chosen) >= min(policy.merge_segments, 2) else None


def _rebuild(
    manifest: Manifest,
    appended: Sequence[SegmentEntry],
    live_views: int | None,
    policy: CompactionPolicy,
    now: float,
    blocked: Collection[str],
) -> Rebuild | None:
    catalogue = catalogue_of_scope(manifest.scope)
    shards = {n: s for n, s in enumerate(manifest.shards) if blocked_shard(n) not in blocked}
    for number, shard in shards.items():
        readable = [r for r in shard.fresh if segment_key(catalogue, r.digest) not in blocked]
        if is_due(shard, sum(run.rows for run in readable), policy):
            return Rebuild(number, _must_train(shard))
    rows = searched_rows(manifest, appended)
    if live_views is None or rows - live_views <= DEAD_SHARE * rows:
        return None
    old = [
        (shard.base.built_at, number)
        for number, shard in shards.items()
        if shard.base and shard.base.built_at + DEAD_PAUSE_S <= now
    ]
    return Rebuild(min(old)[1], _must_train(shards[min(old)[1]])) if old else None


def _must_train(shard: Shard) -> bool:
    if shard.base is None:
        return True
    rows = shard.base.rows + sum(run.rows for run in shard.fresh)
    return rows >= 2 * shard.base.trained_rows


def _due(manifest: Manifest, policy: CompactionPolicy, now: float) -> tuple[str, ...]:
    """What may go, oldest first; under pressure, segments that every append is done with."""
    grace_s = policy.grace_s
    if room(manifest) < _MANIFEST_BYTES / 2:
        grace_s = min(grace_s, policy.settle_s)
    oldest = sorted((at, key) for key, at in manifest.replaced.items())
    return tuple(
        key
        for at, key in oldest
        if at + (grace_s if key.startswith("segments/") else policy.grace_s) <= now
    )[:_COLLECTED_AT_ONCE]


def _first_rows(sources: Iterable[_Source]) -> list[_Source]:
    """As many as one step may hold; at least one."""
    chosen: list[_Source] = []
    rows = 0
    for source in sources:
        rows += source.rows
        if chosen and rows > STEP_ROWS:
            break
        chosen.append(source)
    return chosen
