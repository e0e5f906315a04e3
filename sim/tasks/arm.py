"""Tasks ``arm_reach``, ``arm_push`` and ``arm_pick_place``: an arm, a table, two objects, and words that name one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch

from robolearn.contract import Channel
from robolearn.errors import unknown
from sim.engines import Engine
from sim.env import Env
from sim.inverse_kinematics import ArmKinematics
from sim.randomize import Target, loosen, noisy_randomizers
from sim.robots import Robot, get_robot
from sim.task import NoiseTerm, ObservationTerm, Randomizer, RewardTerm, Task, TerminationTerm
from sim.tasks.arm_config import (
    ArmConfig,
    ArmConfigError,
    ArmPickPlaceConfig,
    ArmPushConfig,
    ArmReachConfig,
    check,
)
from sim.tasks.arm_goal import Area, TableGoal, ToolStarts
from sim.tasks.arm_metrics import ArmMetrics
from sim.tasks.arm_scene import PADS, layout, make_world
from sim.tasks.arm_things import FIRST, SECOND, Assignment
from sim.terms import noise, table, tracking
from sim.terms.cartesian import ToolTargets
from sim.terms.landmarks import arm_landmarks
from sim.world import World

__all__ = ["ArmPickPlaceConfig", "ArmPushConfig", "ArmReachConfig", "TARGETS", "declare", "make"]

REPORT = ("success", "ever_done", "progress", "best_progress", "seconds", "loitering_s")
"""Metrics that an evaluation shows."""
SPLITS = {"train": "seen", "heldout": "seen", "heldout_pairs": "heldout"}
"""Split → which pairs of colour and shape are drawn."""
EVALUATION_WORLDS = 96
"""Worlds of an evaluation that names no number."""

_PLACES = 2048
"""Places of the tool to choose starts from."""
Vector = tuple[float, float, float]

KINDS = {"arm_reach": "reach", "arm_push": "push", "arm_pick_place": "pick_place"}
"""Task → what is to be done with the named object."""

TARGETS = {
    "object": Target(bodies=(FIRST, SECOND), without=("color",)),
    "arm": Target(bodies=("*",), joints=("*joint*",), but=("world", FIRST, SECOND, *PADS)),
}
"""What can be randomised; of the objects all but their colours, by which instructions name them."""


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
        ArmConfigError: a setting that cannot work; RobotModelError, PhysicsError and others name their own.
    """
    check(config)
    if split not in SPLITS:
        raise ArmConfigError(unknown("split", split, SPLITS))
    robot = get_robot(config.robot)
    if not robot.tool_site or not robot.gripper_joints:
        raise ArmConfigError(
            f"robot {config.robot!r} has no gripper on an arm; {config.name} needs one, such as 'panda'"
        )
    count = num_envs or EVALUATION_WORLDS
    pairs = layout(config.shapes, count, config.distinct)
    silent = evaluation and not config.sensor_noise
    randomizers, sensing = noisy_randomizers(config.randomize, TARGETS, _measured(robot), _noise(), silent)
    world = make_world(robot, pairs, engine, config.front_camera, lambda spec: loosen(spec, randomizers))
    shapes = [shape for shape, number in pairs for _ in range(number)]
    assignment = Assignment(
        KINDS[config.name], shapes, config.pairs or SPLITS[split], config.same_color, config.paraphrase, world.device
    )
    action, area = _decoder(config, robot, world.device), _area(config)
    goal = TableGoal(
        robot,
        assignment,
        area,
        _starts(config.robot, area.tool_low, area.tool_high, world.device),
        world.shards[0].physics.model,
        episode_steps=round(config.episode_s * config.rate_hz),
        gripper=0.04 if config.gripper else 0.0,
    )
    drawn = {"assignment": assignment, **randomizers}
    task = declare(config, robot, goal, action, world, drawn, config.sensor_noise or sensing)
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
    """The task's terms, without an end but the clock's.

    Args:
        config: its settings.
        robot: the arm.
        goal, action: where episodes start, and what a policy commands.
        world: the worlds.
        randomizers: name → randomiser.
        noisy: whether the policy's sensors are noisy.
    """
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
        command_parts=config.command_parts,
        command_lag=(config.command_lag[0], config.command_lag[1]),
        derived={**arm_landmarks(robot, world.device), **table.judged(KINDS[config.name])},
        baselines=_baselines(config),
        report=REPORT,
        instructions=goal.instructions,
    )


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


@lru_cache(maxsize=8)
def _starts(robot: str, low: Vector, high: Vector, device: torch.device) -> ToolStarts:
    """A store of solved places of the tool between two corners, the same for every seed."""
    generator = torch.Generator().manual_seed(0)
    lower, upper = torch.tensor(low), torch.tensor(high)
    position = (lower + (upper - lower) * torch.rand(_PLACES, 3, generator=generator)).to(device)
    arm = ArmKinematics(get_robot(robot), device)
    return ToolStarts(position, arm.solve(arm.rest.expand(_PLACES, -1), position, iterations=20))


def _decoder(config: ArmConfig, robot: Robot, device: torch.device) -> ToolTargets:
    return ToolTargets(
        robot,
        scale=config.tool_step,
        lower=(0.29, -0.30, 0.015),
        upper=(0.66, 0.30, 0.30),
        dt=1.0 / config.rate_hz,
        axes=config.axes,
        acceleration=math.inf if config.tool_acceleration is None else config.tool_acceleration,
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
    lag = {"target_from_tool": ObservationTerm(table.target_from_tool)} if config.observe_target else {}
    if config.tool_acceleration is not None:
        lag["tool_move"] = ObservationTerm(tracking.channel, {"name": "tool_move", "scale": 25.0})
    behind = {"behind_from_tool": ObservationTerm(table.behind_from_tool)} if config.name == "arm_push" else {}
    return {
        "tool": ObservationTerm(table.tool_in_workspace),
        "named_from_tool": ObservationTerm(table.named_from_tool),
        "other_from_tool": ObservationTerm(table.other_from_tool),
        "goal_from_named": ObservationTerm(table.goal_from_named),
        "last_action": ObservationTerm(tracking.channel, {"name": "last_action"}),
        **gripper,
        **behind,
        **lag,
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
