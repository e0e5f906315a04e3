"""Turning an object within the hand: fingertips that follow its surface while the wrist stays where it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sim.objects import ObjectSpec
from sim.references.grasp import LINK_GAP, Grasp
from sim.references.hand import Hand
from sim.references.least_squares import least_squares
from sim.references.shapes import signed_distance

FloatArray = NDArray[np.float64]

_STEP = np.radians(4.0)
_MISS, _CLEAR, _CHANGE = 0.5e-3, 0.5e-3, 0.5


def turn_in_hand(
    hand: Hand, shape: ObjectSpec, grasps: Sequence[Grasp], angle: float
) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
    """Joints that turn the object of each grasp about the vertical, from -angle/2 to angle/2 rad.

    A tip rolls on the surface without slipping: as the finger does not turn with the object, its centre moves
    with the velocity of the object's surface under it, w x (c - r n), and stays one radius from the surface.

    Args:
        hand: its batch must be as large as the number of grasps.

    Returns:
        Angles (K,) in rad, joints (B, K, J), and whether the hand reaches all of them within 1 mm, clear of
        the object (B,).
    """
    knots = int(np.ceil(angle / 2 / _STEP))
    step = angle / 2 / knots
    start = np.stack([g.joints for g in grasps])
    path = {0: start}
    reached = np.ones(len(grasps), dtype=bool)
    for sign in (1, -1):
        joints, centres = start, np.stack([g.tips for g in grasps])
        for knot in range(1, knots + 1):
            turned = sign * (knot - 1) * step
            centres = _roll(shape, centres, turned, sign * step, hand.tip_radius)
            joints, ok = _follow(hand, shape, joints, centres, turned + sign * step)
            reached &= ok
            path[sign * knot] = joints
    order = sorted(path)
    return np.array(order) * step, np.stack([path[k] for k in order], axis=1), reached


def _spin(points: FloatArray, angle: float) -> FloatArray:
    c, s = np.cos(angle), np.sin(angle)
    return points @ np.array([[c, s, 0.0], [-s, c, 0.0], [0.0, 0.0, 1.0]])


def _distance(shape: ObjectSpec, points: FloatArray, turned: float) -> tuple[FloatArray, FloatArray]:
    distance, normal = signed_distance(shape, _spin(points, -turned))
    return distance, _spin(normal, turned)


def _roll(shape: ObjectSpec, centres: FloatArray, turned: float, step: float, radius: float) -> FloatArray:
    """Tip centres (B, K, 3) after the object, turned by `turned`, turns by `step` more."""
    _, normal = _distance(shape, centres, turned)
    moved = _spin(centres - radius * normal, step) + radius * normal
    distance, normal = _distance(shape, moved, turned + step)
    return moved - (distance - radius)[..., None] * normal


def _follow(
    hand: Hand, shape: ObjectSpec, joints: FloatArray, centres: FloatArray, turned: float
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Finger joints that put the tips at `centres`, close to `joints`, and whether they do (B,)."""
    k, wrist = hand.num_tips, len(hand.robot.wrist_joints)
    lower, upper = np.tile(hand.robot.lower, (len(joints), 1)), np.tile(hand.robot.upper, (len(joints), 1))
    lower[:, :wrist] = upper[:, :wrist] = joints[:, :wrist]
    eye = np.broadcast_to(np.eye(hand.num_joints), (len(joints), hand.num_joints, hand.num_joints))

    def residual(q: FloatArray) -> tuple[FloatArray, FloatArray]:
        points = hand.points(q)
        tips, links = points.select(slice(0, k)), points.select(slice(k, None))
        rows = [((q - joints) / _CHANGE, eye / _CHANGE)]
        for a in np.eye(3):
            along = tips.jacobian(np.broadcast_to(a, tips.position.shape))
            rows.append(((tips.position - centres) @ a / _MISS, along / _MISS))
        distance, normal = _distance(shape, links.position, turned)
        depth = LINK_GAP + hand.radius - distance
        active = (depth > 0) / _CLEAR
        rows.append((depth * active, -links.jacobian(normal) * active[..., None]))
        return np.concatenate([r for r, _ in rows], axis=1), np.concatenate([j for _, j in rows], axis=1)

    joints, _ = least_squares(residual, joints, lower, upper, 5)
    points = hand.points(joints)
    miss = np.linalg.norm(points.position[:, :k] - centres, axis=-1).max(axis=1)
    gap = (_distance(shape, points.position[:, k:], turned)[0] - hand.radius).min(axis=1)
    return joints, (miss < 1e-3) & (gap > 0)
