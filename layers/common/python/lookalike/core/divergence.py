"""How far apart two histograms are."""

from __future__ import annotations

import math
from collections.abc import Mapping


def jensen_shannon(one: Mapping[str, int], other: Mapping[str, int]) -> float | None:
    """Jensen–Shannon divergence to base 2 (Lin, 1991): H((P + Q) / 2) − (H(P) + H(Q)) / 2.

    Parameters
    ----------
    one, other
        Counts by name; what is not named counts 0.

    Returns
    -------
    float or None
        0 for the same shares, 1 for nothing in common; None if one of them is empty.
    """
    wholes = sum(one.values()), sum(other.values())
    if not all(wholes):
        return None
    divergence = 0.0
    for name in sorted({*one, *other}):
        p, q = one.get(name, 0) / wholes[0], other.get(name, 0) / wholes[1]
        middle = (p + q) / 2
        divergence += sum(share / 2 * math.log2(share / middle) for share in (p, q) if share)
    return min(max(divergence, 0.0), 1.0)
