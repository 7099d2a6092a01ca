"""Upload → searchable: makes the index agree with what the bucket holds now.

Level-triggered: a key is a hint to look, never a statement of what happened. One pass observes the
objects, decides per product (`lookalike.core.reconcile`), and commits in an order in which a crash
between any two steps is finished by the redelivery: thumbnails and segment, registry entry, product
record (the flip that makes a view live), failure records, counts, then one more look at each
object.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace

import numpy as np

from lookalike.core.encoder import Encoder
from lookalike.core.encoders import parse_space
from lookalike.core.errors import Conflict, Retry, Unavailable
from lookalike.core.keys import catalogue_of, content_digest, segment_key
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
from lookalike.core.segment import Float32, Row, Segment, encode_segment
from lookalike.core.types import (
    Counts,
    Failure,
    Generation,
    Product,
    SegmentEntry,
    View,
    registry_scope,
)
from lookalike.services.failures import file_failure
from lookalike.services.observe import Observer, Seen
from lookalike.services.segments import read_segment, row_of

logger = logging.getLogger(__name__)

_MAX_PASSES = 8
_KEYS_AT_ONCE = 10  # so many files, of the largest size admitted, are in memory together
_GAVE_UP = "gave-up"
_SEGMENT_TYPE = "application/octet-stream"

ProductId = tuple[str, str]


@dataclass(slots=True)
class _Pass:
    """What one pass has read, decided and found undone.

    Keys in ``again`` need another pass; catalogues in ``unborn`` have no generation stored yet.
    """

    seen: dict[str, Seen]
    failures: dict[str, Failure]
    before: dict[ProductId, Product]
    keys_of: dict[ProductId, list[str]]
    generation_of: dict[str, Generation]
    unborn: set[str]
    after: dict[ProductId, Product] = field(default_factory=dict)
    embeddings: dict[str, Float32] = field(default_factory=dict)
    again: set[str] = field(default_factory=set)
    reread: set[str] = field(default_factory=set)
    changes: defaultdict[str, Counts] = field(default_factory=lambda: defaultdict(Counts))

    def postpone(self, product_id: ProductId) -> None:
        """Leave a product to the next pass."""
        self.after.pop(product_id, None)
        self.again.update(self.keys_of[product_id])


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

    def reconcile(self, keys: Sequence[str]) -> dict[str, Retry]:
        """Make records and index agree with the bucket for these object keys.

        Returns
        -------
        dict
            The keys that have to be tried again, each with why. All others are done: searchable,
            gone or filed as failures.
        """
        wanted = [key for key in dict.fromkeys(keys) if not key.endswith("/")]
        failed: dict[str, Retry] = {}
        for start in range(0, len(wanted), _KEYS_AT_ONCE):
            failed.update(self._reconcile_few(wanted[start : start + _KEYS_AT_ONCE]))
        return failed

    def _reconcile_few(self, wanted: list[str]) -> dict[str, Retry]:
        try:
            return self._reconcile(wanted)
        except Retry as error:
            return dict.fromkeys(wanted, error)
        except Exception as error:
            if len(wanted) == 1:
                logger.exception("indexing %r failed", wanted[0])
                return {wanted[0]: Unavailable(f"indexing failed: {error!r}")}
            # One object that meets a defect must not take its neighbours along.
            logger.exception("a batch of %d failed; trying each alone", len(wanted))
            alone = (self._reconcile_few([key]) for key in wanted)
            return {key: error for failed in alone for key, error in failed.items()}

    def give_up(self, keys: Sequence[str]) -> None:
        """File failures for keys whose message will not be delivered again.

        To be called before the last try, so that one that kills the process leaves them behind; a
        try that succeeds deletes them.
        """
        if not keys:
            return
        known = self._stores.failures.get_many(keys)
        ids = {
            key: (item.catalogue, item.product_id)
            for key, item in self._observer.parse(keys).items()
        }
        products = self._stores.products.get_many(ids.values())
        for key in keys:
            # Listed, not read: what keeps failing may be the reading.
            info = next(iter(self._stores.images.list(key)), None)
            product = products.get(ids[key]) if key in ids else None
            live = product.views.get(key) if product else None
            if info is None or info.key != key or (live is not None and live.etag == info.etag):
                continue
            refused = Refused(
                info.etag,
                info.last_modified,
                _GAVE_UP,
                "Indexing kept failing, though nothing is known to be wrong with the file; try it "
                "again with `lookalike failures retry`. The cause is in the embed function's log.",
            )
            change = file_failure(
                self._stores.failures, key, refused, known.get(key), self._clock()
            )
            self._stores.counts.add(catalogue_of(key), change)

    def _reconcile(self, keys: Sequence[str]) -> dict[str, Retry]:
        reread: set[str] = set()
        postponed: dict[str, Retry] = {}
        for _ in range(_MAX_PASSES):
            if not keys:
                return postponed
            state = self._observe(keys, reread)
            for key, seen in state.seen.items():
                if isinstance(seen.observation, Postponed):
                    postponed[key] = seen.observation.error
            self._decide(state)
            self._embed(state)
            self._commit_rows(state)
            self._commit_products(state)
            self._commit_failures(state)
            for catalogue, change in state.changes.items():
                if change != Counts():
                    self._stores.counts.add(catalogue, change)
            self._look_again(state)
            keys, reread = sorted(state.again), state.reread
        changing = Conflict("the object kept changing while it was indexed")
        return postponed | dict.fromkeys(keys, changing)

    def _observe(self, keys: Sequence[str], reread: set[str]) -> _Pass:
        """Read records, then objects: whatever is written after this shows as a lost race."""
        parsed = self._observer.parse(keys)
        product_of = {key: (item.catalogue, item.product_id) for key, item in parsed.items()}
        stored = self._stores.products.get_many(product_of.values())
        space = self._default_space
        generations: dict[str, Generation] = {}
        unborn: set[str] = set()
        for catalogue in sorted({catalogue for catalogue, _ in product_of.values()}):
            current = self._stores.generations.current(catalogue)
            if current is None:
                unborn.add(catalogue)
                current = Generation(catalogue, space, space, parse_space(space)[0].dim)
            generations[catalogue] = current
        before = {
            product_id: stored.get(product_id)
            or Product(*product_id, generation=generations[product_id[0]].generation)
            for product_id in product_of.values()
        }
        views: dict[str, View] = {}
        for product in before.values():
            views.update(product.views)
        seen = self._observer.observe(
            keys,
            views={key: views[key] for key in keys if key in views and key not in reread},
            documents={
                key: before[product_of[key]].document
                for key, item in parsed.items()
                if item.is_document
            },
            encoder_of=lambda key: self._encoder_of(generations[product_of[key][0]].encoder),
            pool=self._pool,
        )
        keys_of: dict[ProductId, list[str]] = defaultdict(list)
        for key, product_id in product_of.items():
            keys_of[product_id].append(key)
        failures = self._stores.failures.get_many(keys)
        return _Pass(seen, failures, before, dict(keys_of), generations, unborn)

    def _decide(self, state: _Pass) -> None:
        now = self._clock()
        for product_id, keys in state.keys_of.items():
            before = state.before[product_id]
            seen = refuse_excess(before, {key: state.seen[key].observation for key in keys})
            for key, observation in seen.items():
                state.seen[key] = replace(state.seen[key], observation=observation)
            after = decide(before, seen, now)
            if after is not before:
                state.after[product_id] = after

    def _embed(self, state: _Pass) -> None:
        """One ONNX batch an encoder for what was decoded; rows that only moved are copied."""
        decoded: dict[str, list[str]] = defaultdict(list)
        for product_id, after in state.after.items():
            for view in stale_views(after):
                seen = state.seen.get(view.key)
                if seen is not None and seen.pixels is not None:
                    decoded[state.generation_of[product_id[0]].encoder].append(view.key)
        for space, keys in decoded.items():
            batch = np.concatenate([_pixels(state.seen[key]) for key in keys])
            encoded = self._encoder_of(space).encode(batch)
            state.embeddings.update(zip(keys, encoded.embeddings, strict=True))
        self._copy_rows(state)

    def _copy_rows(self, state: _Pass) -> None:
        segments: dict[str, Segment | None] = {}
        for product_id, after in list(state.after.items()):
            scope = self._scope(state, product_id)
            for view in stale_views(after):
                if view.key in state.embeddings:
                    continue
                old = state.before[product_id].views[view.key]
                name = segment_key(scope, old.segment)
                if name not in segments:
                    segments[name] = read_segment(self._stores.index, name)
                embedding = row_of(segments[name], old)
                if embedding is not None:
                    state.embeddings[view.key] = embedding
                else:
                    # Compaction has moved the row, so the photo itself is read once more.
                    state.reread.add(view.key)
                    state.again.add(view.key)
            if state.reread & after.views.keys():
                state.postpone(product_id)

    def _commit_rows(self, state: _Pass) -> None:
        """Segments, then registry entries; the views learn where their rows are."""
        rows: dict[str, list[Row]] = defaultdict(list)
        for (catalogue, _), after in state.after.items():
            attributes = after.attributes
            rows[catalogue] += [
                Row(view.key, view.version, state.embeddings[view.key], attributes)
                for view in stale_views(after)
            ]
        thumbnails = {
            seen.observation.thumbnail: seen.thumbnail
            for key, seen in state.seen.items()
            if key in state.embeddings and isinstance(seen.observation, NewView)
        }
        list(self._pool.map(self._put_thumbnail, thumbnails.items()))
        place: dict[tuple[str, str], tuple[str, int]] = {}
        for catalogue, new in rows.items():
            if new:
                place.update(self._append(state, state.generation_of[catalogue], new))
        now = self._clock()
        for product_id, after in state.after.items():
            views = dict(after.views)
            for view in stale_views(after):
                digest, number = place[view.key, view.version]
                at = view.searchable_at or now
                views[view.key] = replace(view, segment=digest, row=number, searchable_at=at)
            state.after[product_id] = replace(after, views=views)

    def _append(
        self, state: _Pass, generation: Generation, rows: list[Row]
    ) -> dict[tuple[str, str], tuple[str, int]]:
        """Write one segment; gives (digest, row number) by (key, version)."""
        if generation.catalogue in state.unborn:
            # Its first rows: nothing may name a generation before it is there.
            if self._stores.generations.create(generation) != generation:
                raise Conflict(f"catalogue {generation.catalogue} got another generation meanwhile")
            state.unborn.discard(generation.catalogue)
        rows.sort(key=lambda row: (row.key, row.version))
        body = encode_segment(generation.encoder, rows)
        digest = content_digest(body)
        scope = registry_scope(generation.catalogue, generation.generation)
        self._stores.index.put(segment_key(scope, digest), body, _SEGMENT_TYPE, if_absent=True)
        self._stores.registry.add(SegmentEntry(scope, digest, len(rows), len(body), self._clock()))
        return {(row.key, row.version): (digest, number) for number, row in enumerate(rows)}

    def _put_thumbnail(self, item: tuple[str, bytes]) -> None:
        self._stores.index.put(item[0], item[1], "image/webp")

    def _commit_products(self, state: _Pass) -> None:
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
            else:
                state.postpone(product_id)

    def _commit_failures(self, state: _Pass) -> None:
        for key, seen in state.seen.items():
            if key in state.again or isinstance(seen.observation, Postponed):
                continue
            known, observation = state.failures.get(key), seen.observation
            change = Counts()
            if isinstance(observation, Refused):
                change = file_failure(self._stores.failures, key, observation, known, self._clock())
            elif known is not None and self._stores.failures.delete(key):
                change = Counts(failures=-1)
            state.changes[catalogue_of(key)] += change

    def _look_again(self, state: _Pass) -> None:
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

    def _scope(self, state: _Pass, product_id: ProductId) -> str:
        return registry_scope(product_id[0], state.generation_of[product_id[0]].generation)


def _pixels(seen: Seen) -> Float32:
    assert seen.pixels is not None
    return seen.pixels
