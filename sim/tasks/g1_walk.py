"""Task ``g1_walk``: a humanoid walks at commanded velocities on a flat floor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from robolearn.contract import Channel
from robolearn.errors import RobolearnError, unknown
from sim.channels import Channels
from sim.engines import Engine
from sim.env import Env
from sim.randomize import Target, loosen, noisy_randomizers
from sim.robots import Robot, get_robot
from sim.task import NoiseTerm, ObservationTerm, Randomizer, Task, TerminationTerm
from sim.tasks.walk_commands import CommandRanges, StartNoise, VelocityCommands
from sim.tasks.walk_metrics import WalkMetrics
from sim.tasks.walk_rewards import LEG, REWARDS, baselines, gait_of
from sim.tasks.walk_scene import TIMESTEP, Motors, make_world, standing_state, stiffened
from sim.terms import locomotion, noise, tracking
from sim.terms.actions import JointPositionTargets
from sim.terms.landmarks import foot_landmarks
from sim.world import World

REPORT = ("success", "fell", "upright_s", "velocity_error", "turn_error")
"""Metrics that an evaluation shows."""
SPLITS = {"train": 11, "heldout": 12}
"""Split → seed of the commands that an evaluation gives."""
CONTROLLED = {"all": ("",), "lower": (*LEG, "waist"), "legs": LEG}
"""Setting ``controlled`` → parts of the names of the joints that the policy moves."""
AROUND = {"gait": "gait_pose", "standing": "standing_pose"}
"""Setting ``around`` → the channel of the pose that a zero action commands."""
EVALUATION_WORLDS = 64
"""Worlds of an evaluation that names no number."""


class G1WalkError(RobolearnError):
    """An impossible configuration of the task."""


@dataclass
class G1WalkConfig:
    """Settings of ``g1_walk``; lengths in m, angles in rad, times in s."""

    name: str = "g1_walk"
    """Name of the task."""
    instruction: str = "walk at the commanded velocity"
    """The task in words."""
    robot: str = "g1"
    """A robot with two feet."""
    rate_hz: float = 50.0
    """Control steps per second; with substeps it gives 200 physics steps per second."""
    substeps: int = 4
    """Physics steps per control step."""
    episode_s: float = 20.0
    """Length of an episode."""
    ahead: list[float] = field(default_factory=lambda: [-0.5, 1.0])
    """[low, high] of the commanded velocity ahead, m/s."""
    left: list[float] = field(default_factory=lambda: [-0.3, 0.3])
    """[low, high] of the commanded velocity to the left, m/s."""
    turn: list[float] = field(default_factory=lambda: [-0.5, 0.5])
    """[low, high] of the commanded turn rate, rad/s."""
    hold_s: list[float] = field(default_factory=lambda: [3.0, 8.0])
    """[least, most] seconds for which a command stays."""
    standing: float = 0.1
    """Share of commands that are to stand still."""
    gait_hz: float = 1.25
    """Gait cycles per second, two steps each."""
    around: str = "gait"
    """What a zero action commands: gait, a walk by the clock that keeps no balance, or standing."""
    controlled: str = "all"
    """Joints that the policy moves: all, lower (legs and waist) or legs; the others hold their default."""
    stiffness: float = 4.0
    """Factor on the stiffness of the robot's motors; their damping ratio stays."""
    action_scale: float = 0.3
    """One unit of action moves a joint's target by this share of its effort limit over its motor's stiffness."""
    reward: str = "walk"
    """walk, or random (the control that must fail)."""
    joint_noise: float = 0.05
    """rad, noise on the initial joint positions in training."""
    push: float = 0.3
    """m/s, standard deviation of the base's initial velocity in training."""
    terminate_tilt: float = 1.0
    """rad, a lean that counts as a fall."""
    terminate_height: float = 0.45
    """m, a height of the pelvis that counts as a fall."""
    randomize: dict[str, Any] = field(
        default_factory=lambda: {
            "foot_friction": [0.5, 1.25],
            "base_mass": [0.85, 1.15],
            "actuator_gains": [0.9, 1.1],
        }
    )
    """Randomiser → [low, high], or a mapping: see `robolearn list randomizers` and docs/randomization.md."""
    sensor_noise: bool = False
    """Noise on the joints, the orientation and the angular velocity that the policy sees."""
    command_delay: list[int] = field(default_factory=lambda: [0, 0])
    """[least, most] control steps of latency, drawn for each episode."""


TARGETS = {
    "base": Target(bodies=("torso_link",)),
    "foot": Target(geoms=("*_sole_*",)),
    "pelvis": Target(bodies=("pelvis",), free=True),
    "robot": Target(bodies=("*",), joints=("*",), but=("world",)),
}
"""What can be randomised."""


def make(
    config: G1WalkConfig,
    num_envs: int,
    seed: int,
    engine: Engine,
    split: str = "train",
    evaluation: bool = False,
) -> Env:
    """The environment of ``config``.

    With ``evaluation`` the commands of each world are fixed ones of ``split``, the same in every episode, and it starts
    from the exact standing pose; ``num_envs`` 0 makes `EVALUATION_WORLDS` worlds. A fall ends an episode there too.

    Raises:
        G1WalkError: a setting that cannot work; RobotModelError, PhysicsError and others name their own.
    """
    _check(config)
    if split not in SPLITS:
        raise G1WalkError(unknown("split", split, SPLITS))
    robot = stiffened(get_robot(config.robot), config.stiffness)
    if len(robot.foot_sites) != 2 or not robot.base_joint:
        raise G1WalkError(
            f"robot {config.robot!r} does not stand on two feet; g1_walk needs one that does, such as 'g1'"
        )
    silent = evaluation and not config.sensor_noise
    randomizers, sensing = noisy_randomizers(config.randomize, TARGETS, _measured(robot), _noise(), silent)
    world = make_world(robot, num_envs or EVALUATION_WORLDS, engine, lambda spec: loosen(spec, randomizers))
    goal = VelocityCommands(
        standing_state(robot),
        CommandRanges(
            config.ahead,
            config.left,
            config.turn,
            [max(1, round(s * config.rate_hz)) for s in config.hold_s],
            config.standing,
        ),
        episode_steps=round(config.episode_s * config.rate_hz),
        num_worlds=world.num_worlds,
        start=StartNoise() if evaluation else StartNoise(config.joint_noise, config.push, turned=True),
        fixed_seed=SPLITS[split] if evaluation else None,
        device=world.device,
    )
    return Env(declare(config, robot, goal, world, randomizers, config.sensor_noise or sensing), world, seed)


def declare(
    config: G1WalkConfig,
    robot: Robot,
    goal: VelocityCommands,
    world: World,
    randomizers: Mapping[str, Randomizer],
    noisy: bool,
) -> Task:
    """The task's terms."""
    device = world.device
    motors = Motors.of(robot, device)
    action = _decoder(config, robot, motors)
    policy = _policy_terms()
    fall = {"tilt": config.terminate_tilt, "height": config.terminate_height}

    gait = gait_of(robot, config.gait_hz, device)

    def motor_torque(c: Channels) -> torch.Tensor:
        return motors.torque(c["last_target"], c["joint_pos"], c["joint_vel"])

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
        metrics=WalkMetrics(goal, world.num_worlds, 1.0 / config.rate_hz),
        rewards=REWARDS[config.reward](robot, device, fall),
        terminations={"fell": TerminationTerm(locomotion.fell, fall)},
        noise=_noise() if noisy else {},
        randomizers=randomizers,
        command_delay=(config.command_delay[0], config.command_delay[1]),
        derived={
            **locomotion.DERIVED,
            **foot_landmarks(get_robot(config.robot, base="fixed"), device),
            "standing_pose": gait.still,
            "gait_pose": gait,
            "motor_torque": motor_torque,
        },
        baselines=baselines(robot),
        success="success",
        report=REPORT,
    )


def _measured(robot: Robot) -> tuple[Channel, ...]:
    joints = robot.joint_names
    return (
        Channel("joint_pos", (len(joints),), "rad", kind="state/joint/position", elements=joints),
        Channel("joint_vel", (len(joints),), "rad/s", kind="state/joint/velocity", elements=joints),
        Channel(
            "imu_orientation", (4,), "wxyz", "world", kind="state/body/rotation", elements=("qw", "qx", "qy", "qz")
        ),
        Channel("imu_ang_vel", (3,), "rad/s", "imu", kind="state/body/angular_velocity", elements=("x", "y", "z")),
    )


def _decoder(config: G1WalkConfig, robot: Robot, motors: Motors) -> JointPositionTargets:
    command = Channel(
        "joint_pos_target",
        (len(robot.joint_names),),
        "rad",
        kind="target/joint/position",
        elements=robot.joint_names,
        lower=tuple(robot.lower.tolist()),
        upper=tuple(robot.upper.tolist()),
    )
    return JointPositionTargets(
        command,
        pose=AROUND[config.around],
        scale=config.action_scale * motors.effort / motors.stiffness,
        controlled=tuple(
            i for i, name in enumerate(robot.joint_names) if any(part in name for part in CONTROLLED[config.controlled])
        ),
        clock_hz=config.gait_hz,
        dt=1.0 / config.rate_hz,
    )


def _policy_terms() -> dict[str, ObservationTerm]:
    channel = tracking.channel
    return {
        "joint_pos": ObservationTerm(locomotion.joint_offset),
        "joint_vel": ObservationTerm(channel, {"name": "joint_vel", "scale": 0.1}),
        "imu_ang_vel": ObservationTerm(channel, {"name": "imu_ang_vel"}),
        "projected_gravity": ObservationTerm(channel, {"name": "projected_gravity"}),
        "velocity_command": ObservationTerm(channel, {"name": "velocity_command"}),
        "gait_clock": ObservationTerm(locomotion.gait_clock),
        "last_action": ObservationTerm(channel, {"name": "last_action"}),
    }


def _critic_terms() -> dict[str, ObservationTerm]:
    channel = tracking.channel
    return {
        "heading_velocity": ObservationTerm(channel, {"name": "heading_velocity"}),
        "base_height": ObservationTerm(locomotion.base_height),
        "foot_contact": ObservationTerm(channel, {"name": "foot_contact"}),
        "foot_height": ObservationTerm(locomotion.foot_height),
        "foot_vel": ObservationTerm(channel, {"name": "foot_vel"}),
        "randomization": ObservationTerm(channel, {"name": "randomization"}),
    }


def _noise() -> dict[str, NoiseTerm]:
    return {
        "joint_pos": NoiseTerm(noise.gaussian, {"std": 0.01}),
        "joint_vel": NoiseTerm(noise.gaussian, {"std": 0.5}),
        "imu_orientation": NoiseTerm(noise.rotation, {"std": 0.02}, numbers=3),
        "imu_ang_vel": NoiseTerm(noise.gaussian, {"std": 0.1}),
    }


def _check(config: G1WalkConfig) -> None:
    if config.reward not in REWARDS:
        raise G1WalkError(unknown("reward", config.reward, REWARDS))
    if config.around not in AROUND:
        raise G1WalkError(unknown("around", config.around, AROUND))
    if config.controlled not in CONTROLLED:
        raise G1WalkError(unknown("controlled", config.controlled, CONTROLLED))
    for name in ("episode_s", "gait_hz", "stiffness", "action_scale", "terminate_tilt", "terminate_height"):
        _require(config, name, lambda v: v > 0, "greater than 0")
    for name in ("joint_noise", "push"):
        _require(config, name, lambda v: v >= 0, "0 or more")
    _require(config, "standing", lambda v: 0 <= v <= 1, "between 0 and 1")
    for name in ("ahead", "left", "turn", "hold_s", "command_delay"):
        bounds = getattr(config, name)
        if not _is_range(bounds) or bounds[0] > bounds[1]:
            raise G1WalkError(f"{config.name}.{name} must be [low, high], got {bounds!r}")
    if config.hold_s[0] <= 0 or config.command_delay[0] < 0:
        raise G1WalkError(f"{config.name}: hold_s must be positive and command_delay 0 or more")
    if config.substeps < 1 or abs(config.rate_hz * config.substeps * TIMESTEP - 1.0) > 1e-9:
        raise G1WalkError(
            f"rate_hz {config.rate_hz:g} with {config.substeps} substeps does not fit the time step of "
            f"{TIMESTEP:g} s: their product must be {1 / TIMESTEP:g}"
        )


def _require(config: G1WalkConfig, name: str, condition: Callable[[float], bool], rule: str) -> None:
    value = getattr(config, name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not condition(value):  # NaN fails as well
        raise G1WalkError(f"{config.name}.{name} must be {rule}, got {value!r}")


def _is_range(bounds: Sequence[float]) -> bool:
    return isinstance(bounds, Sequence) and len(bounds) == 2 and all(isinstance(b, (int, float)) for b in bounds)
