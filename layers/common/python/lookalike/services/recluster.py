"""Finds a catalogue's clusters, from where they were, and places what arrives in between.

Two passes over the live embeddings, in slices that can end anywhere: one draws a sample, on which
k-means runs, one says where every product is. Idempotent; searches see the clusters before or the
clusters after. What it makes, `lookalike.services.clusters` reads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from lookalike.core.cluster_plan import MAX_CLUSTERS, plan_clusters
from lookalike.core.cluster_sample import Sample
from lookalike.core.clustering import assign
from lookalike.core.clusters import centroids_of, product_hash
from lookalike.core.errors import CorruptFile
from lookalike.core.head import MAX_FITTED_ROWS
from lookalike.core.jobs import (
    MIN_PRODUCTS,
    Artifact,
    RenewalPolicy,
    why_due,
    work_key,
)
from lookalike.core.ports import Clock, Stores
from lookalike.core.types import Counts, Generation, Lineage
from lookalike.services.jobs import (
    CatalogueReport,
    JobLedger,
    Run,
    WorkReport,
    make_current,
    run_catalogues,
)
from lookalike.services.live_embeddings import LiveEmbeddings, LiveRows
from lookalike.services.recluster_arrivals import Placing, came_after
from lookalike.services.recluster_last import LastClusters
from lookalike.services.recluster_publish import written
from lookalike.services.recluster_state import Assigning, Part, Sampling, Source, joined

logger = logging.getLogger(__name__)

State = TypeVar("State", Sampling, Assigning)


@dataclass(frozen=True, slots=True)
class ReclusterPolicy(RenewalPolicy):
    """The settings of the same names (`lookalike.settings.Settings`)."""

    clusters: int
    settle_s: float
    grace_s: float

    def check(self) -> None:
        """Raise `ValueError` when there cannot be that many clusters."""
        if not 0 <= self.clusters <= MAX_CLUSTERS:
            raise ValueError(
                f"LOOKALIKE_CLUSTERS={self.clusters} is not from 1 to {MAX_CLUSTERS:,}, nor 0, "
                "which lets the catalogue say"
            )


@dataclass(slots=True)
class _Work:
    """One run as a slice has it; ``made`` is what is current, ``deadline`` when the slice ends."""

    run: Run
    generation: Generation
    rows: LiveRows
    made: Artifact | None
    products: int
    deadline: float
    saves: int = 0


class Recluster:
    """The use case behind the *recluster* function.

    Parameters
    ----------
    stores
        Where to read and write.
    live
        Streams embeddings.
    ledger
        Keeps how far runs are.
    policy
        When clusters are made anew, and how many.
    clock
        Epoch seconds.
    """

    def __init__(
        self,
        stores: Stores,
        live: LiveEmbeddings,
        ledger: JobLedger,
        policy: ReclusterPolicy,
        clock: Clock,
    ) -> None:
        self._stores = stores
        self._live = live
        self._ledger = ledger
        self._policy = policy
        self._clock = clock
        self._last = LastClusters(stores, clock)
        self._arrivals = Placing(stores, self._last, policy.settle_s, policy.grace_s, clock)

    def run(
        self, deadline: float, catalogue: str | None = None, *, now: bool = False
    ) -> WorkReport:
        """Place arrivals, and make clusters anew where that is due, as far as there is time.

        Parameters
        ----------
        deadline
            Epoch seconds at which the slice ends; the next one goes on.
        catalogue
            Only this one.
        now
            Anew even if nothing is due.

        Raises
        ------
        NotFound
            There is no such catalogue.
        ValueError
            The settings ask for more clusters than there can be.
        """
        self._policy.check()
        return run_catalogues(
            self._stores, catalogue, lambda lineage: self._advance(lineage, deadline, now)
        )

    def _advance(self, lineage: Lineage, deadline: float, now: bool) -> CatalogueReport:
        catalogue, generation = lineage.catalogue, lineage.current
        run = self._ledger.open(catalogue, "recluster")
        made = self._stores.artifacts.current(catalogue).get("clusters")
        if self._clock() >= deadline:
            return run.report(made, finished=not run.is_under_way)
        products = self._stores.counts.all().get(catalogue, Counts()).products
        if made is None and not run.is_under_way and not (now or products >= MIN_PRODUCTS):
            return run.report(made, finished=True)
        rows = self._live.open(generation)
        made = self._arrivals.place(made, rows, lambda: self._clock() >= deadline)
        if run.is_under_way:
            if not run.take_up():
                return run.report(made, finished=True)
        else:
            why = "by hand" if now else self._why(made, rows, generation, products)
            if not why or (run.rests(self._policy.pause_s) and not now):
                return run.report(made, finished=True)
            logger.info("clusters of %s are made anew: %s", catalogue, why)
            run.begin("sample", rows.rows)
        work = _Work(run, generation, rows, made, products, deadline)
        finished = self._go_on(work)
        return run.report(work.made, finished=finished)

    def _why(
        self, made: Artifact | None, rows: LiveRows, generation: Generation, products: int
    ) -> str:
        overwritten = 0
        if made is not None:
            # Each counts as one that came, though no more products are there for it.
            overwritten = int(made.summary.get("overwritten", 0))
            if made.encoder != generation.encoder:
                return "they are of another encoder"
            if made.summary.get("setting", 0) != self._policy.clusters:
                return "another number of clusters is set"
            if self._last.is_lost(made):
                return "their file cannot be read"
        return why_due(
            self._policy,
            made,
            products=products + overwritten,
            arrivals=made.arrivals + overwritten if made else 0,
            newest_at=rows.newest_at,
            now=self._clock(),
        )

    def _go_on(self, work: _Work) -> bool:
        """Do what is left of a run, until the deadline; whether that was all."""
        try:
            return self._phases(work)
        except CorruptFile as error:
            # Its working objects are gone or of another generation, or another runner's.
            logger.warning("the run on %s begins anew: %s", work.generation.scope, error)
            work.run.begin("sample", work.rows.rows)
            return False

    def _phases(self, work: _Work) -> bool:
        run = work.run
        is_only_left = run.job.phase == "publish"
        if run.job.phase == "sample":
            named = run.job.cursor
            sampling = self._state(work, Sampling.decode) if named else self._new_sampling(work)
            if not self._sample(work, sampling):
                return False
            if not run.is_under_way:  # there was nothing
                return True
        assigning = self._state(work, Assigning.decode)
        if run.job.phase == "assign" and not self._assign(work, assigning):
            return False
        return self._publish(work, assigning, is_only_left=is_only_left)

    def _publish(self, work: _Work, found: Assigning, *, is_only_left: bool) -> bool:
        """Make what was found current, unless a runner that died has; False to do it later.

        What came meanwhile is in it before anybody sees it. A slice that has nothing else to do
        publishes what it had time for.
        """
        parts = (self._part(work.run, name) for name in found.parts)
        members = joined(parts, len(found.plan.ids))
        if not any(members):
            return self._end_empty(work)
        made = written(self._stores, found, members, work.run.job, self._policy.clusters)
        if work.made is None or work.made.key != made.key:
            rows = self._live.open(work.generation)
            made, whole = self._arrivals.placed(made, rows, lambda: self._clock() >= work.deadline)
            if not (whole or is_only_left):
                return False
            now, grace_s = self._clock(), self._policy.grace_s
            work.made = make_current(self._stores, work.made, made, now, grace_s)
        work.run.finish()
        return True

    def _end_empty(self, work: _Work) -> bool:
        """End a run that has found no product: then there are no clusters."""
        if work.made is not None:
            self._stores.artifacts.remove(work.made)
            work.made = None
        logger.info("%s has no products any more", work.generation.catalogue)
        work.run.finish()
        return True

    def _new_sampling(self, work: _Work) -> Sampling:
        source = Source(
            work.generation.generation,
            work.generation.encoder,
            work.rows.head_digest,
            min(work.rows.newest_at, work.run.job.begun_at - self._policy.settle_s),
        )
        return Sampling(source, Sample(MAX_FITTED_ROWS))

    def _sample(self, work: _Work, state: Sampling) -> bool:
        """Draw the sample and cluster it; False when the deadline came first."""
        done = work.run.job.done
        made_at = work.made.made_at if work.made else 0.0
        for block in work.rows.blocks(state.cursor):
            # The cursor knows the blocks before, which are in the state, and not yet this one.
            if not self._keep(work, done, state.encode):
                return False
            first = block.first
            hashes = [
                product_hash(product.product_id)
                for product, is_first in zip(block.products, first.tolist(), strict=True)
                if is_first
            ]
            known = ~came_after(block, made_at)
            state.sample.add(np.asarray(hashes, np.uint64), block.raw[first], known[first])
            done += len(block)
        if not len(state.sample.hashes):
            return self._end_empty(work)
        # K-means is one step: it loses nothing but itself, and begins with enough time.
        if done > work.run.job.done and not self._keep(work, done, state.encode, now=True):
            return False
        assigning = self._planned(work, state)
        self._write(work, assigning.encode(), phase="assign", done=0)
        return True

    def _planned(self, work: _Work, state: Sampling) -> Assigning:
        before = self._last.clustering(work.made)
        known = None
        if work.made and before and before.encoder != work.generation.encoder:
            known = self._last.known(work.made, before)
        numbered = int(work.made.summary.get("next_number", 1)) if work.made else 1
        # A name that was given to a cluster of a catalogue that was empty since is not another's.
        named = self._stores.cluster_names.all(work.generation.catalogue)
        numbered = max([numbered, *(int(id_.removeprefix("c")) + 1 for id_ in named)])
        plan = plan_clusters(
            state.sample,
            work.rows.head(next(state.sample.raw()).shape[1]),
            before,
            known,
            setting=self._policy.clusters,
            products=work.products,
            next_number=max(numbered, before.next_number if before else 1),
            now=work.run.job.begun_at,
        )
        serial = work.made.serial + 1 if work.made else 1
        return Assigning.begun(state.source, plan, serial, int(state.sample.hashes[-1]))

    def _assign(self, work: _Work, state: Assigning) -> bool:
        """Say where every product is; False when the deadline came first."""
        part, done = Part(), work.run.job.done
        centroids = centroids_of(state.plan.means, work.rows.head(state.plan.means.shape[1]))

        def kept() -> bytes:
            if len(part):
                name = self._name(work, "part")
                work.run.put(name, part.encode())
                state.parts.append(name)
                part.first.clear()
                part.other.clear()
            state.unreadable = sorted({*state.unreadable, *work.rows.unreadable})
            return state.encode()

        for block in work.rows.blocks(state.cursor):
            if not self._keep(work, done, kept):
                return False
            numbers, similarity = assign(centroids, block.embeddings)
            state.add(block, numbers, similarity, part)
            done += len(block)
        self._write(work, kept(), phase="publish", done=done, total=done)
        return True

    def _state(self, work: _Work, decode: Callable[[bytes, str], State]) -> State:
        """The run's state; raises `CorruptFile` when there is none that can be gone on with."""
        name = work.run.job.cursor
        body = work.run.get(name)
        if body is None:
            raise CorruptFile(f"{work_key(work.run.job, name)} is not in the bucket")
        state = decode(body, name)
        here = work.generation.generation, work.rows.head_digest
        if (state.source.generation, state.source.head) != here:
            raise CorruptFile(f"{name} is of another generation")
        return state

    def _part(self, run: Run, name: str) -> Part:
        body = run.get(name)
        if body is None:
            raise CorruptFile(f"{work_key(run.job, name)} is not in the bucket")
        return Part.decode(body, name)

    def _keep(
        self, work: _Work, done: int, encode: Callable[[], bytes], *, now: bool = False
    ) -> bool:
        """Save if it is time to, or ``now``; False when the deadline has come."""
        is_over = self._clock() >= work.deadline
        if is_over or now or work.run.is_due:
            self._write(work, encode(), done=done)
        return not is_over

    def _write(self, work: _Work, body: bytes, **changes: str | int) -> None:
        """Write the state under a name of its own, then name it: another runner may be writing."""
        before, name = work.run.job.cursor, self._name(work, "state")
        work.run.put(name, body)
        work.run.save(cursor=name, **changes)
        if before:
            self._stores.index.delete(work_key(work.run.job, before))

    def _name(self, work: _Work, what: str) -> str:
        work.saves += 1
        return f"{what}-{work.run.job.slices}-{work.saves}"
