"""What a new generation is made of: old raw files by reference, a head, and nothing missing."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from lookalike.core.base_layout import key_hash
from lookalike.core.compaction import (
    live_entries,
    searched_rows,
    swapped,
)
from lookalike.core.errors import Conflict
from lookalike.core.generations import GenerationPolicy, shards_for
from lookalike.core.head import MAX_FITTED_ROWS, Head, encode_head, fit_head, with_shards
from lookalike.core.keys import content_digest, head_key, segment_key
from lookalike.core.ports import Clock, Stores
from lookalike.core.segment import Float32
from lookalike.core.types import Generation, Manifest, Product, Run, SegmentEntry, Shard
from lookalike.services.bring_over import Brought, PhotoReader
from lookalike.services.raw_rows import RowReader, live_versions

logger = logging.getLogger(__name__)

PAGE = 50
"""Products that are brought over, or checked, between two looks at the clock."""

_SAMPLED_ROWS = 4 * MAX_FITTED_ROWS  # rows of the files that a sample is drawn from
_SEED = 0
_LONGEST_COPY_S = 60.0
_FILE_TYPE = "application/octet-stream"

Hashes = npt.NDArray[np.uint64]


class NewGeneration:
    """One generation beside a catalogue's current one, while it is made.

    Parameters
    ----------
    stores
        Where to read and write.
    generation
        The new one.
    policy
        Thresholds.
    clock
        Epoch seconds.
    """

    def __init__(
        self, stores: Stores, generation: Generation, policy: GenerationPolicy, clock: Clock
    ) -> None:
        self._stores = stores
        self._generation = generation
        self._policy = policy
        self._clock = clock

    def take_over(self, current: Generation, announced_at: float) -> None:
        """Name the current generation's raw files as runs of the new one, all at once.

        Segments that were appended to both are left to the new one. Raises `Conflict` if either
        changed meanwhile.
        """
        began = self._clock()
        entries, theirs = self._stores.registry.read(current.scope)
        appended, ours = self._stores.registry.read(self._generation.scope)
        catalogue = self._generation.catalogue
        both = announced_at + self._policy.settle_s
        found = [run for shard in theirs.shards for run in shard.runs]
        found += [
            Run(entry.digest, entry.rows, entry.size_bytes, entry.committed_at)
            for entry in live_entries(theirs, entries)
            if entry.committed_at <= both
        ]
        here = {entry.digest for entry in appended}
        here |= {run.digest for shard in ours.shards for run in shard.runs}
        new = {
            run.digest: run
            for run in found
            if run.digest not in here and segment_key(catalogue, run.digest) not in ours.replaced
        }
        first, *others = ours.shards
        shard = Shard(first.base, first.covered, first.fresh + tuple(new.values()))
        after = swapped(ours, began, shards=[shard, *others])
        # What the current generation swaps out is deleted a grace later; by then it is named here.
        if after is None or self._clock() - began > max(self._policy.grace_s / 2, _LONGEST_COPY_S):
            raise Conflict(f"taking over {current.scope} took too long")
        self._stores.registry.put_manifest(after)

    def fit(self, live_rows: int) -> None:
        """Fit head and shard centroids on a sample of the raw rows, if they are wanted.

        Does nothing when that has been done. Raises `Conflict` if the manifest changed meanwhile.
        """
        entries, manifest = self._stores.registry.read(self._generation.scope)
        rows = min(live_rows, searched_rows(manifest, entries))
        is_fitted = 0 < self._policy.head_rows <= rows
        # A fitted embedding may be shorter and so never needs more shards.
        if manifest.head or not (is_fitted or self._needs_shards(manifest, entries, rows)):
            return
        sample = self._sample(manifest, entries)
        if not len(sample):
            return
        head = Head.identity(sample.shape[1])
        if is_fitted:
            head = fit_head(sample, self._policy.head_dim)
        head = with_shards(head, sample, shards_for(rows, head.dim_out, self._policy), _SEED)
        data = encode_head(head)
        digest = content_digest(data)
        key = head_key(self._generation.catalogue, digest)
        self._stores.index.put(key, data, _FILE_TYPE)
        raw = Shard(fresh=tuple(run for shard in manifest.shards for run in shard.runs))
        # Beyond the shards that the head knows: what is yet to be routed.
        shards = [raw] if head.shards == 1 else [*(Shard() for _ in range(head.shards)), raw]
        after = swapped(manifest, self._clock(), shards=shards, head=(digest, len(sample)))
        if after is None:
            raise Conflict(f"{key} is about to be deleted")
        self._stores.registry.put_manifest(after)
        logger.info(
            "%s: %d dimensions, %d shards, fitted on %d rows",
            self._generation.scope,
            head.dim_out,
            head.shards,
            len(sample),
        )

    def complete(self, photos: PhotoReader) -> Brought:
        """Compare every live view with the rows that are here; bring what is missing from photos.

        Whatever was live when this began is here when it ends, unless its photo could not be read
        just now (``postponed``) or is no longer the one that its record names (``skipped``).
        """
        # Records first: the rows of a record were appended before it was written.
        live = np.fromiter(
            (key_hash(*row) for page in self._pages() for row in live_versions(page).items()),
            np.uint64,
        )
        here, unreadable = self._hashes()
        missing = {int(item) for item in np.setdiff1d(live, here)}
        brought = Brought()
        if missing:
            logger.warning(
                "%s lacks %d views; reading their photos", self._generation.scope, len(missing)
            )
            for page in self._pages():
                some = photos.bring(
                    self._generation,
                    page,
                    lambda view: key_hash(view.key, view.version) in missing,
                )
                brought.appended += some.appended
                brought.skipped += some.skipped
                brought.postponed += some.postponed
        if unreadable and not brought.postponed:
            self._let_go(unreadable)
        return brought

    def _let_go(self, unreadable: set[str]) -> None:
        """Name files that cannot be read no longer: every view that counts is elsewhere."""
        entries, manifest = self._stores.registry.read(self._generation.scope)
        catalogue = self._generation.catalogue

        def readable(runs: tuple[Run, ...]) -> tuple[Run, ...]:
            return tuple(r for r in runs if segment_key(catalogue, r.digest) not in unreadable)

        shards = [
            Shard(shard.base, readable(shard.covered), readable(shard.fresh))
            for shard in manifest.shards
        ]
        merged = [e for e in entries if segment_key(catalogue, e.digest) in unreadable]
        after = swapped(manifest, self._clock(), shards=shards, merged=merged)
        if after is not None:
            logger.warning("%s goes on without %s", manifest.scope, ", ".join(sorted(unreadable)))
            self._stores.registry.put_manifest(after)

    def _pages(self) -> Iterator[list[Product]]:
        after: str | None = ""
        while after is not None:
            page, after = self._stores.products.page(self._generation.catalogue, PAGE, after)
            yield page

    def _hashes(self) -> tuple[Hashes, set[str]]:
        """Hashes of the (key, version) of every raw row that can be read, and what cannot."""
        entries, manifest = self._stores.registry.read(self._generation.scope)
        reader = RowReader(self._stores, self._generation, manifest)
        found: list[Hashes] = [np.empty(0, np.uint64)]
        for digest, _ in _raw_files(manifest, entries):
            segment = reader.read(digest)
            if segment is not None:
                rows = zip(segment.keys, segment.versions, strict=True)
                found.append(np.fromiter((key_hash(*row) for row in rows), np.uint64))
        return np.concatenate(found), reader.unreadable

    def _needs_shards(self, manifest: Manifest, entries: list[SegmentEntry], rows: int) -> bool:
        files = _raw_files(manifest, entries)
        if not files:
            return False
        reader = RowReader(self._stores, self._generation, manifest)
        dim = next((s.codes.shape[1] for d, _ in files if (s := reader.read(d))), 1)
        return shards_for(rows, dim, self._policy) > 1

    def _sample(self, manifest: Manifest, entries: list[SegmentEntry]) -> Float32:
        """At most `MAX_FITTED_ROWS` raw rows, evenly out of files chosen at random."""
        reader = RowReader(self._stores, self._generation, manifest)
        files = _raw_files(manifest, entries)
        generator = np.random.default_rng(_SEED)
        chosen: list[tuple[str, int]] = []
        for number in generator.permutation(len(files)).tolist():
            chosen.append(files[number])
            if sum(rows for _, rows in chosen) >= _SAMPLED_ROWS:
                break
        share = min(1.0, MAX_FITTED_ROWS / max(sum(rows for _, rows in chosen), 1))
        parts: list[Float32] = [np.empty((0, 0), np.float32)]
        for digest, _ in chosen:
            segment = reader.read(digest)
            if segment is not None:
                wanted = max(1, int(len(segment) * share))
                rows = np.linspace(0, len(segment) - 1, wanted).astype(np.int64)
                parts.append(segment.embeddings()[rows])
        filled = [part for part in parts if len(part)]
        return np.concatenate(filled)[:MAX_FITTED_ROWS] if filled else parts[0]


def _raw_files(manifest: Manifest, entries: list[SegmentEntry]) -> list[tuple[str, int]]:
    """(digest, rows) of every raw file of a scope."""
    files = {run.digest: run.rows for shard in manifest.shards for run in shard.runs}
    files |= {entry.digest: entry.rows for entry in live_entries(manifest, entries)}
    return sorted(files.items())
