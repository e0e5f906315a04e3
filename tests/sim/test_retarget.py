"""The retargeter recovers robot motions from their own keypoints, and keeps a human pinch a pinch."""

from __future__ import annotations

from dataclasses import replace

import mujoco
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from sim.references.check import problems
from sim.references.fit import RetargetConfig
from sim.references.format import HUMAN, KEYPOINT_NAMES, Reference, palm_pose
from sim.references.kinematics import couplings, robot_keypoints
from sim.references.repair import repair
from sim.references.retarget import RetargetError, retarget
from sim.robots import AssetNotAvailable, Robot, get_robot

RATE = 60.0


def robot_motion(robot: Robot, frames: int = 120, seed: int = 0) -> Reference:
    """A smooth motion through most of the range of every finger joint, while the palm travels and turns."""
    generator = np.random.default_rng(seed)
    t = np.arange(frames)[:, None] / RATE
    index = [robot.joint_names.index(name) for name in robot.finger_joints]
    lower, upper = robot.lower[index], robot.upper[index]
    phase = generator.uniform(0, 2 * np.pi, (2, len(index)))
    swing = 0.6 * np.sin(2 * np.pi * 0.4 * t + phase[0]) + 0.3 * np.sin(2 * np.pi * 0.8 * t + phase[1])
    joints = (lower + upper) / 2 + 0.9 * (upper - lower) / 2 * swing
    position = np.concatenate([0.1 * np.sin(t), 0.1 * np.cos(1.3 * t), 0.3 + 0.1 * np.sin(0.7 * t)], axis=1)
    turn = Rotation.from_rotvec(np.concatenate([np.sin(t), 0.5 * np.cos(1.5 * t), 1.2 * np.sin(t / 2)], axis=1))
    wrist = np.concatenate([position, turn.as_quat(scalar_first=True)], axis=1)
    cube = np.tile([0, 0, 0.03, 1, 0, 0, 0], (frames, 1))
    return Reference("swing", robot.name, robot.side, RATE, "cube", wrist, cube, robot.finger_joints, joints)


def as_human(motion: Reference, robot: Robot, scale: float = 1.0, noise: float = 0.0) -> Reference:
    """What a camera would see if a hand of the robot's shape, ``scale`` times its size, made the motion."""
    points = robot_keypoints(motion, robot)
    if np.isnan(points[:, 17:]).any():
        points[:, 17:] = 2 * points[:, 13:17] - points[:, 9:13]  # a little finger beside the ring finger
    points = points[:, :1] + scale * (points - points[:, :1])
    points += np.random.default_rng(1).normal(0, noise, points.shape)
    wrist = palm_pose(points, motion.side)
    return Reference("seen", HUMAN, motion.side, RATE, "cube", wrist, motion.object_pose, keypoints=points)


def human_pinch(frames: int = 90) -> Reference:
    """A right hand of human size whose thumb and index tips come from 10 cm to 1 cm and part again."""
    close = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(frames) / (frames - 1))
    points = np.zeros((frames, 21, 3))
    for finger, (across, lengths) in enumerate(
        [(0.027, (0.042, 0.025, 0.021)), (0.004, (0.046, 0.029, 0.022)),
         (-0.016, (0.043, 0.027, 0.022)), (-0.034, (0.034, 0.021, 0.019))]
    ):  # fmt: skip
        root = 5 + 4 * finger
        points[:, root] = [0.09, across, 0.0]
        bend = np.zeros(frames)
        for joint, length in enumerate(lengths):
            bend = bend + (0.15 + 0.65 * close if finger == 0 else 0.3)
            step = length * np.stack([np.cos(bend), 0 * bend, -np.sin(bend)], axis=1)
            points[:, root + joint + 1] = points[:, root + joint] + step
    base, apart = np.array([0.025, 0.03, -0.012]), np.array([0.075, 0.085, -0.045])
    tip = (1 - close[:, None]) * apart + close[:, None] * (points[:, 8] + [-0.006, 0.002, -0.008])
    chord = tip - base
    side = np.cross(chord, [0.0, 0.0, 1.0])
    bow = side / np.linalg.norm(side, axis=1, keepdims=True) * 0.012
    points[:, 1], points[:, 4] = base, tip
    points[:, 2], points[:, 3] = base + 0.42 * chord + bow, base + 0.75 * chord + bow
    points = Rotation.from_euler("y", 20, degrees=True).apply(points.reshape(-1, 3)).reshape(points.shape)
    points += [0.0, 0.0, 0.25]
    cube = np.tile([0.1, 0.05, 0.03, 1, 0, 0, 0], (frames, 1))
    return Reference("pinch", HUMAN, "right", RATE, "cube", palm_pose(points, "right"), cube, keypoints=points)


def joint_error(moved: Reference, motion: Reference, robot: Robot) -> np.ndarray:
    return np.abs(moved.joints(robot.finger_joints) - motion.joints(robot.finger_joints))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_recovers_the_joints_of_a_robot_motion(side: str, scale: float) -> None:
    robot = get_robot("allegro", side=side)
    motion = robot_motion(robot)
    moved, residual = retarget(as_human(motion, robot, scale), robot, RetargetConfig(contact=False))
    error = joint_error(moved, motion, robot)
    assert error.mean() < 0.01 and error.max() < 0.12
    assert residual.scale == pytest.approx(1 / scale, rel=0.02)
    assert residual.max_mm < 1.0
    assert residual.seconds < 5.0
    if scale == 1.0:
        assert np.linalg.norm(moved.wrist_pose[:, :3] - motion.wrist_pose[:, :3], axis=1).max() < 0.003


def test_five_fingers_with_coupled_joints() -> None:
    try:
        robot = get_robot("shadow")
    except AssetNotAvailable as error:
        pytest.skip(str(error))
    motion = robot_motion(robot, frames=60)
    moved, residual = retarget(as_human(motion, robot, 0.9), robot, RetargetConfig(contact=False))
    fingers = [i for i, name in enumerate(robot.finger_joints) if not name.startswith("WRJ")]  # before the palm
    assert joint_error(moved, motion, robot)[:, fingers].mean() < 0.01
    assert residual.max_mm < 1.0


def test_coupled_joints_are_read_from_the_model() -> None:
    model = mujoco.MjModel.from_xml_string(
        """<mujoco><worldbody>
          <body><joint name="a" ref="0.1"/><geom size="0.01"/>
            <body><joint name="b" ref="0.2"/><geom size="0.01"/></body></body>
        </worldbody><equality><joint joint1="b" joint2="a" polycoef="0.05 0.5 0.25 0 0"/></equality></mujoco>"""
    )
    (pair,) = couplings(model)
    assert (pair.follower, pair.leader) == (1, 0)
    a = np.radians(0.1) + 0.4  # MJCF gives angles in degrees
    assert pair.place(np.array(a)) == pytest.approx(np.radians(0.2) + 0.05 + 0.5 * 0.4 + 0.25 * 0.16)
    assert pair.slope(np.array(a)) == pytest.approx(0.5 + 2 * 0.25 * 0.4)


def test_keeps_a_given_palm_pose() -> None:
    robot = get_robot("allegro")
    motion = robot_motion(robot)
    seen = replace(as_human(motion, robot, 0.6), wrist_pose=motion.wrist_pose)
    moved, _ = retarget(seen, robot, RetargetConfig(wrist="given", contact=False))
    assert np.abs(moved.wrist_pose - motion.wrist_pose).max() < 1e-9
    assert joint_error(moved, motion, robot).mean() < 0.01


def test_stays_within_limits_and_smooth_under_noise() -> None:
    robot = get_robot("allegro")
    motion = robot_motion(robot)
    clip, _ = repair(as_human(motion, robot, noise=0.005))
    moved, _ = retarget(clip, robot)
    index = [robot.joint_names.index(name) for name in robot.finger_joints]
    joints = moved.joints(robot.finger_joints)
    assert (joints >= robot.lower[index]).all() and (joints <= robot.upper[index]).all()
    assert joint_error(moved, motion, robot).mean() < 0.06
    jerk = np.abs(np.diff(joints, 3, axis=0)).mean()
    assert jerk < 3 * np.abs(np.diff(motion.joints(robot.finger_joints), 3, axis=0)).mean() + 0.002
    assert problems(moved) == []


def test_motion_beyond_the_limits_is_clamped() -> None:
    robot = get_robot("allegro")
    motion = robot_motion(robot)
    stretched = replace(motion, joint_pos=np.clip(1.5 * motion.joints(robot.finger_joints), -2.2, 2.2))
    moved, residual = retarget(as_human(stretched, robot), robot)
    assert residual.at_limit > 0.02
    assert problems(moved) == []


def test_a_human_pinch_stays_a_pinch() -> None:
    robot = get_robot("allegro")
    human = human_pinch()
    assert problems(human) == []
    moved, residual = retarget(human, robot)
    without, _ = retarget(human, robot, RetargetConfig(contact=False))
    thumb, index = KEYPOINT_NAMES.index("thumb_tip"), KEYPOINT_NAMES.index("index_tip")
    gap = {}
    for label, clip in (("human", human), ("kept", moved), ("scaled", without)):
        points = clip.keypoints if clip is human else robot_keypoints(clip, robot)
        assert points is not None
        gap[label] = np.linalg.norm(points[:, thumb] - points[:, index], axis=1)
    closed = gap["human"].argmin()
    assert gap["human"][closed] < 0.012
    assert gap["kept"][closed] == pytest.approx(gap["human"][closed], abs=0.004)
    assert abs(gap["scaled"][closed] - gap["human"][closed]) > abs(gap["kept"][closed] - gap["human"][closed])
    assert residual.scale > 1.2  # the robot's hand is larger than a human's
    assert problems(moved) == []


def test_refuses_what_it_cannot_use() -> None:
    robot = get_robot("allegro")
    motion = robot_motion(robot, frames=30)
    human = as_human(motion, robot)
    with pytest.raises(RetargetError, match="no keypoints"):
        retarget(motion, robot)
    with pytest.raises(RetargetError, match="right hand; robot 'allegro' is a left hand"):
        retarget(human, get_robot("allegro", side="left"))
    with pytest.raises(RetargetError, match="missing frames"):
        retarget(replace(human, valid=np.arange(30) != 4), robot)
    with pytest.raises(RetargetError, match="did you mean 'given'"):
        retarget(human, robot, RetargetConfig(wrist="givn"))
    with pytest.raises(RetargetError, match="scale must be positive"):
        retarget(human, robot, RetargetConfig(scale=-1.0))
