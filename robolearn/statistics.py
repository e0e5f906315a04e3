"""Intervals of what was measured."""

from __future__ import annotations

import math


def wilson(rate: float, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a rate observed in ``n`` trials (Wilson 1927); (0, 1) of none."""
    if n == 0:
        return 0.0, 1.0
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)
