"""Looks for what is wrong with a catalogue, in slices that can end anywhere.

Three phases: all rows are read, with the facts of their photos; the neighbours of each are found;
photos that may be copies are compared. Then the rules of `lookalike.core.health` speak, and what
they found becomes current by one conditional write. `lookalike.services.findings` reads it.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import dataclass
from typing import cast

import numpy as np

from lookalike.core.errors import CorruptFile
from lookalike.core.health import NEIGHBOURS
from lookalike.core.health_file import (
    decode_facts,
    decode_graphs,
    encode_copies,
    encode_facts,
    encode_part,
)
from lookalike.core.jobs import MIN_PRODUCTS, Artifact, RenewalPolicy
from lookalike.core.neighbours import Neighbours
from lookalike.core.ports import Clock, Stores
from lookalike.core.types import Counts, Generation, Lineage
from lookalike.services.health_compare import ROWS_AT_ONCE, Comparison
from lookalike.services.health_due import Renewal
from lookalike.services.health_neighbours import NeighbourSearch
from lookalike.services.health_photos import PhotoFacts, part_of, thumbnails_of
from lookalike.services.health_publish import publish
from lookalike.services.health_state import (
    Gathered,
    State,
    gather,
    read_object,
    read_state,
    save_state,
    write_object,
)
from lookalike.services.jobs import (
    CatalogueReport,
    JobLedger,
    Run,
    WorkReport,
    run_catalogues,
)
from lookalike.services.live_embeddings import Block, LiveEmbeddings, LiveRows, RowsCursor

logger = logging.getLogger(__name__)

_ANEW = 3


@dataclass(frozen=True, slots=True)
class HealthPolicy(RenewalPolicy):
    """The settings of the same names (`lookalike.settings.Settings`)."""

    settle_s: float
    grace_s: float


@dataclass(slots=True)
class _Work:
    """One run as a slice has it; ``made`` is what is current, by kind."""

    run: Run
    generation: Generation
    rows: LiveRows
    made: dict[str, Artifact]
    deadline: float


class HealthCheck:
    """The use case behind the *health* function.

    Parameters
    ----------
    stores
        Where to read and write.
    live
        Streams embeddings.
    ledger
        Keeps how far runs are.
    policy
        When findings are made anew.
    pool
        Reads thumbnails side by side.
    clock
        Epoch seconds.
    """

    def __init__(
        self,
        stores: Stores,
        live: LiveEmbeddings,
        ledger: JobLedger,
        policy: HealthPolicy,
        pool: Executor,
        clock: Clock,
    ) -> None:
        self._stores = stores
        self._live = live
        self._ledger = ledger
        self._policy = policy
        self._pool = pool
        self._clock = clock
        self._renewal = Renewal(stores.index, policy, clock)

    def run(
        self, deadline: float, catalogue: str | None = None, *, now: bool = False
    ) -> WorkReport:
        """Check every catalogue where that is due, or one, as far as there is time.

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
        """
        return run_catalogues(
            self._stores, catalogue, lambda lineage: self._advance(lineage, deadline, now)
        )

    def _advance(self, lineage: Lineage, deadline: float, now: bool) -> CatalogueReport:
        run = self._ledger.open(lineage.catalogue, "health")
        made = dict(self._stores.artifacts.current(lineage.catalogue))
        if self._clock() >= deadline:
            return run.report(made.get("findings"), finished=not run.is_under_way)
        products = self._stores.counts.all().get(lineage.catalogue, Counts()).products
        if not (run.is_under_way or now or products >= MIN_PRODUCTS or "findings" in made):
            return run.report(made.get("findings"), finished=True)
        rows = self._live.open(lineage.current)
        if run.is_under_way:
            if not run.take_up():
                return run.report(made.get("findings"), finished=True)
        else:
            why = "by hand" if now else self._why(run, made, rows, products)
            if not why:
                return run.report(made.get("findings"), finished=True)
            logger.info("%s is checked: %s", lineage.catalogue, why)
            run.begin("photos", rows.rows)
        work = _Work(run, lineage.current, rows, made, deadline)
        finished = self._go_on(work)
        return run.report(work.made.get("findings"), finished=finished)

    def _why(self, run: Run, made: dict[str, Artifact], rows: LiveRows, products: int) -> str:
        if run.rests(self._policy.pause_s):
            return ""
        return self._renewal.why(made, rows, products)

    def _go_on(self, work: _Work) -> bool:
        """Do what is left of a run, until the deadline; whether that was all."""
        for _ in range(_ANEW):
            try:
                return self._phases(work, self._state(work))
            except CorruptFile as error:
                logger.error("the check of %s is begun anew: %s", work.generation.scope, error)
                work.run.begin("photos", work.rows.rows)
        return False

    def _state(self, work: _Work) -> State:
        """The state as it was saved, unless it is of rows that are not comparable any more."""
        generation, rows = work.generation, work.rows
        state = read_state(work.run)
        source = (generation.generation, generation.encoder, rows.head_digest)
        if state and (state.generation, state.encoder, state.head) == source:
            return state
        if work.run.job.cursor or work.run.job.phase != "photos":
            work.run.begin("photos", rows.rows)
        through_at = min(rows.newest_at, work.run.job.begun_at - self._policy.settle_s)
        counts = self._stores.counts.all().get(generation.catalogue, Counts())
        return State(*source, through_at, counts.products)

    def _phases(self, work: _Work, state: State) -> bool:
        if work.run.job.phase == "photos" and not self._read(work, state):
            return False
        if not state.parts:
            for kind in ("findings", "facts"):
                if kind in work.made:
                    self._stores.artifacts.remove(work.made.pop(kind))
            work.run.finish()
            return True
        gathered = gather(work.run, state)
        if work.run.job.phase == "neighbours" and not self._neighbours(work, state, gathered):
            return False
        graphs = (read_object(work.run, name) for name in state.graph)
        neighbours = decode_graphs(graphs, len(gathered.rows), NEIGHBOURS)
        if not self._compare(work, state, gathered, neighbours):
            return False
        grace_s = self._policy.grace_s
        work.made = publish(
            self._stores, work.run, state, gathered, neighbours, work.made, self._clock(), grace_s
        )
        work.run.finish()
        return True

    def _read(self, work: _Work, state: State) -> bool:
        """Read all rows with their photos' facts; False when the deadline came first."""
        photos = PhotoFacts(self._stores, self._pool, work.made.get("facts"))
        if state.looked_at:
            body = read_object(work.run, state.looked_at)
            photos.remember(decode_facts(body, state.looked_at))
        cursor = RowsCursor.decode(state.cursor) if state.cursor else RowsCursor()

        def save() -> None:
            # The cursor knows the blocks before, which are in parts, and not yet this one.
            state.cursor = cursor.encode() if state.parts else b""
            facts = photos.found
            body = encode_facts(facts)
            state.looked_at = write_object(work.run, "facts", body) if len(facts) else ""
            save_state(self._stores, work.run, state, done=state.rows)

        def may_go_on() -> bool:
            over = self._is_over(work)
            if work.run.is_due and not over:
                save()
            return not over

        is_whole = True
        blocks = cast("Generator[Block, None, None]", work.rows.blocks(cursor))
        with closing(blocks):
            for block in blocks:
                is_whole = may_go_on() and photos.look_at(thumbnails_of(block), may_go_on)
                if not is_whole:
                    break
                body = encode_part(part_of(block, photos))
                photos.forget()
                state.parts.append(write_object(work.run, "part", body))
                state.rows += len(block)
        state.unreadable = sorted({*state.unreadable, *work.rows.unreadable})
        if not is_whole:
            save()
            return False
        if work.rows.has_another_head:
            raise CorruptFile("the generation has got another head meanwhile")
        state.cursor, state.looked_at = b"", ""
        save_state(self._stores, work.run, state, phase="neighbours", done=0, total=state.rows)
        return True

    def _neighbours(self, work: _Work, state: State, gathered: Gathered) -> bool:
        """Find the neighbours of every row; False when the deadline came first."""

        def is_due() -> bool:
            return work.run.is_due or self._is_over(work)

        def keep(done: int) -> bool:
            save_state(self._stores, work.run, state, done=done)
            return not self._is_over(work)

        if not NeighbourSearch(work.run, state, gathered, is_due, keep).go_on():
            return False
        count = len(gathered.rows)
        save_state(self._stores, work.run, state, phase="compare", done=0, total=count)
        return True

    def _compare(
        self, work: _Work, state: State, gathered: Gathered, neighbours: Neighbours
    ) -> bool:
        """Find copies among all rows; False when the deadline came first."""
        count = len(gathered.rows)
        if state.compared >= count:
            return True
        comparison = Comparison(self._stores.index, self._pool, gathered, neighbours)
        found = []
        for start in range(state.compared, count, ROWS_AT_ONCE):
            end = min(start + ROWS_AT_ONCE, count)
            found.append(comparison.copies(start, end))
            state.compared = end
            if end == count or work.run.is_due or self._is_over(work):
                body = encode_copies(np.concatenate(found))
                state.copies.append(write_object(work.run, "copies", body))
                found = []
                save_state(self._stores, work.run, state, done=end)
                if end < count and self._is_over(work):
                    return False
        return True

    def _is_over(self, work: _Work) -> bool:
        return self._clock() >= work.deadline
