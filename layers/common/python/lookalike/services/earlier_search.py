"""Searches again with an earlier search, or with a part of it, without running the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from lookalike.core.access import ANYBODY, Caller
from lookalike.core.chosen_cells import of_box, of_cells, restricted
from lookalike.core.encoders import EncoderRecord, parse_space
from lookalike.core.errors import Gone, InvalidRequest
from lookalike.core.geometry import Float64
from lookalike.core.head import Head
from lookalike.core.material import Float32, QueryMaterial, QueryPart, normalized
from lookalike.core.pooling import pool
from lookalike.core.types import Generation
from lookalike.services.feature_maps import pooling_weights
from lookalike.services.query_material import QueryMaterials
from lookalike.services.search_request import QueryInput

MapsOf = Callable[[str, Sequence[tuple[str, str]]], Sequence[Float32]]


@dataclass(frozen=True, slots=True)
class EarlierSearch:
    """A search that was found again.

    ``chosen`` says of each part what of its cells is searched, None for a part that is left out;
    it is None itself for all of the search as it was.
    """

    material: QueryMaterial
    chosen: Sequence[Float64 | None] | None

    @property
    def shares(self) -> list[tuple[QueryPart, Float64 | None]]:
        """The parts that are searched, each with what of its cells is; None for all of it."""
        if self.chosen is None:
            return [(part, None) for part in self.material.parts]
        shares = zip(self.material.parts, self.chosen, strict=True)
        return [(part, share) for part, share in shares if share is not None]


class EarlierSearches:
    """Makes parts of earlier searches.

    Parameters
    ----------
    materials
        What those searches were made with.
    maps_of
        The feature map (C, h, w) of each stored view of an embedding space, by key and ETag.
    """

    def __init__(self, materials: QueryMaterials, maps_of: MapsOf) -> None:
        self._materials = materials
        self._maps_of = maps_of

    def find(
        self, item: QueryInput, generation: Generation, caller: Caller = ANYBODY
    ) -> EarlierSearch:
        """Find the search that an input names, and check what is asked of it.

        Raises
        ------
        NotFound, Gone
            As `QueryMaterials.read`; `Gone` too when an encoder has made it that the catalogue is
            not searched with any more.
        InvalidRequest
            It was in another catalogue, or has no such cells.
        """
        material = self._materials.read(item.query_id or "", caller)
        if material.catalogue != generation.catalogue:
            raise InvalidRequest(
                f"The search “{item.query_id}” was in the catalogue “{material.catalogue}”, not "
                f"in “{generation.catalogue}”.",
                parameter="catalogue",
            )
        if material.encoder != generation.encoder:
            raise Gone(
                f"The search “{item.query_id}” was made with the encoder {material.encoder}; the "
                f"catalogue has {generation.encoder} now. Search again with the photo.",
                parameter="query_id",
            )
        return EarlierSearch(material, _chosen(item, material, parse_space(material.encoder)[0]))

    def parts(self, earlier: EarlierSearch, head: Head) -> list[QueryPart]:
        """The parts that are searched with, whose sum has length one.

        Raises
        ------
        InvalidRequest
            Nothing is left to look for.
        Gone
            The photo of a stored view has left or changed.
        Unavailable
            The bucket cannot be reached.
        """
        material, space = earlier.material, earlier.material.encoder
        if earlier.chosen is None and material.head == head.digest:
            return normalized(material.parts)
        shares = earlier.shares
        stored = [(part.key, part.etag) for part, _ in shares if part.maps is None]
        read = iter(self._maps_of(space, stored))
        return normalized(
            [
                _made(part, share, next(read) if part.maps is None else part.maps, space, head)
                for part, share in shares
            ]
        )


def _made(
    part: QueryPart, share: Float64 | None, maps: Float32, space: str, head: Head
) -> QueryPart:
    """A part, or a share of each of its cells, embedded under a head."""
    weights = part.weights
    if weights is None:
        weights = pooling_weights(space, maps)
    if share is not None:
        weights = restricted(weights, share)
    (embedding,) = head.project(pool(maps[None], weights[None]))
    return replace(part, embedding=embedding, weights=weights)


def _chosen(
    item: QueryInput, material: QueryMaterial, record: EncoderRecord
) -> list[Float64 | None] | None:
    parts = material.parts
    if item.cells is not None:
        chosen = of_cells(item.cells, len(parts), (record.map_side, record.map_side))
        if all(
            share is None or part.coefficient < 0 for part, share in zip(parts, chosen, strict=True)
        ):
            raise InvalidRequest(
                "All these cells are of products that the search is not like; name others too.",
                parameter="cells",
            )
        return chosen
    if item.crop is None:
        return None
    if len(parts) != 1:
        raise InvalidRequest(
            f"That search has {len(parts)} photos, so a crop does not say of which; give “cells”.",
            parameter="crop",
        )
    return [of_box(item.crop, parts[0].width, parts[0].height, record)]
