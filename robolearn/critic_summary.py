"""What a critic's judgement of a recording comes to: numbers, and a verdict in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robolearn.critic_keyframes import Subtask, at_ends, done_share, rank_correlation
from vlm_rewards.answer import Answer
from vlm_rewards.critic import Critic
from vlm_rewards.judging import Judgement
from vlm_rewards.operating_point import OperatingPoint, fires

USABLE = 0.5
"""A judgement is usable if at least this share of the moments was judged."""


@dataclass(frozen=True)
class Curve:
    """One answer over T moments, after abstention.

    Attributes:
        values: (T,) NaN where the critic abstained or its answer was invalid.
        shown: (T,) the same after the fallback: with ``hold`` the last value stands in.
        confidence: (T,) the critic's own, also where it was too low; 0 where the answer was invalid.
        abstained: (T,) bool: the answer was valid, but its confidence too low.
        reasons: (T,) why there is no value, empty where there is one.
    """

    values: np.ndarray
    shown: np.ndarray
    confidence: np.ndarray
    abstained: np.ndarray
    reasons: tuple[str, ...]

    @classmethod
    def of(cls, answer: Answer, abstain: float, fallback: str) -> Curve:
        """The curve of an answer whose rows are dropped below the confidence ``abstain``."""
        sure = answer.sure(abstain)
        values = sure.values.cpu().double().numpy()
        held = _last_valid(values)
        shown, _ = sure.resolve(fallback, sure.values.new_tensor(held))
        return cls(
            values,
            shown.cpu().double().numpy(),
            answer.confidence.cpu().double().numpy(),
            (answer.valid & ~sure.valid).cpu().numpy(),
            sure.reasons,
        )

    @property
    def valid(self) -> np.ndarray:
        """(T,) bool."""
        return np.isfinite(self.values)

    @property
    def end(self) -> float | None:
        """The last moment's value; None where there is none."""
        return float(self.values[-1]) if self.valid[-1] else None


@dataclass(frozen=True)
class Scored:
    """A judged recording, ready to be told, drawn and filmed.

    Attributes:
        critic: its name.
        instruction: what the robot was asked to do.
        times: (T,) s.
        progress, views, done: curves; what ``progress`` was made from is ``capability``.
        scaled: progress lies in [0, 1].
        least: confidence below which the critic abstains.
        point: when a probability of done counts as done.
        subtasks: annotated by people.
        latency_ms: (T,).
        paraphrases: instruction in other words → progress.
    """

    critic: str
    instruction: str
    times: np.ndarray
    progress: Curve
    views: Mapping[str, Curve]
    done: Curve | None
    capability: str
    scaled: bool
    least: float
    point: OperatingPoint
    subtasks: tuple[Subtask, ...]
    latency_ms: np.ndarray
    paraphrases: Mapping[str, Curve]

    @classmethod
    def of(
        cls,
        critic: Critic,
        judged: Mapping[str, Judgement],
        times: np.ndarray,
        subtasks: Sequence[Subtask],
        abstain: float,
        fallback: str,
    ) -> Scored:
        """From judgements of one recording by the instruction and, after it, its paraphrases."""
        (instruction, first), *others = judged.items()
        made = {text: Curve.of(judgement.progress, abstain, fallback) for text, judgement in others}
        return cls(
            critic.name,
            instruction,
            times,
            Curve.of(first.progress, abstain, fallback),
            {camera: Curve.of(answer, abstain, fallback) for camera, answer in first.views.items()},
            None if first.done is None else Curve.of(first.done, abstain, fallback),
            first.capability.value,
            first.scaled,
            abstain,
            getattr(critic, "point", OperatingPoint()),
            tuple(subtasks),
            first.latency_ms.cpu().double().numpy(),
            made,
        )

    @property
    def step_s(self) -> float:
        """Between two moments."""
        return float(self.times[1] - self.times[0]) if len(self.times) > 1 else 1.0

    @property
    def usable(self) -> bool:
        """Whether the critic judged enough of the recording."""
        return bool(self.progress.valid.mean() >= USABLE)


def verdict(scored: Scored) -> str:
    """One sentence: whether the judgement can be used, and why not."""
    curve = scored.progress
    abstained, invalid = curve.abstained.mean(), 1.0 - curve.valid.mean() - curve.abstained.mean()
    if scored.usable:
        judged = f"{curve.valid.mean():.0%} of the moments were judged"
        if not scored.scaled:
            judged += "; its scores have no scale: set goal=<score of a success> or reference=<recording>"
        if (curve.confidence[curve.valid] == 1.0).all():
            judged += "; it claims full confidence everywhere, so it cannot say whether it knows such pictures"
        return judged
    if abstained >= invalid:
        return (
            f"the critic does not know these pictures: {abstained:.0%} of moments abstained "
            f"(confidence < {scored.least:g})"
        )
    failed = [reason for reason, low in zip(curve.reasons, curve.abstained, strict=True) if reason and not low]
    return f"the critic failed on {invalid:.0%} of moments: {Counter(failed).most_common(1)[0][0]}"


def summarise(scored: Scored) -> dict[str, Any]:
    """Numbers for ``scores.json``; None where there is nothing to say."""
    made = {
        "usable": scored.usable,
        "verdict": verdict(scored),
        "moments": len(scored.times),
        "progress_from": scored.capability,
        **numbers(scored.progress, scored.times),
        "latency_ms": {
            "median": float(np.median(scored.latency_ms)),
            "p95": float(np.percentile(scored.latency_ms, 95)),
        },
        "views": {camera: numbers(curve, scored.times) for camera, curve in scored.views.items()},
        "view_spread": _spread([curve.values for curve in scored.views.values()]),
        "done": None if scored.done is None else _done(scored.done, scored.times, scored.point),
        "keyframes": _agreement(scored) if scored.subtasks else None,
        "paraphrases": {text: numbers(curve, scored.times) for text, curve in scored.paraphrases.items()},
        "paraphrase_spread": None,
    }
    if scored.paraphrases:
        same = [scored.progress.values, *(curve.values for curve in scored.paraphrases.values())]
        made["paraphrase_spread"] = _spread(same)
    return made


def per_moment(scored: Scored) -> dict[str, Any]:
    """Lists of T: ``value`` is after the fallback, ``valid`` before it."""
    curve = scored.progress
    return {
        "time_s": scored.times,
        "value": curve.shown,
        "valid": curve.valid,
        "abstained": curve.abstained,
        "confidence": curve.confidence,
        "reason": curve.reasons,
        "done": None if scored.done is None else scored.done.values,
        "done_confidence": None if scored.done is None else scored.done.confidence,
        "latency_ms": scored.latency_ms,
        "views": {
            camera: {"value": view.values, "confidence": view.confidence} for camera, view in scored.views.items()
        },
        "paraphrases": {text: view.values for text, view in scored.paraphrases.items()},
    }


def numbers(curve: Curve, times: np.ndarray) -> dict[str, Any]:
    """One curve in numbers.

    ``voc`` is Spearman's rank correlation with time over the moments that have a value; None where these are fewer than
    `USABLE` of all: a few moments in which a critic happens to be sure, early ones say, are in order by chance.
    """
    some, judged = bool(curve.valid.any()), float(curve.valid.mean())
    return {
        "end": curve.end,
        "mean": float(np.nanmean(curve.values)) if some else None,
        "highest": float(np.nanmax(curve.values)) if some else None,
        "voc": rank_correlation(curve.values, times) if judged >= USABLE else None,
        "judged": judged,
        "abstained": float(curve.abstained.mean()),
        "invalid": float(1.0 - curve.valid.mean() - curve.abstained.mean()),
        "confidence": float(curve.confidence.mean()),
    }


def _done(curve: Curve, times: np.ndarray, point: OperatingPoint) -> dict[str, Any]:
    first = fires(curve.values, point.threshold, point.debounce)
    return {
        "end": curve.end,
        "highest": float(np.nanmax(curve.values)) if curve.valid.any() else None,
        "threshold": point.threshold,
        "debounce": point.debounce,
        "first_at_s": None if first is None else float(times[first]),
    }


def _agreement(scored: Scored) -> dict[str, Any]:
    """With annotated subtasks: progress at the end of each, and whether it rises from each to the next."""
    values = at_ends(scored.subtasks, scored.times, scored.progress.values)
    trust = at_ends(scored.subtasks, scored.times, scored.progress.confidence)
    rises = np.diff(values)
    known = np.isfinite(rises)
    return {
        "ends": [
            {"annotation": subtask.name, "end_s": subtask.end_s, "value": value, "confidence": sure}
            for subtask, value, sure in zip(scored.subtasks, values.tolist(), trust.tolist(), strict=True)
        ],
        "judged": int(np.isfinite(values).sum()),
        "rank_correlation": rank_correlation(values, np.arange(len(values), dtype=float)),
        "rising": float((rises[known] > 0).mean()) if known.any() else None,
        "rank_correlation_all": rank_correlation(scored.progress.values, done_share(scored.subtasks, scored.times)),
    }


def _spread(values: Sequence[np.ndarray]) -> float | None:
    """Mean over moments of the highest less the lowest, where all are valid; None without such a moment."""
    if len(values) < 2:
        return None
    stacked = np.stack(values)
    whole = np.isfinite(stacked).all(0)
    return float(np.ptp(stacked[:, whole], axis=0).mean()) if whole.any() else None


def _last_valid(values: np.ndarray) -> np.ndarray:
    """(T,) the latest finite value up to each moment; NaN before the first."""
    rows = np.maximum.accumulate(np.where(np.isfinite(values), np.arange(len(values)), -1))
    return np.where(rows >= 0, values[rows.clip(min=0)], np.nan)
