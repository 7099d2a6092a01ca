"""Looks for what is wrong with a catalogue, in slices that can end anywhere.

Three phases: all rows are read, with the facts of their photos; the neighbours of each are found;
photos that may be copies are compared. Then the rules of `lookalike.core.health` speak, and what
they found becomes current by one conditional write. `lookalike.services.findings` reads it.
"""

from __future__ import annotations

import logging
from concurrent.futures import Executor
from dataclasses import dataclass

import msgspec
import numpy as np

from lookalike.core.errors import CorruptFile
from lookalike.core.health import NEIGHBOURS
from lookalike.core.health_file import decode_graphs, encode_copies, encode_graph, encode_part
from lookalike.core.jobs import MIN_PRODUCTS, Artifact, RenewalPolicy, why_due
from lookalike.core.neighbours import (
    MANY_ROWS,
    Lists,
    Neighbours,
    divide,
    exact_neighbours,
    list_neighbours,
    nearest_lists,
    sample_rows,
    train_centroids,
)
from lookalike.core.ports import Clock, Stores
from lookalike.core.types import Counts, Generation, Lineage
from lookalike.services.health_compare import ROWS_AT_ONCE, Comparison
from lookalike.services.health_photos import PhotoFacts, part_of
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
from lookalike.services.live_embeddings import LiveEmbeddings, LiveRows, RowsCursor

logger = logging.getLogger(__name__)

_SEED = 5
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
            return _report(run, made, finished=not run.is_under_way)
        products = self._stores.counts.all().get(lineage.catalogue, Counts()).products
        if not (run.is_under_way or now or products >= MIN_PRODUCTS):
            return _report(run, made, finished=True)
        rows = self._live.open(lineage.current)
        if run.is_under_way:
            if not run.take_up():
                return _report(run, made, finished=True)
        else:
            why = "by hand" if now else self._why(run, made, rows, products)
            if not why:
                return _report(run, made, finished=True)
            logger.info("%s is checked: %s", lineage.catalogue, why)
            run.begin("photos", rows.rows)
        work = _Work(run, lineage.current, rows, made, deadline)
        finished = self._go_on(work)
        return _report(run, work.made, finished=finished)

    def _why(self, run: Run, made: dict[str, Artifact], rows: LiveRows, products: int) -> str:
        if run.rests(self._policy.pause_s):
            return ""
        findings, shown = made.get("findings"), made.get("shown")
        renewed = findings is not None and self._clock() - findings.made_at >= self._policy.renew_s
        if renewed and findings and shown and shown.made_at > findings.made_at:
            return "searches have been counted since"
        return why_due(
            self._policy,
            findings,
            products=products,
            arrivals=max(0, products - findings.products) if findings else 0,
            newest_at=rows.newest_at,
            now=self._clock(),
        )

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
            work.run.finish("there are no products")
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
        cursor = RowsCursor.decode(state.cursor) if state.cursor else RowsCursor()
        for block in work.rows.blocks(cursor):
            # The cursor knows the blocks before, which are in parts, and not yet this one.
            state.cursor = b"" if not state.parts else cursor.encode()
            if not self._keep(work, state, done=state.rows):
                return False
            body = encode_part(part_of(block, photos))
            state.parts.append(write_object(work.run, "part", body))
            state.rows += len(block)
        if work.rows.has_another_head:
            raise CorruptFile("the generation has got another head meanwhile")
        state.cursor = b""
        save_state(self._stores, work.run, state, phase="neighbours", done=0, total=state.rows)
        return True

    def _neighbours(self, work: _Work, state: State, gathered: Gathered) -> bool:
        """Find the neighbours of every row; False when the deadline came first."""
        count = len(gathered.rows)
        everything = np.arange(count)
        if count <= MANY_ROWS:
            found = exact_neighbours(gathered.embeddings(everything), NEIGHBOURS)
            body = encode_graph(0, everything, found)
            state.graph = [write_object(work.run, "graph", body)]
        else:
            lists = self._lists(work, state, gathered)
            waiting: list[tuple[np.ndarray[tuple[int], np.dtype[np.int64]], Neighbours]] = []
            for number in range(state.list_next, len(lists)):
                if waiting and (work.run.is_due or self._is_over(work)):
                    _flush(work.run, state, waiting, number)
                    done = int(lists.starts[number])
                    if not self._keep(work, state, done=done, at_once=True):
                        return False
                waiting.append(list_neighbours(lists, number, gathered.embeddings, NEIGHBOURS))
            _flush(work.run, state, waiting, len(lists))
        save_state(self._stores, work.run, state, phase="compare", done=0, total=count)
        return True

    def _lists(self, work: _Work, state: State, gathered: Gathered) -> Lists:
        """Rows in lists: as they were divided before, else divided now."""
        count = len(gathered.rows)
        if not state.lists:
            sample = np.random.default_rng(_SEED).permutation(count)[: sample_rows(count)]
            centroids = train_centroids(gathered.embeddings(np.sort(sample)), count)
            list_of = nearest_lists(gathered.embeddings, count, centroids)
            body = msgspec.msgpack.encode(
                (centroids.shape[1], centroids.tobytes(), list_of.tobytes())
            )
            state.lists = write_object(work.run, "lists", body)
            save_state(self._stores, work.run, state)
        body = read_object(work.run, state.lists)
        dim, means, places = msgspec.msgpack.decode(body, type=tuple[int, bytes, bytes])
        centroids = np.frombuffer(means, np.float32).reshape(-1, dim)
        return divide(np.frombuffer(places, np.int32), centroids)

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

    def _keep(self, work: _Work, state: State, *, done: int, at_once: bool = False) -> bool:
        """Save if it is time to; False when the slice is over."""
        over = self._is_over(work)
        if over or at_once or work.run.is_due:
            save_state(self._stores, work.run, state, done=done)
        return not over

    def _is_over(self, work: _Work) -> bool:
        return self._clock() >= work.deadline


def _flush(
    run: Run,
    state: State,
    waiting: list[tuple[np.ndarray[tuple[int], np.dtype[np.int64]], Neighbours]],
    list_next: int,
) -> None:
    """Write the neighbours that were found, which are those of the lists before ``list_next``."""
    if waiting:
        rows = np.concatenate([of for of, _ in waiting])
        found = Neighbours(
            np.concatenate([item.rows for _, item in waiting]),
            np.concatenate([item.cosines for _, item in waiting]),
        )
        state.graph.append(write_object(run, "graph", encode_graph(state.list_next, rows, found)))
    state.list_next = list_next
    waiting.clear()


def _report(run: Run, made: dict[str, Artifact], *, finished: bool) -> CatalogueReport:
    job = run.job
    summary = made["findings"].summary if "findings" in made else {}
    shown = {name: value for name, value in summary.items() if name != "head_bytes"}
    return CatalogueReport(job.catalogue, job.name, job.phase, job.done, job.total, finished, shown)
