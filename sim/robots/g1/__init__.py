"""Unitree G1, 29 joints: the whole robot of `g1.xml` on a free base, or hung up by its pelvis."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import mujoco
import numpy as np

from sim.robots.robot import Robot, robot_from_spec

MJCF = Path(__file__).with_name("g1.xml")
BASE_JOINT = "base"
_BASE_COORDINATES = 7


def make(base: str) -> Robot:
    """Return the G1 with base "floating" (a free joint) or "fixed" (the pelvis frame is the world frame)."""
    return robot_from_spec(
        partial(build, base),
        name="g1",
        base=base,
        keyframe="stand",
        base_joint=BASE_JOINT if base == "floating" else "",
        imu_site="imu",
        foot_sites=("left_foot", "right_foot"),
        contact_sensors=("left_foot_contact", "right_foot_contact"),
    )


def build(base: str) -> mujoco.MjSpec:
    """Return a fresh specification of the robot."""
    spec = mujoco.MjSpec.from_file(str(MJCF))
    if base == "fixed":
        _fix_base(spec)
    return spec


def _fix_base(spec: mujoco.MjSpec) -> None:
    (key,) = spec.keys
    name, qpos, ctrl = key.name, np.array(key.qpos)[_BASE_COORDINATES:], np.array(key.ctrl)
    spec.delete(key)
    spec.delete(spec.joint(BASE_JOINT))
    spec.body("pelvis").pos = [0.0, 0.0, 0.0]
    spec.add_key(name=name, qpos=qpos, ctrl=ctrl)
