"""The health check's files: findings by pages (``LKFN``), and rows under way (``LKHP``).

A findings file is a head, read alone, and pages of JSON, each with a digest in the head
(docs/health.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from lookalike.core.base_layout import digest_of
from lookalike.core.container import FileKind, decode_container, encode_container, json_bytes
from lookalike.core.errors import CorruptFile
from lookalike.core.health import COPY, Float64, Int32, UInt64
from lookalike.core.image_quality import FACTS, Facts
from lookalike.core.neighbours import Float32, Neighbours
from lookalike.core.segment import Int8

FINDINGS = FileKind("findings", b"LKFN", 1)
PART = FileKind("health part", b"LKHP", 1)
PAGE = 100
"""Findings of one page."""
MAX_LISTED = 5_000
"""Findings of one kind that are kept, the gravest; all are counted."""

THUMBNAIL_BYTES = 64


class Place(msgspec.Struct, frozen=True, array_like=True):
    """A view that a finding is about; ``photo`` names the upload that it was made of."""

    product_id: str
    key: str
    photo: str


class Finding(msgspec.Struct, frozen=True, array_like=True):
    """One finding as it is kept; ``category`` is its products' then, "" if it matters not."""

    code: str
    reason: str
    weight: float
    category: str
    evidence: dict[str, str | int | float | bool]
    places: tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class FindingsHead:
    """How many were found and kept of each kind, and its pages: (start, length, digest)."""

    totals: Mapping[str, int]
    listed: Mapping[str, int]
    pages: Mapping[str, Sequence[tuple[int, int, str]]]


def encode_findings(
    findings: Mapping[str, Sequence[Finding]], totals: Mapping[str, int], made_at: float
) -> tuple[bytes, int]:
    """The file, and how long its head is; each kind's findings in the order of its pages.

    ``made_at`` (epoch seconds) makes its name one of a kind.
    """
    body: list[bytes] = []
    pages: dict[str, list[tuple[int, int, str]]] = {}
    start = 0
    for kind, items in findings.items():
        pages[kind] = []
        for first in range(0, len(items), PAGE):
            page = msgspec.json.encode(items[first : first + PAGE])
            pages[kind].append((start, len(page), digest_of(page).hex()))
            body.append(page)
            start += len(page)
    listed = {kind: len(items) for kind, items in findings.items()}
    header = {"made_at": made_at, "totals": dict(totals), "listed": listed, "pages": pages}
    head = encode_container(FINDINGS, {}, {"index": json_bytes(header)})
    return b"".join([head, *body]), len(head)


def decode_findings_head(data: bytes, name: str) -> FindingsHead:
    """Read a findings file's head; raises `CorruptFile`."""
    file = decode_container(FINDINGS, data, name)
    header = json.loads(bytes(file.section("index")))
    pages = {
        kind: [(start + len(data), length, digest) for start, length, digest in places]
        for kind, places in header["pages"].items()
    }
    return FindingsHead(header["totals"], header["listed"], pages)


def decode_page(data: bytes, digest: str, name: str) -> list[Finding]:
    """Read a page; raises `CorruptFile` when it is not what the head vouches for."""
    if digest_of(data).hex() != digest:
        raise CorruptFile(f"findings {name} are truncated or altered: a page's checksum differs")
    return msgspec.json.decode(data, type=list[Finding])


@dataclass(frozen=True, slots=True)
class PartRows:
    """Some rows as they were read: embeddings as int8 codes, facts, and what they are called.

    ``thumbnails`` (n,) are keys in UTF-8; ``keys`` and ``product_ids`` name each row's view;
    ``categories`` (n,) are places in ``names``, -1 for none; ``views`` (n,) hashes of keys.
    """

    codes: Int8
    scales: Float32
    facts: Facts
    products: UInt64
    views: UInt64
    sides: Int32
    since: Float64
    categories: Int32
    thumbnails: np.ndarray[tuple[int], np.dtype[np.bytes_]]
    names: tuple[str, ...]
    keys: tuple[str, ...] = ()
    product_ids: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.products)


_ARRAYS = {
    "scales": "<f4",
    "products": "<u8",
    "views": "<u8",
    "sides": "<i4",
    "since": "<f8",
    "categories": "<i4",
    "thumbnails": f"S{THUMBNAIL_BYTES}",
}


def encode_part(part: PartRows) -> bytes:
    """The file of some rows."""
    sections = {name: getattr(part, name).astype(kind).tobytes() for name, kind in _ARRAYS.items()}
    sections |= {"codes": part.codes.tobytes(), "facts": part.facts.tobytes()}
    texts = [list(part.names), list(part.keys), list(part.product_ids)]
    sections["texts"] = json_bytes(texts)
    return encode_container(PART, {"dim": part.codes.shape[1]}, sections)


def decode_part(data: bytes, name: str, *, named: bool = False) -> PartRows:
    """Read a part; keys and product ids only if ``named``. Raises `CorruptFile`."""
    file = decode_container(PART, data, name)
    names, keys, product_ids = json.loads(bytes(file.section("texts")))

    def array(section: str) -> Any:
        return np.frombuffer(file.section(section), dtype=_ARRAYS[section])

    return PartRows(
        codes=np.frombuffer(file.section("codes"), np.int8).reshape(-1, file.header["dim"]),
        scales=array("scales"),
        facts=np.frombuffer(file.section("facts"), FACTS),
        products=array("products"),
        views=array("views"),
        sides=array("sides"),
        since=array("since"),
        categories=array("categories"),
        thumbnails=array("thumbnails"),
        names=tuple(names),
        keys=tuple(keys) if named else (),
        product_ids=tuple(product_ids) if named else (),
    )


def encode_graph(
    first: int, rows: np.ndarray[tuple[int], np.dtype[np.int64]], found: Neighbours
) -> bytes:
    """The file of some rows' neighbours; ``first`` is the list that they begin with."""
    sections = {
        "of": rows.astype("<i8").tobytes(),
        "rows": found.rows.astype("<i4").tobytes(),
        "cosines": found.cosines.astype("<f4").tobytes(),
    }
    return encode_container(PART, {"first": first, "k": found.rows.shape[1]}, sections)


def decode_graphs(bodies: Iterable[bytes], rows: int, k: int) -> Neighbours:
    """The neighbours of all rows, out of the files of some each; raises `CorruptFile`."""
    whole = Neighbours(np.full((rows, k), -1, np.int32), np.full((rows, k), -1, np.float32))
    for body in bodies:
        file = decode_container(PART, body, "neighbours")
        of = np.frombuffer(file.section("of"), "<i8")
        whole.rows[of] = np.frombuffer(file.section("rows"), "<i4").reshape(len(of), k)
        whole.cosines[of] = np.frombuffer(file.section("cosines"), "<f4").reshape(len(of), k)
    return whole


def encode_copies(copies: np.ndarray[tuple[int], np.dtype[np.void]]) -> bytes:
    """The file of some pairs of `COPY`."""
    return encode_container(PART, {}, {"copies": copies.tobytes()})


def decode_copies(bodies: Iterable[bytes]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """All pairs of some files; raises `CorruptFile`."""
    parts = [
        np.frombuffer(decode_container(PART, body, "copies").section("copies"), COPY)
        for body in bodies
    ]
    return np.concatenate([np.empty(0, COPY), *parts])


def encode_facts(facts: Facts) -> bytes:
    """The file of photos' facts, for the next run; in order of the photo's number, each once."""
    _, first = np.unique(facts["photo"], return_index=True)
    return encode_container(PART, {}, {"facts": facts[first].tobytes()})


def decode_facts(data: bytes, name: str) -> Facts:
    """What `encode_facts` was given; raises `CorruptFile`."""
    return np.frombuffer(decode_container(PART, data, name).section("facts"), FACTS)
