"""What one visitor of the dashboard is looking at. No widgets: pages bind to it."""

from __future__ import annotations

from typing import Any

import param

PAGES = ("search", "activity")
DEFAULT_CATALOGUE = "default"


class State(param.Parameterized):
    """What pages share; ``page``, ``like`` and ``catalogue`` are kept in the URL."""

    page = param.String(default="search", regex="|".join(PAGES), doc="The page in front.")
    catalogue = param.String(default=DEFAULT_CATALOGUE, doc="The catalogue that is searched.")
    like = param.String(default="", doc="Id of the stored product that is searched with, if any.")
    stats = param.Dict(default={}, doc="The latest answer of GET /stats.")

    def catalogues(self) -> list[str]:
        """Names of the catalogues there are, the current one always among them."""
        known = [item["catalogue"] for item in self.entries()]
        return known if self.catalogue in known else [self.catalogue, *known]

    def entries(self) -> list[dict[str, Any]]:
        """What each catalogue holds."""
        entries: list[dict[str, Any]] = self.stats.get("catalogues", [])
        return entries
