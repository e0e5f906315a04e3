"""Statistics of features as learners that normalise by them expect: min, max, mean, std, count and quantiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
Stats = dict[str, np.ndarray]
_SAMPLED = 100
"""Frames of a film that its statistics come from, at most."""


def feature_stats(values: np.ndarray) -> Stats:
    """Of (T, K) numbers, by column: (K,) each and ``count`` (1,), the rows with at least one number.

    NaN, a value that was not there, is left out; a column without any number is 0 throughout.
    """
    numbers = np.asarray(values, np.float64).reshape(len(values), -1)
    present = np.isfinite(numbers)
    known = present.any(0)
    filled = np.where(known, numbers, 0.0)
    filled = np.where(np.isfinite(filled), filled, np.nan)
    found = {
        "min": np.nanmin(filled, 0),
        "max": np.nanmax(filled, 0),
        "mean": np.nanmean(filled, 0),
        "std": np.nanstd(filled, 0),
        "count": np.array([present.any(1).sum()]),
    }
    return found | {name: np.nanquantile(filled, share, 0) for name, share in QUANTILES.items()}


def sample(count: int) -> np.ndarray:
    """Which frames of ``count`` to look at, sorted."""
    return np.unique(np.linspace(0, count - 1, min(count, _SAMPLED)).astype(int))


def image_stats(frames: np.ndarray) -> Stats:
    """Of (T, H, W, 3) uint8: by colour, in [0, 1], (3, 1, 1) each and ``count`` (1,), the frames."""
    pixels = frames.reshape(-1, 3)
    step = max(1, len(pixels) // 500_000)
    found = feature_stats(pixels[::step] / 255.0)
    return {name: np.array([len(frames)]) if name == "count" else v.reshape(3, 1, 1) for name, v in found.items()}


def combine(stats: Sequence[Mapping[str, Stats]]) -> dict[str, Stats]:
    """Of several episodes together. Quantiles are means by count, as is usual; the rest is exact."""
    return {key: _combined([one[key] for one in stats]) for key in stats[0]}


def _combined(parts: Sequence[Stats]) -> Stats:
    counted = [part for part in parts if part["count"][0] > 0] or list(parts[:1])
    counts = np.array([max(1, part["count"][0]) for part in counted], np.float64)
    weights = counts / counts.sum()

    def mean(name: str) -> Any:
        return sum(weight * part[name] for weight, part in zip(weights, counted, strict=True))

    middle = mean("mean")
    variance = sum(w * (p["std"] ** 2 + (p["mean"] - middle) ** 2) for w, p in zip(weights, counted, strict=True))
    return {
        "min": np.min([part["min"] for part in counted], 0),
        "max": np.max([part["max"] for part in counted], 0),
        "mean": middle,
        "std": np.sqrt(variance),
        "count": np.array([sum(int(part["count"][0]) for part in parts)]),
        **{name: mean(name) for name in QUANTILES},
    }
