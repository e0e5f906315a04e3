"""Where the keypoints of a robot hand are, and how they move with its joints."""

from __future__ import annotations

from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.polynomial.polynomial import polyder, polyval
from scipy.spatial.transform import Rotation

from sim.references.format import KEYPOINT_NAMES, Reference
from sim.robots import Robot


@dataclass(frozen=True)
class Coupling:
    """A joint that follows another, q − q₀ = Σ cₖ (p − p₀)ᵏ: MuJoCo's joint equality, as in tendon-driven fingers."""

    follower: int
    """position of q in qpos (a hinge or slide)"""
    leader: int
    """position of p in qpos"""
    follower_dof: int
    leader_dof: int
    rest: tuple[float, float]
    """q₀, p₀"""
    coefficients: np.ndarray
    """(5,) c, lowest order first"""

    def place(self, leader: np.ndarray) -> np.ndarray:
        """q, rad, at p."""
        return self.rest[0] + polyval(leader - self.rest[1], self.coefficients)

    def slope(self, leader: np.ndarray) -> np.ndarray:
        """dq/dp at p."""
        return polyval(leader - self.rest[1], polyder(self.coefficients))


def couplings(model: mujoco.MjModel) -> list[Coupling]:
    """The joints of a model that follow others; a simulation holds them together, kinematics alone does not."""
    found = []
    for i in np.flatnonzero((model.eq_type == mujoco.mjtEq.mjEQ_JOINT) & (model.eq_obj2id >= 0)):
        follower, leader = model.eq_obj1id[i], model.eq_obj2id[i]
        qpos, dofs = model.jnt_qposadr[[follower, leader]], model.jnt_dofadr[[follower, leader]]
        rest = (float(model.qpos0[qpos[0]]), float(model.qpos0[qpos[1]]))
        (q, p), (q_dof, p_dof) = qpos.tolist(), dofs.tolist()
        found.append(Coupling(q, p, q_dof, p_dof, rest, model.eq_data[i, :5].copy()))
    return found


class HandKinematics:
    """Forward kinematics of a robot's keypoints in its palm frame."""

    def __init__(self, robot: Robot) -> None:
        self.model = robot.spec().compile()
        self.data = mujoco.MjData(self.model)
        self.couplings = couplings(self.model)
        self.sites = [self.model.site(name).id for name in robot.keypoint_sites]
        self.keypoints = np.array(list(robot.keypoint_sites.values()))
        self.palm = self.model.site(robot.palm_site).id
        joints = [self.model.joint(name) for name in robot.finger_joints]
        self.qpos = np.array([joint.qposadr[0] for joint in joints])
        self.dofs = np.array([joint.dofadr[0] for joint in joints])
        index = [robot.joint_names.index(name) for name in robot.finger_joints]
        self.lower, self.upper, self.home = robot.lower[index], robot.upper[index], robot.home[index]

    def forward(self, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (T, K, 3), m, palm frame, and their Jacobian (T, K, 3, J), m/rad, at joints (T, J)."""
        model, data = self.model, self.data
        points = np.empty((len(joints), len(self.sites), 3))
        jacobian = np.empty((len(joints), len(self.sites), 3, len(self.dofs)))
        full = np.empty((len(self.sites), 3, model.nv))
        data.qpos[:] = 0  # a floating palm stays at its origin
        for t, values in enumerate(joints):
            data.qpos[self.qpos] = values
            for pair in self.couplings:
                data.qpos[pair.follower] = pair.place(data.qpos[pair.leader])
            mujoco.mj_kinematics(model, data)
            mujoco.mj_comPos(model, data)
            for k, site in enumerate(self.sites):
                mujoco.mj_jacSite(model, data, full[k], None, site)
            for pair in self.couplings:
                full[:, :, pair.leader_dof] += full[:, :, pair.follower_dof] * pair.slope(data.qpos[pair.leader])
            palm = data.site_xmat[self.palm].reshape(3, 3)
            points[t] = (data.site_xpos[self.sites] - data.site_xpos[self.palm]) @ palm
            jacobian[t] = palm.T @ full[:, :, self.dofs]
        return points, jacobian


def robot_keypoints(reference: Reference, robot: Robot) -> np.ndarray:
    """Keypoints (T, 21, 3), m, world, of a robot's motion by forward kinematics; NaN: not marked."""
    hand = HandKinematics(robot)
    points, _ = hand.forward(reference.joints(robot.finger_joints))
    rotation = Rotation.from_quat(reference.wrist_pose[:, 3:], scalar_first=True).as_matrix()
    keypoints = np.full((reference.num_frames, len(KEYPOINT_NAMES), 3), np.nan)
    keypoints[:, hand.keypoints] = np.einsum("tij,tkj->tki", rotation, points) + reference.wrist_pose[:, None, :3]
    return keypoints
