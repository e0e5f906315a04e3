"""Landmarks of a hand, from its joint positions: derived channels."""

from __future__ import annotations

import torch

from sim.channels import Channels, Derived
from sim.kinematics import Kinematics
from sim.robots import Robot


def hand_landmarks(robot: Robot, device: torch.device | str = "cpu") -> dict[str, Derived]:
    """Derived channels of a hand, by forward kinematics of ``joint_pos`` (N, J).

    ``fingertip_pos`` (N, K, 3) m, ``palm_pos`` (N, 3) m and ``palm_rotation`` (N, 3, 3), all in the world.
    """
    tips = len(robot.fingertip_sites)
    sites = (*robot.fingertip_sites, robot.palm_site)
    kinematics = Kinematics(robot.spec().compile(), robot.joint_names, sites, frames=(robot.palm_site,), device=device)

    def landmarks(c: Channels) -> torch.Tensor:
        position, rotation = kinematics(c["joint_pos"])
        return torch.cat([position.flatten(1), rotation.flatten(1)], dim=1)

    return {
        "landmarks": landmarks,
        "fingertip_pos": lambda c: c["landmarks"][:, : 3 * tips].unflatten(1, (tips, 3)),
        "palm_pos": lambda c: c["landmarks"][:, 3 * tips : 3 * tips + 3],
        "palm_rotation": lambda c: c["landmarks"][:, 3 * tips + 3 :].unflatten(1, (3, 3)),
    }
