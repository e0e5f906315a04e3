"""Batched kinematics of a robot hand: fingertips, points on its links, and their Jacobians, by MuJoCo."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import mujoco.batch
import numpy as np
from numpy.typing import NDArray

from sim.robots import Robot

FloatArray = NDArray[np.float64]

_ALONG_CAPSULE = (0.9, 0.3, -0.3)
_ACROSS_BOX = (-0.8, 0.0, 0.8)


@dataclass(frozen=True)
class Points:
    """Points (B, P, 3) in the world with what their Jacobians need."""

    position: FloatArray
    anchor: FloatArray
    """(B, J, 3) a point on each joint's axis."""
    axis: FloatArray
    """(B, J, 3) each joint's axis."""
    moves: FloatArray
    """(P, J) 1 where the joint moves the point."""
    slides: NDArray[np.bool_]
    """(J,) whether the joint is a slide."""

    def jacobian(self, directions: FloatArray) -> FloatArray:
        """Derivative (B, P, J) of the points' positions along directions (B, P, 3) by the joints.

        A hinge moves p with a x (p - c), so along n it moves it with a . ((p - c) x n), p - c measured from
        its anchor.
        """
        axis = self.axis.transpose(0, 2, 1)
        moment = np.cross(self.axis, self.anchor).transpose(0, 2, 1)
        hinge = np.matmul(np.cross(self.position, directions), axis) - np.matmul(directions, moment)
        return np.where(self.slides, np.matmul(directions, axis), hinge) * self.moves

    def select(self, index: slice) -> Points:
        """Some of the points."""
        return Points(self.position[:, index], self.anchor, self.axis, self.moves[index], self.slides)


class Hand:
    """Kinematics of `robot` for batches of `size` joint vectors in the robot's joint order.

    `tips` fingertip centres come first among the points, then `links` points along the colliding links.
    """

    def __init__(self, robot: Robot, size: int) -> None:
        self.robot = robot
        self.size = size
        self.model = robot.spec().compile()
        self._batch = mujoco.batch.Batch(self.model, size, nthread=1)
        self._site_xpos = self._batch.bind("site_xpos")
        self._xpos, self._xmat = self._batch.bind("xpos"), self._batch.bind("xmat")
        self._xanchor, self._xaxis = self._batch.bind("xanchor"), self._batch.bind("xaxis")
        self._qpos = self._batch.bind("qpos")
        self._joints = np.array([self.model.joint(n).id for n in robot.joint_names])
        self.columns = self.model.jnt_qposadr[self._joints]
        self._tip_sites = np.array([self.model.site(n).id for n in robot.fingertip_sites])
        self.num_tips = len(self._tip_sites)
        self.tip_radius = self._tip_radius()
        self._bodies, self._local, self.radius = self._link_points()
        self.point_radius = np.concatenate([np.full(self.num_tips, self.tip_radius), self.radius])
        slides = self.model.jnt_type[self._joints] == mujoco.mjtJoint.mjJNT_SLIDE
        bodies = [*self.model.site_bodyid[self._tip_sites], *self._bodies]
        self._moves = np.array([self._ancestors(int(b)) for b in bodies])
        self._slides = slides

    @property
    def num_joints(self) -> int:
        return len(self._joints)

    def points(self, joints: FloatArray) -> Points:
        """Fingertips then link points of joints (B, J), B being the batch's size."""
        self._qpos[...] = 0.0
        self._qpos[:, self.columns] = joints
        self._batch.forward(stage=int(mujoco.mjtStage.mjSTAGE_POS))
        links = self._xpos[:, self._bodies] + np.einsum(
            "bpik,pk->bpi", self._xmat[:, self._bodies].reshape(self.size, -1, 3, 3), self._local
        )
        position = np.concatenate([self._site_xpos[:, self._tip_sites], links], axis=1)
        return Points(
            position,
            np.array(self._xanchor[:, self._joints]),
            np.array(self._xaxis[:, self._joints]),
            self._moves,
            self._slides,
        )

    def _ancestors(self, body: int) -> list[float]:
        found: set[int] = set()
        while body:
            adr, count = self.model.body_jntadr[body], self.model.body_jntnum[body]
            found.update(range(adr, adr + count))
            body = int(self.model.body_parentid[body])
        return [float(j in found) for j in self._joints]

    def _tip_radius(self) -> float:
        bodies = self.model.site_bodyid[self._tip_sites]
        radii = [
            self.model.geom_size[g, 0]
            for g in range(self.model.ngeom)
            if self.model.geom_bodyid[g] in bodies and self.model.geom_contype[g]
        ]
        return float(max(radii))

    def _link_points(self) -> tuple[NDArray[np.int64], FloatArray, FloatArray]:
        """Bodies (P,), local positions (P, 3) and radii (P,) of points in colliding capsules and boxes."""
        bodies, local, radius = [], [], []
        for g in range(self.model.ngeom):
            if not self.model.geom_contype[g]:
                continue
            size = self.model.geom_size[g]
            if self.model.geom_type[g] == mujoco.mjtGeom.mjGEOM_CAPSULE:
                offsets = [np.array([0, 0, s * size[1]]) for s in _ALONG_CAPSULE]
                thick = float(size[0])
            elif self.model.geom_type[g] == mujoco.mjtGeom.mjGEOM_BOX:
                thick = float(min(size))
                offsets = [
                    np.array([a, b, c]) * (size - thick) / 0.8
                    for a in _ACROSS_BOX
                    for b in _ACROSS_BOX
                    for c in _ACROSS_BOX
                ]
                offsets = [np.array(o) for o in {tuple(o) for o in offsets}]
                offsets.sort(key=tuple)
            else:
                continue
            rotation = np.zeros(9)
            mujoco.mju_quat2Mat(rotation, self.model.geom_quat[g])
            for offset in offsets:
                bodies.append(int(self.model.geom_bodyid[g]))
                local.append(self.model.geom_pos[g] + rotation.reshape(3, 3) @ offset)
                radius.append(thick)
        return np.array(bodies), np.array(local), np.array(radius)
