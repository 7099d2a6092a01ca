"""Places products that came since a map was made among those that were laid out.

Owns the file of arrivals: the products that came or changed, once each, as they are now. It is
written anew each time, and is short: when many have come, the map is laid out anew.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lookalike.core.jobs import Artifact, artifact_key
from lookalike.core.keys import content_digest
from lookalike.core.map_columns import Details, Points, encode_columns, joined, taken
from lookalike.core.map_file import Chunk, encode_map
from lookalike.core.placement import Anchors, Hashes, Mask
from lookalike.core.ports import Clock, ObjectStore, Stores
from lookalike.core.types import Generation
from lookalike.services.live_embeddings import LiveEmbeddings, LiveRows, RowsCursor
from lookalike.services.map_files import MapFile, open_map
from lookalike.services.project_rows import Rows, one_a_product, open_finder

MAP_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class _Arrived:
    """What is on the map by now beside what was laid out or placed when it was made."""

    points: Points
    details: Details
    known: Hashes


class Arrivals:
    """Places what has come.

    Parameters
    ----------
    stores
        Where to read and write.
    live
        Opens live rows.
    settle_s
        Seconds after which an append that had begun has ended.
    clock
        Epoch seconds.
    """

    def __init__(self, stores: Stores, live: LiveEmbeddings, settle_s: float, clock: Clock) -> None:
        self._stores = stores
        self._live = live
        self._settle_s = settle_s
        self._clock = clock

    def waiting(self, artifact: Artifact, newest_at: float) -> bool:
        """Whether rows may have come that are not on the map, the newest row being of then."""
        return newest_at >= artifact.through_at - self._settle_s

    def placed(
        self, generation: Generation, artifact: Artifact, is_over: Callable[[], bool]
    ) -> Artifact:
        """The artifact with all that has come, or as much as time allows; not stored yet.

        Nothing is placed under another head than that of the map: it is made anew then.
        """
        begun_at = self._clock()
        live = self._live.open(generation)
        if (generation.generation, live.head_digest) != (artifact.generation, artifact.head):
            return artifact
        file = open_map(self._stores.index, artifact.key)
        anchors = file.anchors()
        before = _arrived(self._stores.index, artifact)
        if anchors is None:
            return artifact
        rows, whole = self._new_rows(artifact, live, file, before, is_over)
        changed = replace(artifact, through_at=begun_at) if whole else artifact
        if not len(rows):
            return changed
        points, details, known = _merged(anchors, rows, before)
        new = ~np.isin(points.product, file.products())
        body = encode_map(
            file.head.method,
            file.head.scale,
            [Chunk(len(points), encode_columns(points), encode_columns(details))],
            known,
            points.product,
        )
        key = artifact_key("map", artifact.catalogue, content_digest(body))
        self._stores.index.put(key, body, MAP_TYPE)
        return replace(changed, arrivals_key=key, arrivals=int(new.sum()))

    def _new_rows(
        self,
        artifact: Artifact,
        live: LiveRows,
        file: MapFile,
        before: _Arrived | None,
        is_over: Callable[[], bool],
    ) -> tuple[Rows, bool]:
        """What has come, and whether it is all."""
        products, known = file.products(), file.known()
        if before is not None:
            products = np.concatenate([products, before.points.product])
            known = np.concatenate([known, before.known])
        clusters = self._stores.artifacts.current(artifact.catalogue).get("clusters")
        rows = Rows(None, set(products.tolist()))
        cursor = RowsCursor(seen=set(known.tolist()))
        is_first = True
        for block in live.blocks(cursor, since=artifact.through_at - self._settle_s):
            if is_first:
                head = live.head(block.raw.shape[1])
                rows.finder = open_finder(self._stores.index, clusters, artifact.encoder, head)
                is_first = False
            elif is_over():
                return rows, False
            rows.add(block)
        return rows, True


def _arrived(store: ObjectStore, artifact: Artifact) -> _Arrived | None:
    if not artifact.arrivals_key:
        return None
    file = open_map(store, artifact.arrivals_key)
    pieces = range(len(file.head.rows))
    return _Arrived(
        joined(file.points()), joined([file.details(number) for number in pieces]), file.known()
    )


def _merged(
    anchors: Anchors, rows: Rows, before: _Arrived | None
) -> tuple[Points, Details, Hashes]:
    """What had come before and what has come now, each product as it is now."""
    kept: Mask = one_a_product(rows.product_hashes, rows.is_first)
    products = rows.product_hashes
    positions, placed = anchors.place(products, np.concatenate(rows.embeddings))
    x, y = positions.astype(np.float32).T
    points = Points(products, x, y, placed, rows.category, rows.cluster)
    numbers = np.flatnonzero(kept)
    points, details = taken(points, numbers), taken(rows.columns, numbers)
    known = rows.row_hashes[numbers]
    if before is not None:
        stay = np.flatnonzero(~np.isin(before.points.product, points.product))
        points = joined([taken(before.points, stay), points])
        details = joined([taken(before.details, stay), details])
        # Of rows that stand for nothing any more, too: they are not to be looked at again.
        known = np.concatenate([before.known, known])
    return points, details, np.unique(known)
