"""Building a base file out of rows: inverted lists, codes, columns, lookup. Pure.

Rows that are given in another order, at the same time, make the same file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from lookalike.core.base_layout import (
    KIND,
    LOOKUP_DTYPE,
    LOOKUP_ROWS,
    Float32,
    Int64,
    UInt8,
    digest_of,
    encode_block,
    fine_codes,
    key_hash,
)
from lookalike.core.columns import columns_of
from lookalike.core.container import encode_container, json_bytes
from lookalike.core.types import Attributes

LISTS_PER_ROOT = 4.0
TRAINING_ROWS_PER_LIST = 40
TRAINING_ROUNDS = 10
_CHUNK_ROWS = 65_536


@dataclass(frozen=True, slots=True)
class BaseRows:
    """What a base is built of, row by row.

    ``versions`` are 16 hex digits each; ``embeddings`` is (n, dim) float32, L2-normalised, in the
    space that is indexed.
    """

    keys: Sequence[str]
    versions: Sequence[str]
    embeddings: Float32
    attributes: Sequence[Attributes]


@dataclass(frozen=True, slots=True)
class BuiltBase:
    """A base file: its bytes, the digest that names it, how long its head is.

    ``trained`` is False where the lists that were given were kept.
    """

    data: bytes
    digest: str
    head_bytes: int
    lists: int
    trained: bool


def lists_for(rows: int, flat_rows: int) -> int:
    """How many inverted lists a base of so many rows gets; one up to ``flat_rows``.

    4 √rows, as FAISS suggests: 20 lists of 100,000 × 256 rows hold 0.990 of the ten nearest in
    2.0 % of the bytes; with 2 √rows lists it was 0.979 in 4.0 %, with rows / 500 lists 0.974 in
    11.8 %.
    """
    return 1 if rows <= flat_rows else max(1, min(rows, round(LISTS_PER_ROOT * rows**0.5)))


def build_base(
    rows: BaseRows,
    *,
    encoder: str,
    head: str,
    flat_rows: int,
    lists: Float32 | None = None,
    seed: int = 0,
    built_at: float = 0.0,
    generation: str = "",
) -> BuiltBase:
    """Lay out one base file.

    Parameters
    ----------
    rows
        At least one row.
    encoder, head
        Id of the embedding space and digest of the head that the embeddings went through.
    flat_rows
        Up to so many rows make one list, which every query reads whole.
    lists
        (lists, dim) centroids to keep using (`Base.centroids` of the base before) instead of
        training; of no effect where there is one list before or after.
    seed
        Of the k-means training.
    built_at, generation
        Epoch seconds and id of the generation, which make the file's name one of a kind; left out
        where they are not given.

    Raises
    ------
    ValueError
        There are no rows, or their numbers differ.
    """
    count = len(rows.keys)
    if not count:
        raise ValueError("a base has at least one row")
    if not count == len(rows.versions) == len(rows.embeddings) == len(rows.attributes):
        raise ValueError("a base needs a key, a version, an embedding and attributes for each row")
    centroids, list_rows, order, trained = _lists(rows, lists, flat_rows, seed)
    minimum: Float32 = rows.embeddings.min(axis=0)
    span: Float32 = rows.embeddings.max(axis=0) - minimum
    blocks = list(_blocks(rows, order, list_rows, minimum, span))
    columns = {
        name: column.encode()
        for name, column in columns_of([rows.attributes[row] for row in order]).items()
    }
    lookup = _lookup(rows, order)
    buckets = [lookup[i : i + LOOKUP_ROWS] for i in range(0, count, LOOKUP_ROWS)]
    header: dict[str, Any] = {
        "encoder": encoder,
        "head": head,
        "dim": rows.embeddings.shape[1],
        "rows": count,
        "lists": len(centroids),
    }
    origin = {"built_at": built_at, "generation": generation}
    header |= {name: value for name, value in origin.items() if value}
    ranges = minimum, span
    data_head = _encoded_head(header, centroids, list_rows, ranges, blocks, columns, buckets)
    data = b"".join([data_head, *blocks, *columns.values(), lookup.tobytes()])
    return BuiltBase(data, data_head[-16:].hex(), len(data_head), len(centroids), trained=trained)


def _lists(
    rows: BaseRows, lists: Float32 | None, flat_rows: int, seed: int
) -> tuple[npt.NDArray[np.float16], Int64, Int64, bool]:
    """Centroids, rows of each list, row numbers list by list, whether the centroids are new."""
    count = len(rows.keys)
    by_version = sorted(range(count), key=rows.versions.__getitem__)
    order = np.asarray(sorted(by_version, key=rows.keys.__getitem__), dtype=np.int64)
    wanted = lists_for(count, flat_rows)
    kept = lists if lists is not None and len(lists) > 1 and count > flat_rows else None
    centroids = (
        _trained(rows.embeddings, order, wanted, seed) if kept is None else kept.astype("<f2")
    )
    list_of = _assigned(rows.embeddings, order, centroids.astype(np.float32))
    # Stable: within a list rows stay in order of (key, version), on which ties are decided.
    order = order[np.argsort(list_of, kind="stable")]
    list_rows = np.bincount(list_of, minlength=len(centroids))
    return centroids, list_rows, order, kept is None


def _encoded_head(
    header: Mapping[str, Any],
    centroids: npt.NDArray[np.float16],
    list_rows: Int64,
    ranges: tuple[Float32, Float32],
    blocks: Sequence[bytes],
    columns: Mapping[str, bytes],
    buckets: Sequence[npt.NDArray[np.void]],
) -> bytes:
    """The head, with a digest of every part of the body."""
    minimum, span = ranges
    return encode_container(
        KIND,
        header,
        {
            "centroids": centroids.tobytes(),
            "list_rows": list_rows.astype("<u4").tobytes(),
            "list_bytes": np.asarray([len(block) for block in blocks], dtype="<u4").tobytes(),
            "list_digests": b"".join(map(digest_of, blocks)),
            "minimum": minimum.astype("<f4").tobytes(),
            "span": span.astype("<f4").tobytes(),
            "columns": json_bytes(
                [[name, len(data), digest_of(data).hex()] for name, data in columns.items()]
            ),
            "lookup_hashes": np.asarray([b["hash"][0] for b in buckets], dtype="<u8").tobytes(),
            "lookup_digests": b"".join(digest_of(bucket.tobytes()) for bucket in buckets),
        },
    )


def scalar_quantizer(minimum: Float32, span: Float32) -> faiss.ScalarQuantizer:
    """FAISS's 8-bit codec with a range for each dimension; both arguments are (dim,) float32."""
    quantizer = faiss.ScalarQuantizer(len(minimum), faiss.ScalarQuantizer.QT_8bit)
    trained = np.concatenate([minimum, span]).astype(np.float32)
    faiss.copy_array_to_vector(trained, quantizer.trained)
    return quantizer


def _trained(embeddings: Float32, order: Int64, lists: int, seed: int) -> npt.NDArray[np.float16]:
    """Spherical k-means on an even sample: (lists, dim) float16, rounded as they are stored."""
    if lists == 1:
        return np.asarray(embeddings.mean(axis=0, keepdims=True), dtype="<f2")
    wanted = min(len(order), lists * TRAINING_ROWS_PER_LIST)
    sample = order[np.linspace(0, len(order) - 1, wanted).astype(np.int64)]
    kmeans = faiss.Kmeans(
        embeddings.shape[1],
        lists,
        niter=TRAINING_ROUNDS,
        spherical=True,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=TRAINING_ROWS_PER_LIST,
    )
    kmeans.train(embeddings[sample])
    return np.asarray(kmeans.centroids, dtype="<f2")


def _assigned(embeddings: Float32, order: Int64, centroids: Float32) -> Int64:
    """The list of each row of ``order``: that of the centroid with the largest inner product."""
    if len(centroids) == 1:
        return np.zeros(len(order), dtype=np.int64)
    found = [
        faiss.knn(embeddings[chunk], centroids, 1, metric=faiss.METRIC_INNER_PRODUCT)[1][:, 0]
        for chunk in _chunks(order)
    ]
    return np.concatenate(found)


def _blocks(
    rows: BaseRows, order: Int64, list_rows: Int64, minimum: Float32, span: Float32
) -> Iterator[bytes]:
    """Each list's block. Lists are coded one by one, so that no second copy of all rows is made."""
    dim, start = rows.embeddings.shape[1], 0
    quantizer = scalar_quantizer(minimum, span)
    for count in list_rows.tolist():
        chosen = order[start : start + count]
        start += count
        if not count:
            yield b""
            continue
        embeddings = rows.embeddings[chosen]
        codes: UInt8 = quantizer.compute_codes(embeddings).reshape(count, dim)
        yield encode_block(
            codes,
            fine_codes(embeddings, codes, minimum, span),
            [rows.versions[row] for row in chosen],
            [rows.keys[row] for row in chosen],
        )


def _lookup(rows: BaseRows, order: Int64) -> npt.NDArray[np.void]:
    """(rows,) `LOOKUP_DTYPE`, sorted: the hash of key and version of each row of ``order``."""
    hashes = np.fromiter(
        (key_hash(rows.keys[row], rows.versions[row]) for row in order), np.uint64, len(order)
    )
    by_hash = np.argsort(hashes, kind="stable")
    lookup = np.empty(len(order), dtype=LOOKUP_DTYPE)
    lookup["hash"], lookup["row"] = hashes[by_hash], by_hash
    return lookup


def _chunks(order: Int64) -> Iterator[Int64]:
    for start in range(0, len(order), _CHUNK_ROWS):
        yield order[start : start + _CHUNK_ROWS]
