"""Lays products out in the plane, so that what looks alike lies together.

Owns the methods (t-SNE, PCA, UMAP) and that a map stays recognisable from one layout to the next;
knows nothing of where embeddings come from. What the methods need is imported when they run:
placing a product needs none of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from lookalike.core.head import Head, fit_head
from lookalike.core.placement import Float32, Float64, Int64, Mask, nearest, radius

Method = Literal["tsne", "pca", "umap"]
METHODS: tuple[Method, ...] = get_args(Method)
BASIS_DIM = 50
"""Principal components in which products are compared: as good as all, and less to compute."""
COLD_ITERATIONS = 750
WARM_ITERATIONS = 100
ADAPTING_ITERATIONS = 250
"""From the layout before, when embeddings are others: neighbours are, too."""

_EXAGGERATED_ITERATIONS = 250
_EXAGGERATION = 12.0
_TINY = 1e-4  # the usual deviation of an initial layout (Kobak & Berens 2019)
_FFT_ROWS = 10_000  # rows from which interpolation is faster than Barnes-Hut
_KNOWN_SHARE = 0.5


class MethodMissing(Exception):
    """A method's library is not installed here; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a layout starts: ``positions`` (n, 2), and how many steps of t-SNE it takes."""

    positions: Float64
    iterations: int

    @property
    def is_warm(self) -> bool:
        """Whether it starts from the layout before."""
        return self.iterations != COLD_ITERATIONS


@dataclass(frozen=True, slots=True)
class Graph:
    """Each row's neighbours, the nearest first: ``rows`` (n, k), ``distances`` (n, k) Euclidean."""

    rows: Int64
    distances: Float32


@dataclass(slots=True)
class Descent:
    """t-SNE under way: all that its gradient descent goes on with, each (n, 2) float64.

    ``done`` iterations of ``iterations`` are done.
    """

    positions: Float64
    update: Float64
    gains: Float64
    done: int
    iterations: int

    @classmethod
    def begin(cls, start: Start) -> Descent:
        """The descent before its first step."""
        positions = np.array(start.positions, dtype=np.float64)
        return cls(
            positions, np.zeros_like(positions), np.ones_like(positions), 0, start.iterations
        )

    @property
    def is_finished(self) -> bool:
        """Whether all iterations are done."""
        return self.done >= self.iterations


def fit_basis(embeddings: Float32) -> Head:
    """The principal components (PCA) in which products are compared, of those that are laid out."""
    return fit_head(embeddings, BASIS_DIM)


def neighbour_graph(coordinates: Float32, perplexity: float) -> Graph:
    """Three times as many neighbours as the perplexity, as t-SNE has it (van der Maaten 2014)."""
    count = max(1, min(int(3 * perplexity), len(coordinates) - 1))
    rows, cosines = nearest(coordinates, coordinates, count, same=True)
    return Graph(rows, np.sqrt(np.maximum(2 - 2 * cosines, 0)).astype(np.float32))


def principal_plane(coordinates: Float32) -> Float64:
    """(n, 2) the first two principal components: the linear map."""
    centred = coordinates.astype(np.float64)
    centred -= centred.mean(axis=0)
    values, vectors = np.linalg.eigh(centred.T @ centred / len(centred))
    axes = vectors[:, ::-1][:, :2]
    peaks = np.abs(axes).argmax(axis=0)
    axes = axes * np.sign(axes[peaks, np.arange(axes.shape[1])])
    plane = np.zeros((len(centred), 2))
    plane[:, : axes.shape[1]] = centred @ axes
    if not values[-1] > 0:
        # All alike: on a spiral, side by side.
        turns = np.arange(len(plane)) * np.pi * (3 - np.sqrt(5))
        spread = np.sqrt(np.arange(len(plane)) + 0.5)
        plane = np.stack([np.cos(turns), np.sin(turns)], axis=1) * spread[:, None]
    return np.asarray(plane)


def start_of(
    coordinates: Float32, known: Float64, is_known: Mask, *, same_space: bool = True
) -> Start:
    """Where to start: as the layout before, if it has half of the products, else on a plane.

    Parameters
    ----------
    coordinates
        (n, dim) float32, L2-normalised.
    known
        (n, 2) where products are, or would be placed, in the layout before.
    is_known
        (n,) which of them were in it.
    same_space
        That layout was made of embeddings of the same space.
    """
    if is_known.mean() >= _KNOWN_SHARE and radius(known) > 0:
        return Start(known, WARM_ITERATIONS if same_space else ADAPTING_ITERATIONS)
    plane = principal_plane(coordinates)
    return Start(plane / max(float(plane[:, 0].std()), 1e-12) * _TINY, COLD_ITERATIONS)


def affinities_of(graph: Graph, perplexity: float, threads: int) -> Any:
    """t-SNE's affinities of the neighbours, for `descend`; computed anew when a slice begins."""
    from openTSNE import affinity, nearest_neighbors

    return affinity.PerplexityBasedNN(
        perplexity=min(perplexity, graph.rows.shape[1] / 3),
        knn_index=nearest_neighbors.PrecomputedNeighbors(graph.rows, graph.distances),
        n_jobs=threads,
    )


def descend(affinities: Any, descent: Descent, iterations: int, threads: int) -> None:
    """Take t-SNE some iterations further (Poličar et al. 2019, openTSNE), changing the descent.

    From nothing, attraction is exaggerated at first, so that groups form. From the layout before it
    is not: groups are there, and would be thrown about. The learning rate is the number of rows by
    the exaggeration (Belkina et al. 2019).
    """
    from openTSNE import tsne

    optimizer = tsne.gradient_descent()
    optimizer.update, optimizer.gains = descent.update, descent.gains
    embedding = tsne.TSNEEmbedding(
        descent.positions,
        affinities,
        optimizer=optimizer,
        negative_gradient_method="fft" if len(descent.positions) >= _FFT_ROWS else "bh",
        n_jobs=threads,
    )
    last = min(descent.done + iterations, descent.iterations)
    while descent.done < last:
        exaggerated = (
            descent.iterations == COLD_ITERATIONS and descent.done < _EXAGGERATED_ITERATIONS
        )
        until = min(last, _EXAGGERATED_ITERATIONS) if exaggerated else last
        embedding.optimize(
            until - descent.done,
            inplace=True,
            exaggeration=_EXAGGERATION if exaggerated else None,
            momentum=0.8,
        )
        descent.done = until
    descent.positions = np.asarray(embedding)
    descent.update, descent.gains = optimizer.update, optimizer.gains


def umap_layout(coordinates: Float32, start: Start, neighbours: int, seed: int = 0) -> Float64:
    """(n, 2) by UMAP (McInnes et al. 2018), which needs the ``umap`` extra and is done in one go.

    Raises
    ------
    MethodMissing
        The extra is not installed; no zip function has room for it.
    """
    try:
        import umap
    except ImportError:
        raise MethodMissing(
            "UMAP is not installed here. It comes with the extra lookalike[umap] and does not fit "
            "a zip function; set LOOKALIKE_MAP_METHOD to tsne or pca."
        ) from None
    reducer = umap.UMAP(
        n_neighbors=max(2, min(neighbours, len(coordinates) - 1)),
        metric="euclidean",
        init=_spread(start.positions),
        n_epochs=start.iterations if start.is_warm else None,
        random_state=seed,
        n_jobs=1,
    )
    return np.asarray(reducer.fit_transform(coordinates), dtype=np.float64)


def _spread(positions: Float64) -> Float32:
    """Centred and scaled to the ten units that UMAP's first layouts have."""
    centred = positions - positions.mean(axis=0)
    return np.asarray(10 * centred / max(float(np.abs(centred).max()), 1e-12), dtype=np.float32)


def aligned(positions: Float64, known: Float64, is_known: Mask) -> Float64:
    """A layout centred, of radius one, and turned or mirrored to lie as the one before did.

    Orthogonal Procrustes (Schönemann 1966) on the products that both have.

    Parameters
    ----------
    positions
        (n, 2) the layout.
    known
        (n, 2) where its products are in the one before.
    is_known
        (n,) which of them are in it.
    """
    centred = positions - positions.mean(axis=0)
    centred /= max(radius(positions), 1e-12)
    if is_known.sum() < 3:
        return np.asarray(centred)
    ours, theirs = centred[is_known], known[is_known]
    left, _, right = np.linalg.svd((ours - ours.mean(axis=0)).T @ (theirs - theirs.mean(axis=0)))
    return np.asarray(centred @ (left @ right))
