"""The lines of a critic card, each worked out from readings: plain dictionaries, NaN where nothing is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from vlm_rewards import metrics
from vlm_rewards.cases import Cases
from vlm_rewards.clips import ClipSet
from vlm_rewards.critic import Capability
from vlm_rewards.metrics import Rate
from vlm_rewards.operating_point import EXEMPT, OperatingPoint
from vlm_rewards.readings import Readings

NOT_OFFERED = "not offered"
"""Instead of a line that needs a capability which the critic lacks."""
NOT_GIVEN = "not given"
"""Instead of a line that needs data which nobody supplied."""
EXPERT = "expert"
_CURVE = 21
"""Points of a curve over an episode."""


def order_line(forward: Readings, backward: Readings, played: ClipSet) -> Any:
    """VOC, VROC, VOC-F1 and NR of successes and of failures, and VOC of the truth.

    Successes are those of the experts, where there are such: whoever runs on after a success has no order left.

    Args:
        forward, backward: readings of clips, and of clips played backwards.
        played: the latter before they were turned.
    """
    if forward.progress is None or backward.progress is None:
        return NOT_OFFERED
    line: dict[str, Any] = {"from": forward.source}
    for name, kind in (("successes", _succeeded), ("failures", _failed)):
        only = kind(forward.clips)
        voc = _over(metrics.voc, forward, forward.progress, only)
        vroc = _over(metrics.vroc, backward, backward.progress, kind(played))
        line[name] = {
            "voc": voc,
            "vroc": vroc,
            "voc_f1": metrics.voc_f1(voc, vroc),
            "negative_rate": metrics.mean_over_episodes(
                metrics.negative_rate, forward.episodes, forward.progress, only=only
            ),
            "true_voc": _over(metrics.voc, forward, np.asarray(forward.clips.progress), only),
            "episodes": len(only),
        }
    line["voc_gap"] = line["successes"]["voc"] - line["failures"]["voc"]
    return line


def end_line(readings: Readings) -> Any:
    """Progress in the last frame: successes less failures, and of each mode, beside the truth."""
    if readings.progress is None:
        return NOT_OFFERED
    if readings.source == Capability.SCORE.value:
        return f"{NOT_OFFERED}: a score has no fixed scale"
    ends, truth = readings.progress[readings.last], np.asarray(readings.clips.progress)[readings.last]
    won = readings.truth[readings.last]
    made = np.array(readings.clips.modes)
    return {
        "gap": metrics.end_gap(ends, won),
        "true_gap": metrics.end_gap(truth, won),
        "modes": {
            mode: {"mean": _mean(ends[made == mode]), "truth": _mean(truth[made == mode])}
            for mode in dict.fromkeys(readings.clips.modes)
        },
    }


def done_line(cases: Cases | None, point: OperatingPoint, chosen: str, expected: Iterable[str]) -> Any:
    """Detection at the operating point and at one half, false done of each mode, and the successes found.

    Args:
        cases: test episodes.
        point: the operating point.
        chosen: who chose it.
        expected: modes that have to be judged, whether there are episodes of them or not.
    """
    if cases is None:
        return NOT_OFFERED
    modes = cases.by_mode(point)
    empty = {"episodes": 0, "step_false_positive_rate": math.nan, "false_done": math.nan, "low": 0.0, "high": 1.0}
    bound = dict.fromkeys([*modes, *expected])
    return {
        "operating_point": {"chosen": chosen, **asdict(point)},
        "steps": asdict(cases.steps(point)),
        "steps_at_half": asdict(cases.steps(OperatingPoint())),
        "success_recall": asdict(cases.success_recall(point)),
        "modes": {mode: modes.get(mode, empty) for mode in bound if mode not in EXEMPT},
        "apart": {mode: modes[mode] for mode in modes if mode in EXEMPT},
    }


def calibration_line(cases: Cases | None) -> Any:
    """ECE with equal and with adaptive bins, Brier score, and the reliability curve."""
    if cases is None:
        return NOT_OFFERED
    p, truth = cases.probabilities, cases.truths.astype(float)
    return {
        "ece": metrics.ece(p, truth),
        "ece_adaptive": metrics.ece(p, truth, adaptive=True),
        "brier": metrics.brier(p, truth),
        "frames": int(np.isfinite(p).sum()),
        "reliability": asdict(metrics.reliability(p, truth)),
    }


def prompt_swap_line(right: Readings, other: Readings | None) -> Any:
    """Whether the end of a success is judged lower by the instruction that it does not carry out.

    Args:
        right: the test episodes.
        other: those of them that `shifts.swapped` chose, with the other instruction, in their order.
    """
    if other is None:
        return NOT_GIVEN
    if right.progress is None or other.progress is None:
        return NOT_OFFERED
    clips = right.clips
    won = [e for e in range(len(clips)) if clips.others[e] and clips[e].success]
    high, low = right.progress[right.last[won]], other.progress[other.last]
    known = np.isfinite(high) & np.isfinite(low)
    return {
        "told_apart": asdict(Rate.of(high[known] > low[known])),
        "end_right": _mean(high),
        "end_swapped": _mean(low),
    }


def answers_line(readings: Sequence[Readings]) -> dict[str, Any]:
    """How many answers were invalid and why, and the confidence in the others."""
    asked = sum(r.clips.num_frames * ((r.progress is not None) + (r.done is not None)) for r in readings)
    reasons: dict[str, int] = {}
    for r in readings:
        for reason, count in r.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + count
    trust = np.concatenate([r.confidence for r in readings])

    def share(start: str) -> float:
        return sum(count for reason, count in reasons.items() if reason.startswith(start)) / asked

    return {
        "asked": asked,
        "invalid_share": share(""),
        "abstained_share": share("abstained"),
        "stale_share": share("stale"),
        "confidence": _mean(trust[trust > 0.0]),
        "reasons": dict(sorted(reasons.items(), key=lambda item: -item[1])[:5]),
    }


def summary(readings: Readings, point: OperatingPoint) -> dict[str, Any]:
    """The few numbers by which shifts and baselines are compared; what is not offered is NaN."""
    cases, offered = Cases.of(readings), readings.progress is not None and readings.source != Capability.SCORE.value
    false_done = {
        mode: found["false_done"]
        for mode, found in (cases.by_mode(point) if cases else {}).items()
        if mode not in EXEMPT
    }
    worst = max(false_done, key=lambda mode: false_done[mode], default="")
    values = readings.progress
    return {
        "voc": math.nan if values is None else _over(metrics.voc, readings, values, _succeeded(readings.clips)),
        "end_gap": end_line(readings)["gap"] if offered else math.nan,
        "worst_mode": worst if false_done.get(worst) else "",
        "worst_false_done": false_done.get(worst, math.nan),
        "step_precision": cases.steps(point).precision if cases else math.nan,
        "success_recall": cases.success_recall(point).rate if cases else math.nan,
        "ece": metrics.ece(cases.probabilities, cases.truths.astype(float)) if cases else math.nan,
        "confidence": _mean(readings.confidence[readings.confidence > 0.0]),
        "invalid_share": answers_line([readings])["invalid_share"],
        "episodes": len(readings.clips),
    }


def curves(readings: Readings) -> dict[str, Any]:
    """For each mode, progress and truth over the share of the episode: mean, and 10th and 90th percentile."""
    if readings.progress is None:
        return {}
    share, truth = np.linspace(0.0, 1.0, _CURVE), np.asarray(readings.clips.progress, dtype=float)
    starts = readings.clips.starts.tolist()
    found: dict[str, list[np.ndarray]] = {}
    for e, mode in enumerate(readings.clips.modes):
        rows = np.arange(starts[e], starts[e + 1])
        place = np.linspace(0.0, 1.0, len(rows))
        both = [np.interp(share, place, values[rows]) for values in (readings.progress, truth)]
        found.setdefault(mode, []).append(np.stack(both))
    made = {}
    for mode, episodes in found.items():
        value, true = np.stack(episodes, axis=1)
        known = np.isfinite(value).all(1)
        if known.any():
            low, high = np.percentile(value[known], [10, 90], axis=0)
            made[mode] = {
                "share": share,
                "value": value[known].mean(0),
                "low": low,
                "high": high,
                "truth": true.mean(0),
            }
    return made


def _succeeded(clips: ClipSet) -> list[int]:
    won = [e for e in range(len(clips)) if clips[e].success]
    return [e for e in won if clips.modes[e] == EXPERT] or won


def _failed(clips: ClipSet) -> list[int]:
    return [e for e in range(len(clips)) if not clips[e].success]


def _over(metric: Callable[..., float], readings: Readings, values: np.ndarray, only: Sequence[int]) -> float:
    times = np.asarray(readings.clips.times)
    return metrics.mean_over_episodes(metric, readings.episodes, values, times, only=only)


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan
