"""Why a result matches: cards that are asked, and the dialog that answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import panel as pn
import panel_material_ui as pmui
import param
from panel.custom import JSComponent

from dashboard.client import Api, Problem
from dashboard.pages.markup import explanation_facts, picture
from dashboard.theme import STYLE

_BADGES = {True: "better than chance", False: "no better than chance", None: "–"}


class ResultCards(JSComponent):
    """HTML in which a click on ``data-why`` asks for that result, by its explanation's URL."""

    html = param.String(doc="What is shown, already escaped.")
    asked = param.String(doc="The URL that was clicked; empty once that is answered.")

    _stylesheets: ClassVar[list[str]] = [STYLE]
    _esm = """
    export function render({ model, el }) {
      const root = document.createElement("div");
      const show = () => { root.innerHTML = model.html; };
      root.addEventListener("click", (event) => {
        const asked = event.target.closest("[data-why]");
        if (asked) model.asked = asked.dataset.why;
      });
      model.on("html", show);
      show();
      return root;
    }
    """


class WhyDialog(pn.viewable.Viewer):
    """Shows the pair picture of a result and what its score comes from."""

    def __init__(self, api: Api) -> None:
        super().__init__()
        self._api = api
        self._latest = 0
        self._body = pn.pane.HTML("", stylesheets=[STYLE], sizing_mode="stretch_width", margin=0)
        self._layout = pmui.Dialog(
            self._body, open=False, title="Why", close_on_click=True, width_option="lg"
        )

    def __panel__(self) -> Any:
        """The dialog."""
        return self._layout

    async def explain(self, result: Mapping[str, Any]) -> None:
        """Ask the API about a result of a search, and open.

        A `Problem`, such as a search that has expired, is told in the dialog. An answer that comes
        after another result was asked about is not shown.
        """
        self._latest += 1
        mine = self._latest
        url = str(result["explanation_url"])
        self._body.object = '<p class="quiet">One moment …</p>'
        self._layout.param.update(title=str(result.get("title") or result["product_id"]), open=True)
        try:
            explanation = await self._api.explanation(url)
            shown = _shown(await self._api.pair_picture(url), explanation)
        except Problem as problem:
            shown = explanation_facts([(problem.title, problem.detail)])
        if mine == self._latest:
            self._body.object = shown


def _shown(pair: bytes, explanation: Mapping[str, Any]) -> str:
    facts = [
        ("Score", f"{explanation['score']:.3f}"),
        ("Foreground to foreground", _percent(explanation["foreground_share"])),
        ("Background to background", _percent(explanation["background_share"])),
        ("Grad-CAM", _BADGES[explanation["trust"]["better_than_chance"]]),
    ]
    return picture(pair) + explanation_facts(facts)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.0f} %"
