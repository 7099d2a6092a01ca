"""How likely shoppers look at a result, by its rank: what is not clicked may not have been seen.

Owns the position-based model of clicks: P(click) = P(looked at | rank) · P(good | score), as in
Wang et al., "Position bias estimation for unbiased learning to rank in personal search" (WSDM
2018). Both factors are estimated from the same clicks, as the same scores stand at several ranks.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lookalike.core.calibration import Float64, fit_score_map

_ROUNDS = 20
_LEAST = 0.05


def examination(scores: npt.ArrayLike, good: npt.ArrayLike, ranks: npt.ArrayLike) -> Float64:
    """How likely each result was looked at, relative to those of the first rank.

    Parameters
    ----------
    scores, good, ranks
        (n,) score of each result, whether it was clicked, and its rank from 1.

    Returns
    -------
    numpy.ndarray
        (n,) float64 from 0.05 to 1, never rising with rank. All 1 where there are too few results
        to tell.
    """
    scores, good = np.asarray(scores, dtype=np.float64), np.asarray(good, dtype=np.float64)
    places, place = np.unique(np.asarray(ranks), return_inverse=True)
    looked = np.ones(len(places))
    clicks = np.bincount(place, good, minlength=len(places))
    for _ in range(_ROUNDS):
        fitted = fit_score_map(scores, good, exposures=looked[place])
        if fitted is None:
            break
        expected = np.bincount(place, fitted.match(scores), minlength=len(places))
        shares = (clicks + 1) / (expected + 1)
        looked = np.minimum.accumulate(np.clip(shares / shares[0], _LEAST, 1))
    return np.asarray(looked[place], dtype=np.float64)
