"""Where the tool is, and which joint velocities move it: kinematics of a robot's MJCF.

Positions are m in the world frame (z up), rotations quaternions wxyz; joints are rad or m.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from real.errors import RealError
from robolearn.errors import unknown

FloatArray = NDArray[np.float64]

TOOL_SITES = ("tool", "ee", "eef", "tcp", "end_effector", "attachment_site", "grasp_site", "pinch", "gripper")
"""Names that models give to the place between an arm's fingers, most telling first."""
SINGULAR = 0.05
"""Singular values of the Jacobian (rows in m and rad) below this are damped."""
DAMPING = 0.05
"""Damping where a singular value is zero."""
MARGIN = 0.1
"""A joint this near to its limit, as a share of its range, moves towards it more slowly."""
_HINGE, _SLIDE = int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)
_EDGE = 1e-9
"""rad or m: nearer than that, a joint is at its limit."""


class KinematicsError(RealError):
    """A model without the named joints or tool, or joints or a twist that are no finite numbers of the right shape."""


class VelocityLimits(Protocol):
    """What `ToolKinematics.twist_to_velocity` needs of limits; `real.core.limiter.JointLimits` has it."""

    @property
    def lower(self) -> FloatArray:
        """(J,) lower positions, rad or m."""

    @property
    def upper(self) -> FloatArray:
        """(J,) upper positions, rad or m."""

    @property
    def velocity(self) -> FloatArray:
        """(J,) largest speeds, rad/s or m/s."""


class ToolKinematics:
    """Forward and differential kinematics of one tool. Not thread-safe: it computes in a scratch state of its own.

    Attributes:
        joints: their names, in the order of every q.
        tool_site: the site whose frame is the tool's.
        lower, upper: (J,) limits of position, rad or m; infinite where there is none.
        velocity: (J,) largest speeds (a joint's first ``user`` value), rad/s or m/s; infinite where none is stated.
        hinge: (J,) whether a joint turns rather than slides.
        moves_tool: (J,) whether a joint moves the tool.
    """

    def __init__(self, mjcf: str, joints: Sequence[str], tool_site: str | None = None) -> None:
        """Compile a model.

        Args:
            mjcf: the robot's MJCF text, alone in the world.
            joints: names of hinges and slides of it; those that move the tool must be among them.
            tool_site: None: the model's only site, or the one with a usual name (`TOOL_SITES`).

        Raises:
            KinematicsError: text that is no MJCF, unknown joints or site, or a tool that other joints move too.
        """
        try:
            self._model = mujoco.MjModel.from_xml_string(mjcf)
        except ValueError as error:
            raise KinematicsError(f"the robot's MJCF cannot be compiled: {error}") from error
        self._data = mujoco.MjData(self._model)
        self.joints = tuple(joints)
        ids = self._joint_ids()
        self._qpos, self._dof = self._model.jnt_qposadr[ids], self._model.jnt_dofadr[ids]
        limited = self._model.jnt_limited[ids].astype(bool)
        self.lower = _frozen(np.where(limited, self._model.jnt_range[ids, 0], -np.inf))
        self.upper = _frozen(np.where(limited, self._model.jnt_range[ids, 1], np.inf))
        speed = self._model.jnt_user[ids, 0] if self._model.nuser_jnt else np.zeros(len(ids))
        self.velocity = _frozen(np.where(speed > 0, speed, np.inf))
        self.hinge = self._model.jnt_type[ids] == _HINGE
        self.tool_site = self._find_tool(tool_site)
        self._site = self._model.site(self.tool_site).id
        self.moves_tool = self._find_movers(ids)

    def pose(self, q: ArrayLike) -> FloatArray:
        """The tool's pose (7,), m + wxyz (w >= 0) in the world frame, at joint positions (J,)."""
        self._place(q)
        quat = np.empty(4)
        mujoco.mju_mat2Quat(quat, self._data.site_xmat[self._site])
        return np.concatenate([self._data.site_xpos[self._site], -quat if quat[0] < 0 else quat])

    def position(self, q: ArrayLike) -> FloatArray:
        """The tool's position (3,), m in the world frame, at joint positions (J,)."""
        self._place(q)
        return self._data.site_xpos[self._site].copy()

    def jacobian(self, q: ArrayLike) -> FloatArray:
        """(6, J): the tool's velocity, m/s then rad/s in the world frame, for each joint's unit velocity."""
        self._place(q)
        mujoco.mj_comPos(self._model, self._data)
        full = np.zeros((6, self._model.nv))
        mujoco.mj_jacSite(self._model, self._data, full[:3], full[3:], self._site)
        return full[:, self._dof]

    def twist_to_velocity(self, q: ArrayLike, twist: ArrayLike, limits: VelocityLimits | None = None) -> FloatArray:
        """Joint velocities (J,) that move the tool with a twist, as well as the arm can.

        Least squares, exact where the Jacobian is well conditioned, with each singular value below `SINGULAR` damped
        (Maciejewski and Klein 1988), so that the speed stays bounded at a singularity. A joint that heads for a limit
        nearby is weighted down in the solution, and does not move at the limit (after Chan and Dubey 1995). Where a
        joint would be too fast, all are slowed by one factor, which keeps the tool's direction.

        Args:
            q: (J,) where the joints are, rad or m.
            twist: (6,) m/s then rad/s of the tool, in the world frame.
            limits: positions and speeds; None: the model's.

        Raises:
            KinematicsError: a wrong shape or a number that is not finite.
        """
        wanted = _vector("twist", twist, 6)
        jacobian = self.jacobian(q)
        q = np.asarray(q, dtype=np.float64)
        bounds = limits if limits is not None else self
        size = max(1.0, float(np.abs(wanted).max()))
        wanted = wanted / size  # the solution is linear in it; so no twist, however large, overflows
        weights = np.ones(len(self.joints))
        velocity = _damped(jacobian, weights, wanted)
        for _ in range(2 * len(self.joints) + 1):  # a joint's weight falls at most twice: once for each direction
            slower = np.minimum(weights, _room(q, velocity, bounds))
            if np.array_equal(slower, weights):
                break
            weights = slower
            velocity = _damped(jacobian, weights, wanted)
        share = float(np.max(np.abs(velocity) / bounds.velocity, initial=0.0))
        return velocity * (min(size, 1.0 / share) if share > 0.0 else size)

    def _place(self, q: ArrayLike) -> None:
        self._data.qpos[self._qpos] = _vector("joint positions", q, len(self.joints))
        mujoco.mj_kinematics(self._model, self._data)

    def _joint_ids(self) -> list[int]:
        names = [self._model.joint(j).name for j in range(self._model.njnt)]
        for i, name in enumerate(self.joints):
            if name not in names:
                raise KinematicsError(unknown("joint", name, names))
            if name in self.joints[:i]:
                raise KinematicsError(f"joint {name!r} is named twice")
            if self._model.jnt_type[names.index(name)] not in (_HINGE, _SLIDE):
                raise KinematicsError(f"joint {name!r} is neither a hinge nor a slide")
        return [names.index(name) for name in self.joints]

    def _find_tool(self, name: str | None) -> str:
        sites = [self._model.site(s).name for s in range(self._model.nsite)]
        named = [site for site in sites if site]
        if name is not None:
            if name not in named:
                raise KinematicsError(unknown("site", name, named))
            return name
        if len(named) == 1:
            return named[0]
        for usual in TOOL_SITES:
            if usual in named:
                return usual
        raise KinematicsError(f"which site is the tool? name one as tool_site; sites: {', '.join(named) or 'none'}")

    def _find_movers(self, ids: list[int]) -> NDArray[np.bool_]:
        bodies, body = {0}, int(self._model.site_bodyid[self._site])
        while body:
            bodies.add(body)
            body = int(self._model.body_parentid[body])
        movers = {j for j in range(self._model.njnt) if int(self._model.jnt_bodyid[j]) in bodies}
        others = sorted(movers - set(ids))
        if others:
            names = ", ".join(repr(self._model.joint(j).name) for j in others)
            raise KinematicsError(f"the tool {self.tool_site!r} is also moved by {names}, not among the joints given")
        return np.array([j in movers for j in ids])


def _damped(jacobian: FloatArray, weights: FloatArray, twist: FloatArray) -> FloatArray:
    """The weighted least-squares velocity, its small singular values damped."""
    root = np.sqrt(weights)
    u, sigma, vt = np.linalg.svd(jacobian * root, full_matrices=False)
    damping = DAMPING**2 * np.clip(1.0 - (sigma / SINGULAR) ** 2, 0.0, 1.0)
    gain = sigma / np.maximum(sigma**2 + damping, np.finfo(np.float64).tiny)
    return root * (vt.T @ (gain * (u.T @ twist)))


def _room(q: FloatArray, velocity: FloatArray, limits: VelocityLimits) -> FloatArray:
    """(J,) 1 where a joint may move as it is about to, less near the limit it heads for, 0 at it."""
    ahead = np.where(velocity > 0, limits.upper - q, q - limits.lower)
    margin = MARGIN * (limits.upper - limits.lower)
    margin = np.where(np.isfinite(margin) & (margin > 0), margin, 1.0)
    share = np.where(ahead > _EDGE, np.clip(ahead / margin, 0.0, 1.0), 0.0)
    return np.where(velocity == 0.0, 1.0, share)


def _vector(what: str, values: ArrayLike, size: int) -> FloatArray:
    vector = np.asarray(values, dtype=np.float64)
    if vector.shape != (size,):
        raise KinematicsError(f"{what}: shape {vector.shape} given, ({size},) expected")
    if not np.isfinite(vector).all():
        index = int(np.argmin(np.isfinite(vector)))
        raise KinematicsError(f"{what}: element {index} is {vector[index]}, not a finite number")
    return vector


def _frozen(values: FloatArray) -> FloatArray:
    values = np.array(values, dtype=np.float64)
    values.setflags(write=False)
    return values
