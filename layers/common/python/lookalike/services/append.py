"""Appends rows to a catalogue: a segment an embedding space, known to each generation of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lookalike.core.ports import ObjectStore, Registry
from lookalike.core.segment import Row, encode_segment
from lookalike.core.types import Generation, SegmentEntry
from lookalike.services.segments import write_segment


def append_rows(
    index: ObjectStore,
    registry: Registry,
    generations: Iterable[Generation],
    rows: Mapping[str, Sequence[Row]],
    committed_at: float,
) -> dict[str, str]:
    """Write rows and make them known; they count once product records name their versions.

    Appending the same rows again at another time makes another segment of them, which is harmless:
    answers have one row a product, and compaction drops what is there twice.

    Parameters
    ----------
    index, registry
        Where to.
    generations
        Generations of one catalogue, each of a space that there are rows for.
    rows
        The same views in every space, by space.
    committed_at
        Epoch seconds.

    Returns
    -------
    dict
        Digests of the segments by space. A segment's rows are in order of (key, version).
    """
    digests: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for generation in generations:
        space = generation.encoder
        if space not in digests:
            body = encode_segment(space, rows[space], committed_at)
            digests[space] = write_segment(index, generation.catalogue, body)
            sizes[space] = len(body)
        registry.add(
            SegmentEntry(
                generation.scope, digests[space], len(rows[space]), sizes[space], committed_at
            )
        )
    return digests
