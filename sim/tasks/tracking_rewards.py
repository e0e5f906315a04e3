"""Rewards that ``dex_track`` offers by name, and the baselines that a policy has to beat."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from sim.env import Env
from sim.robots import Robot
from sim.task import RewardTerm
from sim.terms import tracking
from sim.terms.actions import ResidualTracking


def _dextrack_rewards(wrist: int) -> dict[str, RewardTerm]:
    """The published reward, term by term."""
    return {
        "hand": RewardTerm(tracking.dextrack_hand, -0.5, {"wrist": wrist}),
        "approach": RewardTerm(tracking.dextrack_approach, -0.3),
        "object": RewardTerm(tracking.dextrack_object, 1.0),
        "bonus": RewardTerm(tracking.dextrack_bonus, 1.0),
    }


def _exp_rewards(wrist: int) -> dict[str, RewardTerm]:
    """Positive exponential terms: an episode that ends early earns less."""
    return {
        "object_position": RewardTerm(tracking.object_position_exp, 1.0, {"sharpness": 30.0}),
        "object_rotation": RewardTerm(tracking.object_rotation_exp, 0.5, {"sharpness": 3.0}),
        "wrist": RewardTerm(tracking.wrist_exp, 0.2, {"wrist": wrist, "sharpness": 10.0}),
        "fingers": RewardTerm(tracking.finger_exp, 0.2, {"wrist": wrist, "sharpness": 3.0}),
        "action": RewardTerm(tracking.squared, -0.005, {"name": "last_action"}),
    }


def _random_rewards(wrist: int) -> dict[str, RewardTerm]:
    """The control that must fail."""
    return {"random": RewardTerm(tracking.scrambled, 1.0)}


REWARDS = {"dextrack": _dextrack_rewards, "exp": _exp_rewards, "random": _random_rewards}


FLEXIONS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5)
"""rad: the constant flexions tried as a baseline."""


def baselines(robot: Robot) -> dict[str, dict[str, Callable[[Env], torch.Tensor]]]:
    """Kinematic replay of the reference, and the same with every finger flexed by a constant."""
    flexes = [float(_flexes(name)) for name in robot.joint_names]

    def flexed(env: Env, angle: float) -> torch.Tensor:
        decoder, residual = env.task.action, env.channels["residual"]
        assert isinstance(decoder, ResidualTracking)
        return decoder.action_for(residual, angle * residual.new_tensor(flexes).expand_as(residual))

    return {
        "kinematic replay": {"": lambda env: torch.zeros(env.num_envs, env.num_actions, device=env.device)},
        "constant flexion": {f"{angle:g} rad": partial(flexed, angle=angle) for angle in FLEXIONS},
    }


def _flexes(joint: str) -> bool:
    """Whether a joint closes the hand: not the wrist, nor what spreads the fingers or turns the thumb."""
    return not any(part in joint for part in ("wrist", "abd", "opp", "twist"))
