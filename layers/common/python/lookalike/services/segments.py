"""Reads segments from the index bucket: whole and unaltered, or not at all."""

from __future__ import annotations

import logging

from lookalike.core.errors import CorruptFile
from lookalike.core.ports import ObjectStore
from lookalike.core.segment import Float32, Segment, decode_segment
from lookalike.core.types import View

logger = logging.getLogger(__name__)

MAX_SEGMENT_BYTES = 64 * 2**20


def read_segment(store: ObjectStore, name: str) -> Segment | None:
    """Read a live segment.

    None, and an error in the log with its name, when the bucket does not hold it or holds something
    that is not a whole segment: its rows are missing from answers then, never wrong.
    """
    found = store.get(name, MAX_SEGMENT_BYTES)
    if found is None:
        logger.error("live segment %s is not in the bucket", name)
        return None
    try:
        return decode_segment(found[1], name)
    except CorruptFile:
        logger.exception("live segment %s cannot be read", name)
        return None


def row_of(segment: Segment | None, view: View) -> Float32 | None:
    """The (dim,) embedding of a view, if the segment has it where the view says."""
    if segment is None or view.row >= len(segment):
        return None
    if (segment.keys[view.row], segment.versions[view.row]) != (view.key, view.version):
        return None
    embedding: Float32 = segment.embeddings()[view.row]
    return embedding
