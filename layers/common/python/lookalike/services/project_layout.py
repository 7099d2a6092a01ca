"""Lays out a map's products: draws those that are laid out, and takes t-SNE as far as time allows.

Owns what a new map takes over from the one before; reading rows is `lookalike.services.project`'s,
the arithmetic `lookalike.core.projection`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lookalike.core.head import Head
from lookalike.core.jobs import MIN_PRODUCTS, RenewalPolicy
from lookalike.core.map_file import encode_anchors
from lookalike.core.placement import Anchors, Float32, Float64, Hashes, Int64, Mask, radius
from lookalike.core.projection import (
    METHODS,
    Descent,
    Graph,
    Method,
    Start,
    affinities_of,
    aligned,
    descend,
    fit_basis,
    neighbour_graph,
    principal_plane,
    start_of,
    umap_layout,
)
from lookalike.core.projection_quality import movement, trustworthiness
from lookalike.services.jobs import Run
from lookalike.services.project_rows import one_a_product
from lookalike.services.project_state import (
    LAYING_OUT,
    PartIndex,
    PartRows,
    Progress,
    Sample,
    decode_descent,
    encode_descent,
    get_object,
    put_object,
    save,
)

_ITERATIONS_AT_ONCE = 25
_JUDGED_POINTS = 500


@dataclass(frozen=True, slots=True)
class MapPolicy(RenewalPolicy):
    """The settings of the same names (`lookalike.settings.Settings`)."""

    map_method: str
    map_rows: int
    map_perplexity: float
    settle_s: float
    grace_s: float

    @property
    def method(self) -> Method:
        """How the map is laid out; raises `ValueError` when the setting names no method."""
        for method in METHODS:
            if self.map_method == method:
                return method
        raise ValueError(
            f"LOOKALIKE_MAP_METHOD={self.map_method!r} is none of {', '.join(METHODS)}"
        )


@dataclass(frozen=True, slots=True)
class Before:
    """The map before: its anchors, the radius its layout had, and whether embeddings are as then.

    ``comparable`` when it was laid out by the method at hand; else nothing but its places count.
    """

    anchors: Anchors
    scale: float
    same_space: bool
    comparable: bool


class Layout:
    """Lays out the products of one run.

    Parameters
    ----------
    run
        The run, whose working objects these are.
    progress
        Where it goes on; changed.
    policy
        How to lay out.
    threads
        For t-SNE.
    """

    def __init__(self, run: Run, progress: Progress, policy: MapPolicy, threads: int) -> None:
        self._run = run
        self._progress = progress
        self._method: Method = policy.method
        self._policy = policy
        self._threads = threads

    def draw(self, before: Before | None) -> int:
        """Choose what is laid out, by the products' hashes: mostly what was in the map before.

        Gives how many iterations there are to do.
        """
        indexes = [
            PartIndex.decode(get_object(self._run, name)) for name, _, _ in self._progress.parts
        ]
        products = np.concatenate([index.products for index in indexes])
        kept = one_a_product(products, np.concatenate([index.first for index in indexes]))
        chosen = np.flatnonzero(kept)
        if len(chosen) > self._policy.map_rows:
            lowest = np.argpartition(products[chosen], self._policy.map_rows - 1)
            chosen = np.sort(chosen[lowest[: self._policy.map_rows]])
        sample = self._sample(kept, products[chosen], self._embeddings(chosen), before)
        self._progress.sample = put_object(self._run, "sample", sample.encode())
        self._progress.scale = before.scale if before else 1.0
        return sample.iterations

    def advance(self, is_over: Callable[[], bool]) -> bool:
        """Take the layout further until ``is_over``; whether it is done."""
        sample = Sample.decode(get_object(self._run, self._progress.sample))
        start = Start(sample.start, sample.iterations)
        method = self._method_for(len(sample.products))
        if method == "tsne":
            positions = self._descended(sample, start, is_over)
            if positions is None:
                return False
        elif method == "umap":
            perplexity = int(self._policy.map_perplexity)
            positions = umap_layout(sample.coordinates, start, perplexity)
        else:
            positions = principal_plane(sample.coordinates)
        self._finish(sample, positions, method)
        return True

    def _method_for(self, count: int) -> Method:
        """Of a handful of products, neighbours say nothing."""
        return self._method if count >= MIN_PRODUCTS else "pca"

    def _embeddings(self, chosen: Int64) -> Float32:
        """(n, dim) of rows that are numbered over all parts."""
        found = []
        start = 0
        for _, name, count in self._progress.parts:
            inside = chosen[(chosen >= start) & (chosen < start + count)] - start
            if len(inside):
                part = PartRows.decode(get_object(self._run, name))
                found.append(part.embeddings[inside])
            start += count
        return np.concatenate(found)

    def _sample(
        self, kept: Mask, products: Hashes, embeddings: Float32, before: Before | None
    ) -> Sample:
        basis = fit_basis(embeddings)
        coordinates = basis.project(embeddings)
        known, is_known = _places_before(products, embeddings, basis, coordinates, before)
        comparable = before is not None and before.comparable
        start = start_of(
            coordinates,
            known * (before.scale if before else 1.0),
            is_known & comparable,
            same_space=before is not None and before.same_space,
        )
        none = np.zeros((len(products), 0))
        graph = Graph(none.astype(np.int64), none.astype(np.float32))
        if self._method_for(len(products)) == "tsne":
            graph = neighbour_graph(coordinates, self._policy.map_perplexity)
        return Sample(
            kept,
            products,
            basis,
            coordinates,
            known,
            is_known,
            start.positions,
            start.iterations,
            graph,
        )

    def _descended(
        self, sample: Sample, start: Start, is_over: Callable[[], bool]
    ) -> Float64 | None:
        """Where t-SNE ends; None when time is over before that, the state being saved."""
        progress = self._progress
        descent = Descent.begin(start)
        if progress.descent:
            descent = decode_descent(get_object(self._run, progress.descent))
        affinities = affinities_of(sample.graph, self._policy.map_perplexity, self._threads)
        while not descent.is_finished:
            descend(affinities, descent, _ITERATIONS_AT_ONCE, self._threads)
            over = is_over()
            if over or self._run.is_due:
                progress.descent = put_object(self._run, "descent", encode_descent(descent))
                save(self._run, progress, LAYING_OUT, descent.done, descent.iterations)
            if over:
                return None
        return descent.positions

    def _finish(self, sample: Sample, positions: Float64, method: Method) -> None:
        laid = aligned(positions, sample.known, sample.is_known)
        step = max(1, len(laid) // _JUDGED_POINTS)
        judged = np.arange(0, len(laid), step)
        self._progress.scale = max(radius(positions), 1e-12)
        self._progress.summary = {
            "method": method,
            "laid_out": len(laid),
            "from_before": method != "pca" and Start(sample.start, sample.iterations).is_warm,
            "trustworthiness": round(trustworthiness(sample.coordinates, laid, judged), 4),
            "moved": round(movement(laid, sample.known, sample.is_known), 4),
        }
        anchors = Anchors(sample.products, sample.basis, sample.coordinates, laid)
        self._progress.layout = put_object(self._run, "layout", encode_anchors(anchors))


def _places_before(
    products: Hashes,
    embeddings: Float32,
    basis: Head,
    coordinates: Float32,
    before: Before | None,
) -> tuple[Float64, Mask]:
    """Where products are, or would be, in the map before (n, 2), and which are in it (n,)."""
    nowhere = np.zeros((len(products), 2)), np.zeros(len(products), dtype=np.bool_)
    if before is None:
        return nowhere
    if before.same_space:
        known, placed = before.anchors.place(products, embeddings)
        return known, ~placed
    _, ours, theirs = np.intersect1d(products, before.anchors.hashes, return_indices=True)
    if not len(ours):
        return nowhere
    shared = Anchors(products[ours], basis, coordinates[ours], before.anchors.positions[theirs])
    known, placed = shared.place(products, embeddings)
    return known, ~placed
