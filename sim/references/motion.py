"""Motions of hand and object in time: minimum-jerk phases around a grasp."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from sim.robots import Robot

FloatArray = NDArray[np.float64]

LIFT = (0.15, 0.22)
"""m above the table."""
TURN = (np.radians(20.0), np.radians(57.0))
STEEPEST = np.radians(60.0)
"""Largest tilt of the hand, well away from the wrist joints' singularity at 90 degrees."""
_REACH = 0.08
"""m from the table's centre within which objects are placed."""


@dataclass(frozen=True, eq=False)
class Motion:
    """T frames: wrist (T, 7) and object (T, 7) m + wxyz in the world, fingers (T, F) rad."""

    wrist: FloatArray
    fingers: FloatArray
    object: FloatArray


@dataclass(frozen=True, eq=False)
class Held:
    """A grasp as motions use it: in the frame of the upright object, the palm and the fingers."""

    robot: Robot
    rest_height: float
    """m of the object frame above the table."""
    joints: FloatArray
    """(J,) wrist and fingers, tips touching."""
    opened: FloatArray
    """(J,) fingers before closing."""
    turns: tuple[FloatArray, FloatArray] | None = None
    """Object angles (K,) rad and the joints (K, J) that hold it there, for turning within the hand."""

    def palm(self) -> tuple[FloatArray, Rotation]:
        """Palm position (3,) and rotation in the object frame."""
        pose = self.robot.joints_to_wrist_pose(self.joints[: self.num_wrist])
        return pose[:3], Rotation.from_quat(pose[3:], scalar_first=True)

    @property
    def num_wrist(self) -> int:
        return len(self.robot.wrist_joints)


def min_jerk(time: FloatArray, start: float, end: float) -> FloatArray:
    """0 before start, 1 after end, 10 s^3 - 15 s^4 + 6 s^5 between (Flash and Hogan 1985)."""
    s = np.clip((time - start) / (end - start), 0.0, 1.0)
    return s**3 * (10 - 15 * s + 6 * s**2)


def grasp_lift(held: Held, time: FloatArray, duration: float, generator: np.random.Generator) -> Motion:
    """Approach, grasp, lift, carry and turn; the object stays in the air."""
    unit = duration / 2.5
    touch, lift, top = 0.95 * unit, 1.0 * unit, 2.2 * unit
    place = _place(held, generator)
    grasped = place[1] * held.palm()[1]
    turn = _turn(generator, grasped)
    raised = min_jerk(time, lift, top) * generator.uniform(*LIFT)
    moved = min_jerk(time, lift + 0.3 * (top - lift), top)
    object_pos, object_rot = _carry(place, raised, moved, _sideways(generator), turn)
    wrist_pos, wrist_rot = _with_object(held, object_pos, object_rot)
    wrist_pos, wrist_rot = _approach(wrist_pos, wrist_rot, time, 0.7 * unit, generator)
    return Motion(
        _pose(wrist_pos, wrist_rot),
        _fingers(held, min_jerk(time, 0.65 * unit, touch)),
        _pose(object_pos, object_rot),
    )


def pick_place(held: Held, time: FloatArray, duration: float, generator: np.random.Generator) -> Motion:
    """Approach, grasp, lift, carry, turn about the vertical, put down, let go and retreat."""
    unit = duration / 4.0
    touch, lift, top, lower, down = (t * unit for t in (0.95, 1.0, 1.9, 2.1, 3.0))
    place = _place(held, generator)
    turn = Rotation.from_rotvec([0.0, 0.0, _signed(generator, *TURN)])
    raised = (min_jerk(time, lift, top) - min_jerk(time, lower, down)) * generator.uniform(*LIFT)
    moved = min_jerk(time, lift + 0.3 * (top - lift), down - 0.3 * (down - lower))
    object_pos, object_rot = _carry(place, raised, moved, _sideways(generator), turn)
    wrist_pos, wrist_rot = _with_object(held, object_pos, object_rot)
    wrist_pos, wrist_rot = _approach(wrist_pos, wrist_rot, time, 0.7 * unit, generator)
    wrist_pos[:, 2] += 0.10 * min_jerk(time, down + 0.35 * unit, duration)
    closed = min_jerk(time, 0.65 * unit, touch) - min_jerk(time, down + 0.05 * unit, down + 0.35 * unit)
    return Motion(_pose(wrist_pos, wrist_rot), _fingers(held, closed), _pose(object_pos, object_rot))


def rotate_in_hand(held: Held, time: FloatArray, duration: float, generator: np.random.Generator) -> Motion:
    """Held in the air from the first frame, turned about the vertical by the fingers, the wrist at rest."""
    assert held.turns is not None, "generate() adds the turns"
    angles, joints = held.turns
    sign = 1.0 if generator.random() < 0.5 else -1.0
    start = angles[0] if sign > 0 else angles[-1]
    angle = start + sign * (angles[-1] - angles[0]) * min_jerk(time, 0.16 * duration, 0.88 * duration)
    fingers = np.stack(
        [np.interp(angle, angles, joints[:, j]) for j in range(held.num_wrist, joints.shape[1])], axis=-1
    )
    position, rotation = _place(held, generator)
    position[2] += generator.uniform(*LIFT)
    frames = np.ones((len(time), 1))
    palm_pos, palm_rot = held.palm()
    wrist = _pose(frames * (position + rotation.apply(palm_pos)), _repeat(rotation * palm_rot, len(time)))
    spin = Rotation.from_rotvec(angle[:, None] * np.array([0.0, 0.0, 1.0]))
    return Motion(wrist, fingers, _pose(frames * position, spin * rotation))


def _place(held: Held, generator: np.random.Generator) -> tuple[FloatArray, Rotation]:
    xy = generator.uniform(-_REACH, _REACH, 2)
    yaw = generator.uniform(-np.pi, np.pi)
    return np.array([*xy, held.rest_height]), Rotation.from_rotvec([0.0, 0.0, yaw])


def _signed(generator: np.random.Generator, low: float, high: float) -> float:
    return float(generator.uniform(low, high) * (1.0 if generator.random() < 0.5 else -1.0))


def _sideways(generator: np.random.Generator) -> FloatArray:
    heading, distance = generator.uniform(-np.pi, np.pi), generator.uniform(0.02, 0.10)
    return distance * np.array([np.cos(heading), np.sin(heading), 0.0])


def _turn(generator: np.random.Generator, palm: Rotation) -> Rotation:
    """A turn about the vertical, or about a tilted axis where the hand then stays below `STEEPEST`."""
    angle = _signed(generator, *TURN)
    tilt, heading = generator.uniform(0.3, 1.2), generator.uniform(-np.pi, np.pi)
    axis = np.array([np.sin(tilt) * np.cos(heading), np.sin(tilt) * np.sin(heading), np.cos(tilt)])
    turn = Rotation.from_rotvec(angle * axis)
    upright = (turn * palm).apply([0.0, 0.0, 1.0])[2] > np.cos(STEEPEST)
    if generator.random() < 0.5 and upright:
        return turn
    return Rotation.from_rotvec([0.0, 0.0, angle])


def _carry(
    place: tuple[FloatArray, Rotation],
    raised: FloatArray,
    moved: FloatArray,
    sideways: FloatArray,
    turn: Rotation,
) -> tuple[FloatArray, Rotation]:
    position = place[0] + moved[:, None] * sideways
    position[:, 2] += raised
    return position, Rotation.from_rotvec(moved[:, None] * turn.as_rotvec()) * place[1]


def _with_object(held: Held, position: FloatArray, rotation: Rotation) -> tuple[FloatArray, Rotation]:
    palm_pos, palm_rot = held.palm()
    return position + rotation.apply(palm_pos), rotation * palm_rot


def _approach(
    position: FloatArray, rotation: Rotation, time: FloatArray, arrive: float, generator: np.random.Generator
) -> tuple[FloatArray, Rotation]:
    """Come from above: sideways and in rotation early, down all the way."""
    aside = np.array([*generator.uniform(-0.04, 0.04, 2), 0.0])
    above = np.array([0.0, 0.0, generator.uniform(0.09, 0.13)])
    twist = generator.uniform(-0.2, 0.2, 3)
    early = (1 - min_jerk(time, 0.0, 0.6 * arrive))[:, None]
    late = (1 - min_jerk(time, 0.0, arrive))[:, None]
    return position + early * aside + late * above, Rotation.from_rotvec(early * twist) * rotation


def _fingers(held: Held, closed: FloatArray) -> FloatArray:
    opened, grasp = held.opened[held.num_wrist :], held.joints[held.num_wrist :]
    return opened + closed[:, None] * (grasp - opened)


def _repeat(rotation: Rotation, count: int) -> Rotation:
    return Rotation.from_quat(np.tile(rotation.as_quat(), (count, 1)))


def _pose(position: FloatArray, rotation: Rotation) -> FloatArray:
    """(T, 7) m + wxyz, without jumps of sign."""
    quat = rotation.as_quat(scalar_first=True)
    flips = np.where((quat[1:] * quat[:-1]).sum(axis=1) < 0, -1.0, 1.0)
    quat[1:] *= np.cumprod(flips)[:, None]
    return np.concatenate([position, quat], axis=1)
