"""Subtasks that people annotated in a recording, and how far a critic agrees with them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robolearn.errors import RobolearnError

_NAMES = ("annotation", "anotation")
"""The second is what existing annotations of real recordings say."""


class AnnotationError(RobolearnError):
    """Annotations of a recording that cannot be used."""


@dataclass(frozen=True)
class Subtask:
    """One annotated part of a recording, in s since its start."""

    name: str
    start_s: float
    end_s: float


def read_keyframes(path: Path, taken: np.ndarray, whole: bool = True) -> tuple[Subtask, ...]:
    """Subtasks in the order of their ends.

    Args:
        path: a JSON list of ``{"annotation": name, "start_frame_id": i, "end_frame_id": j}``.
        taken: (n,) s, when each picture of the annotated video was taken.
        whole: these are all its pictures; otherwise later ones are taken to follow at the same rate.

    Raises:
        AnnotationError: it is no such list, or names frames that the video does not have.
    """
    try:
        items = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise AnnotationError(f"keyframes {path} cannot be read: {error}") from error
    if not isinstance(items, list) or not items:
        raise AnnotationError(f"keyframes {path} hold no list of subtasks")
    interval = float(np.median(np.diff(taken))) if len(taken) > 1 else 1.0
    last = len(taken) if whole else np.inf

    def time(frame: int) -> float:
        return float(taken[frame]) if frame < len(taken) else float(taken[-1]) + interval * (frame - len(taken) + 1)

    made = []
    for item in items:
        try:
            name = next(str(item[key]) for key in _NAMES if key in item)
            start, end = int(item["start_frame_id"]), int(item["end_frame_id"])
        except (KeyError, TypeError, ValueError, StopIteration) as error:
            wanted = "annotation, start_frame_id and end_frame_id"
            raise AnnotationError(f"keyframes {path}: a subtask needs {wanted}, got {json.dumps(item)}") from error
        if not 0 <= start < end <= last:
            raise AnnotationError(f"keyframes {path}: {name} is of frames {start} to {end}, the video has {len(taken)}")
        made.append(Subtask(name, time(start), time(end)))
    return tuple(sorted(made, key=lambda subtask: subtask.end_s))


def done_share(subtasks: Sequence[Subtask], times: np.ndarray) -> np.ndarray:
    """(T,) the share of subtasks that are done at each time, each counting alike and growing evenly while it lasts."""
    spans = np.array([[subtask.start_s, subtask.end_s] for subtask in subtasks])
    grown = (times[:, None] - spans[:, 0]) / (spans[:, 1] - spans[:, 0])
    return np.asarray(grown.clip(0.0, 1.0).mean(1))


def at_ends(subtasks: Sequence[Subtask], times: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(K,) the latest of ``values`` (T,) at the end of each subtask; NaN where there is none."""
    rows = np.searchsorted(times, [subtask.end_s + 1e-6 for subtask in subtasks]) - 1
    return np.where(rows >= 0, values[rows.clip(min=0)], np.nan)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    """Spearman's, over the rows where both are finite; None for fewer than three, or where one does not vary."""
    from scipy.stats import spearmanr

    both = np.isfinite(first) & np.isfinite(second)
    if both.sum() < 3 or np.ptp(first[both]) == 0.0 or np.ptp(second[both]) == 0.0:
        return None
    return float(spearmanr(first[both], second[both]).statistic)
