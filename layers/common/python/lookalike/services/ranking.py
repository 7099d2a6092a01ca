"""Finds the live products nearest to a query embedding: candidates, their records, one row each."""

from __future__ import annotations

from dataclasses import dataclass, field

from lookalike.core.errors import LookalikeError
from lookalike.core.index import Candidate
from lookalike.core.keys import parse_key
from lookalike.core.ports import Stores
from lookalike.core.segment import Float32
from lookalike.core.types import Generation, Product, View
from lookalike.services.live_index import LiveIndex
from lookalike.services.query_embedding import Embedded, Stopwatch
from lookalike.services.search_request import SearchRequest

Records = dict[tuple[str, str], Product | None]


@dataclass(frozen=True, slots=True)
class Found:
    """A product by its best view; ``score`` and ``embedding`` are those of the view's row."""

    product: Product
    view: View
    score: float
    embedding: Float32 = field(compare=False, repr=False)


class Ranking:
    """Ranks products.

    Parameters
    ----------
    stores
        Where product records are read.
    live_index
        The index in memory.
    nprobe
        Inverted lists that a search reads at least.
    """

    def __init__(self, stores: Stores, live_index: LiveIndex, nprobe: int) -> None:
        self._stores = stores
        self._live_index = live_index
        self._nprobe = nprobe

    def rank(
        self,
        request: SearchRequest,
        generation: Generation,
        query: Embedded,
        watch: Stopwatch,
        missing: list[LookalikeError] | None,
    ) -> list[Found]:
        """Best live view of each of the k nearest products, best first.

        Rows may be dead, filtered by attributes that changed meanwhile, or of a product that is in
        the list already, so candidates are drawn in growing numbers until k remain or none are
        left. ``missing`` and what is raised are as in `SearchIndex.search`.
        """
        excluded = {*request.not_like, *(item.product_id for item in request.inputs)}
        excluded |= {parse_key(part.key).product_id for part in query.parts if part.key}
        records: Records = {}
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
        records: Records,
    ) -> bool:
        """Whether a product may be missing as its record names a row that is newer than the index.

        A row is registered before its record is written, so whoever asks again has it.
        """
        shown = {item.product.product_id for item in found}
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
        records: Records,
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
                found[product_id] = Found(product, view, candidate.score, candidate.embedding)
        return list(found.values())


def _below(score: float, min_score: float | None) -> bool:
    return min_score is not None and score < min_score
