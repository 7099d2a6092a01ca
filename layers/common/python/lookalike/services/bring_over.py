"""Brings views into a generation by reading their photos again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from lookalike.core.encoder import Encoder
from lookalike.core.feature_map import encode_map
from lookalike.core.keys import map_key
from lookalike.core.ports import Clock, Stores
from lookalike.core.reconcile import NewView, Postponed
from lookalike.core.segment import Row
from lookalike.core.types import Generation, Product, View
from lookalike.services.append import append_rows
from lookalike.services.feature_maps import MAP_TYPE
from lookalike.services.observe import Observer

logger = logging.getLogger(__name__)

_KEYS_AT_ONCE = 10  # so many files, of the largest size admitted, are in memory together


@dataclass(slots=True)
class Brought:
    """How many views were appended, left to their own events, or could not be read just now."""

    appended: int = 0
    skipped: int = 0
    postponed: int = 0

    def add(self, other: Brought) -> None:
        """Add what another call brought."""
        self.appended += other.appended
        self.skipped += other.skipped
        self.postponed += other.postponed


class PhotoReader:
    """Encodes the photos of live views, stores their maps and appends the rows their records name.

    Parameters
    ----------
    stores
        Where to read and write.
    observer
        Reads and decodes photos.
    encoder_of
        Gives the encoder of an embedding space id.
    pool
        Runs reads side by side.
    clock
        Epoch seconds.
    """

    def __init__(
        self,
        stores: Stores,
        observer: Observer,
        encoder_of: Callable[[str], Encoder],
        pool: Executor,
        clock: Clock,
    ) -> None:
        self._stores = stores
        self._observer = observer
        self._encoder_of = encoder_of
        self._pool = pool
        self._clock = clock

    def check(self, space: str) -> None:
        """Raise `Unavailable` if there is no encoder of a space here."""
        self._encoder_of(space)

    def bring(
        self,
        generation: Generation,
        products: Sequence[Product],
        includes: Callable[[View], bool],
    ) -> Brought:
        """Append the rows of these products' views, as one segment.

        A photo that is not the one its record names is left to the event of that change.
        """
        brought = Brought()
        chosen = [(p, view) for p in products for view in p.views.values() if includes(view)]
        rows: list[Row] = []
        for start in range(0, len(chosen), _KEYS_AT_ONCE):
            rows += self._rows(generation, chosen[start : start + _KEYS_AT_ONCE], brought)
        if rows:
            append_rows(
                self._stores.index,
                self._stores.registry,
                [generation],
                {generation.encoder: rows},
                self._clock(),
            )
        brought.appended += len(rows)
        return brought

    def _rows(
        self, generation: Generation, chosen: Sequence[tuple[Product, View]], brought: Brought
    ) -> list[Row]:
        encoder = self._encoder_of(generation.encoder)
        seen = self._observer.observe(
            [view.key for _, view in chosen],
            views={},
            documents={},
            encoders_of=lambda key: [encoder],
            pool=self._pool,
        )
        same: list[tuple[Product, View]] = []
        pixels = []
        for product, view in chosen:
            found = seen[view.key]
            observation = found.observation
            if isinstance(observation, NewView) and observation.etag == view.etag:
                same.append((product, view))
                pixels.append(found.pixels[encoder.space])
            elif isinstance(observation, Postponed):
                brought.postponed += 1
                logger.warning("%s cannot be read: %s", view.key, observation.error)
            else:
                brought.skipped += 1
                logger.info("%s has changed; its own event brings it", view.key)
        if not same:
            return []
        encoded = encoder.encode(np.concatenate(pixels))
        names = [map_key(encoder.space, view.key, view.etag) for _, view in same]
        files = [
            (name, encode_map(maps), MAP_TYPE)
            for name, maps in zip(names, encoded.maps, strict=True)
        ]
        list(self._pool.map(lambda file: self._stores.index.put(*file), files))
        return [
            Row(view.key, view.version, embedding, product.attributes)
            for (product, view), embedding in zip(same, encoded.embeddings, strict=True)
        ]
