"""Answers searches: inputs → one query embedding → candidates → live products → results → log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from urllib.parse import quote

from lookalike.core.errors import CorruptFile, LookalikeError, NotFound, Vanished
from lookalike.core.material import Photo, QueryMaterial
from lookalike.core.ports import Clock, Ids, Stores
from lookalike.core.types import AttributeValue, Generation, SearchRecord
from lookalike.services.judge import Judge, Judgement, Verdict
from lookalike.services.live_index import LiveIndex
from lookalike.services.query_embedding import Embedded, QueryEmbedder, Stopwatch
from lookalike.services.query_material import Keeping, QueryMaterials
from lookalike.services.ranking import Found, Ranking
from lookalike.services.search_logging import log_search
from lookalike.services.search_request import SearchRequest, check

logger = logging.getLogger(__name__)

_MAX_FILTER_CHARS = 2_000


@dataclass(frozen=True, slots=True)
class Result:
    """One product; ``score`` is the cosine of the query and its best view.

    ``match`` is the probability that it is a good match, None where that is not known. ``cluster``
    is the id of the group of products that the view is in.
    """

    rank: int
    product_id: str
    view: str
    score: float
    match: float | None
    image_url: str
    thumbnail_url: str
    title: str | None
    category: str | None
    cluster: str | None
    attributes: dict[str, AttributeValue]
    explanation_url: str | None


@dataclass(frozen=True, slots=True)
class SearchResponse:
    """The answer; ``took_ms`` has one figure a stage and their ``total``.

    ``explanations_expire_at`` is the epoch second up to which ``explanation_url`` of the results
    answer; None, as they are, when there are none.

    ``verdict`` is ``match``, ``low_confidence`` (the best result is more likely no good match than
    one) or ``no_good_match`` (the query looks like nothing in the catalogue); None where nothing is
    known about the catalogue's scores.
    """

    query_id: str
    catalogue: str
    encoder: str
    generation: str
    took_ms: dict[str, float]
    explanations_expire_at: float | None
    verdict: Verdict | None
    results: list[Result]


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a search found where."""

    generation: Generation
    query: Embedded
    found: list[Found]


class Query:
    """The use case behind ``POST /search`` and ``GET /products/{id}/similar``.

    Parameters
    ----------
    stores
        Where to read.
    live_index
        The index in memory.
    embedder
        Makes the query embedding.
    ranking
        Finds the products nearest to it.
    judge
        Says what their scores mean.
    materials
        Keeps what searches were made with.
    write
        Writes to the search log.
    url_expires_s
        Seconds for which image URLs open.
    refresh_s
        Seconds after which a catalogue's generation is asked for again.
    refresher, log_pool, keeper
        Run the index's refresh, the log's write and that of the material beside the rest. Of their
        own: a refresh waits for reads in the common pool, and a slow log must not hold up anything.
    clock, ids
        Epoch seconds; a new query id.
    """

    def __init__(
        self,
        stores: Stores,
        live_index: LiveIndex,
        embedder: QueryEmbedder,
        ranking: Ranking,
        judge: Judge,
        materials: QueryMaterials,
        write: Callable[[SearchRecord], None],
        url_expires_s: int,
        refresh_s: float,
        refresher: Executor,
        log_pool: Executor,
        keeper: Executor,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._stores = stores
        self._live_index = live_index
        self._embedder = embedder
        self._ranking = ranking
        self._judge = judge
        self._materials = materials
        self._write = write
        self._url_expires_s = url_expires_s
        self._refresh_s = refresh_s
        self._refresher = refresher
        self._log_pool = log_pool
        self._keeper = keeper
        self._clock = clock
        self._ids = ids
        self._generations: dict[str, tuple[Generation, float]] = {}

    def search(self, request: SearchRequest) -> SearchResponse:
        """Find the products that look like the inputs.

        Raises
        ------
        InvalidRequest
            A parameter is out of bounds.
        NotFound
            The catalogue, a product, an upload or an earlier search does not exist.
        Gone
            An earlier search has expired, or its encoder is not searched with any more.
        Unindexable
            An image cannot be read.
        Retry
            A store or the encoder cannot be reached.
        """
        check(request)
        query_id = self._ids()
        watch = Stopwatch()
        start = time.perf_counter()
        expires_at = None
        with Keeping(self._materials, self._keeper, query_id) as keeping:
            answer = self._answer(request, watch, keeping)
            with watch.stage("judge"):
                judged = self._judge.judge(request, answer.generation, answer.query, answer.found)
            with watch.stage("urls"):
                explanations = f"{request.base_url}/explanations/{query_id}/"
                rows = zip(answer.found, judged.matches, judged.clusters, strict=True)
                results = [
                    self._result(rank, *row, explanations) for rank, row in enumerate(rows, 1)
                ]
            if keeping.begun:
                # An explanation may be asked for at once, and of another process.
                with watch.stage("keep"):
                    expires_at = keeping.expires_at()
        if expires_at is None:
            results = [replace(result, explanation_url=None) for result in results]
        watch.took_ms["total"] = round((time.perf_counter() - start) * 1000, 3)
        record = self._record(query_id, request, answer, judged, watch)
        log_search(self._write, self._log_pool, record)
        return SearchResponse(
            query_id,
            request.catalogue,
            answer.generation.encoder,
            answer.generation.generation,
            watch.took_ms,
            expires_at,
            judged.verdict,
            results,
        )

    def generation(self, catalogue: str, *, now: bool = False) -> Generation:
        """The catalogue's generation; raises `NotFound` when nothing was ever uploaded to it.

        With ``now`` the table is asked whatever was known before.
        """
        at = self._clock()
        generation, asked_at = self._generations.get(catalogue, (None, 0.0))
        if now or generation is None or at - asked_at >= self._refresh_s:
            lineage = self._stores.lineages.get(catalogue)
            generation = lineage.current if lineage is not None else None
        if generation is None:
            raise NotFound(
                f"There is no catalogue “{catalogue}”; GET /stats names those that there are.",
                parameter="catalogue",
            )
        self._generations[catalogue] = (generation, at)
        return generation

    def _answer(self, request: SearchRequest, watch: Stopwatch, keeping: Keeping) -> _Answer:
        try:
            return self._attempt(request, watch, keeping, None)
        except (Vanished, CorruptFile) as error:
            # Files leave only after others took their place, so all that is known is read again.
            logger.warning("searching again: %s", error)
            keeping.take_back()
            missing: list[LookalikeError] = []
            answer = self._attempt(request, watch, keeping, missing)
            for lost in dict.fromkeys(map(str, missing)):
                logger.error("searched without its rows: %s", lost)
            return answer

    def _attempt(
        self,
        request: SearchRequest,
        watch: Stopwatch,
        keeping: Keeping,
        missing: list[LookalikeError] | None,
    ) -> _Answer:
        """Search once; with ``missing``, on what the tables say now and without what is lost."""
        again = missing is not None
        with watch.stage("generation"):
            generation = self.generation(request.catalogue, now=again)
        self._judge.warm(request.catalogue)
        # New segments are read while the photo is decoded and encoded.
        refreshed = self._refresher.submit(self._live_index.get, generation, now=again)
        query = self._embedder.embed(request, generation, refreshed, watch, missing)
        if not len(query.index) and self.generation(request.catalogue, now=True) != generation:
            raise Vanished(f"generation {generation.scope} was swapped out and dropped")
        if query.photos is not None and request.explain and self._materials.kept:
            keeping.begin(self._material(keeping.query_id, generation, query, query.photos))
        found = self._ranking.rank(request, generation, query, watch, missing)
        return _Answer(generation, query, found)

    def _material(
        self, query_id: str, generation: Generation, query: Embedded, photos: tuple[Photo, ...]
    ) -> QueryMaterial:
        now = self._clock()
        return QueryMaterial(
            query_id=query_id,
            catalogue=generation.catalogue,
            generation=generation.generation,
            encoder=generation.encoder,
            head=query.index.head.digest,
            created_at=now,
            # Photos of an earlier search are kept no longer than was promised then.
            expires_at=min(now + self._materials.retention_s, query.expires_at),
            parts=query.parts,
            photos=photos,
        )

    def _result(
        self,
        rank: int,
        found: Found,
        match: float | None,
        cluster: str | None,
        explanations: str,
    ) -> Result:
        product, view = found.product, found.view
        attributes = product.attributes
        return Result(
            rank=rank,
            product_id=product.product_id,
            view=view.name,
            score=round(found.score, 6),
            match=match,
            image_url=self._stores.images.url(view.key, self._url_expires_s),
            thumbnail_url=self._stores.index.url(view.thumbnail, self._url_expires_s),
            title=_text(attributes.get("title")),
            category=_text(attributes.get("category")),
            cluster=cluster,
            attributes=attributes,
            explanation_url=explanations + quote(product.product_id, safe=""),
        )

    def _record(
        self,
        query_id: str,
        request: SearchRequest,
        answer: _Answer,
        judged: Judgement,
        watch: Stopwatch,
    ) -> SearchRecord:
        return SearchRecord(
            query_id=query_id,
            at=self._clock(),
            catalogue=request.catalogue,
            encoder=answer.generation.encoder,
            generation=answer.generation.generation,
            kind=request.kind,
            k=request.k,
            results=tuple(
                (item.product.product_id, item.view.name, round(item.score, 6))
                for item in answer.found
            ),
            took_ms=dict(watch.took_ms),
            filter=str(request.filter)[:_MAX_FILTER_CHARS] if request.filter else "",
            match=judged.matches[0] if judged.matches else None,
            verdict=judged.verdict or "",
            cluster=judged.cluster or "",
        )


def _text(value: AttributeValue | None) -> str | None:
    if value is None:
        return None
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
