"""Fingertip grasps by geometry: the thumb against the other fingers, tips touching the object, links clear of it.

A grasp is found by bounded least squares over the wrist and all finger joints: tips on the surface near
opposing targets, links and palm outside the object, everything above the table, joints near a comfortable
pinch. Many random starts are solved at once and the best are kept. Residuals are in units in which 1 is a
noticeable miss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from robolearn.errors import RobolearnError
from sim.objects import ObjectSpec
from sim.references.hand import Hand, Points
from sim.references.least_squares import least_squares
from sim.references.shapes import signed_distance

FloatArray = NDArray[np.float64]

TABLE_GAP = 0.006
"""m between the table and the hand."""
LINK_GAP = 0.002
"""m between the object and the hand's links other than the tips."""
OPENING = 0.045
"""m that a fingertip is away from the object before the grasp closes."""
_TOUCH, _ACROSS, _UP, _BALANCE, _CLEAR = 0.5e-3, 8e-3, 2.5e-3, 4e-3, 0.5e-3
_FINGER, _ABDUCTION, _TILT = 0.5, 0.3, 0.2


class GraspError(RobolearnError):
    """No grasp of an object by a robot was found."""


@dataclass(frozen=True, eq=False)
class Grasp:
    """A grasp of an upright object whose frame is at the world origin."""

    joints: FloatArray
    """(J,) wrist and finger joints with the tips touching."""
    opened: FloatArray
    """(J,) the same wrist, fingers before they close."""
    tips: FloatArray
    """(K, 3) fingertip centres, m."""
    axis: FloatArray
    """(3,) unit vector from the thumb to the fingers."""


def find_grasps(hand: Hand, shape: ObjectSpec, count: int, generator: np.random.Generator) -> list[Grasp]:
    """Return `count` grasps of `shape`, the best of the hand's batch of random starts first.

    Raises:
        GraspError: no start ended in a grasp.
    """
    problem = _Problem(hand, shape, generator)
    joints, cost = problem.solve()
    points = hand.points(joints)
    opened = problem.opened(joints, points)
    good = problem.valid(points) & problem.clear(hand.points(opened)) & problem.squeezes(points)
    order = [int(b) for b in np.argsort(np.where(good, cost, np.inf), kind="stable") if good[b]]
    if not order:
        raise GraspError(f"{hand.robot.name} ({hand.robot.side}) found no fingertip grasp of object {shape.name!r}")
    tips = points.position[:, : hand.num_tips]
    chosen = [order[i % len(order)] for i in range(count)]
    return [Grasp(joints[b], opened[b], tips[b], problem.axis[b]) for b in chosen]


class _Problem:
    """Random targets for one object, and the residuals that pull a hand to them."""

    def __init__(self, hand: Hand, shape: ObjectSpec, generator: np.random.Generator) -> None:
        self.hand, self.shape = hand, shape
        b = hand.size
        self.table = float(shape.bounds()[0][2])
        yaw = generator.uniform(-np.pi, np.pi, b)
        if shape.geoms[0].type == "box":
            # A box is held by two opposite faces.
            yaw = np.round(yaw / (np.pi / 2)) * (np.pi / 2) + generator.uniform(-0.12, 0.12, b)
        self.axis = np.stack([np.cos(yaw), np.sin(yaw), np.zeros(b)], axis=-1)
        self.across = np.stack([-np.sin(yaw), np.cos(yaw), np.zeros(b)], axis=-1)
        pitch, roll = generator.uniform(-0.25, 0.35, b), generator.uniform(-0.2, 0.2, b)
        self.lower, self.upper = hand.robot.lower, hand.robot.upper
        self.targets = self._targets(generator)
        self.comfort, self.scale = self._comfort(yaw, pitch, roll)

    def _targets(self, generator: np.random.Generator) -> FloatArray:
        """(B, K, 3) tip centres beside the surface: the fingers in a row, the thumb opposite their middle."""
        b, k, r = self.hand.size, self.hand.num_tips, self.hand.tip_radius
        main = self.shape.geoms[0]
        half = main.half_extents()
        lowest, top = self.table + r + TABLE_GAP + 0.002, half[2]
        # A ball is held at or below its equator, or it slips out downwards.
        band = (-0.28, -0.05) if main.type == "sphere" else (-0.3, 0.3)
        drawn = generator.uniform(*band, b) * half[2]
        height = np.clip(drawn, max(lowest, top - 0.05), max(lowest, top - r))
        width = np.abs(self.across) @ half if main.type == "box" else np.full(b, half[0])
        row = np.linspace(1.0, -1.0, k - 1)
        if self.hand.robot.side == "left":
            row = -row
        spread = np.clip(width - 0.3 * r, 0.016, 0.03)
        offsets = np.concatenate([spread[:, None] * row, np.zeros((b, 1))], axis=1)
        towards = np.array([-1.0] * (k - 1) + [1.0])
        start = (
            offsets[..., None] * self.across[:, None]
            - towards[None, :, None] * 0.15 * self.axis[:, None]
            + height[:, None, None] * np.array([0.0, 0.0, 1.0])
        )
        travel = np.zeros((b, k))
        for _ in range(30):
            at = start + (travel * towards)[..., None] * self.axis[:, None]
            travel += np.minimum(signed_distance(self.shape, at)[0] - r, 0.15 - travel)
        return start + (travel * towards)[..., None] * self.axis[:, None]

    def _comfort(self, yaw: FloatArray, pitch: FloatArray, roll: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(B, J) the robot's pinch moved to the targets, and (J,) how far a joint may leave it at unit cost."""
        hand, robot = self.hand, self.hand.robot
        pinch = hand.model.key("pinch").qpos[hand.columns]
        comfort = np.tile(pinch, (hand.size, 1))
        wrist = len(robot.wrist_joints)
        zero = np.zeros(hand.size)
        pose = robot.joints_to_wrist_pose(np.stack([*[zero] * 5, yaw], axis=-1))
        tilt = robot.joints_to_wrist_pose(np.stack([zero, zero, zero, roll, pitch, zero], axis=-1))
        turn = _quat_multiply(pose[:, 3:], tilt[:, 3:])
        centre = (self.targets[:, :-1].mean(axis=1) + self.targets[:, -1]) / 2
        pose = np.concatenate([centre + _rotate(turn, pinch[:3]), turn], axis=-1)
        comfort[:, :wrist] = np.stack([robot.wrist_pose_to_joints(p) for p in pose])
        scale = np.full(hand.num_joints, _FINGER)
        scale[[n.endswith("_abd") for n in robot.joint_names]] = _ABDUCTION
        scale[:3], scale[3:wrist] = 0.05, _TILT
        return comfort, scale

    def solve(self, iterations: int = 40) -> tuple[FloatArray, FloatArray]:
        """Joints (B, J) and costs (B,)."""
        return least_squares(self.residual, self.comfort, self.lower, self.upper, iterations)

    def residual(self, joints: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Residuals (B, M) of joints (B, J) and their Jacobian (B, M, J)."""
        hand, k = self.hand, self.hand.num_tips
        points = hand.points(joints)
        tips = points.select(slice(0, k))
        distance, normal = signed_distance(self.shape, points.position)
        along = points.jacobian(normal)
        up = np.broadcast_to(np.array([0.0, 0.0, 1.0]), points.position.shape)
        radius = hand.point_radius
        rows = [((distance[:, :k] - hand.tip_radius) / _TOUCH, along[:, :k] / _TOUCH)]
        rows.append(_hinge(LINK_GAP + radius[k:] - distance[:, k:], -along[:, k:], _CLEAR))
        rows.append(_hinge(self.table + TABLE_GAP + radius - points.position[..., 2], -points.jacobian(up), _CLEAR))
        miss = tips.position - self.targets
        for direction, scale in ((self.across, _ACROSS), (up[:, 0], _UP)):
            unit = np.broadcast_to(direction[:, None], tips.position.shape)
            moved = tips.jacobian(unit)
            value = np.einsum("bka,bka->bk", miss, unit)
            rows.append((value / scale, moved / scale))
            place = np.einsum("bka,bka->bk", tips.position, unit)
            rows.append(
                (
                    (place[:, -1:] - place[:, :-1].mean(axis=1, keepdims=True)) / _BALANCE,
                    (moved[:, -1:] - moved[:, :-1].mean(axis=1, keepdims=True)) / _BALANCE,
                )
            )
        rows.append(self._apart(tips))
        eye = np.broadcast_to(np.diag(1 / self.scale), (hand.size, hand.num_joints, hand.num_joints))
        rows.append(((joints - self.comfort) / self.scale, eye))
        return np.concatenate([r for r, _ in rows], axis=1), np.concatenate([j for _, j in rows], axis=1)

    def _apart(self, tips: Points) -> tuple[FloatArray, FloatArray]:
        """Neighbouring fingertips do not overlap."""
        gap = tips.position[:, :-2] - tips.position[:, 1:-1]
        length = np.maximum(np.linalg.norm(gap, axis=-1), 1e-6)
        unit = gap / length[..., None]
        jacobian = tips.select(slice(0, -2)).jacobian(unit) - tips.select(slice(1, -1)).jacobian(unit)
        return _hinge(2 * self.hand.tip_radius + 0.001 - length, -jacobian, _CLEAR)

    def opened(self, joints: FloatArray, points: Points) -> FloatArray:
        """Joints (B, J) with each tip moved `OPENING` off the surface, as far as limits allow."""
        k = self.hand.num_tips
        wrist = len(self.hand.robot.wrist_joints)
        lower, upper = np.tile(self.lower, (len(joints), 1)), np.tile(self.upper, (len(joints), 1))
        lower[:, :wrist] = upper[:, :wrist] = joints[:, :wrist]
        _, normal = signed_distance(self.shape, points.position[:, :k])
        normal[..., 2] *= 0.3
        goal = points.position[:, :k] + OPENING * normal

        def residual(q: FloatArray) -> tuple[FloatArray, FloatArray]:
            tips = self.hand.points(q).select(slice(0, k))
            rows = []
            for a in np.eye(3):
                unit = np.broadcast_to(a, tips.position.shape)
                rows.append(((tips.position - goal) @ a / 3e-3, tips.jacobian(unit) / 3e-3))
            eye = np.broadcast_to(np.eye(self.hand.num_joints), (len(q), *[self.hand.num_joints] * 2))
            rows.append((q - joints, eye))
            return np.concatenate([r for r, _ in rows], axis=1), np.concatenate([j for _, j in rows], axis=1)

        return least_squares(residual, joints, lower, upper, 12)[0]

    def valid(self, points: Points) -> np.ndarray:
        """(B,) whether all tips touch within 1 mm, opposed, and nothing is inside something else."""
        k = self.hand.num_tips
        distance, normal = signed_distance(self.shape, points.position)
        touch = np.abs(distance[:, :k] - self.hand.tip_radius).max(axis=1) < 1e-3
        apart = np.linalg.norm(np.diff(points.position[:, : k - 1], axis=1), axis=-1).min(axis=1)
        opposed = np.einsum("bka,ba->bk", normal[:, :k], self.axis) * np.array([1.0] * (k - 1) + [-1.0])
        return (
            touch
            & (opposed.min(axis=1) > 0.6)
            & (opposed.mean(axis=1) > 0.85)
            & ((distance - self.hand.point_radius)[:, k:].min(axis=1) > 0)
            & self._above_table(points)
            & (apart > 2 * self.hand.tip_radius)
        )

    def clear(self, points: Points) -> np.ndarray:
        """(B,) whether the open hand is clear of object and table."""
        k = self.hand.num_tips
        gap = signed_distance(self.shape, points.position)[0] - self.hand.point_radius
        return (gap[:, :k].min(axis=1) > OPENING / 4) & (gap[:, k:].min(axis=1) > 0) & self._above_table(points)

    def squeezes(self, points: Points) -> np.ndarray:
        """(B,) whether flexing all fingers pushes every tip into the object."""
        k = self.hand.num_tips
        _, normal = signed_distance(self.shape, points.position[:, :k])
        flex = np.array([n.endswith(("_mcp", "_pip", "_dip", "_ip")) for n in self.hand.robot.joint_names])
        inward = -points.select(slice(0, k)).jacobian(normal) @ flex
        return np.asarray(inward.min(axis=1) > 0.03)

    def _above_table(self, points: Points) -> np.ndarray:
        return np.asarray((points.position[..., 2] - self.hand.point_radius).min(axis=1) > self.table + TABLE_GAP / 2)


def _hinge(depth: FloatArray, jacobian: FloatArray, scale: float) -> tuple[FloatArray, FloatArray]:
    """max(0, depth) / scale with its Jacobian."""
    active = depth > 0
    return np.where(active, depth, 0.0) / scale, np.where(active[..., None], jacobian, 0.0) / scale


def _quat_multiply(a: FloatArray, b: FloatArray) -> FloatArray:
    aw, av, bw, bv = a[..., :1], a[..., 1:], b[..., :1], b[..., 1:]
    return np.concatenate([aw * bw - (av * bv).sum(-1, keepdims=True), aw * bv + bw * av + np.cross(av, bv)], axis=-1)


def _rotate(q: FloatArray, v: FloatArray) -> FloatArray:
    u = np.cross(q[..., 1:], v)
    return v + 2 * (q[..., :1] * u + np.cross(q[..., 1:], u))
