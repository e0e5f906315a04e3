"""Channels and contracts: what a policy reads, what it commands, and the checks at that border.

A *channel* is a named physical quantity: ``joint_pos (16,) rad``, ``object_pose (7,) m+wxyz``,
``wrist_rgb (64, 64, 3) uint8``. A *contract* lists the channels a policy reads, the channels it commands, its
recurrent state, its robot, its rate and its delay. Simulators, real robots and bundles meet here and nowhere
else, so this module needs numpy alone.

Values at the border are numpy arrays without a batch axis, in physical units (SI, radians, quaternions wxyz,
world z up). Nothing is cast, broadcast or repaired in silence: a value that is not what the contract says
raises :class:`ContractError`.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from robolearn.errors import RobolearnError, did_you_mean, unknown

DTYPES = ("float32", "float64", "float16", "uint8", "int8", "int16", "int32", "int64", "bool")
"""Element types a channel may have: those that numpy, ONNX and LEAPP share."""

_SHA256 = re.compile(r"[0-9a-f]{64}")


class ContractError(RobolearnError):
    """A channel, a contract, or a value given to one is not what was agreed."""


def robot_hash(mjcf: str) -> str:
    """SHA-256 of a robot's MJCF text (UTF-8), 64 hexadecimal digits: the robot's identity in a contract."""
    return hashlib.sha256(mjcf.encode()).hexdigest()


@dataclass(frozen=True)
class Channel:
    """A named physical quantity.

    Attributes:
        name: what the quantity is called everywhere.
        shape: axes without the batch axis, at least one.
        unit: ``"rad"``, ``"m"``, ``"m+wxyz"`` for a pose, ``""`` for none.
        frame: the frame the numbers are expressed in, such as ``"world"`` or a body's name.
        dtype: one of :data:`DTYPES`.
        kind: LEAPP's semantic kind, such as ``"state/joint/position"`` or ``"target/joint/position"``.
        elements: names along the last axis, such as joint names in command order; for a pose
            ``("x", "y", "z", "qw", "qx", "qy", "qz")``, which tells a reader used to xyzw what it gets.
        lower, upper: limits along the last axis, in ``unit``; one number stands for all elements.

    Raises:
        ContractError: where the attributes contradict each other.
    """

    name: str
    shape: tuple[int, ...]
    unit: str = ""
    frame: str = ""
    dtype: str = "float32"
    kind: str = ""
    elements: tuple[str, ...] = ()
    lower: tuple[float, ...] | None = None
    upper: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or re.search(r"\s", self.name):
            raise ContractError(f"a channel's name is a word without spaces, not {self.name!r}")
        object.__setattr__(self, "shape", _shape(self.name, self.shape))
        if self.dtype not in DTYPES:
            raise ContractError(f"channel {self.name!r}: {unknown('dtype', self.dtype, DTYPES)}")
        object.__setattr__(self, "elements", _elements(self.name, self.elements, self.shape[-1]))
        object.__setattr__(self, "lower", _limit(self.name, "lower", self.lower, self.shape[-1]))
        object.__setattr__(self, "upper", _limit(self.name, "upper", self.upper, self.shape[-1]))
        if self.lower is not None and self.upper is not None:
            for i, (low, high) in enumerate(zip(self.lower, self.upper, strict=True)):
                if low > high:
                    raise ContractError(f"channel {self.name!r}: lower {low} > upper {high} at {self.where((i,))}")

    @cached_property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The element type as numpy knows it."""
        return np.dtype(self.dtype)

    @cached_property
    def limits(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper limits along the last axis, each ``(shape[-1],)``; ±inf where there is none.

        They are rounded to the channel's dtype, as the clamp inside a policy's graph is.
        """
        n = self.shape[-1]
        dtype = self.numpy_dtype if self.numpy_dtype.kind == "f" else np.dtype(np.float64)
        lower = np.full(n, -np.inf, dtype) if self.lower is None else np.array(self.lower, dtype)
        upper = np.full(n, np.inf, dtype) if self.upper is None else np.array(self.upper, dtype)
        lower.flags.writeable = upper.flags.writeable = False
        return lower, upper

    def where(self, index: tuple[int, ...]) -> str:
        """Say which element ``index`` is, by name where the last axis is named: ``element 'thumb_0' [3]``."""
        position = "[" + ", ".join(str(int(i)) for i in index) + "]"
        return f"element {self.elements[int(index[-1])]!r} {position}" if self.elements else f"element {position}"

    def check(self, value: ArrayLike) -> np.ndarray:
        """Return ``value`` as an array of this channel's shape and dtype, all of it finite.

        Raises:
            ContractError: naming the channel and what was given; for a non-finite value also the element.
        """
        array = np.asarray(value)
        if array.shape != self.shape:
            raise ContractError(f"channel {self.name!r}: shape {array.shape} given, {self.shape} expected")
        if array.dtype != self.numpy_dtype:
            raise ContractError(
                f"channel {self.name!r}: dtype {array.dtype} given, {self.dtype} expected; "
                f"cast it with .astype('{self.dtype}')"
            )
        if array.dtype.kind == "f":
            finite = np.isfinite(array)
            if not finite.all():
                index = tuple(int(i) for i in np.argwhere(~finite)[0])
                raise ContractError(
                    f"channel {self.name!r}: {self.where(index)} is {array[index]}, not a finite number"
                )
        return array

    def to_dict(self) -> dict[str, Any]:
        """Plain types for YAML, without the attributes that hold their default."""
        return _to_dict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Channel:
        """The inverse of :meth:`to_dict`. Raises ContractError for a missing or unknown key."""
        return cls(**_known_keys(cls, "channel", data, required=("name", "shape")))


@dataclass(frozen=True)
class Contract:
    """What a policy reads and commands.

    Attributes:
        robot: the robot's name; ``""`` where a bundle of another maker does not say.
        robot_hash: :func:`robot_hash` of its MJCF, or ``""``.
        inputs: channels the policy reads, each step.
        commands: channels it commands, with limits.
        state: recurrent state: fed back from one step to the next, zero at a reset.
        rate_hz: steps per second; 0 where a bundle of another maker does not say.
        delay_s: delay from observation to command that the policy was trained to expect, in seconds.
        task: the task's name.
        instruction: the task in words, for critics and operators.

    Raises:
        ContractError: for a name used twice (in all three groups), no command, an impossible rate or delay.
    """

    robot: str
    robot_hash: str
    inputs: tuple[Channel, ...]
    commands: tuple[Channel, ...]
    state: tuple[Channel, ...] = ()
    rate_hz: float = 0.0
    delay_s: float = 0.0
    task: str = ""
    instruction: str = ""

    def __post_init__(self) -> None:
        for group in ("inputs", "commands", "state"):
            object.__setattr__(self, group, tuple(getattr(self, group)))
        seen: set[str] = set()
        for channel in self.inputs + self.commands + self.state:
            if channel.name in seen:
                raise ContractError(f"channel {channel.name!r} is named twice in the contract")
            seen.add(channel.name)
        if not self.commands:
            raise ContractError("a contract has at least one command")
        if self.robot_hash and not _SHA256.fullmatch(self.robot_hash):
            raise ContractError(f"robot_hash is 64 hexadecimal digits, not {self.robot_hash!r}")
        for name in ("rate_hz", "delay_s"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not math.isfinite(value) or value < 0:
                raise ContractError(f"{name} is a number >= 0, not {value!r}")

    @property
    def dt(self) -> float:
        """Seconds between two steps. Raises ContractError where the contract states no rate."""
        if not self.rate_hz:
            raise ContractError("the contract states no rate")
        return 1.0 / self.rate_hz

    def names(self, group: str = "inputs") -> tuple[str, ...]:
        """Channel names of a group: ``"inputs"``, ``"commands"`` or ``"state"``."""
        if group not in ("inputs", "commands", "state"):
            raise ContractError(unknown("group", group, ("inputs", "commands", "state")))
        return tuple(channel.name for channel in getattr(self, group))

    def channel(self, name: str) -> Channel:
        """The channel called ``name``, of any group. Raises ContractError with the closest name."""
        channels = {c.name: c for c in self.inputs + self.commands + self.state}
        if name not in channels:
            raise ContractError(unknown("channel", name, channels))
        return channels[name]

    def limits(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper limits of a channel along its last axis, in its unit; ±inf where there is none."""
        return self.channel(name).limits

    def initial_state(self) -> dict[str, np.ndarray]:
        """The recurrent state after a reset: zeros."""
        return {c.name: np.zeros(c.shape, c.numpy_dtype) for c in self.state}

    def check_inputs(self, values: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
        """Return the inputs as arrays in contract order.

        Args:
            values: one array for each input channel, without a batch axis.

        Raises:
            ContractError: for a missing or unknown name, a wrong shape or dtype, or a non-finite value.
        """
        return _check_group("input", self.inputs, values)

    def check_commands(self, values: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
        """Return the commands as arrays in contract order, all of them within their limits.

        Raises:
            ContractError: as :meth:`check_inputs`, and for a command outside its limits, naming the element.
        """
        arrays = _check_group("command", self.commands, values)
        for channel in self.commands:
            if channel.lower is None and channel.upper is None:
                continue
            array = arrays[channel.name]
            lower, upper = channel.limits
            outside = (array < lower) | (array > upper)
            if outside.any():
                index = tuple(int(i) for i in np.argwhere(outside)[0])
                low, high = lower[index[-1]], upper[index[-1]]
                raise ContractError(
                    f"command {channel.name!r}: {channel.where(index)} is {array[index]}, outside [{low}, {high}]"
                )
        return arrays

    def check_robot(self, robot: str) -> None:
        """Hold this contract against a robot.

        Args:
            robot: its name, its MJCF text, or the :func:`robot_hash` of that.

        Raises:
            ContractError: where the contract is for another robot, or names none.
        """
        if not self.robot and not self.robot_hash:
            raise ContractError("the contract names no robot, so it cannot be held against one")
        text = robot.strip()
        if text.startswith("<") or _SHA256.fullmatch(text):
            given = robot_hash(robot) if text.startswith("<") else text
            if given != self.robot_hash:
                raise ContractError(
                    f"the contract is for robot {self.robot!r} (MJCF {self.robot_hash[:12] or 'unknown'}), "
                    f"the one given has MJCF {given[:12]}"
                )
        elif text != self.robot:
            raise ContractError(f"the contract is for robot {self.robot!r}, not {text!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain types for YAML, without the attributes that hold their default."""
        return _to_dict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Contract:
        """The inverse of :meth:`to_dict`. Raises ContractError for a missing or unknown key."""
        values = _known_keys(cls, "contract", data, required=("robot", "robot_hash", "inputs", "commands"))
        for group in ("inputs", "commands", "state"):
            values[group] = tuple(Channel.from_dict(channel) for channel in values.get(group, ()))
        return cls(**values)


def _check_group(kind: str, channels: tuple[Channel, ...], values: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    arrays = {}
    for channel in channels:
        if channel.name not in values:
            _refuse_unknown(kind, channels, values)  # a misspelt name explains a missing one
            given = ", ".join(sorted(values)) or "none"
            raise ContractError(f"{kind} channel {channel.name!r} is missing; given: {given}")
        arrays[channel.name] = channel.check(values[channel.name])
    if len(values) > len(arrays):
        _refuse_unknown(kind, channels, values)
    return arrays


def _refuse_unknown(kind: str, channels: tuple[Channel, ...], values: Iterable[str]) -> None:
    names = [channel.name for channel in channels]
    for name in values:
        if name not in names:
            raise ContractError(unknown(f"{kind} channel", name, names))


def _shape(name: str, shape: Any) -> tuple[int, ...]:
    axes = tuple(shape) if isinstance(shape, Iterable) else ()
    if not axes or not all(isinstance(n, (int, np.integer)) and not isinstance(n, bool) and n > 0 for n in axes):
        raise ContractError(f"channel {name!r}: shape is a tuple of positive integers, not {shape!r}")
    return tuple(int(n) for n in axes)


def _elements(name: str, elements: Any, size: int) -> tuple[str, ...]:
    names = tuple(str(element) for element in elements)
    if names and len(names) != size:
        raise ContractError(f"channel {name!r}: {len(names)} element names for a last axis of {size}")
    if len(set(names)) != len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise ContractError(f"channel {name!r}: element {twice!r} is named twice")
    return names


def _limit(name: str, side: str, limit: Any, size: int) -> tuple[float, ...] | None:
    if limit is None:
        return None
    try:
        values = np.asarray(limit, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ContractError(f"channel {name!r}: {side} holds numbers, not {limit!r}") from error
    if values.ndim == 0:
        values = np.full(size, values)
    if values.shape != (size,):
        raise ContractError(f"channel {name!r}: {side} has shape {values.shape}, ({size},) expected")
    if np.isnan(values).any():
        raise ContractError(f"channel {name!r}: {side} is not a number at index {int(np.isnan(values).argmax())}")
    return tuple(float(value) for value in values)


def _to_dict(item: Channel | Contract) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return [plain(v) for v in value]
        return value.to_dict() if isinstance(value, Channel) else value

    return {f.name: plain(getattr(item, f.name)) for f in fields(item) if getattr(item, f.name) != f.default}


def _known_keys(cls: type, kind: str, data: Any, required: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise ContractError(f"a {kind} is a mapping, not {data!r}")
    keys = [f.name for f in fields(cls)]
    for key in data:
        if key not in keys:
            raise ContractError(
                f"unknown key {key!r} in a {kind}; {did_you_mean(str(key), keys)}keys: {', '.join(keys)}"
            )
    for key in required:
        if key not in data:
            raise ContractError(f"a {kind} needs the key {key!r}; given: {', '.join(map(str, data)) or 'none'}")
    return dict(data)
