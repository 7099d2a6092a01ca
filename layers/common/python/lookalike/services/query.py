"""Answers searches: inputs → one query embedding → candidates → live products → results → log."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from urllib.parse import quote

from lookalike.core.errors import CorruptFile, LookalikeError, NotFound, Vanished
from lookalike.core.index import Candidate
from lookalike.core.keys import parse_key
from lookalike.core.material import Photo, QueryMaterial
from lookalike.core.ports import Clock, Ids, Stores
from lookalike.core.types import AttributeValue, Generation, Product, SearchRecord, View
from lookalike.services.live_index import LiveIndex
from lookalike.services.query_embedding import Embedded, QueryEmbedder, Stopwatch
from lookalike.services.query_material import Keeping, QueryMaterials
from lookalike.services.search_logging import log_search
from lookalike.services.search_request import SearchRequest, check

logger = logging.getLogger(__name__)

_MAX_FILTER_CHARS = 2_000

Found = tuple[Product, View, float]


@dataclass(frozen=True, slots=True)
class Result:
    """One product; ``score`` is the cosine of the query and its best view."""

    rank: int
    product_id: str
    view: str
    score: float
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
    """

    query_id: str
    catalogue: str
    encoder: str
    generation: str
    took_ms: dict[str, float]
    explanations_expire_at: float | None
    results: list[Result]


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a search found where."""

    generation: Generation
    found: list[Found]


class Query:
    """The use case behind ``POST /search`` and ``GET /products/{id}/similar``.

    Parameters
    ----------
    stores
        Where to read and where to log.
    live_index
        The index in memory.
    embedder
        Makes the query embedding.
    materials
        Keeps what searches were made with.
    url_expires_s
        Seconds for which image URLs open.
    refresh_s
        Seconds after which a catalogue's generation is asked for again.
    nprobe
        Inverted lists that a search reads at least.
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
        materials: QueryMaterials,
        url_expires_s: int,
        refresh_s: float,
        nprobe: int,
        refresher: Executor,
        log_pool: Executor,
        keeper: Executor,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._stores = stores
        self._live_index = live_index
        self._embedder = embedder
        self._materials = materials
        self._url_expires_s = url_expires_s
        self._refresh_s = refresh_s
        self._nprobe = nprobe
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
            with watch.stage("urls"):
                results = [
                    self._result(rank, *row, f"{request.base_url}/explanations/{query_id}/")
                    for rank, row in enumerate(answer.found, 1)
                ]
            if keeping.begun:
                # An explanation may be asked for at once, and of another process.
                with watch.stage("keep"):
                    expires_at = keeping.expires_at()
        if expires_at is None:
            results = [replace(result, explanation_url=None) for result in results]
        watch.took_ms["total"] = round((time.perf_counter() - start) * 1000, 3)
        record = self._record(query_id, request, answer, watch)
        log_search(self._stores.log, self._log_pool, record)
        return SearchResponse(
            query_id,
            request.catalogue,
            answer.generation.encoder,
            answer.generation.generation,
            watch.took_ms,
            expires_at,
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
        # New segments are read while the photo is decoded and encoded.
        refreshed = self._refresher.submit(self._live_index.get, generation, now=again)
        query = self._embedder.embed(request, generation, refreshed, watch, missing)
        if not len(query.index) and self.generation(request.catalogue, now=True) != generation:
            raise Vanished(f"generation {generation.scope} was swapped out and dropped")
        if query.photos is not None and request.explain and self._materials.kept:
            keeping.begin(self._material(keeping.query_id, generation, query, query.photos))
        return _Answer(generation, self._rank(request, generation, query, watch, missing))

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

    def _rank(
        self,
        request: SearchRequest,
        generation: Generation,
        query: Embedded,
        watch: Stopwatch,
        missing: list[LookalikeError] | None,
    ) -> list[Found]:
        """Best live view of each of the k nearest products.

        Rows may be dead, filtered by attributes that changed meanwhile, or of a product that is in
        the list already, so candidates are drawn in growing numbers until k remain or none are
        left.
        """
        excluded = {*request.not_like, *(item.product_id for item in request.inputs)}
        excluded |= {parse_key(part.key).product_id for part in query.parts if part.key}
        records: dict[tuple[str, str], Product | None] = {}
        limit, index, is_newest = 2 * request.k + 8, query.index, False
        while True:
            with watch.stage("search"):
                candidates = index.search(
                    query.embedding,
                    limit,
                    nprobe=self._nprobe,
                    filter=request.filter,
                    exact=request.exact,
                    missing=missing,
                )
            with watch.stage("hydrate"):
                found = self._live(request, candidates, excluded, records)
            if not is_newest and self._is_behind(generation, candidates, found, records):
                with watch.stage("index"):
                    newest = self._live_index.get(generation, now=True)
                is_newest = True
                if newest.head.digest == index.head.digest:
                    index = newest
                    continue
            # Candidates come best first: behind one that is too far away there is none to find.
            last = bool(candidates) and _below(candidates[-1].score, request.min_score)
            if len(found) >= request.k or last or len(candidates) < limit:
                return found
            limit *= 4

    def _is_behind(
        self,
        generation: Generation,
        candidates: list[Candidate],
        found: list[Found],
        records: dict[tuple[str, str], Product | None],
    ) -> bool:
        """Whether a product may be missing as its record names a row that is newer than the index.

        A row is registered before its record is written, so whoever asks again has it.
        """
        shown = {product.product_id for product, _, _ in found}
        for item in candidates:
            product = records.get((generation.catalogue, parse_key(item.key).product_id))
            if product is None or product.product_id in shown:
                continue
            view = product.views.get(item.key)
            is_old = view is not None and view.version != item.version
            if is_old and self._live_index.may_lack(generation, product.updated_at):
                return True
        return False

    def _live(
        self,
        request: SearchRequest,
        candidates: list[Candidate],
        excluded: set[str | None],
        records: dict[tuple[str, str], Product | None],
    ) -> list[Found]:
        ids = [(request.catalogue, parse_key(item.key).product_id) for item in candidates]
        found: dict[str, Found] = {}
        for position, (candidate, id_) in enumerate(zip(candidates, ids, strict=True)):
            product_id = id_[1]
            if len(found) == request.k or _below(candidate.score, request.min_score):
                break
            if product_id in excluded or product_id in found:
                continue
            if id_ not in records:
                # As many more as are still wanted; the dead among them cost another read.
                ahead = [item for item in dict.fromkeys(ids[position:]) if item not in records]
                wanted = ahead[: request.k - len(found)]
                read = self._stores.products.get_many(wanted)
                records.update({item: read.get(item) for item in wanted})
            product = records[id_]
            view = product.views.get(candidate.key) if product else None
            if product is None or view is None or view.version != candidate.version:
                continue
            if request.filter is None or request.filter.matches(product.attributes):
                found[product_id] = (product, view, candidate.score)
        return list(found.values())

    def _result(
        self, rank: int, product: Product, view: View, score: float, explanations: str
    ) -> Result:
        attributes = product.attributes
        return Result(
            rank=rank,
            product_id=product.product_id,
            view=view.name,
            score=round(score, 6),
            image_url=self._stores.images.url(view.key, self._url_expires_s),
            thumbnail_url=self._stores.index.url(view.thumbnail, self._url_expires_s),
            title=_text(attributes.get("title")),
            category=_text(attributes.get("category")),
            cluster=None,
            attributes=attributes,
            explanation_url=explanations + quote(product.product_id, safe=""),
        )

    def _record(
        self,
        query_id: str,
        request: SearchRequest,
        answer: _Answer,
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
                (product.product_id, view.name, round(score, 6))
                for product, view, score in answer.found
            ),
            took_ms=dict(watch.took_ms),
            filter=str(request.filter)[:_MAX_FILTER_CHARS] if request.filter else "",
        )


def _below(score: float, min_score: float | None) -> bool:
    return min_score is not None and score < min_score


def _text(value: AttributeValue | None) -> str | None:
    if value is None:
        return None
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
