"""Rewards that ``g1_walk`` offers by name, and the baselines that a policy has to beat."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import mujoco
import torch

from sim.env import Env
from sim.robots import Robot
from sim.task import RewardTerm
from sim.terms import locomotion, tracking
from sim.terms.actions import JointPositionTargets

BEND, LEAN = 0.3, 0.08
"""rad, of the planned gait: how far hip and ankle bend to lift a foot (the knee twice as far), how far to lean."""
SWING_HEIGHT = 0.06
"""m, how high that lifts a foot."""
SHARES = (0.25, 0.5, 1.0)
"""Shares of the planned gait, tried as a baseline."""
SOFT_LIMITS = 0.9
"""Share of the joint range, about its middle, that costs nothing."""
LEG = ("hip", "knee", "ankle")
"""Parts of the names of a leg's joints."""


def _walk_rewards(robot: Robot, device: torch.device, fall: dict[str, float]) -> dict[str, RewardTerm]:
    lower, upper = (torch.tensor(v, dtype=torch.float32, device=device) for v in (robot.lower, robot.upper))
    middle, half = (lower + upper) / 2, (upper - lower) / 2
    is_leg = torch.tensor([any(part in name for part in LEG) for name in robot.joint_names], device=device)
    legs, others = torch.nonzero(is_leg).squeeze(1), torch.nonzero(~is_leg).squeeze(1)
    height = float(robot.spec().compile().key(robot.keyframe).qpos[2])
    return {
        "velocity": RewardTerm(locomotion.velocity_exp, 1.5, {"scale": 0.4}),
        "turn": RewardTerm(locomotion.turn_exp, 0.75, {"scale": 0.5}),
        "upright": RewardTerm(locomotion.upright_exp, 0.5, {"scale": 0.3}),
        "height": RewardTerm(locomotion.height_exp, 0.3, {"height": height, "scale": 0.1}),
        "legs": RewardTerm(locomotion.pose_exp, 1.0, {"joints": legs, "scale": 0.5}),
        "pose": RewardTerm(locomotion.pose_exp, 0.3, {"joints": others, "scale": 0.5}),
        "gait": RewardTerm(locomotion.gait_match, 1.0),
        "swing": RewardTerm(locomotion.swing_exp, 0.6, {"height": SWING_HEIGHT, "scale": 0.05}),
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


def gait_of(robot: Robot, gait_hz: float, device: torch.device) -> locomotion.Gait:
    """How this robot walks by the clock, feet flat and trunk upright.

    Hip, knee and ankle lift a foot straight up, hips and ankles lean over the other one; hips swing the legs by as much
    as the ground passes beneath them in a stance, ankles turn back against it.
    """
    joints = len(robot.joint_names)
    lift, sway, reach = torch.zeros(2, joints), torch.zeros(joints), torch.zeros(3, 2, joints)
    half_way = locomotion.STANCE / gait_hz / 2.0  # s from the middle of a stance to its end
    angle = half_way / _leg_length(robot)
    for side, name in enumerate(("left", "right")):

        def joint(part: str, name: str = name) -> int:
            return robot.joint_names.index(f"{name}_{part}_joint")

        for part, share in (("hip_pitch", -1.0), ("knee", 2.0), ("ankle_pitch", -1.0)):
            lift[side, joint(part)] = share * BEND
        for part, sign in (("hip", 1.0), ("ankle", -1.0)):
            sway[joint(f"{part}_roll")] = -sign * LEAN
            reach[0, side, joint(f"{part}_pitch")] = -sign * angle
            reach[1, side, joint(f"{part}_roll")] = sign * angle
        reach[2, side, joint("hip_yaw")] = half_way
    standing = torch.tensor(robot.home, dtype=torch.float32)
    return locomotion.Gait(standing.to(device), lift.to(device), sway.to(device), reach.to(device))


def _leg_length(robot: Robot) -> float:
    """m from the hips to the soles of the standing robot."""
    model = robot.spec().compile()
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, model.key(robot.keyframe).id)
    mujoco.mj_kinematics(model, data)
    hip = model.jnt_bodyid[model.joint("left_hip_pitch_joint").id]
    return float(data.xpos[hip, 2] - data.site(robot.foot_sites[0]).xpos[2])


def baselines(robot: Robot) -> dict[str, dict[str, Callable[[Env], torch.Tensor]]]:
    """Standing still, and walking by the clock: shares of the planned gait, with nothing that answers a fall."""

    def walking(env: Env, share: float) -> torch.Tensor:
        c, decoder = env.channels, env.task.action
        assert isinstance(decoder, JointPositionTargets)
        return decoder.action_for(c, c["standing_pose"] + share * (c["gait_pose"] - c["standing_pose"]))

    return {
        "stand still": {"": partial(walking, share=0.0)},
        "gait by the clock": {f"{share:g}": partial(walking, share=share) for share in SHARES},
    }
