"""Says where products are that came after the clusters were made, or have another photo since."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from lookalike.core.clustering import assign
from lookalike.core.clusters import Arrivals, Clustering
from lookalike.core.errors import CorruptFile
from lookalike.core.jobs import Artifact, artifact_key
from lookalike.core.keys import content_digest
from lookalike.core.ports import Clock, Stores
from lookalike.services.clusters import read_members
from lookalike.services.jobs import make_current
from lookalike.services.live_embeddings import Block, LiveRows, Mask, RowsCursor
from lookalike.services.recluster_last import LastClusters

logger = logging.getLogger(__name__)

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

    def place(self, made: Artifact | None, rows: LiveRows) -> Artifact | None:
        """Place what came since the last look; gives what is current then.

        What was committed lately is looked at again, since the record that makes it count may be
        written after this. Clusters of another encoder, or that are lost, are left as they are.

        Raises
        ------
        Conflict
            Somebody else has changed what is current meanwhile.
        """
        newest_at, now = rows.newest_at, self._clock()
        if made is None or newest_at <= made.through_at:
            return made
        if made.encoder != rows.generation.encoder:
            return made
        clustering, before = self._last.clustering(made), self._last.placed(made)
        if clustering is None or before is None:
            return made
        here = self._arrived(made, clustering, rows)
        placed = before | here
        through_at = max(made.through_at, min(newest_at, now - self._settle_s))
        if placed == before and through_at == made.through_at:
            return made
        after = replace(made, through_at=through_at)
        if placed != before:
            data = Arrivals(placed).encode()
            key = artifact_key("clusters", made.catalogue, content_digest(data))
            self._stores.index.put(key, data, _TYPE)
            after = replace(after, arrivals_key=key, arrivals=len(placed))
        return make_current(self._stores, made, after, now, self._grace_s)

    def _arrived(self, made: Artifact, clustering: Clustering, rows: LiveRows) -> dict[str, int]:
        centroids = clustering.centroids(rows.head(clustering.means.shape[1]))
        here: dict[str, int] = {}
        for block in rows.blocks(RowsCursor(), since=made.through_at):
            numbers, _ = assign(centroids, block.embeddings)
            for row in np.flatnonzero(block.first & came_after(block, made.through_at)).tolist():
                here[block.products[row].product_id] = int(numbers[row])
        if not here or made.through_at >= made.made_at:
            return here
        # So young that they may have been met when the clusters were made: then they are no news.
        try:
            members = read_members(self._stores.index, made, clustering)
        except CorruptFile as error:
            logger.error("members of clusters of %s are lost: %s", made.catalogue, error)
            return here
        there = {id_: number for number, ids in enumerate(members) for id_ in ids if id_ in here}
        return {id_: number for id_, number in here.items() if there.get(id_) != number}


def came_after(block: Block, through_at: float) -> Mask:
    """(n,) whether each row's photo became searchable since, and was not merely moved."""
    return np.asarray(
        [
            product.views[key].searchable_at > through_at
            for key, product in zip(block.keys, block.products, strict=True)
        ],
        dtype=np.bool_,
    )
