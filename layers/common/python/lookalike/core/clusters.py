"""A catalogue's clusters: who they are, where they lie, and the file that keeps them.

Owns the clusters file (``LKCL``) and the arrivals file (``LKCA``; docs/clusters.md). Members are
product ids; a product is where its first view is. Knows neither how clusters are found nor a store.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.core.clustering import sums_by_label
from lookalike.core.container import FileKind, decode_container, encode_container, json_bytes
from lookalike.core.errors import CorruptFile
from lookalike.core.head import Head

KIND = FileKind("clusters", b"LKCL", 1)
ARRIVALS_KIND = FileKind("arrivals", b"LKCA", 1)
PAGE_IDS = 1_000
"""Product ids of one page of a cluster's members: what one ranged GET brings."""

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Cluster:
    """One group of products.

    ``name`` is made of ``words``, the most distinctive first; both are empty where members have no
    metadata. ``cohesion`` is the members' mean cosine to the centroid, ``representatives`` are the
    members nearest to it, ``born_at`` is when the cluster first was, in epoch seconds.
    """

    cluster_id: str
    name: str
    words: tuple[str, ...]
    size: int
    cohesion: float
    born_at: float
    representatives: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class MemberPage:
    """Some members of a cluster, in order of id: where in the file, and the BLAKE2b-64 of it."""

    first: str
    count: int
    start: int
    length: int
    digest: str


@dataclass(frozen=True, slots=True)
class Clustering:
    """The clusters of a catalogue as one run made them.

    ``means`` is (k, dim_in) float32 in the space of raw embeddings, so that it holds through any
    head of ``encoder``; row i is of ``clusters[i]`` and ``members[i]``. ``next_number`` is of the
    next cluster that is new: a number is never given twice. ``k`` was chosen when there were
    ``chosen_products``, 0 when a setting said it.
    """

    serial: int
    encoder: str
    generation: str
    made_at: float
    clusters: tuple[Cluster, ...]
    means: Float32
    next_number: int = 1
    chosen_products: int = 0
    members: tuple[tuple[MemberPage, ...], ...] = ()

    def centroids(self, head: Head) -> Float32:
        """(k, head.dim_out) float32, L2-normalised: where the clusters are under a head.

        Raises
        ------
        ValueError
            The head is for embeddings of another length.
        """
        return centroids_of(self.means, head)

    def index_of(self, cluster_id: str) -> int | None:
        """The row of a cluster; None when there is none of this id."""
        for number, cluster in enumerate(self.clusters):
            if cluster.cluster_id == cluster_id:
                return number
        return None


def centroids_of(means: Float32, head: Head) -> Float32:
    """Raw means (k, dim_in) under a head: (k, head.dim_out) float32, L2-normalised.

    A mean is not brought to length one before it is centred: it is that of many rows which were.
    """
    if means.shape[1] != head.dim_in:
        raise ValueError(f"means of length {means.shape[1]}, a head for {head.dim_in}")
    if head.mean is None or head.components is None:
        return _normalized(means)
    return _normalized((means - head.mean) @ head.components.T)


class RawMeans:
    """Gathers the raw means of clusters, which give the spherical means under the head at hand.

    A row x, which the head takes to y/|y| with y = W(x − m), counts 1/|y|: then W(mean − m) has the
    direction of the mean of all y/|y|, which is what k-means found.
    """

    def __init__(self, clusters: int, head: Head) -> None:
        self._head = head
        self._sums = np.zeros((clusters, head.dim_in))
        self._weights = np.zeros(clusters)

    def add(self, raw: Float32, labels: Int64) -> None:
        """Rows (n, dim_in), L2-normalised, and their clusters (n,)."""
        weights = np.ones(len(raw), dtype=np.float32)
        if self._head.mean is not None and self._head.components is not None:
            centred = (raw - self._head.mean) @ self._head.components.T
            weights = 1 / np.maximum(np.linalg.norm(centred, axis=1), np.float32(1e-6))
        self._sums += sums_by_label(raw * weights[:, None], labels, len(self._sums))
        self._weights += np.bincount(labels, weights=weights, minlength=len(self._weights))

    def means(self) -> Float32:
        """(k, dim_in) float32, as precise as a file keeps them."""
        means = self._sums / np.maximum(self._weights, 1e-12)[:, None]
        return means.astype("<f2").astype(np.float32)


def product_hash(product_id: str) -> int:
    """What products are drawn by: BLAKE2b-64 of the id, so that the same ones are drawn again."""
    digest = hashlib.blake2b(product_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def encode_clusters(clustering: Clustering, members: Sequence[Sequence[str]]) -> tuple[bytes, int]:
    """The file of a clustering with each cluster's members, and how long its head is.

    The head is a container that is read alone; behind it are the members' pages, which it vouches
    for. A page is product ids in UTF-8, one a line: an id has no control characters.
    """
    body: list[bytes] = []
    pages: list[list[list[Any]]] = []
    for ids in members:
        ordered = sorted(ids)
        of_cluster: list[list[Any]] = []
        for start in range(0, len(ordered), PAGE_IDS):
            some = ordered[start : start + PAGE_IDS]
            page = "\n".join(some).encode()
            of_cluster.append([some[0], len(some), len(page), _digest(page)])
            body.append(page)
        pages.append(of_cluster)
    header = {
        "serial": clustering.serial,
        "encoder": clustering.encoder,
        "generation": clustering.generation,
        "made_at": clustering.made_at,
        "next_number": clustering.next_number,
        "chosen_products": clustering.chosen_products,
        "dim": clustering.means.shape[1],
        "clusters": [asdict(cluster) for cluster in clustering.clusters],
    }
    sections = {
        "means": clustering.means.astype("<f2").tobytes(),
        "pages": json_bytes(pages),
    }
    head = encode_container(KIND, header, sections)
    return b"".join([head, *body]), len(head)


def decode_clusters(head: bytes, name: str) -> Clustering:
    """Read the head of a clusters file; ``name`` is for the error.

    Raises
    ------
    CorruptFile
        The bytes are not a whole, unaltered head of a known format version.
    """
    file = decode_container(KIND, head, name)
    header = file.header
    clusters = tuple(
        Cluster(
            **{
                **cluster,
                "words": tuple(cluster["words"]),
                "representatives": tuple(cluster["representatives"]),
            }
        )
        for cluster in header["clusters"]
    )
    means = np.frombuffer(file.section("means"), dtype="<f2").astype(np.float32)
    members: list[tuple[MemberPage, ...]] = []
    start = len(head)
    for of_cluster in json.loads(bytes(file.section("pages"))):
        pages = []
        for first, count, length, digest in of_cluster:
            pages.append(MemberPage(first, count, start, length, digest))
            start += length
        members.append(tuple(pages))
    return Clustering(
        serial=header["serial"],
        encoder=header["encoder"],
        generation=header["generation"],
        made_at=header["made_at"],
        clusters=clusters,
        means=means.reshape(len(clusters), header["dim"]),
        next_number=header["next_number"],
        chosen_products=header["chosen_products"],
        members=tuple(members),
    )


def decode_page(page: MemberPage, data: bytes, name: str) -> list[str]:
    """The product ids of a page, in order; ``name`` of the file is for the error.

    Raises
    ------
    CorruptFile
        The bytes are not those that the file's head vouches for.
    """
    if _digest(data) != page.digest:
        raise CorruptFile(
            f"clusters {name} is truncated or altered: the checksum of a page does not match"
        )
    return data.decode().split("\n")


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Products that came after a clustering, or have another photo since: id → cluster's number.

    While not all that came is placed, ``seen`` has the hashes of the rows that were looked at.
    """

    placed: dict[str, int]
    seen: set[int] = field(default_factory=set)

    def ids(self, number: int, after: str = "") -> list[str]:
        """The ids in a cluster behind ``after``, in order."""
        here = (id_ for id_, at in self.placed.items() if at == number and id_ > after)
        return sorted(here)

    def sizes(self, clusters: int) -> list[int]:
        """How many are in each cluster."""
        placed = np.fromiter(self.placed.values(), np.int64, len(self.placed))
        return [int(size) for size in np.bincount(placed, minlength=clusters)]

    def encode(self) -> bytes:
        """The file for these; the same ones in any order give the same bytes."""
        ordered = sorted(self.placed)
        numbers = np.fromiter((self.placed[id_] for id_ in ordered), "<u2", len(ordered))
        sections = {"clusters": numbers.tobytes(), "ids": json_bytes(ordered)}
        if self.seen:
            seen = np.fromiter(self.seen, "<u8", len(self.seen))
            sections["seen"] = np.sort(seen).tobytes()
        return encode_container(ARRIVALS_KIND, {"products": len(ordered)}, sections)

    @classmethod
    def decode(cls, data: bytes, name: str) -> Arrivals:
        """Read an arrivals file; raises `CorruptFile`. ``name`` is for the error."""
        file = decode_container(ARRIVALS_KIND, data, name)
        ids = json.loads(bytes(file.section("ids")))
        numbers = np.frombuffer(file.section("clusters"), dtype="<u2").tolist()
        seen: set[int] = set()
        if "seen" in file.header["sections"]:
            seen = set(np.frombuffer(file.section("seen"), dtype="<u8").tolist())
        return cls(dict(zip(ids, numbers, strict=True)), seen)


def without_empty(
    clustering: Clustering, members: Sequence[Sequence[str]]
) -> tuple[Clustering, list[Sequence[str]]]:
    """The clusters that have members, and these."""
    kept = [number for number, ids in enumerate(members) if ids]
    left = replace(
        clustering,
        clusters=tuple(clustering.clusters[number] for number in kept),
        means=clustering.means[kept],
    )
    return left, [members[number] for number in kept]


def pages_from(pages: Sequence[MemberPage], after: str) -> Iterator[MemberPage]:
    """The pages that may have ids behind ``after``, in order."""
    for number, page in enumerate(pages):
        following = pages[number + 1] if number + 1 < len(pages) else None
        if following is None or following.first > after:
            yield page


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _normalized(rows: npt.NDArray[np.floating[Any]]) -> Float32:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(norms, 1e-12), dtype=np.float32)
