"""What a robot may be commanded at most: joint limits, and a box for its tool."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from real.core.errors import LimitError
from robolearn.errors import unknown

FloatArray = NDArray[np.float64]
PerJoint = float | Sequence[float] | Mapping[str, float] | FloatArray
"""One number for all joints, one a joint, or some by the joint's name."""

_RATES = ("velocity", "acceleration", "jerk")

_PANDA = {
    "velocity": {"finger_joint1": 0.05},
    "acceleration": {f"joint{i + 1}": a for i, a in enumerate((15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0))}
    | {"finger_joint1": 1.0},
    "jerk": {f"joint{i + 1}": j for i, j in enumerate((7500.0, 3750.0, 5000.0, 6250.0, 7500.0, 10000.0, 10000.0))}
    | {"finger_joint1": 100.0},
}
"""The arm's as Franka publishes them, rad/s^2 and rad/s^3, and the hand's speed, m/s; for its fingers' acceleration
and jerk nothing is published, and these are gentle ones."""
PUBLISHED: Mapping[str, Mapping[str, Mapping[str, float]]] = {"panda": _PANDA}
"""Robot → "velocity", "acceleration", "jerk" → joint → limit, where its maker publishes what a model does not hold."""


class HasLimits(Protocol):
    """The part of `sim.robots.Robot` that is read here."""

    @property
    def name(self) -> str: ...
    @property
    def joint_names(self) -> tuple[str, ...]: ...
    @property
    def lower(self) -> FloatArray: ...
    @property
    def upper(self) -> FloatArray: ...
    @property
    def speed(self) -> FloatArray: ...


@dataclass(frozen=True, eq=False)
class JointLimits:
    """Limits of J joints, SI units: rad or m and their time derivatives. The arrays are (J,) and read-only.

    Raises:
        LimitError: naming the joint, for a limit that is not finite, a range that is empty, or a rate that is not
            positive.
    """

    names: tuple[str, ...]
    lower: FloatArray
    upper: FloatArray
    velocity: FloatArray
    acceleration: FloatArray
    jerk: FloatArray

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        if not self.names or len(set(self.names)) != len(self.names):
            raise LimitError(f"joint limits need different names of joints, not {self.names!r}")
        for limit in fields(self)[1:]:
            value = _numbers(limit.name, getattr(self, limit.name), self.names)
            if limit.name in _RATES and (value <= 0).any():
                joint = int(np.argmax(value <= 0))
                raise LimitError(f"joint {self.names[joint]!r}: {limit.name} limit {value[joint]} is not positive")
            object.__setattr__(self, limit.name, value)
        if (self.lower >= self.upper).any():
            joint = int(np.argmax(self.lower >= self.upper))
            raise LimitError(
                f"joint {self.names[joint]!r}: lower limit {self.lower[joint]} is not below {self.upper[joint]}"
            )

    @classmethod
    def from_robot(
        cls,
        robot: HasLimits,
        *,
        velocity: PerJoint | None = None,
        acceleration: PerJoint | None = None,
        jerk: PerJoint | None = None,
        scale: float | Mapping[str, float] = 1.0,
    ) -> JointLimits:
        """Limits of a robot of `sim.robots`: positions and speeds of its model, the rest as given or published.

        Args:
            velocity, acceleration, jerk: override what is known, in whole or for the joints that they name.
            scale: a share in (0, 1] of all rates, or of those that it names ("velocity", "acceleration", "jerk").

        Raises:
            LimitError: a rate that neither the caller, the model nor the maker gives, or a scale outside (0, 1].
        """
        known = {k: dict(v) for k, v in PUBLISHED.get(robot.name, {}).items()}
        speeds = dict(zip(robot.joint_names, map(float, robot.speed), strict=True))
        slower = known.get("velocity", {})
        known["velocity"] = {n: min(v, slower.get(n, v)) for n, v in speeds.items() if math.isfinite(v)}
        given = {"velocity": velocity, "acceleration": acceleration, "jerk": jerk}
        shares = _shares(scale)
        rates = {
            rate: shares[rate] * _rate(robot.name, rate, robot.joint_names, known.get(rate, {}), given[rate])
            for rate in _RATES
        }
        return cls(robot.joint_names, robot.lower, robot.upper, **rates)

    @classmethod
    def from_model(cls, model: Any, **options: Any) -> JointLimits:
        """`from_robot` for a compiled `mujoco.MjModel`: the joints that its actuators drive, in their order.

        Args:
            model: positions come from ``jnt_range``, speeds from the first value of ``jnt_user``.
            options: as `from_robot`; published rates are found by the model's name.

        Raises:
            LimitError: as `from_robot`; also for an actuator that drives no joint and a joint without a range.
        """
        return cls.from_robot(_FromModel(model), **options)


class _FromModel:
    def __init__(self, model: Any) -> None:
        joints = [int(j) for j in model.actuator_trnid[:, 0]]
        for i, joint in enumerate(joints):
            if model.actuator_trntype[i] != 0:
                raise LimitError(f"actuator {model.actuator(i).name!r} drives no joint")
            if not model.jnt_limited[joint]:
                raise LimitError(f"joint {model.joint(joint).name!r} has no range in the model")
        self.name = bytes(model.names).split(b"\0", 1)[0].decode()
        self.joint_names = tuple(model.joint(j).name for j in joints)
        self.lower = np.array(model.jnt_range[joints, 0])
        self.upper = np.array(model.jnt_range[joints, 1])
        self.speed = np.array(model.jnt_user[joints, 0] if model.nuser_jnt else np.full(len(joints), np.inf))


def _rate(
    robot: str, rate: str, names: tuple[str, ...], known: Mapping[str, float], given: PerJoint | None
) -> FloatArray:
    if given is None or isinstance(given, Mapping):
        for name in given or ():
            if name not in names:
                raise LimitError(f"{rate} limits: {unknown('joint', name, names)}")
        values = {**known, **(given or {})}
        missing = [n for n in names if n not in values]
        if missing:
            raise LimitError(
                f"robot {robot!r}: no {rate} limit is published for {', '.join(missing)}; give it in the settings"
            )
        given = [values[n] for n in names]
    return _numbers(rate, given, names)


def _shares(scale: float | Mapping[str, float]) -> dict[str, float]:
    if isinstance(scale, Mapping):
        for name in scale:
            if name not in _RATES:
                raise LimitError(unknown("scale", name, _RATES))
        shares = {rate: scale.get(rate, 1.0) for rate in _RATES}
    else:
        shares = dict.fromkeys(_RATES, scale)
    for rate, share in shares.items():
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise LimitError(f"scale of {rate} is a number above 0 and at most 1, not {share!r}")
    return shares


def _numbers(what: str, value: ArrayLike, names: tuple[str, ...]) -> FloatArray:
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise LimitError(f"{what} limits are numbers, not {value!r}") from error
    if array.shape not in ((), (len(names),)):
        raise LimitError(f"{what} limits: shape {array.shape} given for {len(names)} joints")
    array = np.array(np.broadcast_to(array, (len(names),)))
    if not np.isfinite(array).all():
        joint = int(np.argmax(~np.isfinite(array)))
        raise LimitError(f"joint {names[joint]!r}: {what} limit is {array[joint]}, not a finite number")
    array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False)
class Workspace:
    """An axis-aligned box that the tool stays in.

    Attributes:
        lower, upper: (3,) corners in the world, m.
        tool_position: joints (J,) → tool (3,) in the world, m; called some ten times a tick.

    Raises:
        LimitError: a corner that is not three finite numbers, or a box without volume.
    """

    lower: FloatArray
    upper: FloatArray
    tool_position: Callable[[FloatArray], FloatArray] = field(repr=False)

    def __post_init__(self) -> None:
        for name in ("lower", "upper"):
            object.__setattr__(self, name, _numbers(f"workspace {name}", getattr(self, name), ("x", "y", "z")))
        if (self.lower >= self.upper).any():
            raise LimitError(f"workspace lower {self.lower.tolist()} is not below upper {self.upper.tolist()}")

    def excess(self, joints: FloatArray) -> FloatArray:
        """How far the tool is beyond each of the six sides, (6,) m; 0 within, NaN where the kinematics fail."""
        tool = self.tool_position(joints)
        return np.maximum(np.concatenate([self.lower - tool, tool - self.upper]), 0.0)
