"""What a new generation is made of: old raw files by reference, a head, and nothing missing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace

import numpy as np

from lookalike.core.base_layout import key_hash
from lookalike.core.compaction import live_entries, searched_rows, swapped
from lookalike.core.errors import Conflict
from lookalike.core.generations import (
    GenerationPolicy,
    fullest_rows,
    fullest_share,
    shards_for,
)
from lookalike.core.head import MAX_FITTED_ROWS, Head, encode_head, fit_head, with_shards
from lookalike.core.keys import content_digest, head_key, segment_key
from lookalike.core.ports import Clock, Stores
from lookalike.core.segment import Float32
from lookalike.core.types import Generation, Manifest, Product, Run, SegmentEntry, Shard, View
from lookalike.services.bring_over import Brought, PhotoReader
from lookalike.services.raw_files import Hashes, RawFiles, hashed, raw_files
from lookalike.services.raw_rows import RowReader, live_versions

logger = logging.getLogger(__name__)

BATCH_VIEWS = 100
"""Views that are read and encoded between two looks at the clock; one product may have more."""

_PAGE = 50  # products of a batch
_CHECKED_PAGE = 1000  # products whose records are read at once
_CHECKING_SHARE = 1 / 3  # of the time that is left; the rest is for raw files and photos
_SAMPLED_ROWS = 4 * MAX_FITTED_ROWS  # rows of the files that a sample is drawn from
_SEED = 0
_SHORT_COPY_S = 1.0  # settings without any grace, of tests, get by with it
_FILE_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Progress:
    """What was brought over, and behind which product to go on: None when all has been seen."""

    brought: Brought
    after: str | None


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
    pool
        Runs reads side by side.
    clock
        Epoch seconds.
    """

    def __init__(
        self,
        stores: Stores,
        generation: Generation,
        policy: GenerationPolicy,
        pool: Executor,
        clock: Clock,
    ) -> None:
        self._stores = stores
        self._generation = generation
        self._policy = policy
        self._pool = pool
        self._clock = clock

    def bring(
        self, photos: PhotoReader, after: str, includes: Callable[[View], bool]
    ) -> tuple[int, Progress]:
        """Bring one batch of views over from their photos: those of the products behind ``after``.

        Gives how many views the batch's products have, too.
        """
        page, further = self._stores.products.page(self._generation.catalogue, _PAGE, after)
        batch = _first_views(page)
        views = sum(len(product.views) for product in batch)
        if len(batch) < len(page):
            further = batch[-1].product_id
        return views, Progress(photos.bring(self._generation, batch, includes), further)

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
        # What the current generation swaps out is deleted a while later; by then it is named here.
        soonest = min(self._policy.grace_s, self._policy.settle_s)
        if self._clock() - began > max(soonest / 2, _SHORT_COPY_S):
            raise Conflict(f"taking over {current.scope} took too long")
        self._stores.registry.put_manifest(after)

    def fit(self, live_rows: int, *, anew: bool = False) -> bool:
        """Fit head and shard centroids on a sample of the raw rows, if they are wanted.

        Does nothing when that has been done, unless it is to be done ``anew``; says whether it did
        something. Raises `Conflict` if the manifest changed meanwhile.
        """
        entries, manifest = self._stores.registry.read(self._generation.scope)
        rows = min(live_rows, searched_rows(manifest, entries))
        is_fitted = 0 < self._policy.head_rows <= rows
        if manifest.head and not anew:
            return False
        # A fitted embedding may be shorter and so never needs more shards.
        is_wanted = is_fitted or self._needs_shards(manifest, entries, rows)
        sample = self._sample(manifest, entries) if is_wanted else np.empty((0, 0), np.float32)
        raw = Shard(fresh=tuple(run for shard in manifest.shards for run in shard.runs))
        if not len(sample):
            if anew:
                without = swapped(manifest, self._clock(), shards=[raw], head=("", 0))
                self._stores.registry.put_manifest(without)
            return anew
        head = Head.identity(sample.shape[1])
        if is_fitted:
            head = fit_head(sample, self._policy.head_dim)
        shards = shards_for(rows, head.dim_out, self._policy)
        share = fullest_share(rows, head.dim_out, self._policy)
        head = with_shards(head, sample, shards, _SEED, share=share)
        built_at = self._clock()
        data = encode_head(head, built_at=built_at, generation=self._generation.generation)
        digest = content_digest(data)
        key = head_key(self._generation.catalogue, digest)
        self._stores.index.put(key, data, _FILE_TYPE)
        # Beyond the shards that the head knows: what is yet to be routed.
        routed = [raw] if head.shards == 1 else [*(Shard() for _ in range(head.shards)), raw]
        # Not the sample, which is a little smaller: a fit that could have had more would do better.
        fitted = digest, min(rows, MAX_FITTED_ROWS)
        self._stores.registry.put_manifest(swapped(manifest, built_at, shards=routed, head=fitted))
        logger.info(
            "%s: %d dimensions, %d shards, fitted on %d rows",
            self._generation.scope,
            head.dim_out,
            head.shards,
            len(sample),
        )
        return True

    def note_fullest(self) -> None:
        """Remember what the build could make of the fullest shard; see `generations.wanted`."""
        _, manifest = self._stores.registry.read(self._generation.scope, since=self._clock())
        rows = fullest_rows(manifest)
        if rows and not manifest.fullest_rows:
            self._stores.registry.put_manifest(replace(manifest, fullest_rows=rows))

    def complete(self, photos: PhotoReader, after: str, deadline: float) -> Progress:
        """Compare live views with the rows that are here; bring what is missing from photos.

        As many products behind ``after`` as there is time for. Whatever of theirs was live when
        this began is here when it ends, unless its photo could not be read just now
        (``postponed``: they are not left behind) or is no longer the one that its record names
        (``skipped``).
        """
        now = self._clock()
        # Records first: the rows of a record were appended before it was written.
        live, last = self._live(after, now + (deadline - now) * _CHECKING_SHARE)
        here, files = self._here(deadline)
        if here is None:
            return Progress(Brought(), after)
        if files.unreadable:
            files.let_go(files.unreadable, self._clock())
            if after:  # what was compared before may have been in there
                return Progress(Brought(), "")
        missing = {int(item) for item in np.setdiff1d(live, here)}
        if not missing:
            return Progress(Brought(), last)
        logger.warning(
            "%s lacks %d views; reading their photos", self._generation.scope, len(missing)
        )
        return self._bring_missing(photos, missing, (after, last), deadline)

    def _bring_missing(
        self,
        photos: PhotoReader,
        missing: set[int],
        between: tuple[str, str | None],
        deadline: float,
    ) -> Progress:
        """Bring these (by the hash of key and version) of the products between two."""
        after, last = between
        brought = Brought()
        while last is None or after < last:
            if self._clock() >= deadline:
                return Progress(brought, after)
            _, batch = self.bring(
                photos, after, lambda view: key_hash(view.key, view.version) in missing
            )
            brought.add(batch.brought)
            if batch.brought.postponed:
                return Progress(brought, after)
            if batch.after is None:
                return Progress(brought, None)
            after = batch.after
        return Progress(brought, last)

    def _live(self, after: str, until: float) -> tuple[Hashes, str | None]:
        """Hashes of live views of products behind ``after``, and where it stopped (None: the end).

        At least one page is read.
        """
        found: list[Hashes] = []
        last: str | None = after
        while last is not None and (not found or self._clock() < until):
            page, last = self._stores.products.page(self._generation.catalogue, _CHECKED_PAGE, last)
            found.append(hashed(live_versions(page).items()))
        return np.concatenate(found), last

    def _here(self, deadline: float) -> tuple[Hashes | None, RawFiles]:
        """Hashes of every row that can be read, and the files that they are in.

        None when the deadline comes first.
        """
        files = RawFiles(self._stores, self._generation, self._pool)
        found = [np.empty(0, np.uint64)]
        for hashes in files.hashes():
            if self._clock() >= deadline:
                return None, files
            found.append(hashes)
        return np.concatenate(found), files

    def _needs_shards(self, manifest: Manifest, entries: list[SegmentEntry], rows: int) -> bool:
        files = raw_files(manifest, entries)
        if not files:
            return False
        reader = RowReader(self._stores, self._generation, manifest)
        dim = next((s.codes.shape[1] for file in files if (s := reader.read(file.digest))), 1)
        return shards_for(rows, dim, self._policy) > 1

    def _sample(self, manifest: Manifest, entries: list[SegmentEntry]) -> Float32:
        """At most `MAX_FITTED_ROWS` raw rows, evenly out of files chosen at random."""
        reader = RowReader(self._stores, self._generation, manifest)
        files = raw_files(manifest, entries)
        generator = np.random.default_rng(_SEED)
        chosen: list[Run | SegmentEntry] = []
        for number in generator.permutation(len(files)).tolist():
            chosen.append(files[number])
            if sum(file.rows for file in chosen) >= _SAMPLED_ROWS:
                break
        share = min(1.0, MAX_FITTED_ROWS / max(sum(file.rows for file in chosen), 1))
        parts: list[Float32] = [np.empty((0, 0), np.float32)]
        for file in chosen:
            segment = reader.read(file.digest)
            if segment is not None:
                wanted = max(1, int(len(segment) * share))
                rows = np.linspace(0, len(segment) - 1, wanted).astype(np.int64)
                parts.append(segment.embeddings()[rows])
        filled = [part for part in parts if len(part)]
        return np.concatenate(filled)[:MAX_FITTED_ROWS] if filled else parts[0]


def _first_views(products: list[Product]) -> list[Product]:
    """As many products as have `BATCH_VIEWS` views together; at least one, if there is one."""
    views = np.cumsum([len(product.views) for product in products])
    return products[: max(1, int((views <= BATCH_VIEWS).sum()))]
