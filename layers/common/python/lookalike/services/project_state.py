"""What a map under way is made of: its working objects, and what the next slice goes on with.

Owns their formats. They are named by their content, so that a runner which was taken over cannot
change what its successor reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import numpy as np

from lookalike.core.container import Container, FileKind, decode_container, encode_container
from lookalike.core.errors import Vanished
from lookalike.core.head import Head, decode_head, encode_head
from lookalike.core.keys import content_digest
from lookalike.core.placement import Float32, Float64, Hashes, Mask
from lookalike.core.projection import Descent, Graph
from lookalike.services.jobs import Run

READING, LAYING_OUT, PLACING = "reading", "laying out", "placing"
PHASES = frozenset({READING, LAYING_OUT, PLACING})

_VERSION = 1
_KIND = FileKind("working object of a map", b"LKPW", 1)


@dataclass(slots=True)
class Progress:
    """Where a run goes on.

    It lays out the rows of ``generation``, of space ``encoder``, under the head file ``head``, that
    were committed by ``through_at`` (epoch seconds), and shows the clusters with serial number
    ``clusters`` (0 when there were none). When it began, the map had the serial number ``serial``,
    0 when there was none. ``parts`` are the names of (index, rows) and how many rows they have,
    read up to ``rows_cursor``; ``seen`` has the hashes of their products. ``sample``, ``descent``
    and ``layout`` are names, ``chunks`` those of what was placed;
    ``unreadable`` are keys of raw files.
    """

    generation: str
    encoder: str
    head: str
    through_at: float
    clusters: int
    serial: int
    parts: list[tuple[str, str, int]] = field(default_factory=list)
    rows_cursor: bytes = b""
    seen: bytes = b""
    sample: str = ""
    descent: str = ""
    layout: str = ""
    scale: float = 1.0
    summary: dict[str, str | int | float | bool] = field(default_factory=dict)
    chunks: list[tuple[str, int]] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    version: int = _VERSION


def put_object(run: Run, kind: str, body: bytes) -> str:
    """Write a working object; gives its name."""
    name = f"{kind}-{content_digest(body)}"
    run.put(name, body)
    return name


def get_object(run: Run, name: str) -> bytes:
    """Read a working object; raises `Vanished` when another runner has deleted it."""
    body = run.get(name)
    if body is None:
        raise Vanished(f"{name} of run {run.job.run} of {run.job.name} is not in the bucket")
    return body


def save(run: Run, progress: Progress, phase: str, done: int, total: int) -> None:
    """Save where the run goes on; raises `Superseded` when another runner has taken it over."""
    name = put_object(run, "progress", msgspec.msgpack.encode(progress))
    run.save(phase=phase, done=done, total=total, cursor=name)


def load(run: Run) -> Progress | None:
    """Where the run goes on; None when it was begun by another version of this program.

    Raises
    ------
    Vanished
        Another runner has ended the run.
    """
    try:
        progress = msgspec.msgpack.decode(get_object(run, run.job.cursor), type=Progress)
    except msgspec.MsgspecError:
        return None
    known = progress.version == _VERSION and run.job.phase in PHASES
    return progress if known else None


@dataclass(frozen=True, slots=True)
class PartIndex:
    """Which rows a part has.

    ``products`` and ``rows`` (n,) uint64 are the hashes of each row's product and of its key and
    version; ``first`` (n,) says whether it is its product's first view.
    """

    products: Hashes
    rows: Hashes
    first: Mask

    def encode(self) -> bytes:
        """For `decode`, later."""
        return encode_container(
            _KIND,
            {},
            {
                "products": self.products.tobytes(),
                "rows": self.rows.tobytes(),
                "first": self.first.tobytes(),
            },
        )

    @classmethod
    def decode(cls, body: bytes) -> PartIndex:
        """What `encode` gave."""
        file = decode_container(_KIND, body, "index of a part")
        return cls(
            np.frombuffer(file.section("products"), np.uint64),
            np.frombuffer(file.section("rows"), np.uint64),
            np.frombuffer(file.section("first"), np.bool_),
        )


@dataclass(frozen=True, slots=True)
class PartRows:
    """What a part's rows hold: ``embeddings`` (n, dim), and labels and details as Arrow streams."""

    embeddings: Float32
    labels: bytes
    details: bytes

    def encode(self) -> bytes:
        """For `decode`, later; embeddings are kept as float16."""
        return encode_container(
            _KIND,
            {"dim": self.embeddings.shape[1]},
            {
                "embeddings": self.embeddings.astype(np.float16).tobytes(),
                "labels": self.labels,
                "details": self.details,
            },
        )

    @classmethod
    def decode(cls, body: bytes) -> PartRows:
        """What `encode` gave."""
        file = decode_container(_KIND, body, "rows of a part")
        embeddings = np.frombuffer(file.section("embeddings"), np.float16)
        return cls(
            embeddings.reshape(-1, file.header["dim"]).astype(np.float32),
            bytes(file.section("labels")),
            bytes(file.section("details")),
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """The products that are laid out.

    ``kept`` (rows of all parts,) says which rows stay, one a product; ``products`` (n,) are the
    hashes of those that are laid out. ``coordinates`` (n, basis.dim_out) are theirs; ``known``
    (n, 2) is where they are in the map before, ``is_known`` (n,) whether they are in it; ``start``
    (n, 2) is where t-SNE starts, for ``iterations`` steps, over ``graph``.
    """

    kept: Mask
    products: Hashes
    basis: Head
    coordinates: Float32
    known: Float64
    is_known: Mask
    start: Float64
    iterations: int
    graph: Graph

    def encode(self) -> bytes:
        """For `decode`, later."""
        return encode_container(
            _KIND,
            {"dim": self.coordinates.shape[1], "iterations": self.iterations},
            {
                "kept": self.kept.tobytes(),
                "products": self.products.tobytes(),
                "basis": encode_head(self.basis),
                "coordinates": self.coordinates.tobytes(),
                "known": self.known.tobytes(),
                "is_known": self.is_known.tobytes(),
                "start": self.start.tobytes(),
                "neighbours": self.graph.rows.astype(np.int32).tobytes(),
                "distances": self.graph.distances.tobytes(),
            },
        )

    @classmethod
    def decode(cls, body: bytes) -> Sample:
        """What `encode` gave."""
        file = decode_container(_KIND, body, "sample")
        products = np.frombuffer(file.section("products"), np.uint64)
        rows = len(products)
        neighbours = np.frombuffer(file.section("neighbours"), np.int32).astype(np.int64)
        distances = np.frombuffer(file.section("distances"), np.float32)
        return cls(
            np.frombuffer(file.section("kept"), np.bool_),
            products,
            decode_head(bytes(file.section("basis")), "basis of a map"),
            np.frombuffer(file.section("coordinates"), np.float32).reshape(rows, -1),
            _pairs(file, "known"),
            np.frombuffer(file.section("is_known"), np.bool_),
            _pairs(file, "start"),
            file.header["iterations"],
            Graph(neighbours.reshape(rows, -1), distances.reshape(rows, -1)),
        )


def encode_descent(descent: Descent) -> bytes:
    """For `decode_descent`, later."""
    return encode_container(
        _KIND,
        {"done": descent.done, "iterations": descent.iterations},
        {
            "positions": descent.positions.tobytes(),
            "update": descent.update.tobytes(),
            "gains": descent.gains.tobytes(),
        },
    )


def decode_descent(body: bytes) -> Descent:
    """What `encode_descent` gave."""
    file = decode_container(_KIND, body, "descent")
    positions, update, gains = (_pairs(file, name) for name in ("positions", "update", "gains"))
    return Descent(positions, update, gains, file.header["done"], file.header["iterations"])


@dataclass(frozen=True, slots=True)
class PlacedChunk:
    """Products with their places: Arrow streams, and hashes of them and of their rows."""

    points: bytes
    details: bytes
    products: Hashes
    rows: Hashes

    def encode(self) -> bytes:
        """For `decode`, later."""
        return encode_container(
            _KIND,
            {},
            {
                "points": self.points,
                "details": self.details,
                "products": self.products.tobytes(),
                "rows": self.rows.tobytes(),
            },
        )

    @classmethod
    def decode(cls, body: bytes) -> PlacedChunk:
        """What `encode` gave."""
        file = decode_container(_KIND, body, "chunk of a map")
        return cls(
            bytes(file.section("points")),
            bytes(file.section("details")),
            np.frombuffer(file.section("products"), np.uint64),
            np.frombuffer(file.section("rows"), np.uint64),
        )


def _pairs(file: Container, name: str) -> Float64:
    return np.frombuffer(file.section(name), np.float64).reshape(-1, 2).copy()
