"""When a probability becomes "done": a threshold that has to hold for some frames in a row, chosen on validation."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from vlm_rewards.errors import CriticError

SAME_COLOUR = "wrong_object_same_colour"
EXEMPT = ("expert", SAME_COLOUR)
"""Modes whose share of false "done" is reported apart and binds nothing: in ``expert`` it is a "done" that comes early,
which precision counts; the wrong object of the right colour, told by its shape alone, is the hardest failure."""
_THRESHOLDS = tuple(np.round(np.arange(0.5, 0.995, 0.01), 2).tolist())


@dataclass(frozen=True)
class OperatingPoint:
    """How "done" is decided, and how it did where it was chosen.

    Attributes:
        threshold: least probability.
        debounce: frames in a row that have to reach it.
        met: whether the wanted limits held on validation; if not, this point came closest.
        recall: share of successful episodes in which it fired while done.
        precision: share of the frames in which it fired that were truly done.
        false_done: mode → share of episodes in which it fired while not done.
    """

    threshold: float = 0.5
    debounce: int = 1
    met: bool = False
    recall: float = math.nan
    precision: float = math.nan
    false_done: Mapping[str, float] = field(default_factory=dict)


def firing(
    probabilities: np.ndarray | torch.Tensor,
    threshold: float,
    debounce: int,
    episodes: np.ndarray | torch.Tensor | None = None,
) -> np.ndarray:
    """Frames (F,) in which the probability has been at least ``threshold`` in ``debounce`` frames in a row.

    Args:
        probabilities: (F,); NaN never fires, and starts the count again.
        threshold, debounce: as in `OperatingPoint`.
        episodes: (F,) which episode each frame belongs to, frames of one together; all the same where None.

    Raises:
        CriticError: ``debounce`` below 1.
    """
    if debounce < 1:
        raise CriticError(f"debounce must be at least one frame, got {debounce}")
    hit = _array(probabilities) >= threshold
    fired = hit.copy()
    for back in range(1, debounce):
        fired[back:] &= hit[:-back]
        fired[:back] = False
        if episodes is not None:
            index = _array(episodes)
            fired[back:] &= index[back:] == index[:-back]
    return fired


def fires(probabilities: np.ndarray | torch.Tensor, threshold: float, debounce: int = 1) -> int | None:
    """The first frame of one episode (T,) in which "done" fires, or None; see `firing`."""
    frames = np.flatnonzero(firing(probabilities, threshold, debounce))
    return int(frames[0]) if len(frames) else None


def false_episodes(fired: np.ndarray, truths: np.ndarray, episodes: np.ndarray, count: int) -> np.ndarray:
    """Episodes (count,) with a frame in which "done" fired and the truth was not done.

    Args:
        fired, truths, episodes: (F,); ``episodes`` counts from 0.
    """
    return np.bincount(episodes[fired & ~truths], minlength=count) > 0


def found_episodes(fired: np.ndarray, truths: np.ndarray, episodes: np.ndarray, count: int) -> np.ndarray:
    """Episodes (count,) with a frame in which "done" fired and the truth was done."""
    return np.bincount(episodes[fired & truths], minlength=count) > 0


def successes(truths: np.ndarray, episodes: np.ndarray, count: int) -> np.ndarray:
    """Episodes (count,) that are done in their last frame; frames of one are together and in order of time."""
    won = np.zeros(count, dtype=bool)
    won[episodes] = truths  # the last of repeated assignments stays
    return won


def choose_operating_point(
    probabilities: np.ndarray | torch.Tensor,
    truths: np.ndarray | torch.Tensor,
    episodes: np.ndarray | torch.Tensor,
    modes: Sequence[str],
    max_false: float = 0.05,
    margin: float = 0.02,
    min_precision: float = 0.9,
    thresholds: Iterable[float] = _THRESHOLDS,
    debounces: Iterable[int] = (1, 2, 3),
    exempt: Iterable[str] = EXEMPT,
) -> OperatingPoint:
    """The point that finds most successes while every mode's share of false "done" stays under a limit.

    Use validation episodes: a point chosen on the test set judges itself. Of points that find equally many, the one
    with the fewest false episodes in its worst mode, then the most precise, then the quickest; of thresholds that do
    equally well, the middle one. Where no point keeps the limits, the one that misses them least, which says
    ``met=False``.

    Args:
        probabilities, truths: (F,).
        episodes: (F,) index of each frame's episode, counting from 0, frames of one together in order of time.
        modes: (E,) how each episode was made.
        max_false: largest share of episodes with a false "done", in each mode.
        margin: how far below ``max_false`` validation has to be, since the test set will differ.
        min_precision: least share of firing frames that are truly done.
        thresholds, debounces: what to choose from.
        exempt: modes that ``max_false`` does not bind.

    Raises:
        CriticError: no successful episode, or none of a mode that binds.
    """
    truth, index = _array(truths).astype(bool), _array(episodes).astype(np.int64)
    made = np.array(modes)
    won = successes(truth, index, len(made))
    bound = sorted(set(modes) - set(exempt))
    if not won.any() or not bound:
        lacks = "successful episodes" if not won.any() else "failures"
        raise CriticError(f"an operating point cannot be chosen: the validation set has no {lacks}")
    found: list[tuple[tuple[float, ...], OperatingPoint]] = []
    for debounce in debounces:
        for threshold in thresholds:
            fired = firing(probabilities, threshold, debounce, index)
            wrong = false_episodes(fired, truth, index, len(made))
            false_done = {mode: float(wrong[made == mode].mean()) for mode in sorted(set(modes))}
            recall = float(found_episodes(fired, truth, index, len(made))[won].mean())
            precision = float(truth[fired].mean()) if fired.any() else math.nan
            worst = max(false_done[mode] for mode in bound)
            precise = 0.0 if math.isnan(precision) else precision
            short = max(0.0, worst - (max_false - margin)) + max(0.0, min_precision - precise)
            point = OperatingPoint(float(threshold), int(debounce), short == 0.0, recall, precision, false_done)
            found.append(((-short, recall, -worst, precise, -float(debounce)), point))
    if not found:
        raise CriticError("an operating point needs at least one threshold and one debounce to choose from")
    best = max(key for key, _ in found)
    equal = [point for key, point in found if key == best]
    return equal[len(equal) // 2]


def _array(values: np.ndarray | torch.Tensor) -> np.ndarray:
    return np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values)
