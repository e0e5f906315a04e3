"""Tasks ``arm_reach``, ``arm_push`` and ``arm_pick_place``: an arm, a table, two objects, and words that name one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from robolearn.contract import Channel
from robolearn.errors import RobolearnError, unknown
from sim.engines import Engine
from sim.env import Env
from sim.randomize import Target, loosen, noisy_randomizers
from sim.robots import Robot, get_robot
from sim.task import NoiseTerm, ObservationTerm, Randomizer, RewardTerm, Task, TerminationTerm
from sim.tasks.arm_goal import Area, TableGoal, ToolStarts
from sim.tasks.arm_metrics import ArmMetrics
from sim.tasks.arm_scene import PADS, TIMESTEP, layout, make_world
from sim.tasks.arm_things import FIRST, PAIRS, SECOND, SHAPES, Assignment
from sim.terms import noise, table, tracking
from sim.terms.cartesian import ToolTargets
from sim.terms.landmarks import arm_landmarks
from sim.world import World

REPORT = ("success", "ever_done", "progress", "best_progress", "seconds", "loitering_s")
"""Metrics that an evaluation shows."""
REWARDS = ("dense", "sparse", "random")
ENDS = ("done", "never")
"""Setting ``ends`` → whether an episode ends as soon as its task is done."""
SPLITS = {"train": "seen", "heldout": "seen", "heldout_pairs": "heldout"}
"""Split → which pairs of colour and shape are drawn."""
EVALUATION_WORLDS = 96
"""Worlds of an evaluation that names no number."""


class ArmError(RobolearnError):
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
    tool_height: list[float] = field(default_factory=lambda: [0.10, 0.22])
    """[low, high] of the tool's height at the start."""
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


@dataclass
class ArmPickPlaceConfig(ArmConfig):
    """Settings of ``arm_pick_place``."""


KINDS = {"arm_reach": "reach", "arm_push": "push", "arm_pick_place": "pick_place"}
"""Task → what is to be done with the named object."""

TARGETS = {
    "object": Target(bodies=(FIRST, SECOND), free=True),
    "arm": Target(bodies=("*",), joints=("*joint*",), but=("world", FIRST, SECOND, *PADS)),
}
"""What can be randomised."""


def make(
    config: ArmConfig,
    num_envs: int,
    seed: int,
    engine: Engine,
    split: str = "train",
    evaluation: bool = False,
) -> Env:
    """The environment of ``config``.

    With ``evaluation`` an episode ends when its task is done, whatever ``ends`` says; ``num_envs`` 0 makes
    `EVALUATION_WORLDS` worlds.

    Raises:
        ArmError: a setting that cannot work; RobotModelError, PhysicsError and others name their own.
    """
    _check(config)
    if split not in SPLITS:
        raise ArmError(unknown("split", split, SPLITS))
    robot = get_robot(config.robot)
    if not robot.tool_site or not robot.gripper_joints:
        raise ArmError(f"robot {config.robot!r} has no gripper on an arm; {config.name} needs one, such as 'panda'")
    count = num_envs or EVALUATION_WORLDS
    pairs = layout(config.shapes, count, config.distinct)
    silent = evaluation and not config.sensor_noise
    randomizers, sensing = noisy_randomizers(config.randomize, TARGETS, _measured(robot), _noise(), silent)
    world = make_world(robot, pairs, engine, lambda spec: loosen(spec, randomizers))
    shapes = [shape for shape, number in pairs for _ in range(number)]
    assignment = Assignment(
        KINDS[config.name], shapes, config.pairs or SPLITS[split], config.same_color, config.paraphrase, world.device
    )
    action = _decoder(config, robot, world.device)
    goal = TableGoal(
        robot,
        assignment,
        _area(config),
        _starts(config, action, robot, world.device),
        world.shards[0].physics.model,
        episode_steps=round(config.episode_s * config.rate_hz),
        gripper=0.04 if config.gripper else 0.0,
    )
    task = declare(
        config, robot, goal, action, world, {"assignment": assignment, **randomizers}, config.sensor_noise or sensing
    )
    if config.ends == "done" or evaluation:
        task.terminations["done"] = TerminationTerm(table.is_done)
    return Env(task, world, seed)


def declare(
    config: ArmConfig,
    robot: Robot,
    goal: TableGoal,
    action: ToolTargets,
    world: World,
    randomizers: Mapping[str, Randomizer],
    noisy: bool,
) -> Task:
    """The task's terms."""
    policy = _policy_terms(config)
    return Task(
        name=config.name,
        instruction=config.instruction,
        robot=robot.name,
        robot_mjcf=robot.mjcf(),
        decimation=config.substeps,
        max_episode_steps=goal.episode_steps,
        measured=_measured(robot),
        observations={"policy": policy, "critic": {**policy, **_critic_terms()}},
        action=action,
        goal=goal,
        metrics=ArmMetrics(world.num_worlds, 1.0 / config.rate_hz, world.device),
        rewards=_rewards(config),
        terminations={},
        noise=_noise() if noisy else {},
        randomizers=randomizers,
        command_delay=(config.command_delay[0], config.command_delay[1]),
        derived={**arm_landmarks(robot, world.device), **table.judged(KINDS[config.name])},
        baselines=_baselines(config),
        report=REPORT,
        instructions=goal.instructions,
    )


def _check(config: ArmConfig) -> None:
    for name, choices in (("reward", REWARDS), ("ends", ENDS)):
        if getattr(config, name) not in choices:
            raise ArmError(unknown(name, getattr(config, name), choices))
    if config.distinct and len(set(config.shapes)) < 2:
        raise ArmError(f"distinct needs two shapes or more, got {', '.join(config.shapes)}")
    if config.pairs is not None and config.pairs not in PAIRS:
        raise ArmError(unknown("pairs", config.pairs, PAIRS))
    if not config.shapes:
        raise ArmError(f"shapes must name at least one of {', '.join(SHAPES)}")
    for shape in config.shapes:
        if shape not in SHAPES:
            raise ArmError(unknown("shape", shape, SHAPES))
    for name in ("rate_hz", "episode_s", "tool_step"):
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
            raise ArmError(f"{config.name}.{name} must be greater than 0, got {value!r}")
    if config.substeps < 1 or abs(config.rate_hz * config.substeps * TIMESTEP - 1.0) > 1e-9:
        raise ArmError(
            f"rate_hz {config.rate_hz:g} with {config.substeps} substeps does not fit the time step of 1/200 s: "
            "their product must be 200"
        )
    if len(config.tool_height) != 2 or not 0.015 <= config.tool_height[0] <= config.tool_height[1] <= 0.4:
        raise ArmError(f"tool_height must be [low, high] between 0.015 and 0.4 m, got {config.tool_height}")
    if len(config.command_delay) != 2 or not 0 <= config.command_delay[0] <= config.command_delay[1]:
        raise ArmError(f"command_delay must be [least, most] control steps, got {config.command_delay}")
    if config.command_delay[1] and config.randomize.get("latency") is not None:
        raise ArmError("command_delay and randomize.latency both set the latency; set one of them")


def _area(config: ArmConfig) -> Area:
    low = config.tool_height[0] < 0.12  # the tool could stand where an object is
    apart = {
        (FIRST, SECOND): 0.14 if low else 0.11,  # room to get past
        (FIRST, "goal"): 0.13,
        (SECOND, "goal"): 0.13,
        (FIRST, "decoy"): 0.10,
        (SECOND, "decoy"): 0.10,
        ("goal", "decoy"): 0.12,
        **({(FIRST, "tool"): 0.09, (SECOND, "tool"): 0.09} if low else {}),
    }
    return Area(
        x=(0.36, 0.55),
        y=(-0.18, 0.18),
        tool_low=(0.36, -0.17, config.tool_height[0]),
        tool_high=(0.54, 0.17, config.tool_height[1]),
        apart=apart,
    )


def _starts(config: ArmConfig, action: ToolTargets, robot: Robot, device: torch.device) -> ToolStarts:
    """A store of solved places of the tool, the same for every seed."""
    area = _area(config)
    generator = torch.Generator().manual_seed(0)
    low, high = torch.tensor(area.tool_low), torch.tensor(area.tool_high)
    position = (low + (high - low) * torch.rand(2048, 3, generator=generator)).to(device)
    home = action.arm.rest.expand(len(position), -1)
    return ToolStarts(position, action.solve(home, position, iterations=20))


def _decoder(config: ArmConfig, robot: Robot, device: torch.device) -> ToolTargets:
    return ToolTargets(
        robot,
        scale=config.tool_step,
        lower=(0.29, -0.30, 0.015),
        upper=(0.66, 0.30, 0.30),
        dt=1.0 / config.rate_hz,
        axes=config.axes,
        gripper=config.gripper,
        device=device,
    )


def _measured(robot: Robot) -> tuple[Channel, ...]:
    joints = robot.joint_names
    return (
        Channel("joint_pos", (len(joints),), "rad or m", kind="state/joint/position", elements=joints),
        Channel("joint_vel", (len(joints),), "rad/s or m/s", kind="state/joint/velocity", elements=joints),
        Channel("object_poses", (2, 7), "m+wxyz", "world", kind="state/body/pose"),
        Channel("object_vels", (2, 6), "m/s+rad/s", "world+object", kind="state/body/velocity"),
        Channel("pad_pos", (2, 2), "m", "world", kind="state/body/position"),
    )


def _policy_terms(config: ArmConfig) -> dict[str, ObservationTerm]:
    gripper = {"opening": ObservationTerm(table.opening)} if config.gripper else {}
    behind = {"behind_from_tool": ObservationTerm(table.behind_from_tool)} if config.name == "arm_push" else {}
    return {
        "tool": ObservationTerm(table.tool_in_workspace),
        "named_from_tool": ObservationTerm(table.named_from_tool),
        "other_from_tool": ObservationTerm(table.other_from_tool),
        "goal_from_named": ObservationTerm(table.goal_from_named),
        "last_action": ObservationTerm(tracking.channel, {"name": "last_action"}),
        **gripper,
        **behind,
    }


def _critic_terms() -> dict[str, ObservationTerm]:
    return {
        "time_spent": ObservationTerm(table.time_spent),
        "object_vels": ObservationTerm(tracking.channel, {"name": "object_vels"}),
        "start_distance": ObservationTerm(tracking.channel, {"name": "start_distance", "scale": 10.0}),
        "randomization": ObservationTerm(tracking.channel, {"name": "randomization"}),
    }


def _rewards(config: ArmConfig) -> dict[str, RewardTerm]:
    if config.reward == "random":
        return {"random": RewardTerm(tracking.scrambled, 1.0)}
    finished = RewardTerm(table.finished, 5.0)
    if config.reward == "sparse":
        return {"finished": finished}
    return {"remaining": RewardTerm(table.remaining, 0.2), "finished": finished}


def _baselines(config: ArmConfig) -> dict[str, Any]:
    from sim.experts.arm import scripted

    return {"scripted expert": {"": scripted}}


def _noise() -> dict[str, NoiseTerm]:
    return {
        "joint_pos": NoiseTerm(noise.gaussian, {"std": 0.002}),
        "joint_vel": NoiseTerm(noise.gaussian, {"std": 0.02}),
        "object_poses": NoiseTerm(noise.pose, {"position": 0.002, "rotation": 0.02}, numbers=6),
        "object_vels": NoiseTerm(noise.gaussian, {"std": 0.02}),
    }
