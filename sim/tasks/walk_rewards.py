"""Rewards that ``g1_walk`` offers by name, and the baselines that a policy has to beat."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch

from sim.env import Env
from sim.robots import Robot
from sim.task import RewardTerm
from sim.terms import locomotion, tracking
from sim.terms.actions import JointPositionTargets

SWING_HEIGHT = 0.08
"""m, how high a swinging foot is to be lifted."""
SOFT_LIMITS = 0.9
"""Share of the joint range, about its middle, that costs nothing."""

_POSE_SCALES = {
    "hip_pitch": 0.4,
    "hip_roll": 0.15,
    "hip_yaw": 0.15,
    "knee": 0.5,
    "ankle_pitch": 0.35,
    "ankle_roll": 0.15,
    "waist_yaw": 0.2,
    "waist_roll": 0.1,
    "waist_pitch": 0.1,
    "shoulder": 0.2,
    "elbow": 0.2,
    "wrist": 0.3,
}
"""rad: how far joints may leave the default pose before it costs much; legs need more than the trunk."""


def _walk_rewards(robot: Robot, device: torch.device, fall: dict[str, float]) -> dict[str, RewardTerm]:
    default = torch.tensor(robot.home, dtype=torch.float32, device=device)
    lower, upper = (torch.tensor(v, dtype=torch.float32, device=device) for v in (robot.lower, robot.upper))
    middle, half = (lower + upper) / 2, (upper - lower) / 2
    scales = torch.tensor([_pose_scale(name) for name in robot.joint_names], device=device)
    height = float(robot.spec().compile().key(robot.keyframe).qpos[2])
    return {
        "velocity": RewardTerm(locomotion.velocity_exp, 1.5, {"scale": 0.4}),
        "turn": RewardTerm(locomotion.turn_exp, 0.75, {"scale": 0.5}),
        "upright": RewardTerm(locomotion.upright_exp, 0.5, {"scale": 0.3}),
        "height": RewardTerm(locomotion.height_exp, 0.3, {"height": height, "scale": 0.1}),
        "pose": RewardTerm(locomotion.pose_exp, 0.5, {"default": default, "scale": scales}),
        "gait": RewardTerm(locomotion.gait_match, 0.5),
        "swing": RewardTerm(locomotion.swing_exp, 0.3, {"height": SWING_HEIGHT, "scale": 0.05}),
        "slip": RewardTerm(locomotion.foot_slip, -0.1),
        "bounce": RewardTerm(locomotion.bounce, -0.5),
        "sway": RewardTerm(locomotion.sway, -0.05),
        "action_change": RewardTerm(tracking.squared, -0.1, {"name": "action_change"}),
        "limits": RewardTerm(
            locomotion.near_limits,
            -1.0,
            {"lower": middle - SOFT_LIMITS * half, "upper": middle + SOFT_LIMITS * half},
        ),
        "power": RewardTerm(locomotion.power, -2e-4),
        "fall": RewardTerm(locomotion.fell_cost, -10.0, fall),
    }


def _random_rewards(robot: Robot, device: torch.device, fall: dict[str, float]) -> dict[str, RewardTerm]:
    """The control that must fail."""
    return {"random": RewardTerm(tracking.scrambled, 1.0)}


REWARDS = {"walk": _walk_rewards, "random": _random_rewards}


def _pose_scale(joint: str) -> float:
    return next(scale for part, scale in _POSE_SCALES.items() if part in joint)


BALANCE_GAINS = (0.5, 1.0, 2.0, 4.0)
"""rad per rad of lean: how strongly the ankles answer, tried as a baseline."""
STEP_HEIGHTS = (0.1, 0.2, 0.4)
"""rad, how far hips and knees bend in stepping by the clock, tried as a baseline."""


def baselines(robot: Robot) -> dict[str, dict[str, Callable[[Env], torch.Tensor]]]:
    """Standing with and without an answer to leaning, and stepping by the clock."""
    legs = [{part: robot.joint_names.index(f"{side}_{part}_joint") for part in _LEG} for side in ("left", "right")]

    def offsets(env: Env) -> torch.Tensor:
        return torch.zeros(env.num_envs, env.num_actions, device=env.device)

    def action(env: Env, offset: torch.Tensor) -> torch.Tensor:
        decoder = env.task.action
        assert isinstance(decoder, JointPositionTargets)
        return decoder.action_for(decoder.default + offset)

    def balanced(env: Env, gain: float, into: torch.Tensor | None = None) -> torch.Tensor:
        """The ankles push against the lean and its rate: an ankle strategy."""
        offset = offsets(env) if into is None else into
        lean = torch.asin(env.channels["projected_gravity"][:, :2].clamp(-1.0, 1.0))  # positive: forward, to the left
        rate = env.channels["imu_ang_vel"]
        for leg in legs:
            offset[:, leg["ankle_pitch"]] += gain * (lean[:, 0] + 0.2 * rate[:, 1])
            offset[:, leg["ankle_roll"]] += gain * (-lean[:, 1] + 0.2 * rate[:, 0])
        return action(env, offset)

    def stepping(env: Env, bend: float) -> torch.Tensor:
        """Hip, knee and ankle of the swinging leg bend by half a sine; the ankles balance."""
        offset = offsets(env)
        phase = env.channels["foot_phase"]
        swing = torch.sin(math.pi * ((phase - locomotion.STANCE) / (1 - locomotion.STANCE)).clamp_min(0.0)) * bend
        swing = swing * env.channels["moving"].unsqueeze(1)
        for side, leg in enumerate(legs):
            for part, share in _LEG.items():
                offset[:, leg[part]] += share * swing[:, side]
        return balanced(env, 2.0, offset)

    return {
        "stand still": {"": lambda env: offsets(env)},
        "ankle balance": {f"{gain:g}": partial(balanced, gain=gain) for gain in BALANCE_GAINS},
        "stepping in place": {f"{bend:g} rad": partial(stepping, bend=bend) for bend in STEP_HEIGHTS},
    }


_LEG = {"hip_pitch": -1.0, "knee": 2.0, "ankle_pitch": -1.0, "ankle_roll": 0.0}
"""Joints of a leg, and how they share in lifting the foot straight up."""
