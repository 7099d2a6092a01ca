"""What the next clusters of a catalogue are, out of a sample and the last ones.

Pure. Warm where there were clusters before: k-means goes on from where they were, and whoever keeps
enough of its members keeps its id.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lookalike.core.cluster_sample import Hashes, Sample
from lookalike.core.clustering import (
    Clustered,
    Float32,
    Int64,
    assign,
    choose_clusters,
    cluster,
    match_clusters,
    resized,
    spherical_kmeans,
    sums_by_label,
)
from lookalike.core.clusters import Clustering, RawMeans, centroids_of
from lookalike.core.head import Head

MAX_CLUSTERS = 1_000
"""Most clusters that a setting can ask for."""
CHOSEN_AGAIN = 2.0
"""How many times more or fewer products there must be for the number to be chosen anew."""
CHOSEN_ALIKE = 1.5
"""How far another choice must be from the number that there is to be made."""

_STARTS = 3  # of k-means from nothing; the best is kept
_MANY = 128  # clusters, from which one start is as good as another
_SEED = 0


@dataclass(frozen=True, slots=True)
class Known:
    """Where products were: hashes of their ids (n,), ascending, and cluster numbers (n,)."""

    hashes: Hashes
    numbers: Int64

    def labels(self, hashes: Hashes) -> Int64:
        """(n,) the cluster number of each product; −1 for one that is not known."""
        places = np.searchsorted(self.hashes, hashes)
        places = np.minimum(places, len(self.hashes) - 1)
        if not len(self.hashes):
            return np.full(len(hashes), -1, dtype=np.int64)
        return np.where(self.hashes[places] == hashes, self.numbers[places], -1).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Plan:
    """The next clusters, ``means`` (k, dim_in) with their ids and when each was born.

    ``changed`` is the share of the sample's products that are in another cluster than before, of
    those that were in one; ``kept`` counts clusters that there were before.
    """

    means: Float32
    ids: tuple[str, ...]
    born_at: tuple[float, ...]
    next_number: int
    chosen_products: int
    changed: float = 0.0
    kept: int = 0


def plan_clusters(
    sample: Sample,
    head: Head,
    before: Clustering | None,
    known: Known | None,
    *,
    setting: int,
    products: int,
    next_number: int,
    now: float,
) -> Plan:
    """Cluster a sample, from where the last clusters were.

    Parameters
    ----------
    sample
        At least one product.
    head
        Of the generation that is clustered.
    before
        The last clusters; None for the first time.
    known
        Which products were in them, where their means are of another encoder, else None.
    setting
        How many clusters there must be; 0: as many as `choose_clusters` says.
    products
        How many there are in the catalogue.
    next_number
        Of the next cluster that is new.
    now
        Epoch seconds.
    """
    embeddings = sample.embeddings(head)
    warm = None
    if before is not None and before.clusters:
        warm = _where_they_were(embeddings, sample, head, before, known)
    old = _labels(warm, len(embeddings))
    count, chosen = _how_many(embeddings, before, setting, products)
    count = min(count, len(embeddings))
    fitted = _fitted(embeddings, warm, count)
    gathered = RawMeans(len(fitted.centroids), head)
    start = 0
    for raw in sample.raw():
        gathered.add(raw, fitted.labels[start : start + len(raw)])
        start += len(raw)
    means = gathered.means()
    labels, _ = assign(centroids_of(means, head), embeddings)
    matched = match_clusters(old, labels, len(means))
    ids, born = [], []
    for number in matched:
        if number is not None and before is not None:
            ids.append(before.clusters[number].cluster_id)
            born.append(before.clusters[number].born_at)
        else:
            ids.append(f"c{next_number}")
            born.append(now)
            next_number += 1
    were = np.asarray([-1 if number is None else number for number in matched])
    counted = old >= 0
    changed = float((were[labels[counted]] != old[counted]).mean()) if counted.any() else 0.0
    kept = sum(number is not None for number in matched)
    return Plan(means, tuple(ids), tuple(born), next_number, chosen, changed, kept)


@dataclass(frozen=True, slots=True)
class _Warm:
    """The last clusters that still have rows: their ``centroids``, and each row's old label."""

    centroids: Float32
    labels: Int64


def _where_they_were(
    embeddings: Float32, sample: Sample, head: Head, before: Clustering, known: Known | None
) -> _Warm | None:
    count = len(before.clusters)
    if known is None:
        centroids = before.centroids(head)
        labels, _ = assign(centroids, embeddings)
        filled = np.bincount(labels, minlength=count) > 0
        # Those that came since were in none: whom they join has not changed for that.
        labels = np.where(sample.known, labels, -1)
    else:
        labels = known.labels(sample.hashes)
        inside = labels >= 0
        sums = sums_by_label(embeddings[inside], labels[inside], count)
        norms = np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
        centroids = (sums / norms).astype(np.float32)
        filled = np.bincount(labels[inside], minlength=count) > 0
    return _Warm(centroids[filled], labels) if filled.any() else None


def _labels(warm: _Warm | None, rows: int) -> Int64:
    return warm.labels if warm else np.full(rows, -1, dtype=np.int64)


def _how_many(
    embeddings: Float32, before: Clustering | None, setting: int, products: int
) -> tuple[int, int]:
    """How many clusters, and of how many products that was chosen; see `Clustering`."""
    if setting > 0:
        return min(setting, MAX_CLUSTERS), 0
    chosen_on = before.chosen_products if before else 0
    if (
        before
        and before.clusters
        and chosen_on / CHOSEN_AGAIN < products < chosen_on * CHOSEN_AGAIN
    ):
        return len(before.clusters), chosen_on
    count = choose_clusters(embeddings, _SEED)
    if before and chosen_on and before.clusters:
        there = len(before.clusters)
        if there / CHOSEN_ALIKE < count < there * CHOSEN_ALIKE:
            count = there
    return count, products


def _fitted(embeddings: Float32, warm: _Warm | None, count: int) -> Clustered:
    if warm is None:
        return cluster(embeddings, count, _SEED, _STARTS if count <= _MANY else 1)
    centroids = warm.centroids
    if len(centroids) != count:
        there = Clustered(centroids, *assign(centroids, embeddings))
        centroids = resized(embeddings, there, count, _SEED)
    return spherical_kmeans(embeddings, centroids)
