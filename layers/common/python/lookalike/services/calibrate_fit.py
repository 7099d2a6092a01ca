"""Fits a calibration on a sample and on pairs, and says in numbers what it is worth."""

from __future__ import annotations

import numpy as np

from lookalike.core.calibration import (
    Calibration,
    calibration_error,
    fit_score_map,
    fit_subspace,
    held_out_error,
)
from lookalike.core.calibration_pairs import Pairs, Relevance, by_chance
from lookalike.core.head import Head
from lookalike.core.types import Generation, Scalar
from lookalike.services.calibrate_sample import Sample


def fit(
    generation: Generation,
    head: Head,
    sample: Sample,
    pairs: Pairs,
    relevance: Relevance | None,
    name: str,
) -> tuple[Calibration, dict[str, Scalar]]:
    """The calibration, and its summary.

    Parameters
    ----------
    generation, head
        What was searched.
    sample
        Live rows.
    pairs
        Results of which it is known whether they match.
    relevance
        What a match is among the sample's own rows; None when that cannot be said.
    name
        What a match is in the pairs.
    """
    subspace, chance = None, None
    if len(sample.rows) > 1:
        owners = np.asarray([row.product_id for row in sample.rows])
        subspace = fit_subspace(sample.raw, np.unique(owners, return_inverse=True)[1])
        if relevance is not None:
            chance = by_chance(head.project(sample.raw), sample.labels(relevance))
    score_map = fit_score_map(pairs.scores, pairs.good, chance)
    calibration = Calibration(
        generation.encoder,
        generation.generation,
        head.digest,
        name if score_map else "",
        score_map,
        subspace,
    )
    queries = np.asarray(pairs.queries, dtype=np.int64)
    summary: dict[str, Scalar] = {
        "relevance": calibration.relevance,
        "pairs": len(pairs),
        "queries": len(np.unique(queries)),
        "knows_foreign": subspace is not None,
    }
    if score_map is not None:
        before = calibration_error(np.clip(pairs.scores, 0, 1), pairs.good)
        after = held_out_error(pairs.scores, pairs.good, queries)
        summary |= {"error_before": round(before, 4)}
        summary |= {"error": round(after, 4)} if after is not None else {}
    return calibration, summary
