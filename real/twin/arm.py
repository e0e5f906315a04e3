"""The arm, the table and what lies on it: MuJoCo with other dynamics than training's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np

from sim.physics import quiet_mujoco
from sim.robots import Robot
from sim.tasks.arm_scene import FINGERS, PADS
from sim.tasks.arm_things import FIRST, SECOND

THINGS = (FIRST, SECOND)
MAX_SPEED = 100.0
"""rad/s or m/s above which the physics cannot be trusted."""
_TOUCHING = -0.002
"""m of overlap from which a thing is put into the robot instead of beside it."""


@dataclass(frozen=True, eq=False)
class Joints:
    """What encoders show of every joint of the robot, in `Arm.joint_names`: rad or m, rad/s or m/s, Nm or N."""

    position: np.ndarray
    velocity: np.ndarray
    effort: np.ndarray


class Arm:
    """The physics of one scene.

    Args:
        robot: the arm, with a gripper whose second finger follows the first.
        model: the scene, compiled.
        position: (J,) of the actuated joints at first.

    Attributes:
        joint_names: the robot's joints, fingers included, sorted by name as the driver tells them.
        steps: physics steps so far.
        failures: how often the physics had to be put back because its numbers could not be trusted.
    """

    def __init__(self, robot: Robot, model: mujoco.MjModel, position: np.ndarray) -> None:
        quiet_mujoco()
        self._robot = robot
        self.joint_names = tuple(sorted({*robot.joint_names, *FINGERS}))
        self.steps = 0
        self.failures = 0
        self._arm = _addresses(model, robot.joint_names, "qposadr")
        self._measured = _addresses(model, self.joint_names, "qposadr")
        self._speeds = _addresses(model, self.joint_names, "dofadr")
        self._pads = _addresses(model, [f"{pad}_{axis}" for pad in PADS for axis in "xy"], "qposadr")
        self._things = np.concatenate([np.arange(7) + a for a in _addresses(model, THINGS, "qposadr")])
        self._thing_speeds = np.concatenate([np.arange(6) + a for a in _addresses(model, THINGS, "dofadr")])
        self._robot_qpos = np.setdiff1d(np.arange(model.nq), np.concatenate([self._pads, self._things]))
        self._robot_dofs = np.unique(self._speeds)
        self.model = model
        self.data = mujoco.MjData(model)
        self._place_robot(position)
        mujoco.mj_forward(model, self.data)
        self._good = self.data.qpos.copy()

    @property
    def timestep(self) -> float:
        """s of one physics step."""
        return float(self.model.opt.timestep)

    def step(self, command: np.ndarray) -> None:
        """One physics step towards set points (J,) of the actuated joints; a state that diverges is put back."""
        self.data.ctrl[:] = command
        mujoco.mj_step(self.model, self.data)
        self.steps += 1
        fastest = np.abs(self.data.qvel).max()
        if not fastest < MAX_SPEED:
            self._put_back()
        elif self.steps % 100 == 0:
            self._good[:] = self.data.qpos

    def load(self, model: mujoco.MjModel, qpos: np.ndarray, arm: np.ndarray | None = None) -> bool:
        """Lay out another scene: things and pads where ``qpos`` (nq,) has them, at rest.

        The robot stays as it is, or is put to ``arm`` (J,) at rest. Nothing changes where a thing would be inside the
        robot: then the answer is False.
        """
        data = mujoco.MjData(model)
        data.qpos[:] = qpos
        data.qpos[self._robot_qpos] = self.data.qpos[self._robot_qpos]
        data.qvel[self._robot_dofs] = self.data.qvel[self._robot_dofs]
        data.ctrl[:] = self.data.ctrl
        before = self.model, self.data
        self.model, self.data = model, data
        if arm is not None:
            self._place_robot(arm)
        mujoco.mj_forward(model, data)
        if self._blocked():
            self.model, self.data = before
            return False
        self._good = data.qpos.copy()
        return True

    def joints(self) -> Joints:
        """The true state of the robot's joints."""
        data = self.data
        return Joints(
            data.qpos[self._measured].copy(),
            data.qvel[self._speeds].copy(),
            data.qfrc_actuator[self._speeds].copy(),
        )

    def actuated(self) -> tuple[np.ndarray, np.ndarray]:
        """(J,) positions and velocities of the actuated joints, in the robot's order."""
        places = np.searchsorted(self.joint_names, self._robot.joint_names)
        return self.data.qpos[self._measured[places]], self.data.qvel[self._speeds[places]]

    def objects(self) -> tuple[np.ndarray, np.ndarray]:
        """Poses (2, 7), m + wxyz, and velocities (2, 6) of both objects, as the task's channels have them."""
        return self.data.qpos[self._things].reshape(2, 7), self.data.qvel[self._thing_speeds].reshape(2, 6)

    def pads(self) -> np.ndarray:
        """(2, 2) m, where goal and decoy are on the table."""
        return self.data.qpos[self._pads].reshape(2, 2)

    def _place_robot(self, position: np.ndarray) -> None:
        self.data.qpos[self._arm] = position
        self.data.qpos[_addresses(self.model, FINGERS, "qposadr")] = position[-1]
        self.data.qvel[self._robot_dofs] = 0.0
        self.data.ctrl[:] = position

    def _put_back(self) -> None:
        """To the last state that could be trusted, at rest."""
        self.failures += 1
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:] = self._good
        mujoco.mj_forward(self.model, self.data)

    def _blocked(self) -> bool:
        things = [self.model.body(name).id for name in THINGS]
        owner = self.model.geom_bodyid
        for contact in self.data.contact[: self.data.ncon]:
            pair = {int(owner[contact.geom1]), int(owner[contact.geom2])}
            if contact.dist < _TOUCHING and pair & set(things) and 0 not in pair:
                return True
        return False


def _addresses(model: mujoco.MjModel, names: Sequence[str], field: str) -> np.ndarray:
    """Where joints begin in ``qpos`` or ``qvel``."""
    return np.array([int(getattr(model.joint(name), field)[0]) for name in names])
