"""Keeps what was counted of hours: aggregates of hours, days and weeks, and who was ever shown.

Every write can be done again: an aggregate is written whole, and only over one that was made of
less.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterable
from dataclasses import replace

import msgspec
import numpy as np

from lookalike.core.errors import CorruptFile
from lookalike.core.jobs import Artifact, artifact_key
from lookalike.core.ports import Clock, Stores
from lookalike.core.rollups import Rollup, total
from lookalike.core.search_hours import Period, end_of, number_at, start_of, within
from lookalike.core.shown import NONE, Hashes, ShownProducts, read_shown, write_shown
from lookalike.core.tally import Tally
from lookalike.services.clusters import Clusters
from lookalike.services.jobs import make_current
from lookalike.services.rollup_hours import HourCount

logger = logging.getLogger(__name__)

_GRACE_S = 900.0
_MAX_SHOWN_BYTES = 2**31
# A list of more products than this is not written anew for a few.
_MANY_SHOWN = 100_000
_NEW_SHARE = 0.01
_TYPE = "application/octet-stream"


class RollupSums:
    """What the roll-up writes for readers.

    Parameters
    ----------
    stores
        Where to write.
    clusters
        Each catalogue's clusters, whose sizes are kept a day.
    clock
        Epoch seconds.
    """

    def __init__(self, stores: Stores, clusters: Clusters, clock: Clock) -> None:
        self._stores = stores
        self._clusters = clusters
        self._clock = clock
        self._sized: dict[str, tuple[int, str | None]] = {}

    def put_hour(self, hour: int, count: HourCount, begun_at: float) -> None:
        """Keep what was counted of an hour, everything that was written by ``begun_at``.

        Raises
        ------
        Conflict
            Somebody else is at it.
        """
        for catalogue, tally in sorted(count.tallies.items()):
            self._put(catalogue, "hour", hour, tally.trim(), begun_at)

    def put_sums(self, catalogue: str, hours: Iterable[int], begun_at: float) -> None:
        """Add up the days and weeks that hours are in; raises `Conflict` as `put_hour`."""
        days = sorted({number_at("day", start_of("hour", hour)) for hour in hours})
        for day in days:
            self._sum(catalogue, "day", day, "hour", begun_at)
        for week in sorted({number_at("week", start_of("day", day)) for day in days}):
            self._sum(catalogue, "week", week, "day", begun_at)

    def _sum(
        self, catalogue: str, period: Period, number: int, parts: Period, begun_at: float
    ) -> None:
        stored = self._stored(catalogue, period, number)  # before its parts: a change conflicts
        summed = total(self._stores.rollups.range(catalogue, parts, *within(period, number, parts)))
        if stored is None or stored.tally != summed:
            made = Rollup(catalogue, period, number, summed, begun_at)
            self._stores.rollups.put(replace(made, revision=stored.revision if stored else None))

    def _put(
        self, catalogue: str, period: Period, number: int, tally: Tally, begun_at: float
    ) -> None:
        stored = self._stored(catalogue, period, number)
        made = Rollup(catalogue, period, number, tally, begun_at)
        if stored is None:
            self._stores.rollups.put(made)
        # One that says the same is written as well: an older one must not replace it later.
        elif (stored.made_at, stored.tally) != (begun_at, tally) and stored.made_at <= begun_at:
            self._stores.rollups.put(replace(made, revision=stored.revision))

    def _stored(self, catalogue: str, period: Period, number: int) -> Rollup | None:
        found = self._stores.rollups.range(catalogue, period, number, number)
        return found[0] if found else None

    def put_shown(self, catalogue: str, hashes: Hashes, hour: int, *, is_settled: bool) -> None:
        """Add the products that searches up to an hour have shown to those that ever were.

        A long list may wait until hours are settled.

        Raises
        ------
        Conflict
            Somebody else is at it.
        """
        artifact = self._stores.artifacts.current(catalogue).get("shown")
        before, is_whole = self._shown(catalogue, artifact)
        merged = np.union1d(before, hashes)
        new = len(merged) - len(before)
        is_few = len(before) > _MANY_SHOWN and new < _NEW_SHARE * len(before)
        is_later = artifact is None or end_of("hour", hour) > artifact.through_at
        if is_whole and not ((new or is_later) if is_settled else (new and not is_few)):
            return
        body = write_shown(merged)
        digest = hashlib.blake2b(body, digest_size=16).hexdigest()
        key = artifact_key("shown", catalogue, digest)
        if artifact is None or new or not is_whole:
            self._stores.index.put(key, body, _TYPE)
        now = self._clock()
        make_current(
            self._stores,
            artifact,
            Artifact(
                catalogue=catalogue,
                kind="shown",
                key=key,
                encoder="",
                generation="",
                head="",
                made_at=now,
                through_at=max(
                    min(now, end_of("hour", hour)), artifact.through_at if artifact else 0.0
                ),
                serial=artifact.serial + 1 if artifact else 1,
                products=len(merged),
                summary=self._searches(catalogue, artifact, hour),
            ),
            now,
            _GRACE_S,
        )

    def _shown(self, catalogue: str, artifact: Artifact | None) -> tuple[Hashes, bool]:
        """Who was ever shown, and whether that is all that was known."""
        if artifact is None:
            return NONE, True
        try:
            found = self._stores.index.get(artifact.key, _MAX_SHOWN_BYTES)
            if found is None:
                raise CorruptFile(f"{artifact.key} is not in the bucket")
            return read_shown(found[1]), True
        except CorruptFile:
            logger.exception("what %s has shown is taken from its weekly aggregates", catalogue)
            now = number_at("week", self._clock())
            known = total(self._stores.rollups.range(catalogue, "week", 0, now)).shown.counts
            shown = ShownProducts()
            shown.add(known)
            return shown.hashes(), False

    def _searches(
        self, catalogue: str, artifact: Artifact | None, hour: int
    ) -> dict[str, float | int | str | bool]:
        """Since when searches have been counted, and how many; ``weeks`` says so of each week.

        Only the week of ``hour`` is read: years of aggregates take seconds to add up.
        """
        first, weeks = math.inf, dict[int, int]()
        if artifact is not None:
            first = float(artifact.summary["since"])
            weeks = msgspec.json.decode(
                str(artifact.summary.get("weeks", "{}")), type=dict[int, int]
            )
        week = number_at("week", start_of("hour", hour))
        stored = self._stored(catalogue, "week", week)
        if stored is not None:
            first = min(first, stored.tally.first_at)
            weeks[week] = stored.tally.searches
        return {
            "since": min(first, end_of("hour", hour)),
            "searches": sum(weeks.values()),
            "weeks": msgspec.json.encode(weeks).decode(),
        }

    def put_sizes(self, catalogue: str) -> None:
        """Keep how many products each cluster has today, for the drift of the catalogue."""
        artifact = self._stores.artifacts.current(catalogue).get("clusters")
        if artifact is None:
            return
        today = number_at("day", self._clock())
        if self._sized.get(catalogue) == (today, artifact.revision):
            return
        try:
            found = self._clusters.list(catalogue).clusters
        except CorruptFile:
            logger.exception("the sizes of %s's clusters are not kept today", catalogue)
            return
        sizes = {cluster.cluster_id: cluster.size for cluster in found}
        self._stores.rollups.put_sizes(catalogue, today, sizes)
        self._sized[catalogue] = (today, artifact.revision)
