"""Landmarks of a robot, from its joint positions: derived channels."""

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


def arm_landmarks(robot: Robot, device: torch.device | str = "cpu") -> dict[str, Derived]:
    """Derived channels of an arm's tool, by forward kinematics of ``joint_pos`` (N, J).

    ``tool_pos`` (N, 3) m and ``tool_rotation`` (N, 3, 3), in the world.
    """
    site = robot.tool_site
    kinematics = Kinematics(robot.spec().compile(), robot.joint_names, (site,), frames=(site,), device=device)

    def tool(c: Channels) -> torch.Tensor:
        position, rotation = kinematics(c["joint_pos"])
        return torch.cat([position[:, 0], rotation.flatten(1)], dim=1)

    return {
        "tool": tool,
        "tool_pos": lambda c: c["tool"][:, :3],
        "tool_rotation": lambda c: c["tool"][:, 3:].unflatten(1, (3, 3)),
    }


_INSTANT = 1e-3
"""s over which the motion of a landmark is taken; short against any motion, long against rounding."""


def foot_landmarks(hung: Robot, device: torch.device | str = "cpu") -> dict[str, Derived]:
    """Derived channels of a walking robot's feet, by forward kinematics of ``joint_pos`` (N, J) and ``base_pose``.

    ``foot_pos`` (N, F, 3) m and ``foot_vel`` (N, F, 3) m/s, under the middle of each sole, in the world; both need the
    privileged ``base_pose`` (N, 7) and ``base_vel`` (N, 6) of the body that carries the joints.

    Args:
        hung: the robot with a fixed base.
        device: where the joint positions are.
    """
    kinematics = Kinematics(hung.spec().compile(), hung.joint_names, hung.foot_sites, device=device)
    feet = len(hung.foot_sites)

    def in_base(c: Channels) -> torch.Tensor:
        """(N, 2F, 3): where the feet are in the base's frame, and how fast they move in it."""
        q, turn = c["joint_pos"], 0.5 * _INSTANT * c["joint_vel"]
        now, before, after = kinematics(torch.cat([q, q - turn, q + turn]))[0].chunk(3)
        return torch.cat([now, (after - before) / _INSTANT], dim=1)

    def position(c: Channels) -> torch.Tensor:
        return c["base_pose"][:, None, :3] + c["foot_in_base"][:, :feet] @ c["base_rotation"].mT

    def velocity(c: Channels) -> torch.Tensor:
        place, moving = c["foot_in_base"].split(feet, dim=1)
        turning = torch.linalg.cross(c["base_vel"][:, None, 3:].expand_as(place), place)
        return c["base_vel"][:, None, :3] + (turning + moving) @ c["base_rotation"].mT

    return {"foot_in_base": in_base, "foot_pos": position, "foot_vel": velocity}
