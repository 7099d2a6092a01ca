"""A generation's head: turns raw embeddings into what is indexed, and says which shard that is in.

e = normalize(W(g/|g| − m)) with m the mean of the catalogue's embeddings and W its first principal
components, without whitening (Jégou & Chum, "Negative evidences and co-occurrences in image
retrieval", ECCV 2012, on centring). The identity until there is a fitted one. Owns the head file
(magic ``LKHD``); knows nothing of where rows come from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.core.clustering import cluster
from lookalike.core.container import FileKind, decode_container, encode_container

KIND = FileKind("head", b"LKHD", 1)
MAX_FITTED_ROWS = 50_000
"""Rows beyond which a fit gains nothing that could be measured."""

_AT_ONCE = 8192
_RANK_TOLERANCE = 1e-6  # of the largest eigenvalue; float32 rows cannot tell smaller ones from zero

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Head:
    """What a generation does to raw embeddings.

    ``mean`` is (dim_in,) and ``components`` (dim_out, dim_in), both None for the identity;
    ``centroids`` is (shards, dim_out), L2-normalised, None when there is one shard. All float32.
    ``digest`` names the head's file, "" for one that was not read from a file.
    """

    dim_in: int
    dim_out: int
    mean: Float32 | None = None
    components: Float32 | None = None
    centroids: Float32 | None = None
    digest: str = ""

    @classmethod
    def identity(cls, dim: int) -> Head:
        """The head of a generation that has none yet: normalises, one shard."""
        return cls(dim, dim)

    @property
    def shards(self) -> int:
        """How many shards rows are routed to."""
        return 1 if self.centroids is None else len(self.centroids)

    def project(self, raw: Float32) -> Float32:
        """Raw embeddings (n, dim_in) → indexed embeddings (n, dim_out), L2-normalised."""
        embeddings = _normalized(raw)
        if self.mean is None or self.components is None:
            return embeddings
        embeddings -= self.mean
        return _normalized(embeddings @ self.components.T)

    def route(self, embeddings: Float32) -> npt.NDArray[np.int64]:
        """The shard (n,) of each indexed embedding (n, dim_out): that of the nearest centroid."""
        if self.centroids is None:
            return np.zeros(len(embeddings), dtype=np.int64)
        return np.asarray(np.argmax(embeddings @ self.centroids.T, axis=1), dtype=np.int64)


def fit_head(sample: Float32, dim: int) -> Head:
    """Centring and PCA fitted on raw embeddings, with one shard.

    Parameters
    ----------
    sample
        (n, d) float32, some of the catalogue's raw embeddings; the order does not matter.
    dim
        Most components to keep; fewer are kept when the sample has no more.

    Returns
    -------
    Head
        The identity when all rows of the sample are the same.
    """
    rows, width = sample.shape
    total: Float64 = np.zeros(width)
    for start in range(0, rows, _AT_ONCE):
        total += _normalized(sample[start : start + _AT_ONCE]).sum(axis=0, dtype=np.float64)
    mean = (total / max(rows, 1)).astype(np.float32)
    values, axes = _principal_axes(sample, mean)
    rank = int((values > max(values[0] * _RANK_TOLERANCE, 1e-12)).sum())
    if rank == 0:
        return Head.identity(width)
    components = axes[: min(dim, rank)]
    # An eigenvector's sign is free; a positive largest entry makes the fit repeatable.
    peaks = np.abs(components).argmax(axis=1)
    components = components * np.sign(components[np.arange(len(components)), peaks])[:, None]
    kept = np.ascontiguousarray(components, dtype=np.float32)
    return Head(width, len(kept), mean, kept)


def _principal_axes(sample: Float32, mean: Float32) -> tuple[Float64, Float64]:
    """Variances (r,) along the principal axes, largest first, and the axes (r, dim)."""
    rows, width = sample.shape
    if rows < width:
        # The same out of the smaller matrix of inner products (Turk & Pentland, 1991).
        centred = (_normalized(sample) - mean).astype(np.float64)
        values, vectors = np.linalg.eigh(centred @ centred.T / rows)
        axes = vectors.T @ centred
        return values[::-1], axes[::-1] / np.sqrt(np.maximum(rows * values[::-1], 1e-12))[:, None]
    covariance = np.zeros((width, width))
    for start in range(0, rows, _AT_ONCE):
        part = _normalized(sample[start : start + _AT_ONCE]) - mean
        covariance += part.T @ part
    values, vectors = np.linalg.eigh(covariance / rows)
    return values[::-1], vectors.T[::-1]


def with_shards(
    head: Head, sample: Float32, shards: int, seed: int = 0, *, share: float = 1.0
) -> Head:
    """The head with centroids for ``shards`` shards or more, by spherical k-means.

    Parameters
    ----------
    head
        Its projection is kept.
    sample
        (n, dim_in) float32, some of the catalogue's raw embeddings.
    shards
        How many; fewer are made when the sample has fewer rows.
    seed
        Of the k-means.
    share
        Most of the sample's rows that one shard should get. Shards of more are split in two, one
        by one, until there are twice as many as asked for; rows that are all alike stay together.
    """
    shards = min(shards, len(sample))
    if shards <= 1:
        return replace(head, centroids=None)
    parts = [
        head.project(sample[start : start + _AT_ONCE]) for start in range(0, len(sample), _AT_ONCE)
    ]
    embeddings = np.ascontiguousarray(np.concatenate(parts))
    routed = replace(head, centroids=cluster(embeddings, shards, seed).centroids)
    whole: set[int] = set()
    while routed.shards < 2 * shards:
        shard_of = routed.route(embeddings)
        counts = np.bincount(shard_of, minlength=routed.shards)
        counts[list(whole)] = 0
        fullest = int(counts.argmax())
        if counts[fullest] <= max(share * len(embeddings), 1):
            break
        members = embeddings[shard_of == fullest]
        halves = cluster(members, 2, seed).centroids
        if len(np.unique((members @ halves.T).argmax(axis=1))) == 1:
            whole.add(fullest)
            continue
        assert routed.centroids is not None
        centroids = np.concatenate([routed.centroids, halves[1:]])
        centroids[fullest] = halves[0]
        routed = replace(head, centroids=centroids)
    return routed


def encode_head(head: Head, *, built_at: float = 0.0, generation: str = "") -> bytes:
    """The file for a head.

    ``built_at`` (epoch seconds) and the id of the generation make its name one of a kind; they are
    left out where they are not given.
    """
    header: dict[str, Any] = {
        "dim_in": head.dim_in,
        "dim_out": head.dim_out,
        "fitted": head.mean is not None,
        "shards": head.shards,
    }
    origin = {"built_at": built_at, "generation": generation}
    header |= {name: value for name, value in origin.items() if value}
    arrays = {"mean": head.mean, "components": head.components, "centroids": head.centroids}
    sections = {
        name: array.astype("<f4").tobytes() for name, array in arrays.items() if array is not None
    }
    return encode_container(KIND, header, sections)


def decode_head(data: bytes, name: str) -> Head:
    """Read a head file; ``name`` is for the error.

    Raises
    ------
    CorruptFile
        The bytes are not a whole, unaltered head of a known format version.
    """
    file = decode_container(KIND, data, name)
    dim_in, dim_out = file.header["dim_in"], file.header["dim_out"]

    def array(section: str, *shape: int) -> Float32:
        return np.frombuffer(file.section(section), dtype="<f4").reshape(shape)

    shards = file.header["shards"]
    fitted = file.header["fitted"]
    return Head(
        dim_in,
        dim_out,
        array("mean", dim_in) if fitted else None,
        array("components", dim_out, dim_in) if fitted else None,
        array("centroids", shards, dim_out) if shards > 1 else None,
    )


def _normalized(rows: Float32) -> Float32:
    """A copy of the rows with length one; a row of zeros stays one."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(norms, 1e-12), dtype=np.float32)
