"""The search page: a photo in, products that look like it out."""

from __future__ import annotations

import base64
from typing import Any

import panel as pn
import panel_material_ui as pmui

from dashboard.client import Api, Json, Photo, Problem
from dashboard.pages.markup import empty, query_line, result_grid
from dashboard.pages.why import ResultCards, WhyDialog
from dashboard.state import State
from dashboard.theme import STYLE
from lookalike.core.errors import LookalikeError
from lookalike.core.images import ImageLimits, decode, thumbnail_webp

MAX_PHOTO_BYTES = 25_000_000
MAX_PHOTO_PIXELS = 100_000_000
NOTHING_YET = empty(
    "No search yet", "Drop a photo or pick one to see the products that look like it."
)


VERDICTS = {
    "low_confidence": "none of these is likely to be a good match",
    "no_good_match": "unlike anything in the catalogue: no good match",
}


class SearchPage(pn.viewable.Viewer):
    """Searches as soon as there is a photo, and again when an option changes."""

    def __init__(self, api: Api, state: State) -> None:
        super().__init__()
        self._api, self._state = api, state
        self._photo: Photo | None = None
        self._latest = 0
        self._file = pmui.FileInput(
            label="Drop a photo here, or click to pick one",
            accept="image/*",
            max_file_size=MAX_PHOTO_BYTES,
            icon="add_photo_alternate",
            variant="outlined",
            sizing_mode="stretch_width",
            margin=(14, 0, 14, 0),
            sx={"minHeight": "88px", "borderStyle": "dashed", "textTransform": "none"},
        )
        self._catalogue = pmui.Select(
            label="Catalogue",
            options=state.catalogues(),
            value=state.catalogue,
            width=200,
            margin=0,
        )
        self._count = pmui.IntInput(
            label="Results", value=12, start=1, end=100, width=120, margin=0
        )
        self._filter = pmui.TextInput(
            label="Filter", placeholder="category=mug,price<=20", width=260, margin=0
        )
        self._problem = pmui.Alert(
            severity="error", visible=False, sizing_mode="stretch_width", margin=(14, 0, 0, 0)
        )
        self._query = pn.pane.HTML("", stylesheets=[STYLE], visible=False, margin=(14, 0, 0, 0))
        self._results = ResultCards(html=NOTHING_YET, sizing_mode="stretch_width", margin=(14, 0))
        self._found: dict[str, Json] = {}
        self._why = WhyDialog(api)
        self._layout = pmui.Column(
            self._file,
            pmui.FlexBox(self._catalogue, self._count, self._filter, gap="12px"),
            self._problem,
            self._query,
            self._results,
            self._why,
            sizing_mode="stretch_width",
            margin=0,
        )
        self._file.param.watch(self._on_photo, "value")
        self._results.param.watch(self._on_why, "asked")
        for widget in (self._count, self._filter):
            widget.param.watch(self._on_option, "value")
        self._catalogue.param.watch(self._on_catalogue, "value")
        state.param.watch(self._show_catalogues, ["stats", "catalogue"])
        state.param.watch(self._on_option, "like")

    def __panel__(self) -> Any:
        """The page."""
        return self._layout

    async def refresh(self) -> None:
        """Search again with what is chosen, and show the answer unless a newer search began."""
        self._latest += 1
        mine = self._latest
        if self._photo is None and not self._state.like:
            return
        self._results.loading = True
        try:
            answer = await self._search()
        except Problem as problem:
            if mine == self._latest:
                self._show_problem(problem)
        else:
            if mine == self._latest:
                self._show(answer)
        finally:
            if mine == self._latest:
                self._results.loading = False

    async def _search(self) -> Json:
        options: dict[str, str | int] = {
            "k": self._count.value or 1,
            "catalogue": self._state.catalogue,
        }
        if self._filter.value:
            options["filter"] = self._filter.value
        if self._photo is not None:
            return await self._api.search(self._photo, options)
        return await self._api.similar(self._state.like, options)

    def _show(self, answer: Json) -> None:
        results = answer["results"]
        self._found = {result.get("explanation_url"): result for result in results}
        took = float(answer["took_ms"].get("total", 0.0))
        what = self._photo.name if self._photo else f"Products like {self._state.like}"
        line = f"{what} · {len(results)} results in {took:.0f} ms"
        if (verdict := VERDICTS.get(answer.get("verdict") or "")) is not None:
            line += f" · {verdict}"
        self._problem.visible = False
        self._query.param.update(object=query_line(_preview(self._photo), line), visible=True)
        if results:
            self._results.html = result_grid(results, self._state.catalogue)
        else:
            self._results.html = empty(
                "Nothing found", "The catalogue is empty, or the filter leaves nothing."
            )

    def _show_problem(self, problem: Problem) -> None:
        self._problem.param.update(title=problem.title, object=problem.detail, visible=True)
        self._query.visible = False
        self._results.html = ""

    async def _on_photo(self, event: Any) -> None:
        if not event.new:
            return
        kind = self._file.mime_type or ""
        self._photo = Photo(
            event.new,
            kind if kind.startswith("image/") else "image/jpeg",
            str(self._file.filename or "Photo"),
        )
        self._state.like = ""
        await self.refresh()

    async def _on_why(self, event: Any) -> None:
        if not event.new:
            return
        self._results.asked = ""  # so that the same one may be asked again
        # What another search has replaced meanwhile is no longer to be seen.
        if result := self._found.get(event.new):
            await self._why.explain(result)

    async def _on_option(self, event: Any) -> None:
        if event.name == "like" and not event.new:
            return
        await self.refresh()

    async def _on_catalogue(self, event: Any) -> None:
        if event.new != self._state.catalogue:
            self._state.catalogue = event.new
            await self.refresh()

    def _show_catalogues(self, *_: Any) -> None:
        self._catalogue.param.update(options=self._state.catalogues(), value=self._state.catalogue)


def _preview(photo: Photo | None) -> str:
    """A small copy of a photo as a data URL; empty when there is none or it cannot be decoded."""
    if photo is None:
        return ""
    try:
        decoded = decode(photo.data, ImageLimits(MAX_PHOTO_BYTES, MAX_PHOTO_PIXELS), min_side=168)
    except LookalikeError:
        return ""
    return "data:image/webp;base64," + base64.b64encode(thumbnail_webp(decoded, 168)).decode()
