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


class ResultCards(JSComponent):
    """HTML in which a click on ``data-why`` asks for that result, by its place in the list."""

    html = param.String(doc="What is shown, already escaped.")
    asked = param.Integer(default=-1, doc="The result that was clicked; -1 once it is answered.")

    _stylesheets: ClassVar[list[str]] = [STYLE]
    _esm = """
    export function render({ model, el }) {
      const root = document.createElement("div");
      const show = () => { root.innerHTML = model.html; };
      root.addEventListener("click", (event) => {
        const asked = event.target.closest("[data-why]");
        if (asked) model.asked = Number(asked.dataset.why);
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
        self._body = pn.pane.HTML("", stylesheets=[STYLE], sizing_mode="stretch_width", margin=0)
        self._layout = pmui.Dialog(
            self._body, open=False, title="Why", close_on_click=True, width_option="lg"
        )

    def __panel__(self) -> Any:
        """The dialog."""
        return self._layout

    async def explain(self, result: Mapping[str, Any]) -> None:
        """Ask the API about a result of a search, and open.

        A `Problem`, such as a search that has expired, is told in the dialog.
        """
        url = str(result["explanation_url"])
        self._body.object = '<p class="quiet">One moment …</p>'
        self._layout.param.update(title=str(result.get("title") or result["product_id"]), open=True)
        try:
            explanation = await self._api.explanation(url)
        except Problem as problem:
            self._body.object = explanation_facts([(problem.title, problem.detail)])
            return
        trusted = explanation["trust"]["better_than_chance"]
        facts = [
            ("Score", f"{explanation['score']:.3f}"),
            ("Foreground to foreground", _percent(explanation["foreground_share"])),
            ("Background to background", _percent(explanation["background_share"])),
            ("Grad-CAM", "better than chance" if trusted else "no better than chance"),
        ]
        self._body.object = picture(f"{url}/pair.webp") + explanation_facts(facts)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share * 100:.0f} %"
