"""Compares what scheduled work has made with what is live and with the search log.

Runs the functions by hand, then reads as those do who use what they make: the HTTP API, and the
stores behind it for the map and the log, which no request shows.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from chaos.clients import WORK, run_function
from chaos.history import CATALOGUES, History
from running_cloud import Running

from local.commands.connection import connect
from lookalike.core.ports import Stores
from lookalike.core.search_hours import SHARDS, Period, number_at, start_of
from lookalike.services.map_reader import MapReader

PERIODS: tuple[Period, ...] = ("hour", "day", "week")
_SLICES = 20
_PAGE = 1000


class WorkOracle:
    """The checks of clusters, map, findings and figures.

    Parameters
    ----------
    cloud
        What is checked.
    history
        What was done to it.
    """

    def __init__(self, cloud: Running, history: History) -> None:
        self._cloud = cloud
        self._history = history
        self._first_hour = int(history.begun_at // 3600)
        self.checked: dict[str, float] = {}

    def check(self, live: Mapping[str, set[str]]) -> None:
        """Do all work by hand, then compare.

        Parameters
        ----------
        live
            Ids of products that must be there, by catalogue.
        """
        for name in WORK:
            self._do(name)
        stores = self._stores()
        for catalogue in CATALOGUES:
            if live[catalogue]:
                self._check_clusters(catalogue, live[catalogue])
                self._check_map(stores, catalogue, live[catalogue])
                self._check_findings(catalogue, live[catalogue])
        self._check_figures(stores)

    def _do(self, function: str) -> None:
        """Slice after slice; what a killed one has begun goes on first, and then all is anew."""
        rounds = 0
        for _ in range(_SLICES):
            report = run_function(self._cloud, function, {"now": True})
            rounds += bool(report and report.get("finished"))
            if rounds == 2:
                return
        self._history.differs(f"{function} never finishes: {report}")

    def _stores(self) -> Stores:
        return connect(self._cloud.data_dir).stores()

    def _check_clusters(self, catalogue: str, live: set[str]) -> None:
        """Each live product is a member of one cluster, and no other product is of any."""
        _, listed = self._cloud.request("GET", f"/clusters?catalogue={catalogue}")
        members = Counter(
            product["product_id"]
            for cluster in listed["clusters"]
            for product in self._pages(
                f"/products?catalogue={catalogue}&cluster={cluster['cluster_id']}", "products"
            )
        )
        if members != Counter(live):
            differ = sorted((members - Counter(live)) + (Counter(live) - members))
            self._differs(f"clusters of {catalogue} hold {dict(members)}", catalogue, differ)
        self.checked[f"clusters of {catalogue}"] = len(listed["clusters"])

    def _check_map(self, stores: Stores, catalogue: str, live: set[str]) -> None:
        reader = MapReader(stores)
        map_ = reader.read(catalogue)
        points = [reader.details(map_, number) for number in range(len(map_))] if map_ else []
        shown = Counter(point.product_id for point in points)
        if shown != Counter(live):
            differ = sorted((shown - Counter(live)) + (Counter(live) - shown))
            self._differs(f"the map of {catalogue} shows {dict(shown)}", catalogue, differ)
        for point in points:
            if stores.index.head(point.thumbnail) is None:
                self._differs(f"{point} has no thumbnail", catalogue, [point.product_id])
        self.checked[f"points of {catalogue}"] = len(points)

    def _check_findings(self, catalogue: str, live: set[str]) -> None:
        """Each is about products that are there, and every kind is as long as is said."""
        path = f"/findings?catalogue={catalogue}"
        status, summary = self._cloud.request("GET", path)
        if status != 200:
            self._history.differs(f"{path} answers {status}: {summary}")
            return
        for kind, count in summary["counts"].items():
            found = list(self._pages(f"{path}&kind={kind}", "findings"))
            named = {item["product_id"] for finding in found for item in finding["products"]}
            if named - live or len(found) != count:
                sentence = f"{len(found)} findings {kind} of {catalogue}, not {count}, of {named}"
                self._differs(sentence, catalogue, sorted(named - live))
        self.checked[f"findings in {catalogue}"] = sum(summary["counts"].values())

    def _check_figures(self, stores: Stores) -> None:
        """Hours, days and weeks come to what the log says; each click that was taken is in it."""
        now = time.time()
        wanted: dict[Period, dict[tuple[str, int], Counter[str]]] = {
            period: {} for period in PERIODS
        }
        clicks: set[tuple[str, str]] = set()
        searches = 0
        for hour in range(self._first_hour, int(now // 3600) + 1):
            for catalogue, what, key in self._entries(stores, hour, now):
                searches += what == "searches"
                if what == "clicks":
                    clicks.add(key)
                for period in PERIODS:
                    at = catalogue, number_at(period, start_of("hour", hour))
                    wanted[period].setdefault(at, Counter())[what] += 1
        for period, of_period in wanted.items():
            found = {
                (catalogue, item.number): (item.tally.searches, item.tally.clicks)
                for catalogue in CATALOGUES
                for item in stores.rollups.range(catalogue, period, 0, 10**6)
            }
            expected = {at: (of["searches"], of["clicks"]) for at, of in of_period.items()}
            if found != expected:
                self._history.differs(f"{period}s come to {found}, not to {expected}")
        if lost := self._history.clicks - clicks:
            self._history.differs(f"these clicks were taken and are gone: {sorted(lost)}")
        self.checked |= {"searches in the log": searches, "clicks": len(clicks)}

    def _entries(
        self, stores: Stores, hour: int, now: float
    ) -> Iterator[tuple[str, str, tuple[str, str]]]:
        """(catalogue, searches or clicks, query and product) of every entry of an hour."""
        for shard in range(SHARDS):
            after: str | None = ""
            while after is not None:
                searches, after = stores.log.page(hour, shard, after, _PAGE, now)
                for record in searches:
                    yield record.catalogue, "searches", (record.query_id, "")
            after = ""
            while after is not None:
                events, after = stores.feedback.page(hour, shard, after, _PAGE, now)
                for event in events:
                    yield event.catalogue, "clicks", (event.query_id, event.product_id)

    def _pages(self, path: str, name: str) -> Iterator[dict[str, Any]]:
        cursor: str | None = ""
        while cursor is not None:
            more = f"&cursor={cursor}" if cursor else ""
            status, page = self._cloud.request("GET", f"{path}&limit=100{more}")
            assert status == 200, page
            yield from page[name]
            cursor = page["cursor"] or None

    def _differs(self, sentence: str, catalogue: str, products: list[str]) -> None:
        slots = [slot for name in products for slot in self._history.of_product(catalogue, name)]
        self._history.differs(sentence, slots)
