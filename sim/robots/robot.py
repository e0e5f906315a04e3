"""The `Robot` record: what tasks, retargeting and the real side need to know about one robot model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from sim.robots.errors import RobotModelError

FloatArray = NDArray[np.float64]


_NEVER_SINGULAR = 1.4
"""rad: below this middle angle the other triple of wrist angles is always further away."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Robot:
    """One robot model: names in command order, limits, and landmarks. What a robot does not have is empty.

    The palm frame of a hand is the frame of `palm_site`. For a floating hand it is the frame that the wrist joints
    move: with all of them at zero it is the world frame. Arrays are read-only.
    """

    name: str
    base: str
    """"floating" (six wrist joints place a hand's palm, a free joint the body of a whole robot) or "fixed"."""
    joint_names: tuple[str, ...]
    """Actuated joints; the order of the actuators and of every command."""
    lower: FloatArray
    """(J,) lower joint limits, m for slides and rad for hinges."""
    upper: FloatArray
    """(J,) upper joint limits."""
    effort: FloatArray
    """(J,) largest actuator force, N for slides and Nm for hinges."""
    speed: FloatArray
    """(J,) largest joint speed, m/s or rad/s; infinite where none is published."""
    home: FloatArray
    """(J,) a pose away from the limits, that of the model's keyframe `keyframe`."""
    keyframe: str = "home"
    build: Callable[[], mujoco.MjSpec] = field(repr=False)
    """Makes the specification returned by `spec`."""

    side: str = ""
    """"right" or "left", of a hand."""
    wrist_joints: tuple[str, ...] = ()
    """Slides x, y, z then hinges x, y', z'' of a hand with a floating base."""
    finger_joints: tuple[str, ...] = ()
    fingertip_sites: tuple[str, ...] = ()
    """Centres of the fingertips: index, middle, ring, (little,) thumb."""
    palm_site: str = ""
    keypoint_sites: Mapping[str, int] = field(default_factory=dict)
    """Site -> index among the 21 human hand keypoints: 0 wrist, 1-4 thumb, 5-8 index, ... 17-20 little."""

    base_joint: str = ""
    """The free joint of a whole robot with a floating base."""
    imu_site: str = ""
    """Where the inertial measurement unit sits; its axes are those of the body that the free joint moves."""
    foot_sites: tuple[str, ...] = ()
    """Under the middle of each sole."""
    contact_sensors: tuple[str, ...] = ()
    """Sensors that count each foot's contacts, in the order of `foot_sites`."""

    tool_site: str = ""
    """Between the fingertips of an arm's gripper; z points out of the gripper, y along the fingers' motion."""
    gripper_joints: tuple[str, ...] = ()
    """Those of `joint_names` that open an arm's gripper; the others move the arm."""

    def spec(self) -> mujoco.MjSpec:
        """Return a fresh, editable specification: position actuators, keyframe `keyframe`, no floor."""
        return self.build()

    def mjcf(self) -> str:
        """Return the robot alone as MJCF text; equal robots give equal text."""
        spec = self.spec()
        spec.compile()
        return spec.to_xml()

    def wrist_pose_to_joints(self, pose: FloatArray) -> FloatArray:
        """Wrist joints that place the palm: (T, 7) or (7,) m + wxyz in the world -> (T, 6) or (6,) m, rad.

        The rotation is R = Rx(a) Ry(b) Rz(c). Of the equivalent triples the one closest to the previous
        frame is taken, so that a motion gives continuous joints; the first frame has |b| <= pi/2. The triple
        is not unique where |b| = pi/2, the back of the hand pointing along the world x axis.

        Raises:
            RobotModelError: the base is fixed.
        """
        self._need_floating()
        pose = np.asarray(pose, dtype=np.float64)
        frames = np.atleast_2d(pose)
        principal = _euler_xyz(frames[:, 3:7])
        if np.abs(principal[:, 1]).max() < _NEVER_SINGULAR:
            angles = np.unwrap(principal, axis=0)
            return np.concatenate([frames[:, :3], angles], axis=1).reshape(*pose.shape[:-1], 6)
        other = np.stack([principal[:, 0] + np.pi, np.pi - principal[:, 1], principal[:, 2] + np.pi], axis=1)
        angles = np.empty_like(principal)
        last = np.zeros(3)
        for t in range(len(frames)):
            near = [option + 2 * np.pi * np.round((last - option) / (2 * np.pi)) for option in (principal[t], other[t])]
            pick = 1 if t > 0 and np.abs(near[1] - last).sum() < np.abs(near[0] - last).sum() else 0
            angles[t] = last = near[pick]
        return np.concatenate([frames[:, :3], angles], axis=1).reshape(*pose.shape[:-1], 6)

    def joints_to_wrist_pose(self, joints: FloatArray) -> FloatArray:
        """Palm pose of wrist joints: (..., 6) m, rad -> (..., 7) m + wxyz in the world; inverse of
        `wrist_pose_to_joints`.

        Raises:
            RobotModelError: the base is fixed.
        """
        self._need_floating()
        joints = np.asarray(joints, dtype=np.float64)
        half = joints[..., 3:6] / 2
        ca, cb, cc = np.moveaxis(np.cos(half), -1, 0)
        sa, sb, sc = np.moveaxis(np.sin(half), -1, 0)
        quat = np.stack(
            [
                ca * cb * cc - sa * sb * sc,
                sa * cb * cc + ca * sb * sc,
                ca * sb * cc - sa * cb * sc,
                ca * cb * sc + sa * sb * cc,
            ],
            axis=-1,
        )
        return np.concatenate([joints[..., :3], quat], axis=-1)

    def _need_floating(self) -> None:
        if not self.palm_site:
            raise RobotModelError(f"{self.name} is no hand: it has no wrist joints")
        if not self.wrist_joints:
            raise RobotModelError(f"{self.name} ({self.side}, {self.base}) has no wrist joints; use base='floating'")


def robot_from_spec(
    build: Callable[[], mujoco.MjSpec],
    *,
    name: str,
    base: str,
    keyframe: str = "home",
    wrist_joints: tuple[str, ...] = (),
    palm_site: str = "",
    **parts: Any,
) -> Robot:
    """Read names, limits, efforts, speeds (a joint's first ``user`` value) and the home pose off a compiled model.

    Args:
        build: makes the specification.
        name, base, keyframe, wrist_joints, palm_site, parts: fields of `Robot` that a model does not tell.

    Raises:
        RobotModelError: an actuator does not drive a joint, has no limits, or the keyframe is missing.
    """
    model = build().compile()
    joints = []
    for i in range(model.nu):
        if model.actuator_trntype[i] != mujoco.mjtTrn.mjTRN_JOINT:
            raise RobotModelError(f"{name}: actuator {model.actuator(i).name!r} does not drive a joint")
        joints.append(int(model.actuator_trnid[i, 0]))
    names = tuple(model.joint(j).name for j in joints)
    unlimited = [
        n for i, n in enumerate(names) if not (model.actuator_ctrllimited[i] and model.actuator_forcelimited[i])
    ]
    if unlimited:
        raise RobotModelError(f"{name}: actuators without position and force limits on {', '.join(unlimited)}")
    if keyframe not in [model.key(k).name for k in range(model.nkey)]:
        raise RobotModelError(f"{name}: the model has no keyframe {keyframe!r}")
    return Robot(
        name=name,
        base=base,
        joint_names=names,
        lower=_frozen(model.jnt_range[joints, 0]),
        upper=_frozen(model.jnt_range[joints, 1]),
        effort=_frozen(model.actuator_forcerange[:, 1]),
        speed=_frozen(model.jnt_user[joints, 0] if model.nuser_jnt else np.full(len(joints), np.inf)),
        home=_frozen(model.key(keyframe).qpos[model.jnt_qposadr[joints]]),
        keyframe=keyframe,
        build=build,
        wrist_joints=wrist_joints,
        finger_joints=tuple(n for n in names if n not in wrist_joints) if palm_site else (),
        palm_site=palm_site,
        **parts,
    )


def _frozen(values: FloatArray) -> FloatArray:
    values = np.array(values, dtype=np.float64)
    values.setflags(write=False)
    return values


def _euler_xyz(quat: FloatArray) -> FloatArray:
    """Angles (T, 3) with |b| <= pi/2 of quaternions (T, 4) wxyz, for R = Rx(a) Ry(b) Rz(c)."""
    w, x, y, z = np.moveaxis(quat / np.linalg.norm(quat, axis=-1, keepdims=True), -1, 0)
    a = np.arctan2(2 * (w * x - y * z), 1 - 2 * (x * x + y * y))
    b = np.arcsin(np.clip(2 * (x * z + w * y), -1, 1))
    c = np.arctan2(2 * (w * z - x * y), 1 - 2 * (y * y + z * z))
    return np.stack([a, b, c], axis=-1)
