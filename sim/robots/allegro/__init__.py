"""Allegro hand, 16 joints: the right floating hand of `right.xml`, its mirror image, a fixed base for both."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import mujoco
import numpy as np

from sim.robots.robot import Robot, robot_from_spec

MJCF = Path(__file__).with_name("right.xml")

WRIST_JOINTS = ("wrist_x", "wrist_y", "wrist_z", "wrist_rx", "wrist_ry", "wrist_rz")
FINGERTIP_SITES = ("index_tip", "middle_tip", "ring_tip", "thumb_tip")
KEYPOINT_SITES = {
    "wrist": 0,
    **{f"thumb_{part}": 1 + i for i, part in enumerate(("cmc", "mcp", "ip", "tip"))},
    **{
        f"{finger}_{part}": 5 + 4 * f + i
        for f, finger in enumerate(("index", "middle", "ring"))
        for i, part in enumerate(("mcp", "pip", "dip", "tip"))
    },
}


def make(side: str, base: str) -> Robot:
    """Return the Allegro hand for side "right" or "left" and base "floating" or "fixed"."""
    return robot_from_spec(
        partial(build, side, base),
        name="allegro",
        side=side,
        base=base,
        wrist_joints=WRIST_JOINTS if base == "floating" else (),
        fingertip_sites=FINGERTIP_SITES,
        palm_site="palm",
        keypoint_sites=KEYPOINT_SITES,
    )


def build(side: str, base: str) -> mujoco.MjSpec:
    """Return a fresh specification of the hand."""
    spec = mujoco.MjSpec.from_file(str(MJCF))
    spec.modelname = f"allegro_{side}"
    if side == "left":
        _mirror(spec)
    if base == "fixed":
        _fix_base(spec)
    return spec


def _fix_base(spec: mujoco.MjSpec) -> None:
    wrist = len(WRIST_JOINTS)
    keys = [(key.name, np.array(key.qpos)[wrist:], np.array(key.ctrl)[wrist:]) for key in spec.keys]
    for key in list(spec.keys):
        spec.delete(key)
    for name in WRIST_JOINTS:
        spec.delete(spec.actuator(name))
        spec.delete(spec.joint(name))
    for name, qpos, ctrl in keys:
        spec.add_key(name=name, qpos=qpos, ctrl=ctrl)


def _mirror(spec: mujoco.MjSpec) -> None:
    """Reflect the hand in its x-z plane, in place.

    A reflection in y turns a rotation by (x, y, z) into one by (-x, y, -z). Wrist joints stay in world axes,
    and the abduction joints keep their axis, as the left hand's URDF has it: positive abduction is towards
    the thumb on the right hand and away from it on the left.
    """
    flip_point = np.array([1.0, -1.0, 1.0])
    flip_axis = np.array([-1.0, 1.0, -1.0])
    kept = {*WRIST_JOINTS, "index_abd", "middle_abd", "ring_abd"}
    for body in spec.bodies:
        body.pos = body.pos * flip_point
        body.quat = body.quat * np.array([1.0, *flip_axis])
    for joint in spec.joints:
        if joint.name not in kept:
            joint.axis = joint.axis * flip_axis
    for geom in spec.geoms:
        geom.pos = geom.pos * flip_point
        geom.fromto = geom.fromto * np.tile(flip_point, 2)
    for site in spec.sites:
        site.pos = site.pos * flip_point
    for key in spec.keys:
        for values in (key.qpos, key.ctrl):
            values[WRIST_JOINTS.index("wrist_y")] *= -1.0
