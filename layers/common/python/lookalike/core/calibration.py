"""What a score means in one catalogue: how likely it is a good match, and which queries belong.

Owns two fits and their file (magic ``LKCA``). A *score map* turns a cosine into the probability of
a good match: isotonic regression (Zadrozny & Elkan, "Transforming classifier scores into accurate
multiclass probability estimates", KDD 2002) by pooling adjacent violators. A *subspace* tells
queries that look like nothing in the catalogue: their distance from its principal subspace is
beyond that of all but a few of the catalogue's own photos, each of which was measured against a
subspace fitted without it. Knows nothing of where rows come from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lookalike.core.container import Container, FileKind, decode_container, encode_container
from lookalike.core.errors import CorruptFile
from lookalike.core.segment import Float32

KIND = FileKind("calibration", b"LKCA", 1)
MIN_PAIRS = 100
"""Judged pairs below which nothing is said about scores."""
MIN_EACH = 30
"""Good pairs, and others, below which nothing is said: one kind alone tells nothing apart."""
MIN_ROWS = 50
"""Photos below which nothing is said about which queries belong."""
SAME_PHOTO = 0.99
"""How likely what scores 1 is a good match; near-duplicates take no part in a fit."""
GENUINE_REFUSED = 0.02
"""Share of queries like the catalogue's own photos that may be taken for foreign."""

_BIN_PAIRS = 30
_MAX_BINS = 256
_COMPONENTS = 64
_PER_COMPONENT = 4  # rows and dimensions: of a subspace that is all there is nothing is off
_FOLDS = 4

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ScoreMap:
    """A monotone map, linear between its knots and flat beyond them.

    ``scores`` is (n,) float64, ascending; ``matches`` is (n,) float64, never falling, from 0 to 1.
    """

    scores: Float64
    matches: Float64

    def match(self, scores: npt.ArrayLike) -> Float64:
        """The probability (m,) of a good match at each score (m,)."""
        return np.asarray(np.interp(np.asarray(scores), self.scores, self.matches), np.float64)


@dataclass(frozen=True, slots=True)
class Subspace:
    """Where a catalogue's raw embeddings lie: ``mean`` (d,) and ``components`` (c, d), float32.

    A query whose squared distance from it is above ``threshold`` is off it.
    """

    mean: Float32
    components: Float32
    threshold: float

    def residuals(self, raw: Float32) -> Float64:
        """Squared distance (n,) of L2-normalised raw embeddings (n, d) from the subspace."""
        centred = raw - self.mean
        within = centred @ self.components.T
        return np.asarray((centred**2).sum(axis=1) - (within**2).sum(axis=1), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Calibration:
    """What scores mean under one head of one generation.

    ``relevance`` says what a good match was taken to be: ``category`` (a product of the same
    category), ``product`` (another photo of the same product), ``judged`` (what people clicked,
    bought or called bad), or "" with no score map.
    """

    encoder: str
    generation: str
    head: str
    relevance: str
    score_map: ScoreMap | None
    subspace: Subspace | None


def fit_score_map(
    scores: npt.ArrayLike,
    good: npt.ArrayLike,
    chance: tuple[float, float] | None = None,
    exposures: Float64 | None = None,
) -> ScoreMap | None:
    """The isotonic map of scores to the share of good ones; None below `MIN_PAIRS` pairs.

    Pairs are binned by 30 before violators are pooled, and a pool of n pairs with g good ones
    stands for (g + ½) / (n + 1) (Jeffreys): a few lucky pairs at the top are no certainty.

    Parameters
    ----------
    scores, good
        (n,) score of each result, and whether it was a good match.
    chance
        The typical score of a pair drawn at random, and how likely that is a good match: where the
        map ends below scores that searches give. It ends above at a score of 1, the same photo.
    exposures
        (n,) how likely each was looked at, above 0: it counts as so much of a pair. One that was
        good was seen.
    """
    scores, good = np.asarray(scores, dtype=np.float64), np.asarray(good, dtype=np.float64)
    weights = np.ones(len(scores)) if exposures is None else exposures
    if len(scores) < MIN_PAIRS:
        return None
    order = np.argsort(scores, kind="stable")
    bins = np.array_split(order, min(len(scores) // _BIN_PAIRS, _MAX_BINS))
    knots = np.asarray([scores[part].mean() for part in bins])
    pools = _pooled([(float(good[part].sum()), float(weights[part].sum()), 1) for part in bins])
    matches = np.concatenate([np.full(width, (hits + 0.5) / (n + 1)) for hits, n, width in pools])
    matches = np.minimum(matches, SAME_PHOTO) if exposures is not None else matches
    # Smaller pools are moved further, which may put two that are nearly equal out of order.
    matches = np.maximum.accumulate(matches)
    if chance is not None and chance[0] < knots[0]:
        knots = np.concatenate([[chance[0]], knots])
        matches = np.concatenate([[min(chance[1], matches[0])], matches])
    if knots[-1] < 1:
        knots, matches = np.append(knots, 1.0), np.append(matches, max(SAME_PHOTO, matches[-1]))
    return ScoreMap(knots, matches)


def _pooled(bins: list[tuple[float, float, int]]) -> list[tuple[float, float, int]]:
    """Adjacent bins of (good, pairs, width) pooled until the share of good ones rises."""
    pools: list[tuple[float, float, int]] = []
    for pool in bins:
        while pools and pools[-1][0] * pool[1] >= pool[0] * pools[-1][1]:
            last = pools.pop()
            pool = (last[0] + pool[0], last[1] + pool[1], last[2] + pool[2])
        pools.append(pool)
    return pools


def calibration_error(matches: npt.ArrayLike, good: npt.ArrayLike, bins: int = 15) -> float:
    """Expected calibration error over bins of equal width (Guo et al., ICML 2017).

    Parameters
    ----------
    matches, good
        (n,) probability that was said, and whether it was a good match.
    bins
        How many.
    """
    matches, good = np.asarray(matches, dtype=np.float64), np.asarray(good, dtype=np.float64)
    bin_of = np.clip((matches * bins).astype(np.int64), 0, bins - 1)
    gaps = np.bincount(bin_of, matches - good, minlength=bins)
    return float(np.abs(gaps).sum() / max(len(matches), 1))


def held_out_error(
    scores: npt.ArrayLike,
    good: npt.ArrayLike,
    groups: Int64,
    folds: int = 5,
    exposures: Float64 | None = None,
) -> float | None:
    """`calibration_error` where each group of pairs is read off a map fitted without it.

    ``groups`` (n,) says which query each pair is of; with ``exposures`` what is said is how likely
    a pair is seen and good. None with too few pairs for that.
    """
    scores, good = np.asarray(scores, dtype=np.float64), np.asarray(good, dtype=np.float64)
    weights = np.ones(len(scores)) if exposures is None else exposures
    matches = np.empty(len(scores))
    for fold in range(folds):
        out = groups % folds == fold
        seen = None if exposures is None else exposures[~out]
        fitted = fit_score_map(scores[~out], good[~out], exposures=seen)
        if fitted is None:
            return None
        matches[out] = fitted.match(scores[out]) * weights[out]
    return calibration_error(matches, good)


def fit_subspace(raw: Float32, groups: Int64, refused: float = GENUINE_REFUSED) -> Subspace | None:
    """The principal subspace of a catalogue's raw embeddings; None below `MIN_ROWS` rows.

    The threshold is the conformal quantile of distances measured out of fold: of queries like the
    catalogue's photos at most a share of ``refused`` is beyond it (Vovk, "Cross-conformal
    predictors", 2015), as far as there are rows enough to tell.

    Parameters
    ----------
    raw
        (n, d) float32, L2-normalised.
    groups
        (n,) rows of the same group (photos of one product) are in the same fold.
    refused
        Share of genuine queries that may be refused.
    """
    count = len(raw)
    if count < MIN_ROWS:
        return None
    fold_of = groups % _FOLDS
    moments = [_moments(raw[fold_of == fold]) for fold in range(_FOLDS)]
    total = tuple(sum(parts[1:], parts[0]) for parts in zip(*moments, strict=True))
    distances = np.empty(count)
    for fold, held_out in enumerate(moments):
        rest = tuple(whole - part for whole, part in zip(total, held_out, strict=True))
        if not rest[0]:
            return None
        distances[fold_of == fold] = _subspace(*rest).residuals(raw[fold_of == fold])
    rank = min(int(np.ceil((count + 1) * (1 - refused))), count)
    threshold = float(np.partition(distances, rank - 1)[rank - 1])
    fitted = _subspace(*total)
    return Subspace(fitted.mean, fitted.components, threshold)


def _moments(rows: Float32) -> tuple[Any, Any, Any]:
    """Number, sum and sum of outer products of rows (n, d)."""
    return len(rows), rows.sum(axis=0, dtype=np.float64), (rows.T @ rows).astype(np.float64)


def _subspace(count: int, total: Float64, products: Float64) -> Subspace:
    mean = total / count
    covariance = products / count - np.outer(mean, mean)
    kept = max(1, min(_COMPONENTS, count // _PER_COMPONENT, len(mean) // _PER_COMPONENT))
    _, vectors = np.linalg.eigh(covariance)
    components = np.ascontiguousarray(vectors[:, ::-1][:, :kept].T, dtype=np.float32)
    return Subspace(mean.astype(np.float32), components, np.inf)


def encode_calibration(calibration: Calibration, *, made_at: float = 0.0) -> bytes:
    """The file for a calibration; ``made_at`` (epoch seconds) makes its name one of a kind."""
    header: dict[str, Any] = {
        "encoder": calibration.encoder,
        "generation": calibration.generation,
        "head": calibration.head,
        "relevance": calibration.relevance,
        "made_at": made_at,
    }
    sections: dict[str, bytes] = {}
    if calibration.score_map is not None:
        sections["scores"] = calibration.score_map.scores.astype("<f8").tobytes()
        sections["matches"] = calibration.score_map.matches.astype("<f8").tobytes()
    if calibration.subspace is not None:
        header["threshold"] = calibration.subspace.threshold
        sections["mean"] = calibration.subspace.mean.astype("<f4").tobytes()
        # Half precision moves a distance by less than its fourth digit.
        sections["components"] = calibration.subspace.components.astype("<f2").tobytes()
    return encode_container(KIND, header, sections)


def decode_calibration(data: bytes | memoryview, name: str) -> Calibration:
    """Read a calibration file; ``name`` is for the error.

    Raises
    ------
    CorruptFile
        The bytes are not a whole, unaltered calibration of a known format version, or not what
        their header says.
    """
    file = decode_container(KIND, data, name)
    try:
        return Calibration(
            encoder=file.header["encoder"],
            generation=file.header["generation"],
            head=file.header["head"],
            relevance=file.header["relevance"],
            score_map=_score_map(file),
            subspace=_stored_subspace(file),
        )
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptFile(f"{KIND.name} {name} does not hold what its header says") from error


def _score_map(file: Container) -> ScoreMap | None:
    if "scores" not in file.header["sections"]:
        return None
    scores, matches = (np.frombuffer(file.section(name), "<f8") for name in ("scores", "matches"))
    if not len(scores) or len(scores) != len(matches):
        raise ValueError("knots without a value, or none at all")
    return ScoreMap(scores, matches)


def _stored_subspace(file: Container) -> Subspace | None:
    if "components" not in file.header["sections"]:
        return None
    mean = np.frombuffer(file.section("mean"), "<f4")
    components = np.frombuffer(file.section("components"), "<f2").astype(np.float32)
    return Subspace(mean, components.reshape(-1, len(mean)), float(file.header["threshold"]))
