"""How much each cell of a feature map has to do with a cosine: the closed forms.

An image has cells A(x) and pooling weights w(x); g = Σ_x w(x)·A(x), u = W(g/|g| − m) and
e = u/|u| (with the identity head e = g/|g|). Derivations are in docs/explanations.md. Pure
arithmetic: large products in float32, sums in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lookalike.core.head import Head

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

SAME = 0.03
"""The sine between two embeddings below which storing them may account for all that differs."""

_TINY = 1e-12  # as in `lookalike.core.head`
_ROUNDING = 2e-6  # of a float32 product, as a part of its factors' lengths


@dataclass(frozen=True, slots=True)
class Cells:
    """One image of an explanation.

    Parameters
    ----------
    maps
        (C, h, w) float32 feature map.
    weights
        (h, w) float32 pooling weights, none below 0, sum 1. Cells of weight 0 were not looked at.
    embedding
        (dim,) float32, L2-normalised: what the search compared; None for the map's own.
    coefficient
        c_p, the image's factor in the query embedding Σ_p c_p·e_p.
    """

    maps: Float32
    weights: Float32
    embedding: Float32 | None = None
    coefficient: float = 1.0


@dataclass(frozen=True, slots=True)
class Pooled:
    """What pooling and the head make of one image.

    ``cells`` is (C, n) float32, ``weights`` (n,) with sum 1, ``direction`` g/|g| (C,), ``length``
    |g|, ``own`` the map's embedding (dim,), ``spread`` |u|, ``embedding`` the one to explain (dim,)
    and ``coefficient`` its factor. ``length`` and ``spread`` are 0 where nothing can be divided.
    """

    cells: Float32
    weights: Float64
    direction: Float64
    length: float
    own: Float64
    spread: float
    embedding: Float64
    coefficient: float

    @property
    def per_length(self) -> float:
        """1/|g|, 0 for a map that is zero."""
        return 1 / self.length if self.length else 0.0

    @property
    def per_spread(self) -> float:
        """1/|u|, 0 for an embedding that is zero."""
        return 1 / self.spread if self.spread else 0.0


def pool_cells(images: Sequence[Cells], head: Head) -> tuple[Pooled, ...]:
    """Pool several images and project them together, so that W is read once."""
    flat = [image.maps.reshape(len(image.maps), -1) for image in images]
    weights = [image.weights.reshape(-1).astype(np.float64) for image in images]
    weights = [shares / shares.sum() for shares in weights]
    means = [
        (cells @ shares.astype(np.float32)).astype(np.float64)
        for cells, shares in zip(flat, weights, strict=True)
    ]
    lengths = [_length(mean) for mean in means]
    directions = np.stack(
        [mean / length if length else mean * 0 for mean, length in zip(means, lengths, strict=True)]
    )
    projected = directions if head.mean is None else _project(directions - head.mean, head)
    pooled = []
    for row, image in enumerate(images):
        spread = _length(projected[row])
        own = projected[row] / spread if spread else projected[row] * 0
        used = own if image.embedding is None else image.embedding.astype(np.float64)
        pooled.append(
            Pooled(
                flat[row], weights[row], directions[row], lengths[row],
                own, spread, used, image.coefficient,
            )
        )  # fmt: skip
    return tuple(pooled)


@dataclass(frozen=True, slots=True)
class Attribution:
    """What the cells of one image, (n,) float64 each, have to do with the score.

    ``contributions`` are w(x)·c·a(x)·t with the residual shared out, ``responses`` v·A(x) with
    v = ∂S/∂g, and ``residual`` is what the image's own map leaves of its part of the score.
    """

    contributions: Float64
    responses: Float64
    residual: float


def attribute(
    query: Sequence[Pooled], result: Pooled, head: Head
) -> tuple[float, tuple[Attribution, ...]]:
    """The score S = q·r and the attributions of the query's images, then of the result.

    Parameters
    ----------
    query
        Its images; q = Σ_p c_p·e_p has length 1.
    result
        The image of embedding r; its coefficient is not looked at.
    head
        The one that `pool_cells` was given.
    """
    whole = np.sum([part.coefficient * part.embedding for part in query], axis=0)
    other = result.embedding
    score = float(whole @ other)
    towards_result, towards_query = other - score * whole, whole - score * other
    if _norm(towards_result) < SAME:
        towards_result, towards_query = towards_result * 0, towards_query * 0
    targets = [*(part.coefficient * other for part in query), whole]
    upstreams = [part.coefficient * _across(part.own, towards_result) for part in query]
    upstreams.append(_across(result.own, towards_query))
    images = (*query, result)
    backward = np.stack([*targets, *upstreams])
    if head.components is not None:
        backward = (backward.astype(np.float32) @ head.components).astype(np.float64)
    count = len(images)
    return score, tuple(
        _attribution(image, targets[row], backward[row], backward[count + row], head)
        for row, image in enumerate(images)
    )


def _attribution(
    image: Pooled, target: Float64, onto: Float64, upstream: Float64, head: Head
) -> Attribution:
    """The attribution of one image; ``onto`` and ``upstream`` are target and ∂S/∂e through Wᵀ."""
    slope = _across(image.direction, upstream)
    vectors = np.stack([onto, slope]).astype(np.float32)
    along = (vectors @ image.cells).astype(np.float64) * image.per_length
    if head.mean is not None:
        along[0] -= head.mean @ onto
    along *= image.per_spread
    contributions = image.weights * along[0]
    residual = float(image.embedding @ target) - float(contributions.sum())
    contributions += image.weights * residual
    responses = along[1]
    # v·g = 0 exactly; products in float32 leave their rounding, which is no map where it is all.
    responses -= image.weights @ responses
    if np.abs(responses).max() <= _ROUNDING * _norm(upstream) * image.per_spread:
        responses[:] = 0.0
    return Attribution(contributions, responses, residual)


def region_embeddings(image: Pooled, members: Float64, head: Head) -> Float64:
    """Each group's share of an image's embedding: Σ_{x in group} w(x)·a(x), (groups, dim).

    Parameters
    ----------
    image
        Its cells.
    members
        (groups, n), 1 where a cell is in a group. Each cell that has a weight is in one group.
    head
        The one that `pool_cells` was given.

    Returns
    -------
    Float64
        They add up to the image's embedding: what the map does not give of it is shared out by the
        groups' weights, as `attribute` does by the cells'.
    """
    shares = members * image.weights
    sums = (image.cells @ shares.T.astype(np.float32)).T.astype(np.float64) * image.per_length
    weights = shares.sum(axis=1)
    parts: Float64 = sums
    if head.mean is not None:
        parts = _project(sums - weights[:, None] * head.mean, head) * image.per_spread
    return np.asarray(parts + weights[:, None] * (image.embedding - parts.sum(axis=0)))


def _project(rows: Float64, head: Head) -> Float64:
    assert head.components is not None
    return np.asarray(rows.astype(np.float32) @ head.components.T, dtype=np.float64)


def _across(direction: Float64, vector: Float64) -> Float64:
    """The part of a vector at right angles to a direction: the derivative of x/|x|, times |x|."""
    return vector - (vector @ direction) * direction


def _norm(vector: Float64) -> float:
    return float(np.sqrt(vector @ vector))


def _length(vector: Float64) -> float:
    length = _norm(vector)
    return length if length > _TINY else 0.0
