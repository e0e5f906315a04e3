"""Settings of the arm tasks, and what is refused of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from robolearn.errors import RobolearnError, unknown
from sim.tasks.arm_scene import FRONTS, TIMESTEP
from sim.tasks.arm_things import PAIRS, SHAPES

REWARDS = ("dense", "sparse", "random")
ENDS = ("done", "never")
"""Setting ``ends`` → whether an episode ends as soon as its task is done."""
LOWEST_TOOL, HIGHEST_TOOL = 0.015, 0.4
"""m, where the tool may start."""


class ArmConfigError(RobolearnError):
    """An impossible configuration of an arm task."""


@dataclass
class ArmConfig:
    """Settings of the arm tasks; lengths in m, times in s."""

    name: str = "arm_pick_place"
    """Name of the task."""
    instruction: str = "put the named object on the white pad"
    """The task in words; each world has an instruction of its own, which names an object."""
    robot: str = "panda"
    """An arm with a parallel gripper."""
    rate_hz: float = 10.0
    """Control steps per second; with substeps it gives 200 physics steps per second."""
    substeps: int = 20
    """Physics steps per control step."""
    episode_s: float = 5.0
    """Longest length of an episode."""
    shapes: list[str] = field(default_factory=lambda: ["cube", "can", "ball"])
    """Shapes of the objects."""
    same_color: float = 0.3
    """Share of scenes with different shapes in which both objects have the same colour."""
    distinct: bool = False
    """Only scenes with two different shapes."""
    pairs: str | None = None
    """Pairs of colour and shape: seen, heldout (of the named object) or any; null: by the split."""
    paraphrase: bool = False
    """Use the wordings that training never hears."""
    axes: list[str] = field(default_factory=lambda: ["x", "y", "z"])
    """Along which the policy moves the tool."""
    gripper: bool = True
    """Whether the policy opens and closes the gripper; else it stays closed."""
    tool_step: float = 0.04
    """One unit of action moves the tool's target by this much."""
    tool_acceleration: float | None = None
    """m/s², of the tool's target along an axis; null: it may turn at once, which no arm can follow."""
    tool_height: list[float] = field(default_factory=lambda: [0.10, 0.22])
    """[low, high] of the tool's height at the start."""
    front_camera: str = "high"
    """Where the camera `front` stands: high or low."""
    reward: str = "dense"
    """dense (exact progress), sparse (success alone), or random (the control that must fail)."""
    ends: str = "done"
    """done: an episode ends as soon as its task is done; never: only the clock ends it."""
    randomize: dict[str, Any] = field(default_factory=dict)
    """Randomiser → [low, high], or a mapping: see `robolearn list randomizers` and docs/randomization.md."""
    sensor_noise: bool = False
    """Noise on the joints and the objects' poses that the policy sees."""
    command_delay: list[int] = field(default_factory=lambda: [0, 0])
    """[least, most] control steps of latency, drawn for each episode."""
    command_parts: int = 1
    """Parts of a control step, over which commands lead in a straight line to their end, as on a robot; 1 jumps."""
    command_lag: list[int] = field(default_factory=lambda: [0, 0])
    """[least, most] of these parts by which commands are late, drawn for each episode."""
    observe_target: bool = False
    """Whether the policy sees how far its tool is behind: on a robot, whose arm follows late, it has to."""


@dataclass
class ArmReachConfig(ArmConfig):
    """Settings of ``arm_reach``."""

    name: str = "arm_reach"
    """Name of the task."""
    instruction: str = "reach the named object"
    """The task in words; each world has an instruction of its own, which names an object."""
    episode_s: float = 3.0
    """Longest length of an episode."""
    gripper: bool = False
    """Whether the policy opens and closes the gripper; else it stays closed."""


@dataclass
class ArmPushConfig(ArmConfig):
    """Settings of ``arm_push``."""

    name: str = "arm_push"
    """Name of the task."""
    instruction: str = "push the named object to the white pad"
    """The task in words; each world has an instruction of its own, which names an object."""
    shapes: list[str] = field(default_factory=lambda: ["cube", "puck"])
    """Shapes of the objects."""
    axes: list[str] = field(default_factory=lambda: ["x", "y"])
    """Along which the policy moves the tool."""
    gripper: bool = False
    """Whether the policy opens and closes the gripper; else it stays closed."""
    tool_step: float = 0.04
    """One unit of action moves the tool's target by this much."""
    tool_height: list[float] = field(default_factory=lambda: [0.03, 0.03])
    """[low, high] of the tool's height at the start."""
    front_camera: str = "low"
    """Where the camera `front` stands: high or low; from below, the hand hides less of what is pushed."""


@dataclass
class ArmPickPlaceConfig(ArmConfig):
    """Settings of ``arm_pick_place``."""


def check(config: ArmConfig) -> None:
    """Refuse what cannot work.

    Raises:
        ArmConfigError: it names the setting, what was given, and what is possible.
    """
    for name, choices in (("reward", REWARDS), ("ends", ENDS), ("front_camera", tuple(FRONTS))):
        if getattr(config, name) not in choices:
            raise ArmConfigError(unknown(name, getattr(config, name), choices))
    if config.pairs is not None and config.pairs not in PAIRS:
        raise ArmConfigError(unknown("pairs", config.pairs, PAIRS))
    _check_shapes(config)
    _check_times(config)
    low, high = _pair(config, "tool_height")
    if not LOWEST_TOOL <= low <= high <= HIGHEST_TOOL:
        raise ArmConfigError(
            f"{config.name}.tool_height must be [low, high] between {LOWEST_TOOL} and {HIGHEST_TOOL} m, "
            f"got {config.tool_height}"
        )
    least, most = _pair(config, "command_delay")
    if not 0 <= least <= most or least != int(least) or most != int(most):
        raise ArmConfigError(
            f"{config.name}.command_delay must be [least, most] control steps, got {config.command_delay}"
        )
    if most and config.randomize.get("latency") is not None:
        raise ArmConfigError("command_delay and randomize.latency both set the latency; set one of them")


def _check_shapes(config: ArmConfig) -> None:
    shapes: Any = config.shapes
    if isinstance(shapes, str) or not shapes:
        raise ArmConfigError(f"{config.name}.shapes must be a list of some of {', '.join(SHAPES)}, got {shapes!r}")
    for shape in shapes:
        if shape not in SHAPES:
            raise ArmConfigError(unknown("shape", shape, SHAPES))
    if len(set(shapes)) < len(shapes):
        raise ArmConfigError(f"{config.name}.shapes must differ, got {', '.join(shapes)}")
    if config.distinct and len(shapes) < 2:
        raise ArmConfigError(f"distinct needs two shapes or more, got {', '.join(shapes)}")


def _check_times(config: ArmConfig) -> None:
    for name in ("rate_hz", "episode_s", "tool_step"):
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise ArmConfigError(f"{config.name}.{name} must be greater than 0, got {value!r}")
    if config.substeps < 1 or abs(config.rate_hz * config.substeps * TIMESTEP - 1.0) > 1e-9:
        raise ArmConfigError(
            f"rate_hz {config.rate_hz:g} with {config.substeps} substeps does not fit the time step of 1/200 s: "
            "their product must be 200"
        )
    limit = config.tool_acceleration
    if limit is not None and (
        isinstance(limit, bool) or not isinstance(limit, (int, float)) or not 0 < limit < math.inf
    ):
        raise ArmConfigError(f"{config.name}.tool_acceleration must be greater than 0, or null, got {limit!r}")
    low, high = _pair(config, "command_lag")
    if low < 0 or high != int(high) or low != int(low):
        raise ArmConfigError(
            f"{config.name}.command_lag is [least, most] whole parts of a step, got {config.command_lag}"
        )
    if round(config.episode_s * config.rate_hz) < 1:
        raise ArmConfigError(f"{config.name}.episode_s must last a control step or more, got {config.episode_s:g}")


def _pair(config: ArmConfig, name: str) -> tuple[float, float]:
    """Two numbers."""
    values = getattr(config, name)
    pair = list(values) if isinstance(values, Sequence) and not isinstance(values, str) else []
    if len(pair) != 2 or not all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in pair):
        raise ArmConfigError(f"{config.name}.{name} must be two numbers, got {values!r}")
    return pair[0], pair[1]
