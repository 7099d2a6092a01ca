"""Fits a calibration on a sample and on pairs, and says in numbers what it is worth."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lookalike.core.calibration import (
    Calibration,
    Float64,
    ScoreMap,
    calibration_error,
    fit_score_map,
    fit_subspace,
    held_out_error,
)
from lookalike.core.calibration_pairs import Pairs, Relevance, by_chance
from lookalike.core.examination import examination
from lookalike.core.head import Head
from lookalike.core.types import Generation, Scalar
from lookalike.services.calibrate_sample import Sample


@dataclass(frozen=True, slots=True)
class _Fit:
    """A score map, what a match is in it, and how wrong it is on pairs that it has not seen."""

    name: str
    score_map: ScoreMap
    pairs: Pairs
    exposures: Float64
    error: float | None

    def error_on(self, other: _Fit) -> float:
        """How wrong it is on the pairs that another was fitted on."""
        said = self.score_map.match(other.pairs.scores) * other.exposures
        return calibration_error(said, other.pairs.good)


def fit(
    generation: Generation,
    head: Head,
    sample: Sample,
    pairs: Pairs,
    relevance: Relevance | None,
    judged: Pairs,
) -> tuple[Calibration, dict[str, Scalar]]:
    """The calibration, and its summary.

    Parameters
    ----------
    generation, head
        What was searched.
    sample
        Live rows.
    pairs
        Results of the sample's searches of which it is known whether they match.
    relevance
        What a match is among the sample's own rows; None when that cannot be said.
    judged
        Results that people have judged. They are believed where the fit on the others says less
        well what people do.
    """
    subspace, chance = None, None
    if len(sample.rows) > 1:
        owners = np.asarray([row.product_id for row in sample.rows])
        subspace = fit_subspace(sample.raw, np.unique(owners, return_inverse=True)[1])
        if relevance is not None:
            chance = by_chance(head.project(sample.raw), sample.labels(relevance))
    found = None
    # Where all that is found is good, chance still says what the lowest scores are worth.
    if relevance is not None and pairs.can_be_fitted(with_bad=False):
        found = _fitted(relevance.name, pairs, np.ones(len(pairs)), chance)
    if judged.can_be_fitted(with_bad=True):
        looked = examination(judged.scores, judged.good, judged.ranks)
        people = _fitted("judged", judged, looked, chance)
        if people and (not found or _or_inf(people.error) < found.error_on(people)):
            found = people
    used = found.pairs if found else Pairs()
    calibration = Calibration(
        generation.encoder,
        generation.generation,
        head.digest,
        found.name if found else "",
        found.score_map if found else None,
        subspace,
    )
    summary: dict[str, Scalar] = {
        "relevance": calibration.relevance,
        "pairs": len(used),
        "queries": len(set(used.queries)),
        "knows_foreign": subspace is not None,
    }
    if found is not None:
        before = calibration_error(np.clip(used.scores, 0, 1), used.good)
        summary |= {"error_before": round(before, 4)}
        summary |= {"error": round(found.error, 4)} if found.error is not None else {}
    return calibration, summary


def _fitted(
    name: str, pairs: Pairs, exposures: Float64, chance: tuple[float, float] | None
) -> _Fit | None:
    score_map = fit_score_map(pairs.scores, pairs.good, chance, exposures)
    if score_map is None:
        return None
    queries = np.asarray(pairs.queries, dtype=np.int64)
    error = held_out_error(pairs.scores, pairs.good, queries, exposures=exposures)
    return _Fit(name, score_map, pairs, exposures, error)


def _or_inf(error: float | None) -> float:
    return math.inf if error is None else error
