"""Task ``dex_track``: a dexterous hand follows a recorded hand-object motion (after DexTrack, arXiv 2502.09614)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from robolearn.contract import Channel
from robolearn.errors import RobolearnError, unknown
from sim.engines import Engine
from sim.env import Env
from sim.motions import POSE, MotionLibrary, ReferenceGoal
from sim.objects import get_object
from sim.randomize import Target, loosen, noisy_randomizers
from sim.robots import Robot, get_hand
from sim.task import NoiseTerm, ObservationTerm, Randomizer, Task, TerminationTerm
from sim.tasks.tracking_metrics import TrackingMetrics
from sim.tasks.tracking_motions import ClipConfig, clips_for
from sim.tasks.tracking_rewards import REWARDS, baselines
from sim.tasks.tracking_scene import OBJECT, TIMESTEP, make_world
from sim.terms import noise, tracking
from sim.terms.actions import ResidualTracking
from sim.terms.landmarks import hand_landmarks
from sim.world import World

REPORT = (
    *("tight", "turned", "strict", "loose"),
    *("T_err_cm", "max_T_err_cm", "R_err_deg", "final_angle_deg", "E_wrist", "E_finger"),
)
"""Metrics that an evaluation shows."""


OBJECT_COORDINATES = 7
"""Position and quaternion of the object's free joint."""

TARGETS = {
    "object": Target(bodies=(OBJECT,), free=True, whole=True),
    "hand": Target(bodies=("*",), joints=("*",), but=("world", OBJECT)),
}
"""What can be randomised."""


class DexTrackError(RobolearnError):
    """An impossible configuration of the task."""


@dataclass
class DexTrackConfig:
    """Settings of ``dex_track``; lengths in m, angles in rad, times in s."""

    name: str = "dex_track"
    """Name of the task."""
    instruction: str = "follow the reference motion with hand and object"
    """The task in words."""
    robot: str = "allegro"
    """A hand, on its floating base."""
    side: str = "right"
    """right or left."""
    motions: ClipConfig = field(default_factory=ClipConfig)
    """The clips to track."""
    rate_hz: float = 60.0
    """Control steps per second; with substeps it gives 120 physics steps per second."""
    substeps: int = 2
    """Physics steps per control step."""
    lookahead: list[int] = field(default_factory=lambda: [1, 4, 8])
    """Reference frames ahead that the policy sees; 1, the command's baseline, comes first."""
    reward: str = "exp"
    """exp, dextrack (as published), or random (the control that must fail)."""
    wrist_position_scale: float = 0.15
    """m/s that one unit of action adds to the wrist's residual."""
    wrist_rotation_scale: float = 0.8
    """rad/s, likewise."""
    finger_scale: float = 3.0
    """rad/s, likewise (published: 20, with the wrist at 0.5 throughout)."""
    wrist_position_cap: float = 0.03
    """m, bound of the residual."""
    wrist_rotation_cap: float = 0.15
    """rad, bound of the residual."""
    finger_cap: float = 0.6
    """rad, bound of the residual."""
    leak: float = 0.9
    """Share of the residual kept each step (published: 1)."""
    start_fraction: float = 0.25
    """Share of training episodes that start at a clip's first frame; the others start anywhere in it."""
    joint_noise: float = 0.0
    """rad and m, noise on the initial joint positions in training."""
    terminate_distance: float = 0.10
    """m, object error that ends a training episode."""
    terminate_angle: float = 1.2
    """rad, object error that ends a training episode."""
    randomize: dict[str, Any] = field(
        default_factory=lambda: {"object_mass": [0.7, 1.3], "object_friction": [0.7, 1.0]}
    )
    """Randomiser → [low, high], or a mapping: see `robolearn list randomizers` and docs/randomization.md."""
    sensor_noise: bool = False
    """Noise on the joints and the object's pose and velocity that the policy sees."""
    command_delay: list[int] = field(default_factory=lambda: [0, 0])
    """[least, most] control steps of latency, drawn for each episode."""


def make(
    config: DexTrackConfig,
    num_envs: int,
    seed: int,
    engine: Engine,
    split: str = "train",
    evaluation: bool = False,
) -> Env:
    """The environment of ``config`` on the clips of ``split``.

    With ``evaluation`` there is one world per clip, round and round up to ``num_envs`` (0: once each), every episode is
    a whole clip from its first frame, and nothing ends it early.

    Raises:
        DexTrackError: a setting that cannot work; MotionError, PhysicsError and others name their own.
    """
    _check(config)
    robot = get_hand(config.robot, side=config.side, base="floating")
    references = clips_for(config.motions, robot, split, config.rate_hz)
    motions = MotionLibrary.from_references(references, robot, config.rate_hz)
    layout, candidates = _fixed(motions, num_envs) if evaluation else _shared(motions, num_envs)
    silent = evaluation and not config.sensor_noise
    randomizers, sensing = noisy_randomizers(config.randomize, TARGETS, _measured(robot), _noise(), silent)
    world = make_world(robot, layout, engine, lambda spec: loosen(spec, randomizers))
    _check_joints(world, robot)
    goal = ReferenceGoal(
        motions,
        candidates,
        lookahead=config.lookahead,
        shape_codes=torch.stack([torch.as_tensor(get_object(o).features()).float() for o in motions.object_names]),
        joint_order=robot.joint_names,
        start_fraction=1.0 if evaluation else config.start_fraction,
        joint_noise=0.0 if evaluation else config.joint_noise,
        device=world.device,
    )
    task = declare(config, robot, goal, world, motions, randomizers, config.sensor_noise or sensing, evaluation)
    return Env(task, world, seed)


def declare(
    config: DexTrackConfig,
    robot: Robot,
    goal: ReferenceGoal,
    world: World,
    motions: MotionLibrary,
    randomizers: Mapping[str, Randomizer],
    noisy: bool,
    evaluation: bool,
) -> Task:
    """The task's terms."""
    wrist = len(robot.wrist_joints)
    policy = _policy_terms()
    return Task(
        name=config.name,
        instruction=config.instruction,
        robot=f"{robot.name}_{robot.side}",
        robot_mjcf=robot.mjcf(),
        decimation=config.substeps,
        max_episode_steps=int(motions.length.max()),
        measured=_measured(robot),
        observations={"policy": policy, "critic": {**policy, **_critic_terms()}},
        action=_decoder(config, robot, world.device),
        goal=goal,
        metrics=TrackingMetrics(goal, world.num_worlds, wrist),
        rewards=REWARDS[config.reward](wrist),
        terminations={}
        if evaluation
        else {
            "object_lost": TerminationTerm(
                tracking.object_lost, {"distance": config.terminate_distance, "angle": config.terminate_angle}
            )
        },
        noise=_noise() if noisy else {},
        randomizers=randomizers,
        command_delay=(config.command_delay[0], config.command_delay[1]),
        derived={**hand_landmarks(robot, world.device), **tracking.DERIVED},
        baselines=baselines(robot),
        success="tight",
        report=REPORT,
    )


def _check(config: DexTrackConfig) -> None:
    if config.reward not in REWARDS:
        raise DexTrackError(unknown("reward", config.reward, REWARDS))
    scales = ("finger_scale", "wrist_position_scale", "wrist_rotation_scale")
    for name in (*scales, "terminate_distance", "terminate_angle"):
        _require(config, name, lambda v: v > 0, "greater than 0")
    for name in ("finger_cap", "wrist_position_cap", "wrist_rotation_cap", "joint_noise"):
        _require(config, name, lambda v: v >= 0, "0 or more")
    for name in ("leak", "start_fraction"):
        _require(config, name, lambda v: 0 <= v <= 1, "between 0 and 1")
    if config.substeps < 1 or abs(config.rate_hz * config.substeps * TIMESTEP - 1.0) > 1e-9:
        raise DexTrackError(
            f"rate_hz {config.rate_hz:g} with {config.substeps} substeps does not fit the time step of 1/120 s: "
            "their product must be 120"
        )
    if not config.lookahead or config.lookahead[0] != 1 or sorted(set(config.lookahead)) != list(config.lookahead):
        raise DexTrackError(f"lookahead must increase from 1 (the command's baseline), got {config.lookahead}")
    if len(config.command_delay) != 2 or not 0 <= config.command_delay[0] <= config.command_delay[1]:
        raise DexTrackError(f"command_delay must be [least, most] control steps, got {config.command_delay}")
    if config.command_delay[1] and config.randomize.get("latency") is not None:
        raise DexTrackError("command_delay and randomize.latency both set the latency; set one of them")


def _check_joints(world: World, robot: Robot) -> None:
    model = world.shards[0].physics.model
    if model.nq != len(robot.joint_names) + OBJECT_COORDINATES:
        raise DexTrackError(
            f"robot {robot.name!r} has {model.nq - OBJECT_COORDINATES} joint coordinates and {len(robot.joint_names)} "
            "actuated joints; dex_track needs a hand without passive joints, such as 'allegro'"
        )


def _require(config: DexTrackConfig, name: str, condition: Callable[[float], bool], rule: str) -> None:
    value = getattr(config, name)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not condition(value):  # NaN fails as well
        raise DexTrackError(f"{config.name}.{name} must be {rule}, got {value!r}")


def _shared(motions: MotionLibrary, num_envs: int) -> tuple[list[tuple[str, int]], list[torch.Tensor]]:
    """Worlds split evenly over the objects, each drawing from its object's clips."""
    objects = motions.objects[: max(num_envs, 0)]
    if not objects:
        raise DexTrackError(f"num_envs must be at least 1, got {num_envs}")
    layout, candidates = [], []
    for i, name in enumerate(objects):
        count = num_envs // len(objects) + (i < num_envs % len(objects))
        clips = torch.tensor([k for k, o in enumerate(motions.object_names) if o == name])
        layout.append((name, count))
        candidates += [clips] * count
    return layout, candidates


def _fixed(motions: MotionLibrary, num_envs: int) -> tuple[list[tuple[str, int]], list[torch.Tensor]]:
    """One clip per world, in the order of the objects."""
    total = num_envs or motions.num_clips
    chosen = [k % motions.num_clips for k in range(total)]
    layout, candidates = [], []
    for name in motions.objects:
        clips = [k for k in chosen if motions.object_names[k] == name]
        if clips:
            layout.append((name, len(clips)))
            candidates += [torch.tensor([k]) for k in clips]
    return layout, candidates


def _measured(robot: Robot) -> tuple[Channel, ...]:
    joints = robot.joint_names
    return (
        Channel("joint_pos", (len(joints),), "rad or m", kind="state/joint/position", elements=joints),
        Channel("joint_vel", (len(joints),), "rad/s or m/s", kind="state/joint/velocity", elements=joints),
        Channel("object_pose", (7,), "m+wxyz", "world", kind="state/body/pose", elements=POSE),
        Channel("object_vel", (6,), "m/s+rad/s", "world+object", kind="state/body/velocity"),
    )


def _decoder(config: DexTrackConfig, robot: Robot, device: torch.device) -> ResidualTracking:
    wrist, fingers = len(robot.wrist_joints), len(robot.finger_joints)
    half = wrist // 2

    def per_joint(position: float, rotation: float, finger: float) -> torch.Tensor:
        return torch.tensor([position] * half + [rotation] * (wrist - half) + [finger] * fingers, device=device)

    command = Channel(
        "joint_pos_target",
        (len(robot.joint_names),),
        "rad or m",
        kind="target/joint/position",
        elements=robot.joint_names,
        lower=tuple(robot.lower.tolist()),
        upper=tuple(robot.upper.tolist()),
    )
    return ResidualTracking(
        command,
        scale=per_joint(config.wrist_position_scale, config.wrist_rotation_scale, config.finger_scale),
        cap=per_joint(config.wrist_position_cap, config.wrist_rotation_cap, config.finger_cap),
        leak=config.leak,
        dt=1.0 / config.rate_hz,
    )


def _policy_terms() -> dict[str, ObservationTerm]:
    channel = tracking.channel
    return {
        "joint_pos": ObservationTerm(channel, {"name": "joint_pos"}),
        "joint_vel": ObservationTerm(channel, {"name": "joint_vel", "scale": 0.1}),
        "object_in_palm": ObservationTerm(tracking.object_in_palm),
        "object_orientation": ObservationTerm(tracking.object_orientation),
        "object_vel": ObservationTerm(channel, {"name": "object_vel"}),
        "fingertips_in_object": ObservationTerm(tracking.fingertips_in_object),
        "upcoming_joint_error": ObservationTerm(tracking.upcoming_joint_error),
        "upcoming_object_error": ObservationTerm(tracking.upcoming_object_error),
        "residual": ObservationTerm(channel, {"name": "residual"}),
        "last_action": ObservationTerm(channel, {"name": "last_action"}),
        "object_shape": ObservationTerm(channel, {"name": "object_shape"}),
    }


def _critic_terms() -> dict[str, ObservationTerm]:
    return {"randomization": ObservationTerm(tracking.channel, {"name": "randomization"})}


def _noise() -> dict[str, NoiseTerm]:
    return {
        "joint_pos": NoiseTerm(noise.gaussian, {"std": 0.005}),
        "joint_vel": NoiseTerm(noise.gaussian, {"std": 0.1}),
        "object_pose": NoiseTerm(noise.pose, {"position": 0.002, "rotation": 0.02}, numbers=6),
        "object_vel": NoiseTerm(noise.gaussian, {"std": 0.02}),
    }
