"""Says where products are that came after the clusters were made, or have another photo since."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lookalike.core.clustering import assign
from lookalike.core.clusters import Arrivals, Clustering
from lookalike.core.jobs import Artifact, artifact_key
from lookalike.core.keys import content_digest
from lookalike.core.ports import Clock, Stores
from lookalike.services.jobs import make_current
from lookalike.services.live_embeddings import Block, LiveRows, Mask, RowsCursor
from lookalike.services.recluster_last import LastClusters

_TYPE = "application/octet-stream"


class Placing:
    """Places arrivals in the current clusters.

    Parameters
    ----------
    stores
        Where to read and write.
    last
        Reads the current clusters.
    settle_s
        Seconds after which every append that had begun has ended.
    grace_s
        Seconds for which replaced files are kept.
    clock
        Epoch seconds.
    """

    def __init__(
        self, stores: Stores, last: LastClusters, settle_s: float, grace_s: float, clock: Clock
    ) -> None:
        self._stores = stores
        self._last = last
        self._settle_s = settle_s
        self._grace_s = grace_s
        self._clock = clock

    def place(
        self, made: Artifact | None, rows: LiveRows, is_over: Callable[[], bool]
    ) -> Artifact | None:
        """Place what came since the last look, and make that current; gives what is current then.

        Raises
        ------
        Conflict
            Somebody else has changed what is current meanwhile.
        """
        if made is None:
            return None
        after, _ = self.placed(made, rows, is_over)
        if after == made:
            return made
        return make_current(self._stores, made, after, self._clock(), self._grace_s)

    def placed(
        self, made: Artifact, rows: LiveRows, is_over: Callable[[], bool]
    ) -> tuple[Artifact, bool]:
        """Clusters with what came since, as much as time allows, not current yet; whether all.

        What was committed lately is looked at again, since the record that makes it count may be
        written after this. Clusters of another encoder, or that are lost, are left as they are.
        """
        newest_at, now = rows.newest_at, self._clock()
        if newest_at <= made.through_at or made.encoder != rows.generation.encoder:
            return made, True
        clustering, before = self._last.clustering(made), self._last.arrivals(made)
        if clustering is None or before is None:
            return made, True
        here, seen = self._arrived(made, clustering, before, rows, is_over)
        there = self._last.members(made, clustering, here.keys() - before.placed.keys()) or {}
        if made.through_at < made.made_at:
            # So young that they may have been met when the clusters were made: no news of those.
            here = {id_: number for id_, number in here.items() if there.get(id_) != number}
        after = Arrivals(before.placed | here, seen)
        through_at = max(made.through_at, min(newest_at, now - self._settle_s))
        changed = made if seen else replace(made, through_at=through_at)
        if after != before:
            new = here.keys() - before.placed.keys()
            overwritten = int(made.summary.get("overwritten", 0)) + len(new & there.keys())
            changed = replace(
                changed,
                arrivals_key=self._written(made.catalogue, after),
                arrivals=made.arrivals + len(new - there.keys()),
                summary={**made.summary, "overwritten": overwritten},
            )
        return changed, not seen

    def _written(self, catalogue: str, arrivals: Arrivals) -> str:
        if not arrivals.placed and not arrivals.seen:
            return ""
        data = arrivals.encode()
        key = artifact_key("clusters", catalogue, content_digest(data))
        self._stores.index.put(key, data, _TYPE)
        return key

    def _arrived(
        self,
        made: Artifact,
        clustering: Clustering,
        before: Arrivals,
        rows: LiveRows,
        is_over: Callable[[], bool],
    ) -> tuple[dict[str, int], set[int]]:
        """Where what came is; and which rows were looked at, if time was over before all were."""
        centroids = clustering.centroids(rows.head(clustering.means.shape[1]))
        here: dict[str, int] = {}
        # Not which files: of a row there may be no record yet.
        cursor = RowsCursor(seen=set(before.seen))
        is_first = True
        for block in rows.blocks(cursor, since=made.through_at):
            if is_over() and not is_first:
                return here, cursor.seen
            is_first = False
            numbers, _ = assign(centroids, block.embeddings)
            for row in np.flatnonzero(block.first & came_after(block, made.through_at)).tolist():
                here[block.products[row].product_id] = int(numbers[row])
        return here, set()


def came_after(block: Block, through_at: float) -> Mask:
    """(n,) whether each row's photo became searchable since, and was not merely moved."""
    return np.asarray(
        [
            product.views[key].searchable_at > through_at
            for key, product in zip(block.keys, block.products, strict=True)
        ],
        dtype=np.bool_,
    )
