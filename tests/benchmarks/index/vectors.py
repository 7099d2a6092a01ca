"""Synthetic embeddings with clusters, made once and kept in a folder, and exact answers.

A row is ``normalize(√(1 − s) · centre + √s · noise)``. Centres (unit length) and noise are Gaussian
with variance ∝ (i + 4)^−1.3 in coordinate i = 0, 1, …; a row's centre is drawn with probability
∝ rank^−0.8 of 1,000, so that some clusters are 250 times as large as others; s = 0.35. All is
turned by one random rotation, as the coordinates of a raw embedding are no principal axes. Any
1,355 such rows of length 256 resemble the 1,355 clothing photos under a fitted head: variance of
the first, fourth, 16th and 64th component 8.7/5.0/1.5/0.25 % against 10/5.4/1.2/0.24 %, effective
dimension 32.5 against 33.0, standard deviation of all cosines 0.174 against 0.172, mean cosine to
the nearest neighbour 0.669 against 0.665.

Rows are drawn in blocks, each with a seed of its own, so that a small catalogue is the beginning of
the large one. Queries and rows to append are further draws and never in the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]

CENTRES = 1_000
NOISE_SHARE = 0.35
SEED = 20261123
K = 10
QUERIES = 200
EXTRA = 34_000
STEPS = 200  # values of each attribute
SELECTIVITIES = {"50 %": 100, "5 %": 10, "0.5 %": 1}
ATTRIBUTES = ("random", "clustered")

_BLOCK = 50_000


@dataclass(frozen=True, slots=True)
class Filter:
    """Rows whose ``attribute`` is below ``bound``: ``bound / STEPS`` of all."""

    attribute: str
    selectivity: str

    @property
    def bound(self) -> int:
        return SELECTIVITIES[self.selectivity]


FILTERS = [Filter(name, share) for name in ATTRIBUTES for share in SELECTIVITIES]


@cache
def _centres(dim: int) -> tuple[Float32, Float32, Float32]:
    """Axes (dim, dim) of the noise, centres (CENTRES, dim), cumulative probability (CENTRES,)."""
    rng = np.random.default_rng((SEED, dim))
    variance = (np.arange(dim) + 4.0) ** -1.3
    deviation = np.sqrt(variance / variance.sum()).astype(np.float32)
    rotation = np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)
    axes = deviation[:, None] * rotation
    centres = rng.standard_normal((CENTRES, dim), dtype=np.float32) @ axes
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    weights = (np.arange(CENTRES) + 1.0) ** -0.8
    return axes, centres, np.cumsum(rng.permutation(weights / weights.sum()))


def _draw(dim: int, rows: int, seed: tuple[int, ...]) -> tuple[Float32, npt.NDArray[np.uint8]]:
    """Embeddings (rows, dim) and their attributes (rows, 2): random, clustered."""
    axes, centres, cumulative = _centres(dim)
    rng = np.random.default_rng((SEED, dim, *seed))
    place = rng.random(rows)
    cluster = np.minimum(np.searchsorted(cumulative, place), CENTRES - 1)
    noise = rng.standard_normal((rows, dim), dtype=np.float32) @ axes
    embeddings = np.sqrt(1 - NOISE_SHARE) * centres[cluster] + np.sqrt(NOISE_SHARE) * noise
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    # "clustered": clusters in their (shuffled) order share the values evenly, so a filter admits
    # some clusters whole and nothing of the others.
    values = np.stack([rng.integers(STEPS, size=rows), (place * STEPS).astype(np.int64)], axis=1)
    return embeddings.astype(np.float32), values.astype(np.uint8)


@dataclass(frozen=True)
class Vectors:
    """A catalogue of ``rows`` embeddings of length ``dim`` in ``folder``."""

    folder: Path
    rows: int
    dim: int

    @property
    def name(self) -> str:
        thousands = self.rows // 1000
        size = f"{thousands // 1000}M" if thousands >= 1000 else f"{thousands}k"
        return f"{size} × {self.dim}"

    @property
    def slug(self) -> str:
        return f"{self.rows}x{self.dim}"

    def prepare(self) -> None:
        """Draw what is not there yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._path("queries").exists():
            np.save(self._path("extra"), _draw(self.dim, EXTRA, (2,))[0])
            np.save(self._path("queries"), _draw(self.dim, QUERIES, (1,))[0])
        for block in range(-(-self.rows // _BLOCK)):
            if not self._path(f"values-{block}").exists():
                embeddings, values = _draw(self.dim, _BLOCK, (3, block))
                np.save(self._path(f"rows-{block}"), embeddings)
                np.save(self._path(f"values-{block}"), values)
        if not self._path(f"exact-{self.rows}").exists():
            np.save(self._path(f"exact-{self.rows}"), self._exact_answers())

    def _path(self, name: str) -> Path:
        return self.folder / f"{self.dim}-{name}.npy"

    def _blocks(self, name: str) -> list[npt.NDArray[np.generic]]:
        count = -(-self.rows // _BLOCK)
        blocks = [np.load(self._path(f"{name}-{i}"), mmap_mode="r") for i in range(count)]
        blocks[-1] = blocks[-1][: self.rows - (count - 1) * _BLOCK]
        return blocks

    @cached_property
    def embeddings(self) -> Float32:
        """(rows, dim) float32, L2-normalised."""
        return np.concatenate(self._blocks("rows"))

    @cached_property
    def values(self) -> dict[str, npt.NDArray[np.uint8]]:
        """Attribute → (rows,) values from 0 to STEPS − 1."""
        both = np.concatenate(self._blocks("values"))
        return {name: np.ascontiguousarray(both[:, i]) for i, name in enumerate(ATTRIBUTES)}

    @cached_property
    def queries(self) -> Float32:
        """(QUERIES, dim) float32, L2-normalised."""
        return np.load(self._path("queries"))

    @cached_property
    def extra(self) -> Float32:
        """(EXTRA, dim) float32: rows to append."""
        return np.load(self._path("extra"))

    def exact(self, condition: Filter | None = None) -> npt.NDArray[np.int64]:
        """(QUERIES, K) nearest rows, best first; −1 where the filter admits fewer."""
        answers = np.load(self._path(f"exact-{self.rows}"))
        return answers[0 if condition is None else 1 + FILTERS.index(condition)]

    def allowed(self, condition: Filter) -> npt.NDArray[np.bool_]:
        """(rows,) whether the filter admits a row."""
        return self.values[condition.attribute] < condition.bound

    def _exact_answers(self) -> npt.NDArray[np.int64]:
        shape = (1 + len(FILTERS), QUERIES, K)
        rows = np.full(shape, -1, dtype=np.int64)
        scores = np.full(shape, -np.inf, dtype=np.float32)
        start = 0
        for embeddings, values in zip(self._blocks("rows"), self._blocks("values"), strict=True):
            cosines = self.queries @ embeddings.T
            for number, condition in enumerate([None, *FILTERS]):
                if condition is None:
                    admitted = np.arange(len(embeddings))
                else:
                    column = values[:, ATTRIBUTES.index(condition.attribute)]
                    admitted = np.flatnonzero(column < condition.bound)
                if not len(admitted):
                    continue
                keep = min(K, len(admitted))
                best = np.argpartition(-cosines[:, admitted], keep - 1, axis=1)[:, :keep]
                best = admitted[best]
                merged = np.concatenate(
                    [scores[number], np.take_along_axis(cosines, best, axis=1)], axis=1
                )
                names = np.concatenate([rows[number], best + start], axis=1)
                order = np.argsort(-merged, axis=1, kind="stable")[:, :K]
                scores[number] = np.take_along_axis(merged, order, axis=1)
                rows[number] = np.take_along_axis(names, order, axis=1)
            start += len(embeddings)
        return rows

    def neighbour_cosine(self) -> float:
        """Mean cosine of a query and its nearest row."""
        nearest = np.sort(self.exact()[:, 0])
        order = np.argsort(self.exact()[:, 0])
        blocks = self._blocks("rows")
        found = np.stack([blocks[row // _BLOCK][row % _BLOCK] for row in nearest])
        return float((self.queries[order] * found).sum(axis=1).mean())


def recall(found: list[list[int]], exact: npt.NDArray[np.int64]) -> float:
    """Share of the exact answers that were found."""
    hits = wanted = 0
    for answer, truth in zip(found, exact.tolist(), strict=True):
        expected = {row for row in truth if row >= 0}
        hits += len(expected & set(answer))
        wanted += len(expected)
    return hits / wanted
