"""Working objects of a recluster run: how far its two passes over the catalogue are.

Owns their bytes. They live until the run has finished; another version of the program that finds
them damaged or different begins the run anew.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field

import numpy as np

from lookalike.core.cluster_names import WordCounts, words_of
from lookalike.core.cluster_plan import Plan
from lookalike.core.cluster_sample import Sample
from lookalike.core.clusters import Float32, Int64, product_hash
from lookalike.core.container import FileKind, decode_container, encode_container, json_bytes
from lookalike.services.live_embeddings import Block, RowsCursor

REPRESENTATIVES = 12
"""Products nearest to a cluster's centroid that are kept as its face."""

_SAMPLED = FileKind("recluster sample", b"LKR1", 1)
_ASSIGNED = FileKind("recluster members", b"LKR3", 1)
_PART = FileKind("recluster part", b"LKR4", 1)


@dataclass(frozen=True, slots=True)
class Source:
    """What a run is made of: the ``generation``'s rows, under a head, as of ``through_at``."""

    generation: str
    encoder: str
    head: str
    through_at: float


@dataclass(slots=True)
class Sampling:
    """The first pass: draws the sample."""

    source: Source
    sample: Sample
    cursor: RowsCursor = field(default_factory=RowsCursor)

    def encode(self) -> bytes:
        """For `decode`, later."""
        sections = {"sample": self.sample.encode(), "cursor": self.cursor.encode()}
        return encode_container(_SAMPLED, asdict(self.source), sections)

    @classmethod
    def decode(cls, data: bytes, name: str) -> Sampling:
        """What `encode` gave; raises `CorruptFile`."""
        file = decode_container(_SAMPLED, data, name)
        return cls(
            _source(file.header),
            Sample.decode(bytes(file.section("sample")), name),
            RowsCursor.decode(bytes(file.section("cursor"))),
        )


@dataclass(slots=True)
class Assigning:
    """The second pass: which cluster each product is in, and what that makes of the clusters.

    Whoever is in a cluster is in parts of its own, ``parts``. ``best`` holds a cluster's members
    nearest to its centroid, ``similarity`` the sum of all members' cosines. Words are counted of
    the sample's products, whose hashes are up to ``threshold``. ``unreadable`` are keys of files.
    """

    source: Source
    plan: Plan
    serial: int
    threshold: int
    words: WordCounts
    similarity: list[float]
    counted: list[int]
    best: list[list[tuple[float, str]]]
    parts: list[str] = field(default_factory=list)
    cursor: RowsCursor = field(default_factory=RowsCursor)
    unreadable: list[str] = field(default_factory=list)

    @classmethod
    def begun(cls, source: Source, plan: Plan, serial: int, threshold: int) -> Assigning:
        """Before the first product."""
        count = len(plan.ids)
        return cls(
            source,
            plan,
            serial,
            threshold,
            WordCounts(count),
            [0.0] * count,
            [0] * count,
            [[] for _ in range(count)],
        )

    def add(self, block: Block, numbers: Int64, similarity: Float32, part: Part) -> None:
        """Count rows with the numbers of their clusters (n,) and their cosines to its centroid."""
        first = block.first
        for product, number, is_first in zip(
            block.products, numbers.tolist(), first.tolist(), strict=True
        ):
            if not is_first:
                part.other[product.product_id] = number
                continue
            part.first[product.product_id] = number
            if product_hash(product.product_id) <= self.threshold:
                self.words.add(number, words_of(product.attributes))
        ids = [block.products[row].product_id for row in np.flatnonzero(first)]
        self._measure(ids, numbers[first], similarity[first])

    def _measure(self, ids: list[str], numbers: Int64, similarity: Float32) -> None:
        count = len(self.plan.ids)
        sums = np.bincount(numbers, weights=similarity, minlength=count)
        self.similarity = [a + float(b) for a, b in zip(self.similarity, sums, strict=True)]
        here = np.bincount(numbers, minlength=count)
        self.counted = [a + int(b) for a, b in zip(self.counted, here, strict=True)]
        order = np.lexsort((-similarity, numbers))
        for number, end in enumerate(np.cumsum(here).tolist()):
            nearest = order[end - here[number] : end][:REPRESENTATIVES].tolist()
            best = {id_: cosine for cosine, id_ in self.best[number]}
            best |= {ids[row]: round(float(similarity[row]), 6) for row in nearest}
            ranked = ((cosine, id_) for id_, cosine in best.items())
            self.best[number] = heapq.nsmallest(
                REPRESENTATIVES, ranked, key=lambda item: (-item[0], item[1])
            )

    def encode(self) -> bytes:
        """For `decode`, later."""
        plan = asdict(self.plan)
        del plan["means"]
        header = {
            **asdict(self.source),
            "plan": plan,
            "serial": self.serial,
            "threshold": self.threshold,
            "similarity": self.similarity,
            "counted": self.counted,
            "best": self.best,
            "parts": self.parts,
            "unreadable": self.unreadable,
            "dim": self.plan.means.shape[1],
        }
        sections = {
            "means": self.plan.means.astype("<f4").tobytes(),
            "words": json_bytes(self.words.as_json()),
            "cursor": self.cursor.encode(),
        }
        return encode_container(_ASSIGNED, header, sections)

    @classmethod
    def decode(cls, data: bytes, name: str) -> Assigning:
        """What `encode` gave; raises `CorruptFile`."""
        file = decode_container(_ASSIGNED, data, name)
        header = file.header
        plan = header["plan"]
        means = np.frombuffer(file.section("means"), dtype="<f4").reshape(-1, header["dim"])
        return cls(
            _source(header),
            Plan(
                **{
                    **plan,
                    "means": means,
                    "ids": tuple(plan["ids"]),
                    "born_at": tuple(plan["born_at"]),
                }
            ),
            header["serial"],
            header["threshold"],
            WordCounts.from_json(json.loads(bytes(file.section("words")))),
            header["similarity"],
            header["counted"],
            [[(cosine, id_) for cosine, id_ in best] for best in header["best"]],
            header["parts"],
            RowsCursor.decode(bytes(file.section("cursor"))),
            header.get("unreadable", []),
        )


@dataclass(slots=True)
class Part:
    """Some products and their clusters' numbers, as a pass met them.

    A product met in its first view is in ``first``; one met in another view is in ``other``, which
    counts only if the first one is never met: it may be deleted meanwhile.
    """

    first: dict[str, int] = field(default_factory=dict)
    other: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.first) + len(self.other)

    def encode(self) -> bytes:
        """For `decode`, later."""
        sections = {}
        for name, placed in (("first", self.first), ("other", self.other)):
            numbers = np.fromiter(placed.values(), "<u2", len(placed))
            sections[name] = "\n".join(placed).encode()
            sections[f"{name}_clusters"] = numbers.tobytes()
        return encode_container(_PART, {}, sections)

    @classmethod
    def decode(cls, data: bytes, name: str) -> Part:
        """What `encode` gave; raises `CorruptFile`."""
        file = decode_container(_PART, data, name)

        def placed(name: str) -> dict[str, int]:
            numbers = np.frombuffer(file.section(f"{name}_clusters"), dtype="<u2").tolist()
            ids = bytes(file.section(name)).decode().split("\n") if numbers else []
            return dict(zip(ids, numbers, strict=True))

        return cls(placed("first"), placed("other"))


def joined(parts: Iterable[Part], clusters: int) -> list[list[str]]:
    """Each cluster's products, every product once: where it was met last in its first view."""
    first: dict[str, int] = {}
    other: dict[str, int] = {}
    for part in parts:
        first.update(part.first)
        other.update(part.other)
    members: list[list[str]] = [[] for _ in range(clusters)]
    for id_, number in first.items():
        members[number].append(id_)
    for id_, number in other.items():
        if id_ not in first:
            members[number].append(id_)
    return members


def _source(header: dict[str, object]) -> Source:
    return Source(
        str(header["generation"]),
        str(header["encoder"]),
        str(header["head"]),
        float(str(header["through_at"])),
    )
