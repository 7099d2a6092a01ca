"""What is left of the last clusters when they are made anew, whichever of their files is lost."""

from __future__ import annotations

import logging
from collections.abc import Set

import numpy as np

from lookalike.core.cluster_plan import Known
from lookalike.core.clusters import Arrivals, Clustering, product_hash
from lookalike.core.errors import CorruptFile, Vanished
from lookalike.core.jobs import Artifact
from lookalike.core.ports import Clock, Stores
from lookalike.services.clusters import read_arrivals, read_clustering, read_members

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 300.0
"""Seconds between two looks at whether the current clusters can be read."""


class LastClusters:
    """Reads the current clusters for those who make the next.

    Parameters
    ----------
    stores
        Where to read.
    clock
        Epoch seconds.
    """

    def __init__(self, stores: Stores, clock: Clock) -> None:
        self._stores = stores
        self._clock = clock
        # By catalogue: what could be read, and until when that is believed.
        self._sound: dict[str, tuple[tuple[str, str], float]] = {}

    def clustering(self, made: Artifact | None) -> Clustering | None:
        """The clusters without their members; None when there are none, or they are lost."""
        if made is None:
            return None
        try:
            found = read_clustering(self._stores.index, made)
            return found if found.clusters else None
        except (CorruptFile, Vanished) as error:
            logger.error("the clusters of %s are lost: %s", made.catalogue, error)
            return None

    def arrivals(self, made: Artifact) -> Arrivals | None:
        """Where products are that came since; None when that is lost."""
        try:
            return read_arrivals(self._stores.index, made)
        except (CorruptFile, Vanished) as error:
            logger.error("arrivals of %s are lost: %s", made.catalogue, error)
            return None

    def is_lost(self, made: Artifact) -> bool:
        """Whether clusters, members or arrivals cannot be read; what could lately is believed."""
        keys = made.key, made.arrivals_key
        seen, until = self._sound.get(made.catalogue, (("", ""), 0.0))
        if seen == keys and self._clock() < until:
            return False
        clustering = self.clustering(made)
        if clustering is None or self.arrivals(made) is None:
            return True
        if self.members(made, clustering, frozenset()) is None:
            return True
        self._sound[made.catalogue] = keys, self._clock() + LOOK_EVERY_S
        return False

    def members(
        self, made: Artifact, clustering: Clustering, among: Set[str] | None = None
    ) -> dict[str, int] | None:
        """Which cluster products, or those ``among`` them, were in; None when that is lost."""
        at: dict[str, int] = {}
        try:
            for number, ids in read_members(self._stores.index, made, clustering):
                at.update((id_, number) for id_ in ids if among is None or id_ in among)
        except (CorruptFile, Vanished) as error:
            logger.error("members of clusters of %s are lost: %s", made.catalogue, error)
            return None
        return at

    def known(self, made: Artifact, clustering: Clustering) -> Known:
        """Which products are in which cluster, as far as that can be read."""
        arrivals = self.arrivals(made)
        at = self.members(made, clustering) or {}
        at |= arrivals.placed if arrivals else {}
        hashes = np.fromiter(map(product_hash, at), np.uint64, len(at))
        numbers = np.fromiter(at.values(), np.int64, len(at))
        order = np.argsort(hashes)
        return Known(hashes[order], numbers[order])
