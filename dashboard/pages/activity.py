"""The activity page: what the catalogues hold, what could not be indexed, what was searched for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import numpy as np
import panel as pn
import panel_material_ui as pmui
from botocore.exceptions import BotoCoreError

from dashboard.client import Api, Json, Problem
from dashboard.pages.markup import empty, moment, table, tiles
from dashboard.state import State
from dashboard.theme import STYLE
from lookalike.core.errors import LookalikeError
from lookalike.core.types import SearchRecord

RECENT_SEARCHES = 25
RecentSearches = Callable[[int, float], Sequence[SearchRecord]]
"""Gives the newest searches: (at most how many, at which epoch second)."""


class ActivityPage(pn.viewable.Viewer):
    """Three lists, read by key each time the page is opened or refreshed."""

    def __init__(self, api: Api, state: State, recent_searches: RecentSearches) -> None:
        super().__init__()
        self._api, self._state, self._recent_searches = api, state, recent_searches
        self._failures: list[Json] = []
        self._cursor: str | None = None
        self._reload = pmui.Button(
            label="Refresh",
            icon="refresh",
            variant="outlined",
            margin=(14, 0, 6, 0),
            on_click=self._on_reload,
        )
        self._more = pmui.Button(
            label="Show more", variant="text", visible=False, margin=0, on_click=self._on_more
        )
        self._problem = pmui.Alert(
            severity="error", visible=False, sizing_mode="stretch_width", margin=(6, 0)
        )
        self._tiles, self._catalogues, self._failed, self._searches = (
            pn.pane.HTML("", stylesheets=[STYLE], sizing_mode="stretch_width", margin=(6, 0))
            for _ in range(4)
        )
        self._layout = pmui.Column(
            self._reload,
            self._problem,
            self._tiles,
            self._catalogues,
            self._failed,
            self._more,
            self._searches,
            sizing_mode="stretch_width",
            margin=0,
        )
        state.param.watch(self._on_page, "page")

    def __panel__(self) -> Any:
        """The page."""
        return self._layout

    async def refresh(self) -> None:
        """Read everything again."""
        try:
            self._state.stats = await self._api.stats()
            self._failures, self._cursor = [], None
            if self._state.entries():
                await self._read_failures()
        except Problem as problem:
            self._problem.param.update(title=problem.title, object=problem.detail, visible=True)
            return
        self._problem.visible = False
        self._show_stats()
        self._show_failures()
        await self._show_searches()

    async def _read_failures(self) -> None:
        page = await self._api.failures(self._state.catalogue, self._cursor)
        self._failures = [*self._failures, *page["failures"]]
        self._cursor = page["cursor"]

    def _show_stats(self) -> None:
        entries = self._state.entries()
        totals = {
            name: sum(item[name] for item in entries) for name in ("products", "views", "failures")
        }
        self._tiles.object = tiles(
            [
                ("products", f"{totals['products']:,}"),
                ("photos", f"{totals['views']:,}"),
                ("failures", f"{totals['failures']:,}"),
                ("catalogues", f"{len(entries):,}"),
            ]
        )
        columns = [("Catalogue", "key"), ("Encoder", "nowrap"), ("Generation", "")]
        columns += [(name, "number") for name in ("Products", "Photos", "Rows", "Segments", "Size")]
        rows = [
            [
                item["catalogue"],
                item["encoder"],
                item["generation"],
                *(f"{item[name]:,}" for name in ("products", "views", "rows", "segments")),
                f"{item['size_bytes'] / 1e6:.1f} MB",
            ]
            for item in entries
        ]
        self._catalogues.object = (
            table(columns, rows)
            if rows
            else empty("No catalogue yet", "Put product photos into the bucket to begin.")
        )

    def _show_failures(self) -> None:
        heading = f"<h2>Not searchable in {escape(self._state.catalogue)}</h2>"
        columns = [
            ("Object", "key"),
            ("Why", "words"),
            ("Reason", "nowrap"),
            ("Tries", "number"),
            ("Last", "nowrap"),
        ]
        rows = [
            [item["key"], item["detail"], item["reason"], str(item["tries"]), moment(item["at"])]
            for item in self._failures
        ]
        nothing = empty("No failures", "Every object in the bucket is searchable.")
        self._failed.object = heading + (table(columns, rows) if rows else nothing)
        self._more.visible = self._cursor is not None

    async def _show_searches(self) -> None:
        heading = "<h2>Recent searches</h2>"
        try:
            records = await asyncio.to_thread(self._recent_searches, RECENT_SEARCHES, time.time())
        except (LookalikeError, BotoCoreError) as error:
            self._searches.object = heading + empty("The search log cannot be read", str(error))
            return
        if not records:
            self._searches.object = heading + empty("No searches yet", "They show up here.")
            return
        totals = [float(record.took_ms.get("total", 0.0)) for record in records]
        half, most = np.percentile(totals, [50, 95])
        summary = f'<p class="quiet">Median {half:.0f} ms, 95 % within {most:.0f} ms.</p>'
        columns = [("When (UTC)", "nowrap"), ("With", ""), ("Catalogue", ""), ("Filter", "key")]
        columns += [
            ("Best result", "key"),
            ("Score", "number"),
            ("Results", "number"),
            ("Took", "number"),
        ]
        rows = [_search_row(record) for record in records]
        self._searches.object = heading + summary + table(columns, rows)

    async def _on_reload(self, event: Any) -> None:
        await self.refresh()

    async def _on_more(self, event: Any) -> None:
        try:
            await self._read_failures()
        except Problem as problem:
            self._problem.param.update(title=problem.title, object=problem.detail, visible=True)
            return
        self._show_failures()

    async def _on_page(self, event: Any) -> None:
        if event.new == "activity":
            await self.refresh()


def _search_row(record: SearchRecord) -> list[str]:
    best = record.results[0] if record.results else ("", "", 0.0)
    return [
        moment(record.at),
        record.kind,
        record.catalogue,
        record.filter,
        best[0] or "nothing",
        f"{best[2]:.3f}" if record.results else "",
        str(len(record.results)),
        f"{float(record.took_ms.get('total', 0.0)):.0f} ms",
    ]
