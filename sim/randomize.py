"""Domain randomisation by name: from a task's ``randomize`` settings to randomisers.

A setting is ``[low, high]``, or a mapping such as ``{range: [0.5, 2], distribution: log_uniform, at: reset}``. Names
are of the form ``<target>_<kind>``, such as ``object_mass``: a task says what its targets are, and the kinds stand
in `sim.randomizers.catalog`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import mujoco

from robolearn.contract import Channel
from robolearn.errors import unknown
from sim.randomizers.base import Randomizer, Timing
from sim.randomizers.catalog import KINDS
from sim.randomizers.draw import DISTRIBUTIONS, Draw
from sim.randomizers.errors import RandomizeError
from sim.randomizers.fields import FieldRandomizer
from sim.randomizers.kind import Kind, Request
from sim.randomizers.target import COMMON, Target
from sim.task import NoiseTerm

__all__ = ["Kind", "RandomizeError", "Target", "available", "loosen", "make_randomizers", "noisy_randomizers"]

SENSOR_RANDOMIZERS = ("sensor_noise", "sensor_bias")
"""Randomisers that need sensor noise."""

INTERVAL_S = (2.0, 5.0)
"""Seconds between draws at intervals, where nothing else is said."""


def available(targets: Mapping[str, Target]) -> dict[str, tuple[Kind, Target | None]]:
    """Names that a task with these targets accepts → what they stand for."""
    found: dict[str, tuple[Kind, Target | None]] = {}
    for name, target in {**targets, **{name: COMMON[name] for name in COMMON if name not in targets}}.items():
        kinds = [k for k in KINDS if k.needs and target.offers(k.needs) and k.name not in target.without]
        found |= {f"{name}_{kind.name}": (kind, target) for kind in kinds}
    return found | {kind.name: (kind, None) for kind in KINDS if not kind.needs}


def make_randomizers(
    settings: Mapping[str, Any], targets: Mapping[str, Target], sensors: Mapping[str, int] | None = None
) -> dict[str, Randomizer]:
    """The randomisers that ``settings`` ask for, in their order.

    Args:
        settings: name → ``[low, high]``, a mapping, or None for a randomiser that is not wanted after all.
        targets: name → what it means in the task's models.
        sensors: channels that the task's noise disturbs → how many numbers the noise of each has.

    Raises:
        RandomizeError: an unknown name or setting, an impossible range, or a value of the wrong type.
    """
    names = available(targets)
    made: dict[str, Randomizer] = {}
    for name, setting in settings.items():
        if name not in names:
            raise RandomizeError(unknown("randomizer", name, names))
        if setting is not None:
            kind, target = names[name]
            made[name] = kind.build(_request(name, kind, target, setting, sensors or {}))
    return made


def noisy_randomizers(
    settings: Mapping[str, Any],
    targets: Mapping[str, Target],
    measured: Sequence[Channel],
    noise: Mapping[str, NoiseTerm],
    silent: bool = False,
) -> tuple[dict[str, Randomizer], bool]:
    """`make_randomizers` for a task whose sensors can be noisy.

    Args:
        settings, targets: as there.
        measured: the task's measured channels.
        noise: channel → the noise that it has when it has any.
        silent: leave out the randomisers of sensors, as an evaluation does.

    Returns:
        The randomisers, and whether one of them needs the noise.
    """
    sensors = {c.name: math.prod(c.shape[:-1]) * noise[c.name].size(c.shape[-1]) for c in measured if c.name in noise}
    made = make_randomizers(settings, targets, sensors)
    if silent:
        made = {name: randomizer for name, randomizer in made.items() if name not in SENSOR_RANDOMIZERS}
    return made, any(name in made for name in SENSOR_RANDOMIZERS)


def loosen(spec: mujoco.MjSpec, randomizers: Mapping[str, object]) -> None:
    """Before a specification is compiled: let centres of mass move that the randomisers are to move.

    MuJoCo keeps less of the inertia matrix of a free body whose centre of mass is the body's origin.
    """
    for randomizer in randomizers.values():
        if not isinstance(randomizer, FieldRandomizer) or randomizer.target is None:
            continue
        if any(change.field == "body_ipos" and change.operation != "scale" for change in randomizer.changes):
            for body in spec.bodies:
                if randomizer.target.has_body(body.name):
                    body.simple = 0


def _request(name: str, kind: Kind, target: Target | None, setting: Any, sensors: Mapping[str, int]) -> Request:
    """What a setting asks for."""
    given = _mapping(name, kind, setting)
    operation = str(given.get("operation", kind.operations[0] if kind.operations else ""))
    if kind.operations and operation not in kind.operations:
        raise RandomizeError(f"randomize.{name}: {unknown('operation', operation, kind.operations)}")
    if "range" not in given and kind.operations and operation != kind.operations[0]:
        raise RandomizeError(f"randomize.{name}: to {operation}, a range must be given, in {kind.unit_of(operation)}")
    if kind.name.startswith("sensor_") and not sensors:
        raise RandomizeError(f"randomize.{name}: this task declares no sensor noise")
    return Request(
        name,
        _draw(name, kind, operation, given),
        _timing(name, kind, given),
        operation,
        target,
        each=_flag(name, given, "each"),
        duration_s=_seconds(name, given),
        sensors=sensors,
    )


def _mapping(name: str, kind: Kind, setting: Any) -> Mapping[str, Any]:
    """The setting as a mapping whose keys are known."""
    if not isinstance(setting, Mapping):
        return {"range": setting}
    common = ("range", "at") if kind.name == "latency" else ("range", "at", "distribution")
    keys = [*common, *kind.settings, *(["operation"] if len(kind.operations) > 1 else [])]
    keys += ["interval_s"] if "interval" in kind.times else []
    for key in setting:
        if key not in keys:
            raise RandomizeError(unknown("setting", f"randomize.{name}.{key}", [f"randomize.{name}.{k}" for k in keys]))
    return setting


def _draw(name: str, kind: Kind, operation: str, given: Mapping[str, Any]) -> Draw:
    low, high = _pair(f"randomize.{name}", given.get("range", kind.range))
    distribution = str(given.get("distribution", "uniform"))
    if distribution not in DISTRIBUTIONS:
        raise RandomizeError(f"randomize.{name}: {unknown('distribution', distribution, DISTRIBUTIONS)}")
    if kind.name == "latency" and (low != int(low) or high != int(high)):
        raise RandomizeError(f"randomize.{name} must be two whole numbers of control steps, got [{low:g}, {high:g}]")
    what = "factors" if operation == "scale" else "numbers"
    positive = operation == "scale" or distribution == "log_uniform"
    least = 0.0 if positive or operation == "set" else kind.least
    bound = "" if least == -math.inf else f"{least:g} {'<' if positive else '<='} "
    if not (least <= low <= high < math.inf) or (positive and low == 0) or low == -math.inf:
        raise RandomizeError(
            f"randomize.{name}: a range of {what} must satisfy {bound}low <= high < inf, got ({low}, {high})"
        )
    form = "horizontal" if _flag(name, given, "horizontal") else kind.form
    return Draw(low, high, distribution, form)


def _timing(name: str, kind: Kind, given: Mapping[str, Any]) -> Timing:
    at = str(given.get("at", kind.times[0]))
    if at not in kind.times:
        raise RandomizeError(f"randomize.{name}: {unknown('time', at, kind.times)}")
    if at != "interval":
        if "interval_s" in given:
            raise RandomizeError(f"randomize.{name}: interval_s needs at: interval, it is drawn at: {at}")
        return Timing(at)
    low, high = _pair(f"randomize.{name}.interval_s", given.get("interval_s", INTERVAL_S))
    if not 0 < low <= high < math.inf:
        raise RandomizeError(f"randomize.{name}.interval_s must satisfy 0 < low <= high < inf, got ({low}, {high})")
    return Timing(at, (low, high))


def _pair(where: str, value: Any) -> tuple[float, float]:
    pair = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []
    if len(pair) != 2 or not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in pair):
        raise RandomizeError(f"{where} must be two numbers, [low, high], got {value!r}")
    return float(pair[0]), float(pair[1])


def _flag(name: str, given: Mapping[str, Any], key: str) -> bool:
    value = given.get(key, False)
    if not isinstance(value, bool):
        raise RandomizeError(f"randomize.{name}.{key} must be true or false, got {value!r}")
    return value


def _seconds(name: str, given: Mapping[str, Any]) -> float:
    value = given.get("duration_s", 0.1)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise RandomizeError(f"randomize.{name}.duration_s must be a number of seconds greater than 0, got {value!r}")
    return float(value)
