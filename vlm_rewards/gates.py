"""What a critic has to reach before it may drive RL."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

PASSED, FAILED, NOT_JUDGED = "passed", "failed", "not judged"


@dataclass(frozen=True)
class Gate:
    """One limit on one number of a card.

    Attributes:
        name: what a person reads.
        metric: where the number is in `Card.lines`, names joined by dots; ``*`` stands for every failure mode.
        limit: the bound, which itself passes.
        at_most: the number must not be above the limit; otherwise not below.
        least: episodes below which a mode is not judged: in few of them a failure hides.
        optional: without its line there is nothing to judge, and nothing is blocked.
    """

    name: str
    metric: str
    limit: float
    at_most: bool = False
    least: int = 0
    optional: bool = False


GATES = (
    Gate("false done", "done.modes.*.false_done", 0.05, at_most=True, least=30),
    Gate("step precision of done", "done.steps.precision", 0.9),
    Gate("calibration error (ECE)", "calibration.ece", 0.05, at_most=True),
    Gate("VOC on successes", "order.successes.voc", 0.8),
    Gate("end-value gap", "end.gap", 0.3),
    Gate("end-value gap beyond elapsed time", "end.beyond_elapsed_time", 0.05),
    Gate("exploit test", "exploit.passed", 1.0, optional=True),
)
"""In the order of the card; see docs/critic_card.md."""


@dataclass(frozen=True)
class Judgement:
    """What became of a gate.

    Attributes:
        gate: its name, with the mode.
        value: what was measured; NaN if nothing was.
        limit, at_most: of the gate.
        status: `PASSED`, `FAILED` or `NOT_JUDGED`; the latter blocks like a failure.
        note: what else to know.
    """

    gate: str
    value: float
    limit: float
    at_most: bool
    status: str
    note: str = ""

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        if self.status == NOT_JUDGED:
            return f"{self.gate}: not judged{note}"
        sign = "<=" if self.at_most else ">="
        return f"{self.gate}: {self.value:.3g}, wanted {sign} {self.limit:g}{note}"


def judge_gates(lines: Mapping[str, Any], gates: tuple[Gate, ...] = GATES) -> tuple[Judgement, ...]:
    """Each gate on the lines of a card; one of every mode where the gate is for every mode."""
    return tuple(judgement for gate in gates for judgement in _judged(gate, lines))


def _judged(gate: Gate, lines: Mapping[str, Any]) -> Iterator[Judgement]:
    if gate.optional and not isinstance(lines.get(gate.metric.partition(".")[0]), Mapping):
        return
    before, star, after = gate.metric.partition(".*.")
    if not star:
        yield _judgement(gate, gate.name, _find(lines, gate.metric), "")
        return
    modes = _find(lines, before)
    if not isinstance(modes, Mapping) or not modes:
        reason = modes if isinstance(modes, str) else "no failures in the data"
        yield Judgement(gate.name, math.nan, gate.limit, gate.at_most, NOT_JUDGED, reason)
        return
    for mode, found in modes.items():
        count, name = found["episodes"], f"{gate.name}, {mode}"
        if count < gate.least:
            note = f"{count} episodes; {gate.least} are needed"
            yield Judgement(name, math.nan, gate.limit, gate.at_most, NOT_JUDGED, note)
        else:
            yield _judgement(gate, name, found[after], f"95% up to {found['high']:.2f}, {count} episodes")


def _judgement(gate: Gate, name: str, value: Any, note: str) -> Judgement:
    if not isinstance(value, (int, float)) or math.isnan(value):
        reason = value if isinstance(value, str) else "there was nothing to measure"
        return Judgement(name, math.nan, gate.limit, gate.at_most, NOT_JUDGED, reason)
    good = value <= gate.limit if gate.at_most else value >= gate.limit
    return Judgement(name, float(value), gate.limit, gate.at_most, PASSED if good else FAILED, note)


def _find(lines: Mapping[str, Any], metric: str) -> Any:
    """The number at a dotted place; the text that stands there, or on the way, instead of it; None without either."""
    found: Any = lines
    for part in metric.split("."):
        if not isinstance(found, Mapping):
            return found
        found = found.get(part)
    return found
