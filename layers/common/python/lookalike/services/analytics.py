"""What people ask of the search log: figures by hour, day and week, the best and the weakest.

Reads aggregates alone, by key; searches themselves only to be judged by what shoppers did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lookalike.core.divergence import jensen_shannon
from lookalike.core.feedback import FeedbackEntry, gains_of
from lookalike.core.ports import Clock, Stores
from lookalike.core.rollups import Rollup, total
from lookalike.core.search_hours import DAY_S, HOUR_S, PERIODS, SHARDS, Period, number_at, start_of
from lookalike.core.tally import MATCH_STEPS, SCORE_STEPS, UNIT, Tally
from lookalike.core.top_counts import TopCounts
from lookalike.core.types import SearchRecord

LEAST_SEARCHES = 100
"""Searches that a week needs for its drift to be more than chance."""
JUDGED_S = 100 * DAY_S
"""Seconds for which what a shopper did says something about results of today."""
_PAGE = 1_000
_DAYS_A_WEEK = 7
_MOST_MOVED = 5


@dataclass(frozen=True, slots=True)
class Figures:
    """What a span of time comes to. Shares are of all its searches; None where there is no base.

    ``start`` and ``end`` are epoch seconds. ``empty`` searches found nothing. Over searches that
    were followed by a click or a purchase: ``mrr``, the mean of 1 / rank of the best ranked of
    them, and ``ndcg`` at 10, a click being worth 1 and a purchase 3. Latencies are in milliseconds,
    to 1 %. ``no_good_match_share`` is of searches that got a verdict.
    """

    start: float
    end: float
    searches: int
    empty: int
    filtered: int
    kinds: dict[str, int]
    verdicts: dict[str, int]
    no_good_match_share: float | None
    low_confidence_share: float | None
    top_score_p10: float | None
    top_score_p50: float | None
    match_p50: float | None
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    mean_ms: float | None
    clicks: int
    buys: int
    bads: int
    click_through: float | None
    conversion: float | None
    mean_click_position: float | None
    mrr: float | None
    ndcg: float | None


@dataclass(frozen=True, slots=True)
class TopProduct:
    """A product that was shown, clicked or bought often, or called bad."""

    product_id: str
    count: int


@dataclass(frozen=True, slots=True)
class QueryCluster:
    """Searches nearest to one cluster of products; shares are of these searches."""

    cluster: str
    searches: int
    share: float
    no_good_match_share: float
    click_through: float


@dataclass(frozen=True, slots=True)
class WeakSearch:
    """A search whose best result was far away."""

    query_id: str
    top_score: float


@dataclass(frozen=True, slots=True)
class Overview:
    """Figures of a span with what stands out in it.

    ``too_low_by`` says of each list of products how much too low its counts may be; 0 where they
    are exact.
    """

    figures: Figures
    products: dict[str, list[TopProduct]]
    too_low_by: dict[str, int]
    clusters: list[QueryCluster]
    weakest: list[WeakSearch]


@dataclass(frozen=True, slots=True)
class Drift:
    """How a week differs from the one before: 0 the same, 1 nothing in common.

    Jensen–Shannon divergences to base 2: of the searches over the clusters that they are nearest
    to, and of the products over clusters. None where a week has too little of either. ``moved``
    are the clusters whose share of searches changed most, with the change.
    """

    start: float
    queries: float | None
    catalogue: float | None
    moved: list[tuple[str, float]]


@dataclass(frozen=True, slots=True)
class JudgedSearch:
    """A search with what each product was worth (`lookalike.core.feedback.GAINS`)."""

    record: SearchRecord
    gains: dict[str, int]


class Analytics:
    """The read side of the roll-up.

    Parameters
    ----------
    stores
        Where aggregates, searches and feedback are.
    clock
        Epoch seconds.
    """

    def __init__(self, stores: Stores, clock: Clock) -> None:
        self._stores = stores
        self._clock = clock

    def series(self, catalogue: str, period: Period, since: float, until: float) -> list[Figures]:
        """Figures of each hour, day or week that had searches and begins in [since, until)."""
        return [
            figures_of(rollup.tally, start_of(period, number), start_of(period, number + 1))
            for rollup in self._range(catalogue, period, since, until)
            for number in (rollup.number,)
        ]

    def overview(self, catalogue: str, since: float, until: float, top: int = 20) -> Overview:
        """Figures of the hours that begin in [since, until), and the ``top`` of what is in them."""
        tally = total(self._parts(catalogue, since, until))
        lists = {
            "shown": tally.shown,
            "clicked": tally.clicked_products,
            "bought": tally.bought_products,
            "bad": tally.bad_products,
        }
        return Overview(
            figures_of(tally, since, until),
            {name: _top(counts, top) for name, counts in lists.items()},
            {name: counts.error for name, counts in lists.items()},
            _clusters(tally, top),
            [WeakSearch(query_id, score / UNIT) for score, query_id in tally.weakest],
        )

    def drift(self, catalogue: str, weeks: int = 8) -> list[Drift]:
        """How the last weeks differ each from the one before, the running one last."""
        last = number_at("week", self._clock())
        first = last - weeks
        rollups = self._stores.rollups.range(catalogue, "week", first, last)
        queries = {
            rollup.number: {name: found.searches for name, found in rollup.tally.clusters.items()}
            for rollup in rollups
        }
        days = number_at("day", start_of("week", first)), number_at("day", self._clock())
        sizes: dict[int, Mapping[str, int]] = {}
        for day, known in self._stores.rollups.sizes(catalogue, *days).items():
            sizes[number_at("week", day * DAY_S)] = known  # the week's last
        drifts = []
        for week in range(first + 1, last + 1):
            before, now = queries.get(week - 1, {}), queries.get(week, {})
            is_enough = min(sum(before.values()), sum(now.values())) >= LEAST_SEARCHES
            drifts.append(
                Drift(
                    start_of("week", week),
                    jensen_shannon(before, now) if is_enough else None,
                    jensen_shannon(sizes.get(week - 1, {}), sizes.get(week, {})),
                    _moved(before, now) if is_enough else [],
                )
            )
        return drifts

    def judged(self, catalogue: str, limit: int, since: float = 0.0) -> Iterator[JudgedSearch]:
        """Searches that shoppers have judged, at most ``limit``, the newest first.

        None that is older than `JUDGED_S`: the catalogue was another then.
        """
        now = self._clock()
        since = max(since, now - JUDGED_S)
        last = number_at("week", now)
        for week in range(last, number_at("week", since) - 1, -1):
            hours = [
                rollup.number
                for rollup in self._weeks_hours(catalogue, week)
                if rollup.tally.clicks or rollup.tally.buys or rollup.tally.bads
            ]
            for hour in reversed(hours):
                if start_of("hour", hour) + HOUR_S <= since:
                    return
                for query_id, entries in self._feedback(catalogue, hour, now).items():
                    record = self._stores.log.get(query_id, now)
                    if record is None:
                        continue
                    yield JudgedSearch(record, gains_of(entries))
                    limit -= 1
                    if limit == 0:
                        return

    def _weeks_hours(self, catalogue: str, week: int) -> list[Rollup]:
        """A week's hours; those of an empty week are not asked for."""
        if not self._stores.rollups.range(catalogue, "week", week, week):
            return []
        start = start_of("week", week)
        return self._range(catalogue, "hour", start, start + _DAYS_A_WEEK * DAY_S)

    def _feedback(self, catalogue: str, hour: int, now: float) -> dict[str, list[FeedbackEntry]]:
        found: dict[str, list[FeedbackEntry]] = {}
        for shard in range(SHARDS):
            go_on: str | None = ""
            while go_on is not None:
                entries, go_on = self._stores.feedback.page(hour, shard, go_on, _PAGE, now)
                for entry in entries:
                    if entry.catalogue == catalogue:
                        found.setdefault(entry.query_id, []).append(entry)
        return dict(sorted(found.items(), reverse=True))

    def _range(self, catalogue: str, period: Period, since: float, until: float) -> list[Rollup]:
        first = number_at(period, since)
        first += start_of(period, first) < since
        last = number_at(period, until)
        last -= start_of(period, last) >= until
        return self._stores.rollups.range(catalogue, period, first, last)

    def _parts(self, catalogue: str, since: float, until: float) -> list[Rollup]:
        """As few aggregates as make up a span: weeks, and days and hours at its ends."""
        parts: list[Rollup] = []
        gaps = [(since, until)]
        for period in reversed(PERIODS):
            left: list[tuple[float, float]] = []
            for start, end in gaps:
                first = number_at(period, start)
                first += start_of(period, first) < start
                last = number_at(period, end)
                if last <= first:
                    left.append((start, end))
                    continue
                parts += self._stores.rollups.range(catalogue, period, first, last - 1)
                left += [(start, start_of(period, first)), (start_of(period, last), end)]
            gaps = [(start, end) for start, end in left if start < end]
        for start, end in gaps:  # what is less than an hour counts as the hour that begins in it
            parts += self._range(catalogue, "hour", start, end)
        return parts


def figures_of(tally: Tally, start: float, end: float) -> Figures:
    """What a tally comes to."""
    searches, verdicts = tally.searches, tally.verdicts
    judged = sum(count for verdict, count in verdicts.items() if verdict)
    return Figures(
        start=start,
        end=end,
        searches=searches,
        empty=tally.empty,
        filtered=tally.filtered,
        kinds=dict(tally.kinds),
        verdicts=dict(verdicts),
        no_good_match_share=_ratio(verdicts.get("no_good_match", 0), judged),
        low_confidence_share=_ratio(verdicts.get("low_confidence", 0), judged),
        top_score_p10=_quantile(tally.scores, 0.1, SCORE_STEPS),
        top_score_p50=_quantile(tally.scores, 0.5, SCORE_STEPS),
        match_p50=_quantile(tally.matches, 0.5, MATCH_STEPS),
        p50_ms=tally.took.quantile(0.5),
        p95_ms=tally.took.quantile(0.95),
        p99_ms=tally.took.quantile(0.99),
        mean_ms=tally.took.mean,
        clicks=tally.clicks,
        buys=tally.buys,
        bads=tally.bads,
        click_through=_ratio(tally.clicked, searches),
        conversion=_ratio(tally.bought, searches),
        mean_click_position=_ratio(tally.click_ranks, tally.clicks),
        mrr=_ratio(tally.reciprocal_ranks, UNIT * tally.chosen),
        ndcg=_ratio(tally.ndcg, UNIT * tally.chosen),
    )


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _quantile(steps: Mapping[int, int], share: float, steps_to_one: int) -> float | None:
    """The middle of the step that a quantile is in."""
    wanted = share * sum(steps.values())
    for step in sorted(steps):
        wanted -= steps[step]
        if wanted <= 0:
            return (step + 0.5) / steps_to_one
    return None


def _top(counts: TopCounts, limit: int) -> list[TopProduct]:
    return [TopProduct(name, count) for name, count in counts.most(limit)]


def _clusters(tally: Tally, limit: int) -> list[QueryCluster]:
    ranked = sorted(tally.clusters.items(), key=lambda item: (-item[1].searches, item[0]))
    return [
        QueryCluster(
            name,
            found.searches,
            found.searches / tally.searches,
            found.refused / found.searches,
            found.clicked / found.searches,
        )
        for name, found in ranked[:limit]
    ]


def _moved(before: Mapping[str, int], now: Mapping[str, int]) -> list[tuple[str, float]]:
    wholes: Sequence[int] = (sum(before.values()), sum(now.values()))
    changes = [
        (name, now.get(name, 0) / wholes[1] - before.get(name, 0) / wholes[0])
        for name in {*before, *now}
    ]
    moved = [item for item in changes if item[1]]
    return sorted(moved, key=lambda item: (-abs(item[1]), item[0]))[:_MOST_MOVED]
