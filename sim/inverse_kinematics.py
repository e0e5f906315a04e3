"""Inverse kinematics of a serial arm in torch: batched, a fixed number of small operations, exportable."""

from __future__ import annotations

import mujoco
import numpy as np
import torch

from robolearn.errors import RobolearnError
from sim.robots import Robot

DAMPING = 0.005
"""Damping λ of the least squares, in the unit of the Jacobian's singular values."""
ARM_LENGTH = 0.4
"""m: a rotation of 1 rad counts as much as this distance."""
LONGEST = 0.2
"""m, and with `ARM_LENGTH` rad: errors are taken in pieces no longer than this, where the slope still tells the way."""
REST_GAIN = 0.5
"""Share of the way to the rest pose that one iteration goes where the tool's pose leaves freedom."""


class ArmError(RobolearnError):
    """A robot whose tool is not carried by a chain of hinges."""


class ArmKinematics:
    """Pose and Jacobian of an arm's tool, and joints that put it somewhere.

    Poses follow from the product of exponentials, T = exp(S₁q₁) … exp(Sₙqₙ) T(0) (Murray, Li & Sastry 1994, eq. 3.1),
    so that a model's zero pose says all.

    Args:
        robot: an arm with `tool_site`, whose arm joints are hinges.
        device: where the joint positions will be.

    Attributes:
        joint_names: the arm's A joints, in the order of the joint positions taken and given.
        lower, upper: (A,) limits, rad.
        rest: (A,) rad, the pose preferred among those that put the tool in one place: the home pose.

    Raises:
        ArmError: the robot has no tool, or an arm joint is no hinge.
    """

    def __init__(self, robot: Robot, device: torch.device | str = "cpu") -> None:
        if not robot.tool_site:
            raise ArmError(f"{robot.name} is no arm: it has no tool")
        self.joint_names = tuple(n for n in robot.joint_names if n not in robot.gripper_joints)
        model = robot.spec().compile()
        data = mujoco.MjData(model)
        data.qpos[:] = 0.0
        mujoco.mj_kinematics(model, data)
        joints = [model.joint(name).id for name in self.joint_names]
        if any(model.jnt_type[j] != mujoco.mjtJoint.mjJNT_HINGE for j in joints):
            raise ArmError(f"{robot.name}: not every arm joint is a hinge: {', '.join(self.joint_names)}")

        def tensor(values: np.ndarray) -> torch.Tensor:
            return torch.as_tensor(np.array(values), dtype=torch.float32, device=device)

        turn, versine = np.zeros((2, len(joints), 4, 4))
        for k, j in enumerate(joints):
            skew = _skew(data.xaxis[j])
            for matrix, part in ((turn, skew), (versine, skew @ skew)):
                matrix[k, :3, :3], matrix[k, :3, 3] = part, -part @ data.xanchor[j]
        self._turn, self._versine = tensor(turn), tensor(versine)
        site = data.site(robot.tool_site)
        self._zero = torch.eye(4, device=device)
        self._zero[:3] = tensor(np.column_stack([site.xmat.reshape(3, 3), site.xpos]))
        self._lines = tensor(np.stack([data.xaxis[joints], data.xanchor[joints]], axis=2))
        self._identity = torch.eye(4, device=device)
        self._unit = torch.eye(6, device=device)
        arm = [robot.joint_names.index(name) for name in self.joint_names]
        self.lower, self.upper, self.rest = (tensor(x[arm]) for x in (robot.lower, robot.upper, robot.home))

    def pose(self, joint_pos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Where the tool is (N, 3) m and how it is turned (N, 3, 3) in the world, for arm joints (N, A) rad."""
        tool = self._moved(joint_pos)[-1] @ self._zero
        return tool[:, :3, 3], tool[:, :3, :3]

    def jacobian(self, joint_pos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Position (N, 3), rotation (N, 3, 3) and Jacobian (N, 6, A) of the tool for arm joints (N, A).

        The Jacobian's rows are linear velocity, m/rad, then angular velocity, rad/rad, both in the world.
        """
        moved = self._moved(joint_pos)
        tool = moved[-1] @ self._zero
        position, rotation = tool[:, :3, 3], tool[:, :3, :3]
        before = torch.stack([self._identity.expand_as(tool), *moved[:-1]], dim=1)
        lines = before[:, :, :3, :3] @ self._lines
        axes = lines[..., 0]
        arms = position[:, None] - lines[..., 1] - before[:, :, :3, 3]
        return position, rotation, torch.cat([torch.linalg.cross(axes, arms), axes], dim=2).mT

    def step(self, joint_pos: torch.Tensor, position: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
        """One damped Gauss-Newton step towards a pose: joints (N, A) → joints (N, A) within the limits.

        With e the pose error and d the way to the rest pose, dq = d + Jᵀ(JJᵀ + λ²I)⁻¹(e - Jd) minimises
        |J dq - e|² + λ²|dq - d|² (damped least squares: Wampler 1986; Nakamura & Hanafusa 1986).

        Args:
            joint_pos: (N, A) rad.
            position: (N, 3) m, where the tool should be.
            rotation: (N, 3, 3) or (3, 3), how it should be turned.
        """
        at, turned, jacobian = self.jacobian(joint_pos)
        # Half the sum of crossed axes is the rotation still to make, to first order.
        twist = 0.5 * torch.linalg.cross(turned, rotation.expand_as(turned), dim=1).sum(dim=2)
        error = torch.cat([position - at, ARM_LENGTH * twist], dim=1)
        error = error * torch.clamp(LONGEST / (error.norm(dim=1, keepdim=True) + 1e-9), max=1.0)
        jacobian = torch.cat([jacobian[:, :3], ARM_LENGTH * jacobian[:, 3:]], dim=1)
        rest = REST_GAIN * (self.rest - joint_pos)
        wanted = error[:, :, None] - jacobian @ rest[:, :, None]
        normal = jacobian @ jacobian.mT + DAMPING**2 * self._unit
        return torch.clamp(joint_pos + rest + (jacobian.mT @ _solve(normal, wanted))[..., 0], self.lower, self.upper)

    def solve(
        self,
        joint_pos: torch.Tensor,
        position: torch.Tensor,
        iterations: int,
        rotation: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Arm joints (N, A) that put the tool at ``position`` (N, 3), by ``iterations`` steps from ``joint_pos``.

        ``rotation`` (N, 3, 3) or (3, 3) is by default that of the rest pose.
        """
        if rotation is None:
            rotation = self.pose(self.rest[None])[1][0]
        for _ in range(iterations):
            joint_pos = self.step(joint_pos, position, rotation)
        return joint_pos

    def _moved(self, joint_pos: torch.Tensor) -> list[torch.Tensor]:
        """exp(S₁q₁) … exp(Sₖqₖ) for k = 1 … A, each (N, 4, 4)."""
        q = joint_pos[:, :, None, None]
        single = torch.addcmul(self._identity + torch.sin(q) * self._turn, 1.0 - torch.cos(q), self._versine)
        products = list(single.unbind(dim=1))
        for k in range(1, len(products)):
            products[k] = products[k - 1] @ products[k]
        return products


def _solve(matrix: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """x (N, n, 1) of ``matrix`` (N, n, n) x = ``right`` (N, n, 1), by Gauss-Jordan elimination.

    The matrix is positive definite, so no pivoting is needed; `torch.linalg.solve` has no ONNX counterpart.
    """
    size = matrix.shape[1]
    system = torch.cat([matrix, right], dim=2)
    unit = torch.eye(size, device=matrix.device)[:, :, None]
    for k in range(size):
        row = system[:, k : k + 1] / system[:, k : k + 1, k : k + 1]
        system = system - (system[:, :, k : k + 1] - unit[k]) * row
    return system[:, :, size:]


def _skew(axis: np.ndarray) -> np.ndarray:
    x, y, z = axis
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
