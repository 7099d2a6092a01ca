"""A mergeable sketch of positive numbers: quantiles to 1 %, whatever was merged in what order.

DDSketch (Masson, Rim and Lee, VLDB 2019): a number x is counted in bucket ⌈log_γ x⌉, where
γ = (1 + `ALPHA`) / (1 − `ALPHA`), and a bucket answers with the point in it that is at most that
share away from every number that it may hold. Buckets add up: a day is the sum of its hours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

ALPHA = 0.01
"""Largest relative error of a quantile."""
SMALLEST, LARGEST = 1e-3, 1e9
"""What lies outside is counted as these, so that there are at most `MAX_BUCKETS`."""

_GAMMA = (1 + ALPHA) / (1 - ALPHA)
_LOG_GAMMA = math.log(_GAMMA)
_SCALE = 1000  # sums are kept in thousandths, as integers, which add up the same in every order
MAX_BUCKETS = math.ceil(math.log(LARGEST / SMALLEST) / _LOG_GAMMA) + 1


@dataclass(slots=True)
class Sketch:
    """Numbers as counts of their buckets. ``total`` is their sum, in thousandths."""

    buckets: dict[int, int] = field(default_factory=dict)
    count: int = 0
    total: int = 0

    def add(self, value: float) -> None:
        """Count a number; what is below `SMALLEST`, or not a number, counts as that."""
        bounded = min(value, LARGEST) if value > SMALLEST else SMALLEST
        bucket = math.ceil(math.log(bounded) / _LOG_GAMMA)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1
        self.count += 1
        self.total += round(bounded * _SCALE)

    def merge(self, other: Sketch) -> None:
        """Count everything that another sketch has counted."""
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count
        self.count += other.count
        self.total += other.total

    def quantile(self, share: float) -> float | None:
        """The smallest number that at least this share of all are not above, to `ALPHA`.

        Parameters
        ----------
        share
            In (0, 1]: 0.5 for the median.

        Returns
        -------
        float or None
            None when nothing was counted.
        """
        wanted = math.ceil(share * self.count)
        for bucket in sorted(self.buckets):
            wanted -= self.buckets[bucket]
            if wanted <= 0:
                return 2 * _GAMMA**bucket / (_GAMMA + 1)
        return None

    @property
    def mean(self) -> float | None:
        """The mean, exact to a thousandth; None when nothing was counted."""
        return self.total / _SCALE / self.count if self.count else None
