"""Spherical k-means: its start, its rounds, how many clusters, and which cluster is which again.

Pure arithmetic on L2-normalised embeddings, the same for the same input whatever its order. Knows
no catalogue and no file. The objective is the mean cosine of a row and its cluster's centroid
(Dhillon & Modha, "Concept decompositions for large sparse text data using clustering", 2001).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_ROUNDS = 100
CHOOSING_ROWS = 8_000
"""Rows that the number of clusters is chosen on."""
SAME_SHARE = 1 / 3
"""Share of the rows of two clusters that they must have in common to be the same one."""

_GRID = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 64, 96, 128, 192, 256)
_ROWS_A_CLUSTER = 8  # fewer are no group
_TOLERANCE = 1e-5  # of what is left of the objective: then another run changes next to nothing
_ROUGHLY = 1e-3  # to tell starts, or numbers of clusters, from each other
_AT_ONCE = 8192

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Clustered:
    """What k-means came to.

    ``centroids`` is (k, dim) float32, L2-normalised; ``labels`` (n,) int64 and ``similarity`` (n,)
    float32 are each row's nearest centroid and its cosine.
    """

    centroids: Float32
    labels: Int64
    similarity: Float32

    @property
    def objective(self) -> float:
        """Mean cosine of a row and its centroid."""
        return float(self.similarity.mean()) if len(self.similarity) else 0.0


def assign(centroids: Float32, embeddings: Float32) -> tuple[Int64, Float32]:
    """The nearest of the centroids (k, dim) to each embedding (n, dim), and the cosine of the two.

    Both must be L2-normalised. Of centroids that are equally near it is the first.
    """
    labels = np.empty(len(embeddings), dtype=np.int64)
    similarity = np.empty(len(embeddings), dtype=np.float32)
    for start in range(0, len(embeddings), _AT_ONCE):
        cosines = embeddings[start : start + _AT_ONCE] @ centroids.T
        nearest = cosines.argmax(axis=1)
        labels[start : start + _AT_ONCE] = nearest
        similarity[start : start + _AT_ONCE] = cosines[np.arange(len(nearest)), nearest]
    return labels, similarity


def sums_by_label(rows: Float32, labels: Int64, clusters: int) -> npt.NDArray[np.float64]:
    """(clusters, dim) float64: the sum of the rows (n, dim) of each label, which may be missing."""
    sums = np.zeros((clusters, rows.shape[1]))
    for start in range(0, len(rows), _AT_ONCE):
        some = labels[start : start + _AT_ONCE]
        order = np.argsort(some, kind="stable")
        counts = np.bincount(some, minlength=clusters)
        here = np.flatnonzero(counts)
        firsts = np.concatenate([[0], np.cumsum(counts[here])[:-1]])
        sums[here] += np.add.reduceat(rows[start : start + _AT_ONCE][order], firsts, axis=0)
    return sums


def seeded(embeddings: Float32, clusters: int, seed: int) -> Float32:
    """Centroids to begin with, (clusters, dim): greedy k-means++ on the embeddings.

    Of a few candidates drawn by their distance, the one that helps most (Arthur & Vassilvitskii,
    2007, section 2.2). Fewer where there are fewer distinct rows.
    """
    rng = np.random.default_rng(seed)
    tries = 2 + int(np.log(max(clusters, 1)))
    chosen = [int(rng.integers(len(embeddings)))]
    distances = np.maximum(1 - embeddings @ embeddings[chosen[0]], 0)
    while len(chosen) < clusters:
        total = float(distances.sum(dtype=np.float64))
        if total <= 1e-6 * len(embeddings):
            break
        drawn = rng.choice(len(embeddings), tries, p=distances.astype(np.float64) / total)
        after = np.minimum(distances, np.maximum(1 - embeddings[drawn] @ embeddings.T, 0))
        best = int(after.sum(axis=1).argmin())
        chosen.append(int(drawn[best]))
        distances = after[best]
    return embeddings[chosen].copy()


def spherical_kmeans(
    embeddings: Float32, centroids: Float32, tolerance: float = _TOLERANCE
) -> Clustered:
    """Lloyd's rounds from these centroids until nothing is gained any more.

    Parameters
    ----------
    embeddings
        (n, dim) float32, L2-normalised.
    centroids
        (k, dim) float32 to begin with: `seeded`, or those of an earlier clustering.
    tolerance
        What a round must gain, as a share of what is left of the objective, for another one.

    Notes
    -----
    A centroid that no row is nearest to is put where the row lies that is farthest from its own.
    """
    centroids = centroids.astype(np.float32)
    before = -np.inf
    for _ in range(MAX_ROUNDS):
        labels, similarity = assign(centroids, embeddings)
        objective = float(similarity.mean())
        if objective - before <= tolerance * max(1 - objective, 0):
            return Clustered(centroids, labels, similarity)
        before = objective
        sums = sums_by_label(embeddings, labels, len(centroids))
        lonely = np.argsort(similarity, kind="stable").tolist()
        for empty in np.flatnonzero(np.bincount(labels, minlength=len(centroids)) == 0):
            sums[empty] = embeddings[lonely.pop(0)] if lonely else centroids[empty]
        centroids = _normalized(sums)
    labels, similarity = assign(centroids, embeddings)
    return Clustered(centroids, labels, similarity)


def resized(embeddings: Float32, fitted: Clustered, clusters: int, seed: int) -> Float32:
    """As many centroids, (clusters, dim), made of those of a fit: to go on with.

    While there are too few, the cluster with the most scatter is split in two; while there are too
    many, the smallest joins its nearest. All others stay where they are, and so keep who they are.
    """
    centroids, labels = fitted.centroids, fitted.labels.copy()
    scatter = np.bincount(labels, weights=1 - fitted.similarity, minlength=len(centroids))
    while len(centroids) < clusters:
        widest = int(scatter.argmax())
        members = np.flatnonzero(labels == widest)
        if scatter[widest] <= 0:
            break
        start = seeded(embeddings[members], 2, seed)
        halves = spherical_kmeans(embeddings[members], start, _ROUGHLY)
        parts = np.bincount(halves.labels, weights=1 - halves.similarity, minlength=2)
        if len(halves.centroids) < 2 or len(np.unique(halves.labels)) < 2:
            scatter[widest] = 0  # all alike
            continue
        labels[members[halves.labels == 1]] = len(centroids)
        centroids = np.concatenate([centroids, halves.centroids[1:]])
        centroids[widest] = halves.centroids[0]
        scatter = np.append(scatter, parts[1])
        scatter[widest] = parts[0]
    sizes = np.bincount(labels, minlength=len(centroids)).astype(np.float64)
    while len(centroids) > clusters:
        smallest = int(sizes.argmin())
        cosines = centroids @ centroids[smallest]
        cosines[smallest] = -np.inf
        nearest = int(cosines.argmax())
        joined = sizes[nearest] * centroids[nearest] + sizes[smallest] * centroids[smallest]
        if sizes[smallest]:
            centroids[nearest] = _normalized(joined[None])[0]
        sizes[nearest] += sizes[smallest]
        centroids, sizes = np.delete(centroids, smallest, axis=0), np.delete(sizes, smallest)
    return centroids


def cluster(embeddings: Float32, clusters: int, seed: int, starts: int = 1) -> Clustered:
    """K-means from nothing but the embeddings (n, dim): the best of some starts."""
    wanted = max(1, min(clusters, len(embeddings)))
    seeds = (seeded(embeddings, wanted, seed + number) for number in range(starts))
    tries = [spherical_kmeans(embeddings, start, _ROUGHLY) for start in seeds]
    best = max(tries, key=lambda found: found.objective)
    return spherical_kmeans(embeddings, best.centroids)


def choose_clusters(embeddings: Float32, seed: int) -> int:
    """How many clusters embeddings (n, dim) fall into: the elbow of the objective.

    K-means for a grid of k, each begun from the one before by splitting its widest clusters, on
    `CHOOSING_ROWS` rows at most. The elbow is where the curve of the objective over √k lies highest
    above its chord (Satopää et al., "Finding a 'kneedle' in a haystack", 2011). Over k the elbow
    moves with the end of the grid; over log k it comes too early when there are many clusters.
    """
    if len(embeddings) > CHOOSING_ROWS:
        even = np.linspace(0, len(embeddings) - 1, CHOOSING_ROWS).astype(np.int64)
        embeddings = embeddings[even]
    grid = [k for k in _GRID if k <= len(embeddings) // _ROWS_A_CLUSTER]
    if len(grid) < 3:
        return max(grid, default=1)
    fitted = cluster(embeddings, 1, seed)
    objectives = [fitted.objective]
    for count in grid[1:]:
        fitted = spherical_kmeans(embeddings, resized(embeddings, fitted, count, seed), _ROUGHLY)
        objectives.append(fitted.objective)
    curve = np.array(objectives)
    if curve[-1] - curve[0] <= 1e-6:
        return 1  # all alike
    over = np.sqrt(grid)
    height = (curve - curve[0]) / (curve[-1] - curve[0])
    along = (over - over[0]) / (over[-1] - over[0])
    return int(grid[int((height - along).argmax())])


def match_clusters(before: Int64, after: Int64, clusters: int) -> list[int | None]:
    """Which old cluster each new one is, by the rows that they have in common.

    Parameters
    ----------
    before, after
        (n,) the same rows' old labels, −1 for a row that had none, and new ones.
    clusters
        How many new ones there are.

    Returns
    -------
    list
        For each new cluster the number of the old one of which it is what is left: best pairs
        first, each old one once, by the share of both clusters' rows that is in both; None where
        that is under `SAME_SHARE`.
    """
    known = before >= 0
    old_clusters = int(before.max(initial=-1)) + 1
    if not old_clusters:
        return [None] * clusters
    pairs = before[known] * clusters + after[known]
    common = np.bincount(pairs, minlength=old_clusters * clusters).reshape(-1, clusters)
    either = common.sum(axis=1, keepdims=True) + common.sum(axis=0, keepdims=True) - common
    shares = common / np.maximum(either, 1)
    matched: list[int | None] = [None] * clusters
    taken: set[int] = set()
    for place in np.argsort(-shares, axis=None, kind="stable").tolist():
        old, new = divmod(place, clusters)
        if shares[old, new] < SAME_SHARE:
            break
        if old not in taken and matched[new] is None:
            matched[new] = old
            taken.add(old)
    return matched


def _normalized(rows: npt.NDArray[np.float64] | Float32) -> Float32:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(norms, 1e-12), dtype=np.float32)
