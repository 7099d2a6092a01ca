"""Upload → searchable: makes the index agree with what the bucket holds now.

Level-triggered: a key is a hint to look, never a statement of what happened. One pass observes the
objects, decides per product (`lookalike.core.reconcile`), and commits in an order in which a crash
between any two steps is finished by the redelivery: thumbnails, feature maps and segments, registry
entries in each of the catalogue's generations, product record (the flip that makes a view live),
failure records, counts, then one more look at each object.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor
from dataclasses import replace

import numpy as np

from lookalike.core.encoder import Encoder
from lookalike.core.errors import Conflict, Retry, Unavailable
from lookalike.core.feature_map import encode_map
from lookalike.core.keys import catalogue_of, map_key
from lookalike.core.ports import Clock, Stores
from lookalike.core.reconcile import (
    Gone,
    NewView,
    Observation,
    Postponed,
    Refused,
    Unchanged,
    count_change,
    decide,
    is_empty,
    refuse_excess,
    stale_views,
)
from lookalike.core.segment import Float32, Row
from lookalike.core.types import (
    Counts,
    Generation,
    Lineage,
    Product,
    View,
)
from lookalike.services.append import append_rows
from lookalike.services.failures import file_failure
from lookalike.services.feature_maps import MAP_TYPE
from lookalike.services.ingest_pass import Filed, Pass, ProductId, Report, ignore
from lookalike.services.observe import Observer

logger = logging.getLogger(__name__)

_MAX_PASSES = 8
_KEYS_AT_ONCE = 10  # so many files, of the largest size admitted, are in memory together


class Ingest:
    """The use case behind the *embed* function.

    Parameters
    ----------
    stores
        Where to read and write.
    observer
        Reads and decodes bucket objects.
    encoder_of
        Gives the encoder of an embedding space id; raises `Unavailable` without its model file.
    default_space
        Embedding space of catalogues that are new.
    pool
        Runs the calls of one batch side by side.
    clock
        Epoch seconds.
    """

    def __init__(
        self,
        stores: Stores,
        observer: Observer,
        encoder_of: Callable[[str], Encoder],
        default_space: str,
        pool: Executor,
        clock: Clock,
    ) -> None:
        self._stores = stores
        self._observer = observer
        self._encoder_of = encoder_of
        self._default_space = default_space
        self._pool = pool
        self._clock = clock

    def reconcile(
        self,
        keys: Sequence[str],
        *,
        write_again: Collection[str] = (),
        report: Report = ignore,
    ) -> dict[str, Retry]:
        """Make records and index agree with the bucket for these object keys.

        Parameters
        ----------
        keys
            Object keys.
        write_again
            Those whose row is written even if nothing has changed: the index has lost it.
        report
            Told of each photo that became searchable and of each failure that was filed.

        Returns
        -------
        dict
            The keys that have to be tried again, each with why. All others are done: searchable,
            gone or filed as failures.
        """
        wanted = [key for key in dict.fromkeys(keys) if not key.endswith("/")]
        failed: dict[str, Retry] = {}
        for start in range(0, len(wanted), _KEYS_AT_ONCE):
            few = wanted[start : start + _KEYS_AT_ONCE]
            failed.update(self._reconcile_few(few, write_again, report))
        return failed

    def _reconcile_few(
        self, wanted: list[str], write_again: Collection[str], report: Report
    ) -> dict[str, Retry]:
        try:
            return self._reconcile(wanted, write_again, report)
        except Retry as error:
            return dict.fromkeys(wanted, error)
        except Exception as error:
            if len(wanted) == 1:
                logger.exception("indexing %r failed", wanted[0])
                return {wanted[0]: Unavailable(f"indexing failed: {error!r}")}
            # One object that meets a defect must not take its neighbours along.
            logger.exception("a batch of %d failed; trying each alone", len(wanted))
            alone = (self._reconcile_few([key], write_again, report) for key in wanted)
            return {key: error for failed in alone for key, error in failed.items()}

    def _reconcile(
        self, keys: Sequence[str], write_again: Collection[str], report: Report
    ) -> dict[str, Retry]:
        postponed: dict[str, Retry] = {}
        for _ in range(_MAX_PASSES):
            if not keys:
                return postponed
            state = self._observe(keys, write_again)
            for product_id in state.keys_of:
                self._decide(state, product_id)
            self._embed(state)
            self._commit_rows(state)
            self._commit_products(state)
            self._commit_failures(state)
            for outcome in state.outcomes:
                report(outcome)
            for catalogue, change in state.changes.items():
                if change != Counts():
                    self._stores.counts.add(catalogue, change)
            self._look_again(state)
            for key in keys:
                if isinstance(observation := state.seen[key].observation, Postponed):
                    postponed[key] = observation.error
            keys = sorted(state.again)
        changing = Conflict("the object kept changing while it was indexed")
        return postponed | dict.fromkeys(self._unsettled(keys), changing)

    def _unsettled(self, keys: Sequence[str]) -> list[str]:
        """Keys for which there is still something to do: those that won may have done it."""
        if not keys:
            return []
        state = self._observe(keys)
        for product_id in state.keys_of:
            self._decide(state, product_id)
        return [key for product_id in state.after for key in state.keys_of[product_id]]

    def _observe(self, keys: Sequence[str], write_again: Collection[str] = ()) -> Pass:
        """Read records, then objects: whatever is written after this shows as a lost race."""
        parsed = self._observer.parse(keys)
        product_of = {key: (item.catalogue, item.product_id) for key, item in parsed.items()}
        stored = self._stores.products.get_many(product_of.values())
        catalogues = sorted({catalogue for catalogue, _ in product_of.values()})
        lineages = {
            catalogue: self._stores.lineages.get(catalogue) or self._first(catalogue)
            for catalogue in catalogues
        }
        before = {
            product_id: stored.get(product_id)
            or Product(*product_id, generation=lineages[product_id[0]].current.generation)
            for product_id in product_of.values()
        }
        keys_of: dict[ProductId, list[str]] = defaultdict(list)
        for key, product_id in product_of.items():
            keys_of[product_id].append(key)
        state = Pass({}, {}, before, dict(keys_of), lineages)
        views: dict[str, View] = {}
        for product in before.values():
            views.update(product.views)
        state.seen = self._observer.observe(
            keys,
            views={key: views[key] for key in keys if key in views and key not in write_again},
            documents={
                key: before[product_of[key]].document
                for key, item in parsed.items()
                if item.is_document
            },
            encoders_of=lambda key: self._encoders(state, product_of[key][0]),
            pool=self._pool,
        )
        state.failures = self._stores.failures.get_many(keys)
        return state

    def _first(self, catalogue: str) -> Lineage:
        """What a new catalogue begins with."""
        space = self._default_space
        return Lineage(catalogue, Generation(catalogue, space, space))

    def _encoders(self, state: Pass, catalogue: str) -> list[Encoder]:
        return [self._encoder_of(space) for space in state.spaces(catalogue)]

    def _decide(self, state: Pass, product_id: ProductId) -> None:
        before = state.before[product_id]
        keys = state.keys_of[product_id]
        seen = refuse_excess(before, {key: state.seen[key].observation for key in keys})
        for key, observation in seen.items():
            state.seen[key] = replace(state.seen[key], observation=observation)
        after = decide(before, seen, self._clock())
        if after is before:
            state.after.pop(product_id, None)
        else:
            current = state.lineages[product_id[0]].current
            state.after[product_id] = replace(after, generation=current.generation)

    def _embed(self, state: Pass) -> None:
        """Get an embedding in every space for each row that must be written."""
        self._encode(state, [key for keys in state.keys_of.values() for key in keys])
        for product_id in list(state.after):
            state.copy_rows(self._stores.index, product_id)
            # Compaction has moved the rows, or they are needed in another space, too.
            state.pool_maps(self._stores.index, self._pool, product_id)
            while missing := state.missing(product_id):
                # No map is stored yet: the photos are read once more, a few at a time.
                self._read_again(state, product_id, missing[:_KEYS_AT_ONCE])

    def _encode(self, state: Pass, keys: Sequence[str]) -> None:
        """One batch an encoder for what was decoded and is wanted; then lets go of the pixels."""
        wanted = {
            view.key: view
            for product_id in state.after
            for view in stale_views(state.after[product_id])
        }
        batches: dict[str, dict[str, Float32]] = defaultdict(dict)
        for key in keys:
            if key in wanted:
                for space, pixels in state.seen[key].pixels.items():
                    batches[space][key] = pixels
            state.seen[key] = replace(state.seen[key], pixels={})
        for space, batch in batches.items():
            encoded = self._encoder_of(space).encode(np.concatenate(list(batch.values())))
            for key, embedding, maps in zip(batch, encoded.embeddings, encoded.maps, strict=True):
                state.embeddings.setdefault(key, {})[space] = embedding
                state.maps[map_key(space, key, wanted[key].etag)] = encode_map(maps)

    def _read_again(self, state: Pass, product_id: ProductId, keys: list[str]) -> None:
        """Look at photos of known views as if they were new, and decide with what is seen."""
        seen = self._observer.observe(
            keys,
            views={},
            documents={},
            encoders_of=lambda _: self._encoders(state, product_id[0]),
            pool=self._pool,
        )
        state.seen.update(seen)
        known = state.keys_of[product_id]
        known += [key for key in keys if key not in known]
        state.failures.update(self._stores.failures.get_many(keys))
        for item in seen.values():
            if isinstance(item.observation, Postponed):
                state.give_back(product_id, item.observation.error)
                return
        self._decide(state, product_id)
        self._encode(state, keys)

    def _commit_rows(self, state: Pass) -> None:
        """Segments, then registry entries; the views learn where their rows are."""
        stale: dict[str, list[tuple[Product, View]]] = defaultdict(list)
        for (catalogue, _), after in state.after.items():
            stale[catalogue] += [(after, view) for view in stale_views(after)]
        files = [(name, body, MAP_TYPE) for name, body in state.maps.items()]
        files += [
            (seen.observation.thumbnail, seen.thumbnail, "image/webp")
            for key, seen in state.seen.items()
            if key in state.embeddings and isinstance(seen.observation, NewView)
        ]
        list(self._pool.map(lambda file: self._stores.index.put(*file), files))
        place: dict[tuple[str, str], tuple[str, int]] = {}
        for catalogue, views in stale.items():
            if views:
                place.update(self._append(state, catalogue, views))
        now = self._clock()
        for product_id, after in state.after.items():
            changed = dict(after.views)
            for view in stale_views(after):
                digest, number = place[view.key, view.version]
                at = view.searchable_at or now
                changed[view.key] = replace(view, segment=digest, row=number, searchable_at=at)
            state.after[product_id] = replace(after, views=changed)

    def _append(
        self, state: Pass, catalogue: str, views: list[tuple[Product, View]]
    ) -> dict[tuple[str, str], tuple[str, int]]:
        """Write a segment a space and register it in each generation of that space.

        Gives (digest, row number) in the current generation's space by (key, version).
        """
        lineage = state.lineages[catalogue]
        if lineage.revision is None:
            # Its first rows: nothing may name a generation before it is there.
            lineage = state.lineages[catalogue] = self._born(lineage)
        views.sort(key=lambda item: (item[1].key, item[1].version))
        rows = {
            space: [
                Row(view.key, view.version, state.embeddings[view.key][space], product.attributes)
                for product, view in views
            ]
            for space in state.spaces(catalogue)
        }
        digests = append_rows(
            self._stores.index, self._stores.registry, lineage.generations, rows, self._clock()
        )
        digest = digests[lineage.current.encoder]
        return {(view.key, view.version): (digest, row) for row, (_, view) in enumerate(views)}

    def _born(self, lineage: Lineage) -> Lineage:
        """Store a catalogue's first lineage, unless somebody else has stored the same."""
        try:
            return self._stores.lineages.put(lineage)
        except Conflict:
            stored = self._stores.lineages.get(lineage.catalogue)
            if stored is None or stored.generations != lineage.generations:
                raise
            return stored

    def _commit_products(self, state: Pass) -> None:
        def flip(product_id: ProductId) -> bool:
            after = state.after[product_id]
            try:
                if not is_empty(after):
                    self._stores.products.put(after)
                elif after.revision is not None:
                    self._stores.products.delete(after)
            except Conflict:
                return False
            return True

        ids = list(state.after)
        for product_id, flipped in zip(ids, self._pool.map(flip, ids), strict=True):
            if flipped:
                change = count_change(state.before[product_id], state.after[product_id])
                state.changes[product_id[0]] += change
                state.note_searchable(product_id, self._clock())
            else:
                state.again_later(product_id)

    def _commit_failures(self, state: Pass) -> None:
        for key, seen in state.seen.items():
            if key in state.again or isinstance(seen.observation, Postponed):
                continue
            known, observation = state.failures.get(key), seen.observation
            change = Counts()
            if isinstance(observation, Refused):
                change = file_failure(self._stores.failures, key, observation, known, self._clock())
                state.outcomes.append(Filed(key, observation.reason))
            elif known is not None and self._stores.failures.delete(key):
                change = Counts(failures=-1)
            state.changes[catalogue_of(key)] += change

    def _look_again(self, state: Pass) -> None:
        """An object that changed while it was indexed goes again: the last to write looks last."""
        keys = [
            key
            for key, seen in state.seen.items()
            if key not in state.again and not isinstance(seen.observation, Unchanged | Postponed)
        ]
        for key, info in zip(keys, self._pool.map(self._stores.images.head, keys), strict=True):
            observation: Observation = state.seen[key].observation
            if isinstance(observation, Gone | Unchanged | Postponed):
                same = info is None
            else:
                same = info is not None and (
                    (info.etag, info.last_modified) == (observation.etag, observation.last_modified)
                )
            if not same:
                state.again.add(key)
