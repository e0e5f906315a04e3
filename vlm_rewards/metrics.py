"""How good a critic's answers are, as pure functions of numbers: order in time, calibration, detection, preference.

An answer that could not be used is NaN. It is left out of a mean, never fires, and `valid_share` counts it. A metric of
nothing is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import rankdata

from robolearn.statistics import wilson
from vlm_rewards.operating_point import OperatingPoint, choose_operating_point, fires, firing

__all__ = [
    "Detection",
    "Numbers",
    "OperatingPoint",
    "Rate",
    "Reliability",
    "brier",
    "choose_operating_point",
    "detection",
    "ece",
    "end_gap",
    "fires",
    "firing",
    "mean_over_episodes",
    "negative_rate",
    "numbers",
    "preference",
    "reliability",
    "valid_share",
    "voc",
    "voc_f1",
    "vroc",
]

Numbers = np.ndarray | torch.Tensor | Sequence[float]


def numbers(values: Numbers) -> np.ndarray:
    """As a float64 array; True is 1."""
    return np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values, dtype=np.float64)


@dataclass(frozen=True)
class Rate:
    """Share of ``n`` cases, with Wilson's 95% interval; NaN and [0, 1] of none."""

    rate: float
    n: int
    low: float
    high: float

    @classmethod
    def of(cls, hits: Numbers) -> Rate:
        """Of (n,) truth values."""
        values = numbers(hits)
        rate = float(values.mean()) if len(values) else math.nan
        return cls(rate, len(values), *wilson(rate, len(values)))


@dataclass(frozen=True)
class Detection:
    """What became of F frames in which "done" was or was not said."""

    precision: float
    recall: float
    f1: float
    balanced_accuracy: float
    false_positive_rate: float


@dataclass(frozen=True)
class Reliability:
    """B bins of a reliability diagram: mean probability, share that is true, and number of answers in each."""

    probability: np.ndarray
    share: np.ndarray
    count: np.ndarray


def valid_share(values: Numbers) -> float:
    """Share of answers that are numbers."""
    given = numbers(values)
    return float(np.isfinite(given).mean()) if given.size else math.nan


def voc(values: Numbers, times: Numbers) -> float:
    """Value-order correlation: Spearman's rank correlation of value and time, ties sharing their mean rank.

    1 for values that only rise, 0 for constant ones (they order nothing), NaN for fewer than two answers
    (Ma et al. 2024, GVL, equation 3).

    Args:
        values, times: (T,).
    """
    value, time = _answered(values, times)
    if len(value) < 2:
        return math.nan
    first, second = rankdata(value), rankdata(time)
    if np.ptp(first) == 0.0 or np.ptp(second) == 0.0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def vroc(values: Numbers, times: Numbers) -> float:
    """Value-order correlation of a clip played backwards, with its sign turned: 1 is perfect, as for `voc`.

    Args:
        values: (T,) what the critic says of the reversed clip, in the order in which it is played.
        times: (T,) rising times of the reversed clip. A critic that follows the clock gets -1 (after VLAC,
            arXiv 2509.15937, which reports both with larger being better).
    """
    return -voc(values, times)


def voc_f1(forward: float, backward: float) -> float:
    """Harmonic mean of VOC and VROC; 0 where one of them is not positive."""
    if math.isnan(forward) or math.isnan(backward):
        return math.nan
    return 2.0 * forward * backward / (forward + backward) if min(forward, backward) > 0.0 else 0.0


def negative_rate(values: Numbers) -> float:
    """Share of the steps of a clip with negative progress (VLAC's NR), over steps with both answers.

    Args:
        values: (T,) in the order of time.
    """
    steps = np.diff(numbers(values))
    steps = steps[np.isfinite(steps)]
    return float((steps < 0.0).mean()) if len(steps) else math.nan


def mean_over_episodes(
    metric: Callable[..., float], episodes: Numbers, *values: Numbers, only: Sequence[int] | None = None
) -> float:
    """Mean of a metric of single clips over the episodes in which it is a number.

    Args:
        metric: of one clip's arrays (T,).
        episodes: (F,) which episode each frame belongs to.
        values: (F,) each, given to ``metric``.
        only: these episodes; all where None.
    """
    index, arrays = numbers(episodes), [numbers(v) for v in values]
    chosen = np.unique(index) if only is None else np.asarray(only, dtype=np.float64)
    found = [metric(*(array[index == e] for array in arrays)) for e in chosen]
    known = [value for value in found if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def end_gap(last: Numbers, success: Numbers) -> float:
    """Mean value of the last frame of successes less that of failures.

    Args:
        last: (E,) value of each episode's last frame.
        success: (E,) truth values.
    """
    value, won = numbers(last), numbers(success) > 0.5
    known = np.isfinite(value)
    if not (known & won).any() or not (known & ~won).any():
        return math.nan
    return float(value[known & won].mean() - value[known & ~won].mean())


def detection(fired: Numbers, truths: Numbers) -> Detection:
    """Precision, recall, F1, balanced accuracy, false-positive rate of (F,) frames; NaN where nothing defines one."""
    said, true = numbers(fired) > 0.5, numbers(truths) > 0.5
    hits, false = int((said & true).sum()), int((said & ~true).sum())
    missed, quiet = int((~said & true).sum()), int((~said & ~true).sum())
    recall, wrong = _ratio(hits, hits + missed), _ratio(false, false + quiet)
    return Detection(
        precision=_ratio(hits, hits + false),
        recall=recall,
        f1=_ratio(2 * hits, 2 * hits + false + missed),
        balanced_accuracy=0.5 * (recall + 1.0 - wrong),
        false_positive_rate=wrong,
    )


def brier(probabilities: Numbers, truths: Numbers) -> float:
    """Mean squared difference of probability and truth (Brier 1950)."""
    p, true = _answered(probabilities, truths)
    return float(np.mean((p - true) ** 2)) if len(p) else math.nan


def reliability(probabilities: Numbers, truths: Numbers, bins: int = 15, adaptive: bool = False) -> Reliability:
    """Bins of a reliability diagram, empty ones left out.

    Args:
        probabilities, truths: (F,).
        bins: how many of equal width in [0, 1], or, if ``adaptive``, of equally many answers.
    """
    p, true = _answered(probabilities, truths)
    if adaptive:
        parts = [part for part in np.array_split(np.argsort(p, kind="stable"), bins) if len(part)]
    else:
        place = np.clip(np.ceil(p * bins).astype(int) - 1, 0, bins - 1)
        parts = [np.flatnonzero(place == b) for b in np.unique(place)]
    return Reliability(
        np.array([p[part].mean() for part in parts]),
        np.array([true[part].mean() for part in parts]),
        np.array([len(part) for part in parts], dtype=int),
    )


def ece(probabilities: Numbers, truths: Numbers, bins: int = 15, adaptive: bool = False) -> float:
    """Expected calibration error: mean distance of probability and observed share over bins (Guo et al. 2017, eq. 3).

    With bins of equal width, or, if ``adaptive``, of equally many answers (Nixon et al. 2019).
    """
    curve = reliability(probabilities, truths, bins, adaptive)
    if not len(curve.count):
        return math.nan
    return float(np.average(np.abs(curve.probability - curve.share), weights=curve.count))


def preference(probabilities: Numbers, second_better: Numbers, margin: float = 0.05) -> tuple[Rate, float]:
    """Accuracy over the pairs in which the critic chose, and the share in which it did not.

    Args:
        probabilities: (P,) that the second of two moments shows more progress.
        second_better: (P,) the truth.
        margin: within so much of one half, or at NaN, the critic abstains.
    """
    p, true = numbers(probabilities), numbers(second_better) > 0.5
    chose = np.abs(p - 0.5) > margin
    return Rate.of((p > 0.5)[chose] == true[chose]), (float(1.0 - chose.mean()) if len(p) else math.nan)


def _answered(values: Numbers, other: Numbers) -> tuple[np.ndarray, np.ndarray]:
    """Both where both are numbers."""
    first, second = numbers(values), numbers(other)
    known = np.isfinite(first) & np.isfinite(second)
    return first[known], second[known]


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
