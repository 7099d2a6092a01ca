"""Clicks tell what is good only of what was looked at, and of searches in general only so."""

from __future__ import annotations

import numpy as np
import pytest

from lookalike.core.calibration import ScoreMap, calibration_error, fit_score_map
from lookalike.core.calibration_pairs import judged_pairs
from lookalike.core.examination import examination

LOOKED = (1, 0.7, 0.5, 0.35, 0.25, 0.18, 0.13, 0.1, 0.08, 0.06)


def shoppers(count: int, way: str, seed: int = 1):
    """Searches that were judged, and scores of all with what is good: as likely as score cubed.

    ``looks``: at each rank by itself, less and less; ``leaves``: after the first good one.
    """
    rng = np.random.default_rng(seed)
    searches, all_scores, all_good = [], [], []
    for _ in range(count):
        scores = np.clip(rng.uniform(0.2, 0.95) - 0.01 * np.arange(10), 0.05, 1)
        good = rng.random(10) < scores**3
        clicked = np.flatnonzero(good & (rng.random(10) < LOOKED))
        if way == "leaves":
            clicked = np.flatnonzero(good)[:1]
        all_scores.append(scores)
        all_good.append(good)
        if len(clicked):
            rows = [(f"p{rank}", "a", float(score)) for rank, score in enumerate(scores)]
            searches.append((rows, {f"p{rank}": 1 for rank in clicked}))
    return searches, np.concatenate(all_scores), np.concatenate(all_good)


def fitted(searches) -> ScoreMap:
    pairs = judged_pairs(searches)
    assert pairs.can_be_fitted(with_bad=True)
    looked = examination(pairs.scores, pairs.good, pairs.ranks)
    found = fit_score_map(pairs.scores, pairs.good, (0.15, 0.02), looked)
    assert found is not None
    return found


def test_more_judged_searches_make_the_true_error_smaller() -> None:
    _, scores, good = shoppers(2_000, "looks", 7)
    errors = []
    for count in (400, 4_000):
        maps = [fitted(shoppers(count, "looks", seed)[0]) for seed in range(3)]
        errors.append(np.mean([calibration_error(item.match(scores), good) for item in maps]))
    assert errors[1] < errors[0] < 0.06 and errors[1] < 0.03


def test_how_far_people_look_is_found_out() -> None:
    pairs = judged_pairs(shoppers(12_000, "looks")[0])
    looked = examination(pairs.scores, pairs.good, pairs.ranks)
    for rank in (1, 2, 3, 4):
        (share,) = set(looked[np.asarray(pairs.ranks) == rank])
        assert share == pytest.approx(LOOKED[rank - 1], abs=0.1)
    assert examination([0.5] * 9, [True] * 9, [1] * 9).tolist() == [1.0] * 9  # too few to tell


def test_who_leaves_with_the_first_good_one_tells_nothing_of_the_others() -> None:
    assert not judged_pairs(shoppers(3_000, "leaves")[0]).can_be_fitted(with_bad=True)
    first = [([("a", "x", 0.5), ("b", "x", 0.4)], {"a": 1})] * 500
    assert len(judged_pairs(first)) == 0
