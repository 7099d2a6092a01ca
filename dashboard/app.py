"""Puts the pages together and serves them. Nothing is loaded from outside this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import panel as pn
import panel_material_ui as pmui
from panel_material_ui.template.base import Page

from dashboard.client import Api, Problem, api_url
from dashboard.pages.activity import ActivityPage, RecentSearches
from dashboard.pages.search import MAX_PHOTO_BYTES, SearchPage
from dashboard.state import DEFAULT_CATALOGUE, PAGES, State
from dashboard.theme import THEME
from lookalike import wiring
from lookalike.core.types import SearchRecord

ADDRESS = "127.0.0.1"
TITLE = "Lookalike"


def recent_searches(limit: int, now: float) -> Sequence[SearchRecord]:
    """The newest searches, from the search log."""
    return wiring.services().stores.log.recent(limit, now)


def build(api: Api, recent: RecentSearches) -> Page:
    """The dashboard for one visitor."""
    state = State()
    search, activity = SearchPage(api, state), ActivityPage(api, state, recent)
    tabs = pmui.Tabs(
        ("Search", search), ("Activity", activity), sizing_mode="stretch_width", margin=0
    )
    tabs.link(state, callbacks={"active": lambda target, event: _turn(target, event.new)})
    state.param.watch(lambda event: tabs.param.update(active=PAGES.index(event.new)), "page")

    async def opened() -> None:
        try:
            state.stats = await api.stats()
        except Problem:
            return
        known = [item["catalogue"] for item in state.entries()]
        if state.catalogue == DEFAULT_CATALOGUE and known and DEFAULT_CATALOGUE not in known:
            state.catalogue = known[0]  # on a first run there is only the sample
        if state.page == "activity":
            await activity.refresh()

    if pn.state.location is not None:
        pn.state.location.sync(state, ["page", "like", "catalogue"])
    pn.state.onload(opened)
    return Page(
        title=TITLE,
        main=[pmui.Container(tabs, width_option="lg", sizing_mode="stretch_width")],
        theme_config=THEME,
        sidebar_variant="temporary",
    )


def _turn(state: State, active: int) -> None:
    state.page = PAGES[active]


def serve(
    port: int, *, api: Api | None = None, recent: RecentSearches | None = None, **options: Any
) -> Any:
    """Serve on 127.0.0.1; blocks unless ``threaded`` is among the options of `panel.serve`."""
    chosen, log = api or Api(api_url()), recent or recent_searches
    return pn.serve(
        {"/": lambda: build(chosen, log)},
        port=port,
        address=ADDRESS,
        websocket_origin=[f"{ADDRESS}:{port}", f"localhost:{port}"],
        websocket_max_message_size=2 * MAX_PHOTO_BYTES,
        title=TITLE,
        show=False,
        **options,
    )
