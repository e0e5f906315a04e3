"""Franka Emika Panda: the 7-joint arm with parallel gripper of `panda.xml`, its base bolted to the world."""

from __future__ import annotations

from pathlib import Path

import mujoco

from sim.robots.robot import Robot, robot_from_spec

MJCF = Path(__file__).with_name("panda.xml")


def make() -> Robot:
    """Return the Panda; its base frame is the world frame."""
    return robot_from_spec(build, name="panda", base="fixed", tool_site="tool", gripper_joints=("finger_joint1",))


def build() -> mujoco.MjSpec:
    """Return a fresh specification of the robot."""
    return mujoco.MjSpec.from_file(str(MJCF))
