"""A catalogue's map as the dashboard reads it: columns to draw, and details of a point.

Read-only; making maps is `lookalike.services.project`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lookalike.core.errors import Vanished
from lookalike.core.jobs import Artifact
from lookalike.core.map_columns import Points, joined, taken
from lookalike.core.ports import Stores
from lookalike.services.map_files import MapFile, open_map

_TRIES = 3


@dataclass(frozen=True, slots=True)
class PointDetails:
    """What is shown of a point. ``thumbnail`` is a key of the index bucket."""

    product_id: str
    view: str
    title: str
    thumbnail: str


@dataclass(frozen=True, slots=True)
class CatalogueMap:
    """A version of a map with all that has come since it was made.

    ``points`` hold each product once; those that were deleted since are still among them, until
    the map is made anew. ``artifact`` says when it was made, of what, and its ``serial``: the
    number of its version.
    """

    artifact: Artifact
    points: Points
    files: tuple[MapFile, ...]
    rows: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.points)


class MapReader:
    """Reads maps.

    Parameters
    ----------
    stores
        Where from.
    """

    def __init__(self, stores: Stores) -> None:
        self._stores = stores

    def read(self, catalogue: str) -> CatalogueMap | None:
        """The current map; None when there is none yet.

        Raises
        ------
        Vanished
            It was replaced again and again while it was read.
        CorruptFile
            It is truncated or altered.
        """
        for _ in range(_TRIES - 1):
            try:
                return self._read(catalogue)
            except Vanished:
                continue
        return self._read(catalogue)

    def details(self, map_: CatalogueMap, number: int) -> PointDetails:
        """What is shown of a point, by its number on the map, by one GET.

        Raises
        ------
        Vanished
            The map was replaced, and its file is gone: read the map again.
        CorruptFile
            It is truncated or altered.
        """
        row = int(map_.rows[number])
        for file in map_.files:
            for piece, rows in enumerate(file.head.rows):
                if row < rows:
                    found = file.details(piece)
                    return PointDetails(
                        found.product_id[row],
                        found.view[row],
                        found.title[row],
                        found.thumbnail[row],
                    )
                row -= rows
        raise IndexError(f"the map has no point {number}")

    def _read(self, catalogue: str) -> CatalogueMap | None:
        artifact = self._stores.artifacts.current(catalogue).get("map")
        if artifact is None:
            return None
        keys = [artifact.key, *([artifact.arrivals_key] if artifact.arrivals_key else [])]
        files = tuple(open_map(self._stores.index, key) for key in keys)
        pieces = [joined(file.points()) for file in files]
        points = joined(pieces)
        rows = np.arange(len(points))
        if len(pieces) == 2:
            # What has come since is as it is now.
            before, since = pieces
            stay = np.append(~np.isin(before.product, since.product), np.ones(len(since), bool))
            rows = np.flatnonzero(stay)
            points = taken(points, rows)
        return CatalogueMap(artifact, points, files, rows)
