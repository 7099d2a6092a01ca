"""Keeps each catalogue's map: laid out anew when much has changed, arrivals placed in between.

Owns when. The map that there is stays current until the next one is whole, and arrivals are placed
on it until then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from lookalike.core.errors import CorruptFile, Vanished
from lookalike.core.jobs import MIN_PRODUCTS, Artifact, why_due
from lookalike.core.ports import Clock, Stores
from lookalike.core.projection import MethodMissing
from lookalike.core.types import Counts, Lineage, SegmentEntry
from lookalike.services.jobs import (
    CatalogueReport,
    JobLedger,
    Run,
    WorkReport,
    make_current,
    run_catalogues,
)
from lookalike.services.live_embeddings import LiveEmbeddings
from lookalike.services.map_files import open_map
from lookalike.services.project_arrivals import Arrivals
from lookalike.services.project_layout import MapPolicy
from lookalike.services.project_run import MapRun
from lookalike.services.project_state import READING, Progress, load
from lookalike.services.raw_files import raw_files

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 300.0
"""Seconds between two looks at whether the current map can be read."""
_CLUSTERS_FIRST_S = 120.0  # two turns of the recluster function


@dataclass(slots=True)
class _Now:
    """A catalogue as it is now: its head file, when its newest row came, its live products.

    ``is_damaged`` when it has a map that cannot be read.
    """

    head: str
    newest_at: float
    products: int
    artifacts: dict[str, Artifact]
    is_damaged: bool = False

    @property
    def map(self) -> Artifact | None:
        return self.artifacts.get("map")

    @property
    def clusters(self) -> int:
        found = self.artifacts.get("clusters")
        return found.serial if found else 0


class Project:
    """The use case behind the *project* function.

    Parameters
    ----------
    stores
        Where to read and write.
    live
        Opens live rows.
    ledger
        Opens jobs.
    policy
        When maps are made anew, and how.
    threads
        For t-SNE.
    clock
        Epoch seconds.
    """

    def __init__(
        self,
        stores: Stores,
        live: LiveEmbeddings,
        ledger: JobLedger,
        policy: MapPolicy,
        threads: int,
        clock: Clock,
    ) -> None:
        self._stores = stores
        self._live = live
        self._ledger = ledger
        self._policy = policy
        self._threads = threads
        self._clock = clock
        self._arrivals = Arrivals(stores, live, policy.settle_s, clock)
        # By catalogue: the map that could be read, and until when that is believed.
        self._sound: dict[str, tuple[tuple[str, str], float]] = {}

    def run(
        self, deadline: float, catalogue: str | None = None, *, now: bool = False
    ) -> WorkReport:
        """Go on with maps that are due, and place what has come.

        Parameters
        ----------
        deadline
            Epoch seconds; what is not done by then, the next call goes on with.
        catalogue
            Only this one.
        now
            A new map even if none is due.

        Raises
        ------
        NotFound
            There is no such catalogue.
        ValueError
            The settings name no method.
        """
        _ = self._policy.method

        def is_over() -> bool:
            return self._clock() >= deadline

        def advance(lineage: Lineage) -> CatalogueReport:
            return self._advance(lineage, is_over, now)

        return run_catalogues(self._stores, catalogue, advance)

    def _advance(self, lineage: Lineage, is_over: Callable[[], bool], now: bool) -> CatalogueReport:
        run = self._ledger.open(lineage.catalogue, "project")
        artifacts = self._stores.artifacts.current(lineage.catalogue)
        if is_over():
            return run.report(artifacts.get("map"), finished=False)
        found = self._look(lineage, artifacts)
        try:
            finished = self._tend(lineage, run, found, is_over, now)
        except (MethodMissing, CorruptFile) as error:
            logger.exception("the map of %s comes to nothing", lineage.catalogue)
            if run.is_under_way:
                run.finish(str(error))
            finished = True
        made = self._stores.artifacts.current(lineage.catalogue).get("map")
        return run.report(made, finished=finished)

    def _tend(
        self,
        lineage: Lineage,
        run: Run,
        found: _Now,
        is_over: Callable[[], bool],
        now: bool,
    ) -> bool:
        """Do what there is to do on one catalogue; whether it is done."""
        self._place_arrivals(lineage, found, is_over)
        if not run.is_under_way:
            why = "it was asked for" if now else self._why(run, lineage, found)
            if not why:
                return True
            logger.info("a new map of %s: %s", lineage.catalogue, why)
            run.begin(READING)
        elif not run.take_up():
            return True
        return self._go_on(lineage, run, found, is_over)

    def _look(self, lineage: Lineage, artifacts: dict[str, Artifact]) -> _Now:
        entries, manifest = self._stores.registry.read(lineage.current.scope)
        files = raw_files(manifest, entries)
        newest_at = max(
            (f.committed_at if isinstance(f, SegmentEntry) else f.newest_at for f in files),
            default=0.0,
        )
        products = self._stores.counts.all().get(lineage.catalogue, Counts()).products
        return _Now(manifest.head, newest_at, products, artifacts)

    def _place_arrivals(self, lineage: Lineage, found: _Now, is_over: Callable[[], bool]) -> None:
        made = found.map
        if made is None or not self._arrivals.waiting(made, found.newest_at):
            return
        if (made.generation, made.head) != (lineage.current.generation, found.head):
            return
        try:
            after = self._arrivals.placed(lineage.current, made, is_over)
        except (CorruptFile, Vanished):
            logger.exception("arrivals cannot be placed on the map of %s", lineage.catalogue)
            found.is_damaged = True
            return
        if after != made:
            found.artifacts["map"] = make_current(
                self._stores, made, after, self._clock(), self._policy.grace_s
            )

    def _is_lost(self, made: Artifact) -> bool:
        """Whether a map cannot be read; one that could lately is believed."""
        keys = made.key, made.arrivals_key
        seen, until = self._sound.get(made.catalogue, (("", ""), 0.0))
        if seen == keys and self._clock() < until:
            return False
        try:
            for key in filter(None, keys):
                open_map(self._stores.index, key).check()
        except (CorruptFile, Vanished) as error:
            logger.error("the map of %s is lost: %s", made.catalogue, error)
            return True
        self._sound[made.catalogue] = keys, self._clock() + LOOK_EVERY_S
        return False

    def _why(self, run: Run, lineage: Lineage, found: _Now) -> str:
        """Why a new map is due; "" when it is not."""
        policy, made, now = self._policy, found.map, self._clock()
        if run.rests(policy.pause_s) or (made is None and found.products < MIN_PRODUCTS):
            return ""
        due = ""
        if made is not None and (found.is_damaged or self._is_lost(made)):
            due = "it cannot be read"
        if made is not None and (made.generation, made.head) != (
            lineage.current.generation,
            found.head,
        ):
            due = "embeddings are others"
        elif made is not None and made.summary.get("clusters") != found.clusters:
            due = "clusters are others"
        due = due or why_due(
            policy,
            made,
            products=found.products,
            arrivals=made.arrivals if made else 0,
            newest_at=found.newest_at,
            now=now,
        )
        return "" if due and self._clusters_come_first(lineage, found) else due

    def _clusters_come_first(self, lineage: Lineage, found: _Now) -> bool:
        """Whether clusters are about to be made anew, so that the map had better wait."""
        now = self._clock()
        job = self._stores.jobs.get(lineage.catalogue, "recluster")
        if job is not None and job.phase:
            return now - job.changed_at < self._policy.pause_s
        clusters = found.artifacts.get("clusters")
        came = found.products - (clusters.products if clusters else 0)
        due = why_due(
            self._policy,
            clusters,
            products=found.products,
            arrivals=max(came, clusters.arrivals if clusters else 0),
            newest_at=found.newest_at,
            now=now,
        )
        waited_s = now - found.newest_at - self._policy.quiet_s
        return bool(due) and waited_s < _CLUSTERS_FIRST_S

    def _go_on(self, lineage: Lineage, run: Run, found: _Now, is_over: Callable[[], bool]) -> bool:
        progress = load(run) if run.job.cursor else None
        generation = lineage.current
        space = (generation.generation, generation.encoder, found.head)
        if progress and (progress.generation, progress.encoder, progress.head) != space:
            progress = None
        if progress is None:
            if run.job.cursor:
                run.begin(READING)
            serial = found.map.serial if found.map else 0
            progress = Progress(*space, self._clock(), found.clusters, serial)
        going_on = MapRun(
            self._stores,
            self._live,
            self._arrivals,
            self._policy,
            self._threads,
            self._clock,
            run,
            generation,
            progress,
            found.artifacts,
            is_over,
        )
        return going_on.advance()
