"""Reads segments and heads in the index bucket, and writes segments: whole, or not at all."""

from __future__ import annotations

from dataclasses import replace

from lookalike.core.errors import CorruptFile, Unindexable, Vanished
from lookalike.core.head import Head, decode_head
from lookalike.core.keys import content_digest, head_key, segment_key
from lookalike.core.ports import ObjectStore
from lookalike.core.segment import Float32, Segment, decode_segment
from lookalike.core.types import View

MAX_SEGMENT_BYTES = 64 * 2**20
MAX_HEAD_BYTES = 64 * 2**20
_CONTENT_TYPE = "application/octet-stream"


def read_segment(store: ObjectStore, catalogue: str, digest: str) -> Segment:
    """Read a segment of a catalogue.

    Raises
    ------
    Vanished
        The bucket does not hold it: it was swapped out, and the registry says for what.
    CorruptFile
        The object, which the message names, is not a whole segment.
    """
    name = segment_key(catalogue, digest)
    try:
        found = store.get(name, MAX_SEGMENT_BYTES)
    except Unindexable as error:
        raise CorruptFile(f"segment {name} cannot be read: {error}") from error
    if found is None:
        raise Vanished(f"segment {name} is not in the bucket")
    return decode_segment(found[1], name)


def read_head(store: ObjectStore, catalogue: str, digest: str) -> Head:
    """Read the head of a generation of a catalogue.

    Raises
    ------
    Vanished
        The bucket does not hold it: its generation was dropped.
    CorruptFile
        The object, which the message names, is not a whole head.
    """
    name = head_key(catalogue, digest)
    try:
        found = store.get(name, MAX_HEAD_BYTES)
    except Unindexable as error:
        raise CorruptFile(f"head {name} cannot be read: {error}") from error
    if found is None:
        raise Vanished(f"head {name} is not in the bucket")
    return replace(decode_head(found[1], name), digest=digest)


def write_segment(store: ObjectStore, catalogue: str, body: bytes) -> str:
    """Write a segment file of a catalogue under the name of its content; gives its digest."""
    digest = content_digest(body)
    store.put(segment_key(catalogue, digest), body, _CONTENT_TYPE, if_absent=True)
    return digest


def row_of(segment: Segment, view: View) -> Float32 | None:
    """The (dim,) embedding of a view, if the segment has it where the view says."""
    if view.row >= len(segment):
        return None
    if (segment.keys[view.row], segment.versions[view.row]) != (view.key, view.version):
        return None
    embedding: Float32 = segment.embeddings()[view.row]
    return embedding
