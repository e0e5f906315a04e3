"""What an arm's world reads: channels that topics tell, and those that follow from them."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np

from real.core.assembler import Assembler
from real.core.kinematics import ToolKinematics
from real.stack import Stack
from real.stack_robot import StackRobot
from robolearn.contract import Channel, Contract

VELOCITIES = {"object_vels": "object_poses"}
"""Channels that a tracker does not tell → the poses (..., 7) that they are the change of."""


def velocities(before: np.ndarray, after: np.ndarray, seconds: float) -> np.ndarray:
    """Of poses (..., 7) m+wxyz that are ``seconds`` apart: (..., 6) m/s in the world, rad/s in the object's frame."""
    out = np.zeros((*after.shape[:-1], 6))
    for i in np.ndindex(after.shape[:-1]):
        turn, start = np.empty(3), before[i][3:].astype(np.float64)
        mujoco.mju_subQuat(turn, after[i][3:].astype(np.float64), start)
        out[i] = np.concatenate([after[i][:3] - before[i][:3], turn]) / seconds
    return out


def make_assembler(stack: Stack, channels: Sequence[Channel], robot: StackRobot) -> Assembler:
    """Of the channels that topics tell; the others are derived from them.

    Raises:
        SourceError: a channel that the stack does not say how to fill.
    """
    told = tuple(c for c in channels if c.name in stack.channels or c.name not in VELOCITIES)
    command = Channel("joint_pos_target", (len(robot.joints),), "rad or m", elements=robot.joints)
    contract = Contract(robot=robot.name, robot_hash="", inputs=told, commands=(command,))
    tool = ToolKinematics(robot.mjcf, robot.joints, robot.tool_site) if robot.tool_site else None
    return Assembler(contract, stack.sources(contract), tool)
