"""Finds out what scores mean in a catalogue, by searching it with its own photos.

A sample of live rows is drawn; each is searched with as a shopper would, without its own product;
what that gives is fitted (`lookalike.core.calibration`). Where enough searches were judged by
people, those are fitted beside, and the better is kept. In slices that can end anywhere;
idempotent. What it makes, `lookalike.services.judge` reads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from lookalike.core.calibration import encode_calibration
from lookalike.core.calibration_pairs import (
    RESULTS,
    Pairs,
    Relevance,
    best_of_products,
    cross_fitted_pairs,
    judged_pairs,
)
from lookalike.core.errors import CorruptFile, LookalikeError, Retry
from lookalike.core.head import Head
from lookalike.core.index import Candidate
from lookalike.core.jobs import MIN_PRODUCTS, Artifact, RenewalPolicy, artifact_key, why_due
from lookalike.core.keys import content_digest, parse_key
from lookalike.core.ports import Clock, Stores
from lookalike.core.types import Counts, Generation, Lineage, Product, SearchRecord
from lookalike.services.calibrate_fit import fit
from lookalike.services.calibrate_sample import Sample
from lookalike.services.jobs import (
    CatalogueReport,
    JobLedger,
    Run,
    WorkReport,
    make_current,
    run_catalogues,
)
from lookalike.services.live_embeddings import LiveEmbeddings, LiveRows
from lookalike.services.live_index import LiveIndex

logger = logging.getLogger(__name__)

QUERIES = 1_000
"""Rows of the sample that are searched with."""
JUDGED_SEARCHES = 50
"""Searches that people have judged from which those are fitted."""
MAX_JUDGED = 2_000
_ASK_EVERY_S = 3600.0
_AT_ONCE = 25
_TYPE = "application/octet-stream"


class JudgedSearch(Protocol):
    """A search with what people did with its results, by product: above 0 it was good."""

    @property
    def record(self) -> SearchRecord:
        """The search."""

    @property
    def gains(self) -> Mapping[str, int]:
        """What was judged."""


JudgedSearches = Callable[[str, int], Iterable[JudgedSearch]]


@dataclass(frozen=True, slots=True)
class CalibratePolicy(RenewalPolicy):
    """The settings of the same names (`lookalike.settings.Settings`)."""

    nprobe: int
    grace_s: float


@dataclass(slots=True)
class _Work:
    """One run as a slice has it; ``made`` is what is current, ``deadline`` when the slice ends."""

    run: Run
    generation: Generation
    rows: LiveRows
    made: Artifact | None
    products: int
    deadline: float
    sample: Sample = field(default_factory=Sample.empty)
    pairs: Pairs = field(default_factory=Pairs)


class Calibrate:
    """The use case that is run after *recluster*.

    Parameters
    ----------
    stores
        Where to read and write.
    live
        Streams embeddings.
    live_index
        Searches, as queries do.
    ledger
        Keeps how far runs are.
    judged
        The newest searches of a catalogue that people have judged, at most so many.
    policy
        When a catalogue is calibrated anew.
    clock
        Epoch seconds.
    """

    def __init__(
        self,
        stores: Stores,
        live: LiveEmbeddings,
        live_index: LiveIndex,
        ledger: JobLedger,
        judged: JudgedSearches,
        policy: CalibratePolicy,
        clock: Clock,
    ) -> None:
        self._stores = stores
        self._live = live
        self._live_index = live_index
        self._ledger = ledger
        self._judged = judged
        self._policy = policy
        self._clock = clock
        self._asked_at: dict[str, float] = {}

    def run(
        self, deadline: float, catalogue: str | None = None, *, now: bool = False
    ) -> WorkReport:
        """Calibrate what is due, as far as there is time.

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
        catalogue, generation = lineage.catalogue, lineage.current
        run = self._ledger.open(catalogue, "calibrate")
        made = self._stores.artifacts.current(catalogue).get("calibration")
        if self._clock() >= deadline:
            return run.report(made, finished=not run.is_under_way)
        products = self._stores.counts.all().get(catalogue, Counts()).products
        idle = not (now or run.is_under_way)
        if idle and (products < MIN_PRODUCTS or run.rests(self._policy.pause_s)):
            return run.report(made, finished=True)
        rows = self._live.open(generation)
        source = f"{generation.generation}/{rows.head_digest}"
        if run.is_under_way and not now and run.job.cursor == source:
            if not run.take_up():
                return run.report(made, finished=True)
        else:
            why = "by hand" if now else self._why(made, rows, products)
            if not why and not run.is_under_way:
                return run.report(made, finished=True)
            logger.info("%s is calibrated: %s", catalogue, why or "it has another head")
            run.begin("sampling", rows.rows)
            run.save(cursor=source)
        work = _Work(run, generation, rows, made, products, deadline)
        try:
            finished = self._go_on(work)
        except Retry:
            raise
        except LookalikeError as error:
            logger.error("%s is not calibrated: %s", catalogue, error)
            run.finish(str(error))
            finished = True
        return run.report(work.made, finished=finished)

    def _why(self, made: Artifact | None, rows: LiveRows, products: int) -> str:
        if made is not None and (made.generation, made.head) != (
            rows.generation.generation,
            rows.head_digest,
        ):
            made = None
        came = max(0, products - made.products) if made else 0
        now = self._clock()
        why = why_due(
            self._policy,
            made,
            products=products,
            arrivals=came,
            newest_at=rows.newest_at,
            now=now,
        )
        if why or made is None or now - made.made_at < self._policy.renew_s:
            return why
        # No photo has come or gone, but people may have said what they think of the results.
        catalogue = rows.generation.catalogue
        if now - self._asked_at.get(catalogue, float("-inf")) < _ASK_EVERY_S:
            return ""
        self._asked_at[catalogue] = now
        judged = made.summary.get("judged", 0)
        count = sum(1 for _ in self._searches(rows.generation))
        # A shop may have more of them than are read: then there are new ones.
        is_other = count != judged or count >= MAX_JUDGED
        return "searches were judged" if count >= JUDGED_SEARCHES and is_other else ""

    def _go_on(self, work: _Work) -> bool:
        """Do what is left of a run, until the deadline; whether that was all."""
        body = work.run.get("sample")
        if body is not None:
            work.sample = Sample.decode(body)
        elif work.run.job.phase != "sampling":
            raise CorruptFile("its sample has left the bucket")
        if work.run.job.phase == "sampling" and not self._draw(work):
            return False
        relevance = work.sample.relevance()
        if relevance is not None and not self._search(work, relevance):
            return False
        searches = []
        for search in self._searches(work.generation):
            if self._clock() >= work.deadline:
                return False  # the next slice has the time for all of them
            searches.append((search.record.results, search.gains))
        judged = judged_pairs(searches) if len(searches) >= JUDGED_SEARCHES else Pairs()
        self._publish(work, relevance, judged, len(searches))
        return True

    def _searches(self, generation: Generation) -> Iterable[JudgedSearch]:
        """Judged searches whose scores mean what those of today mean; of parts of photos none."""
        for search in self._judged(generation.catalogue, MAX_JUDGED):
            record = search.record
            if record.generation == generation.generation and record.kind != "region":
                yield search

    def _draw(self, work: _Work) -> bool:
        """Draw the sample; whether there was time for all of it."""
        sample, run = work.sample, work.run
        for block in work.rows.blocks(sample.cursor):
            late = self._clock() >= work.deadline
            if late or run.is_due:
                run.put("sample", sample.encode())
                run.save(done=sample.seen)
            if late:
                return False
            sample.add(block)
        run.put("sample", sample.encode())
        run.save(phase="searching", done=0, total=min(QUERIES, len(sample.rows)))
        return True

    def _search(self, work: _Work, relevance: Relevance) -> bool:
        """Search with the sample's first rows; whether there was time for all of them."""
        sample, run = work.sample, work.run
        labels, asked = sample.labels(relevance), sample.asked(relevance, QUERIES)
        head = work.rows.head(sample.raw.shape[1])
        if sample.is_everything and len(sample.rows):
            owners = [row.product_id for row in sample.rows]
            work.pairs = cross_fitted_pairs(sample.raw, owners, labels, head, relevance, asked)
            return True
        done = 0
        body = run.get("pairs")
        if body is not None:  # of how many is said in it: the run's record may be older
            done, work.pairs = msgspec.msgpack.decode(body, type=tuple[int, Pairs])
        for start in range(done, len(asked), _AT_ONCE):
            late = self._clock() >= work.deadline
            if late or run.is_due:
                self._save(work, start)
            if late:
                return False
            self._search_with(work, asked[start : start + _AT_ONCE], head, relevance, labels)
        self._save(work, len(asked))
        return True

    def _save(self, work: _Work, done: int) -> None:
        work.run.put("pairs", msgspec.msgpack.encode((done, work.pairs)))
        work.run.save(done=done)

    def _search_with(
        self,
        work: _Work,
        asked: list[int],
        head: Head,
        relevance: Relevance,
        labels: list[str | None],
    ) -> None:
        """Search the live index with some rows of the sample."""
        catalogue, sample = work.generation.catalogue, work.sample
        index = self._live_index.get(work.generation)
        if index.head.digest != work.rows.head_digest:
            raise Retry(f"{work.generation.scope} has got another head")
        found: dict[int, list[Candidate]] = {}
        for number in asked:
            (query,) = head.project(sample.raw[number : number + 1])
            limit = 4 * RESULTS
            found[number] = index.search(query, limit, nprobe=self._policy.nprobe, missing=[])
        ids = {
            (catalogue, parse_key(row.key).product_id) for rows in found.values() for row in rows
        }
        records = self._stores.products.get_many(ids)
        for number, candidates in found.items():
            own = sample.rows[number]
            rows = [
                (row, product)
                for row in candidates
                if (product := records.get((catalogue, parse_key(row.key).product_id))) is not None
                and _counts(row, product)
                and row.key != own.key
                and not (relevance.name == "category" and product.product_id == own.product_id)
            ]
            near = best_of_products(
                [row.score for row, _ in rows],
                [product.product_id for _, product in rows],
                [_label(relevance, product) for _, product in rows],
                labels[number] or "",
            )
            for rank, (score, good) in enumerate(near, 1):
                work.pairs.add(number, score, good, rank)

    def _publish(
        self, work: _Work, relevance: Relevance | None, judged: Pairs, searches: int
    ) -> None:
        """Fit, write the file, and make it the one that is read."""
        catalogue, generation, sample = work.generation.catalogue, work.generation, work.sample
        head = work.rows.head(sample.raw.shape[1])
        calibration, summary = fit(generation, head, sample, work.pairs, relevance, judged)
        now = self._clock()
        body = encode_calibration(calibration, made_at=now)
        key = artifact_key("calibration", catalogue, content_digest(body))
        self._stores.index.put(key, body, _TYPE, if_absent=True)
        work.made = make_current(
            self._stores,
            work.made,
            Artifact(
                catalogue,
                "calibration",
                key,
                generation.encoder,
                generation.generation,
                work.rows.head_digest,
                made_at=now,
                through_at=min(work.rows.newest_at, work.run.job.begun_at),
                serial=work.made.serial + 1 if work.made else 1,
                products=work.products,
                summary=summary | {"judged": searches},
            ),
            now,
            self._policy.grace_s,
        )
        work.run.finish()


def _counts(row: Candidate, product: Product) -> bool:
    view = product.views.get(row.key)
    return view is not None and view.version == row.version


def _label(relevance: Relevance, product: Product) -> str | None:
    category = product.attributes.get("category")
    if isinstance(category, tuple):
        category = ", ".join(map(str, category))
    return relevance.label(product.product_id, category)
