"""The least-squares problem behind ``retarget``: its rows, and Gauss-Newton steps over all frames of a clip.

Every row is linear in the keypoints, so Gauss-Newton with analytic Jacobians converges in a few steps; frames
couple to their neighbours only, so a step is one elimination along the clip. Limits are kept by projection
with an active set (Bertsekas, SIAM J. Control Optim. 20(2), 1982).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from sim.references.kinematics import HandKinematics

WRIST, THUMB_TIP = 0, 4
TIPS = (8, 12, 16, 20, THUMB_TIP)
KNUCKLES = (5, 9, 13, 17)
_CHAINS = (range(1, 5), range(5, 9), range(9, 13), range(13, 17), range(17, 21))
_SECOND_DIFFERENCE = (1.0, -2.0, 1.0)
_REST = 0.01  # 1/rad², pull towards the home pose: decides only what the keypoints leave open

_State = tuple[np.ndarray, np.ndarray, np.ndarray]
"""palm position (T, 3), palm rotation (T, 3, 3), finger joints (T, J)"""


@dataclass(frozen=True)
class RetargetConfig:
    """How strictly each wish is held: a σ is the deviation that costs one unit."""

    wrist: str = "fit"
    """``"fit"`` finds the palm pose with the fingers; ``"given"`` keeps the clip's ``wrist_pose``"""
    scale: float | None = None
    """size of the robot hand by size of the human hand; None measures it from the bones"""
    contact: bool = True
    """keep thumb-to-finger vectors at human size while fingers close: grasps of real objects stay grasps"""
    near: float = 0.06
    """m, human thumb-to-finger distance below which the vector is kept as it is …"""
    far: float = 0.12
    """… and above which it is scaled with the hand"""
    tip_sigma: float = 0.003
    """m, fingertip positions"""
    bone_sigma: float = 0.01
    """m, vectors along bones"""
    pinch_sigma: float = 0.002
    """m, thumb-to-finger vectors while closed"""
    finger_acceleration: float = 40.0
    """rad/s², σ of the finger joints"""
    wrist_acceleration: float = 8.0
    """m/s², σ of the palm"""
    wrist_rotation_acceleration: float = 30.0
    """rad/s², σ of the palm"""
    iterations: int = 30
    """largest number of Gauss-Newton steps over the whole clip"""


class HandFit:
    """Fit of a hand to T frames of human keypoints; a frame has n unknowns: palm (6 or none), then J joints.

    Args:
        hand: the robot's kinematics.
        human: (T, 21, 3) keypoints in the world, m.
        palm: (T, 3) position and (T, 3, 3) rotation of the palm to keep, or None to fit it.
        rate_hz: frames per second.
    """

    def __init__(
        self,
        hand: HandKinematics,
        human: np.ndarray,
        palm: tuple[np.ndarray, np.ndarray] | None,
        rate_hz: float,
        config: RetargetConfig,
    ) -> None:
        self.hand, self.human, self.config = hand, human, config
        self.frames = len(human)
        self.column = {int(keypoint): k for k, keypoint in enumerate(hand.keypoints)}
        self.tips = [tip for tip in TIPS if tip in self.column]
        self.joints = np.tile(hand.home, (self.frames, 1))
        self._measure_bones()
        self.free = 6 if palm is None else 0
        position, rotation = self._align() if palm is None else palm
        self.position: np.ndarray = position.copy()
        self.rotation: np.ndarray = rotation.copy()
        self.close = self._closeness()
        self._make_rows()
        finger = np.full(len(hand.home), config.finger_acceleration)
        wrist = np.repeat([config.wrist_acceleration, config.wrist_rotation_acceleration], 3)
        self.stiffness = (rate_hz**2 / np.concatenate([wrist[: self.free], finger])) ** 2

    def solve(self) -> int:
        """Fit each frame from the one before, then all frames together; return the number of joint steps."""
        for t in range(self.frames):
            if t > 0:
                self.joints[t] = self.joints[t - 1]
            self._descend(slice(t, t + 1), 20 if t == 0 else 3)
        return self._descend(slice(0, self.frames), self.config.iterations)

    def points(self) -> np.ndarray:
        """Keypoints (T, K, 3) of the robot in the world at the present state, in the order of ``column``."""
        local, _ = self.hand.forward(self.joints)
        return np.einsum("tij,tkj->tki", self.rotation, local) + self.position[:, None]

    def tip_errors(self, points: np.ndarray) -> np.ndarray:
        """Distance (T, tips), m, of the fingertips in ``points`` from their targets, ordered as ``tips``."""
        count = len(self.tips)
        points = np.concatenate([points, np.zeros((self.frames, 1, 3))], axis=1)
        where = points[:, self.first[:count]] - points[:, self.second[:count]]
        return np.linalg.norm(where - self.target[:, :count], axis=2)

    def _measure_bones(self) -> None:
        """Bones (keypoint, the one before it) → (robot, human) length, m, and the scale between the hands."""
        pairs = []
        for chain in _CHAINS:
            marked = [k for k in (WRIST, *chain) if k in self.column]
            pairs += [(b, a) for a, b in zip(marked, marked[1:], strict=False)]
        knuckles = [k for k in KNUCKLES if k in self.column]
        pairs.append((knuckles[-1], knuckles[0]))
        poses = np.random.default_rng(0).uniform(self.hand.lower, self.hand.upper, (32, len(self.hand.home)))
        probes, _ = self.hand.forward(poses)
        self.bones = {}
        for a, b in pairs:
            robot = np.linalg.norm(probes[:, self.column[a]] - probes[:, self.column[b]], axis=1)
            human = np.linalg.norm(self.human[:, a] - self.human[:, b], axis=1)
            if robot.std() < 0.02 * robot.mean():  # else a joint lies between: not a bone
                self.bones[a, b] = float(robot.mean()), float(np.median(human))
        robot_sum, human_sum = np.sum(list(self.bones.values()), axis=0)
        self.scale = self.config.scale or float(robot_sum / human_sum)

    def _align(self) -> tuple[np.ndarray, np.ndarray]:
        """Palm position and rotation that lay the robot's palm on the human's in every frame (Kabsch)."""
        marks = [k for k in (WRIST, *KNUCKLES) if k in self.column]
        robot = self.hand.forward(self.joints[:1])[0][0][[self.column[k] for k in marks]]
        human = self.human[:, marks]
        middle = human.mean(axis=1)
        u, _, vt = np.linalg.svd(np.einsum("tki,kj->tij", human - middle[:, None], robot - robot.mean(axis=0)))
        u[:, :, 2] *= np.linalg.det(u @ vt)[:, None]
        rotation = u @ vt
        return middle - rotation @ robot.mean(axis=0), rotation

    def _closeness(self) -> dict[int, np.ndarray]:
        """(T,) by finger: 1 while its human tip is near the thumb's, 0 while far, smooth between."""
        if THUMB_TIP not in self.tips:
            return {}
        close = {}
        for tip in self.tips[:-1]:
            distance = np.linalg.norm(self.human[:, tip] - self.human[:, THUMB_TIP], axis=1)
            u = np.clip((self.config.far - distance) / (self.config.far - self.config.near), 0, 1)
            close[tip] = u * u * (3 - 2 * u) if self.config.contact else 0 * u
        return close

    def _make_rows(self) -> None:
        """Rows x_first − x_second = target, fingertips first; a second of −1 is the origin of the world."""
        config, human, column = self.config, self.human, self.column
        open_hand = np.zeros(self.frames)
        close = {tip: self.close.get(tip, open_hand) for tip in self.tips}
        close[THUMB_TIP] = np.max([open_hand, *self.close.values()], axis=0)
        factor = {tip: (self.scale + close[tip] * (1 - self.scale))[:, None] for tip in self.tips}
        others = human[:, [tip for tip in self.tips if tip != THUMB_TIP]].mean(axis=1)
        centre = 0.5 * (others + human[:, THUMB_TIP])

        rows: list[tuple[int, int, np.ndarray, np.ndarray]] = []
        for tip in self.tips:
            if self.free:  # the centre of the grasp stays in place; a larger hand moves its palm back
                target = centre + factor[tip] * (human[:, tip] - centre)
                rows.append((column[tip], -1, target, np.full(self.frames, config.tip_sigma**-2)))
            else:  # a closing finger follows the thumb instead of its place in the palm
                target = self.scale * (human[:, tip] - human[:, WRIST])
                rows.append((column[tip], column[WRIST], target, (1 - 0.9 * close[tip]) * config.tip_sigma**-2))
        for tip, weight in self.close.items():
            target = factor[tip] * (human[:, tip] - human[:, THUMB_TIP])
            rows.append((column[tip], column[THUMB_TIP], target, weight * config.pinch_sigma**-2))
        for (a, b), (robot_length, human_length) in self.bones.items():
            ratio = robot_length / human_length
            if 0.5 < ratio / self.scale < 2.0:  # else another anatomy: the direction says nothing
                target = ratio * (human[:, a] - human[:, b])
                rows.append((column[a], column[b], target, np.full(self.frames, config.bone_sigma**-2)))
        self.first = np.array([row[0] for row in rows])
        self.second = np.array([row[1] for row in rows])
        self.target = np.stack([row[2] for row in rows], axis=1)
        self.weight = np.stack([row[3] for row in rows], axis=1)

    def _descend(self, part: slice, iterations: int) -> int:
        """Levenberg-Marquardt on some frames; returns the number of steps."""
        state = (self.position[part], self.rotation[part], self.joints[part])
        cost, gradient, hessian = self._expand(state, part)
        damping, steps = 1e-6, 0
        while steps < iterations and damping < 1e6:
            steps += 1
            trial = self._moved(state, self._step(gradient, hessian, self._held(gradient, state[2]), damping))
            expansion = self._expand(trial, part)
            if expansion[0] >= cost:
                damping *= 30
                continue
            gain = cost - expansion[0]
            state, (cost, gradient, hessian) = trial, expansion
            damping = max(damping / 10, 1e-9)
            if gain < 1e-6 * cost:
                break
        self.position[part], self.rotation[part], self.joints[part] = state
        return steps

    def _moved(self, state: _State, step: np.ndarray) -> _State:
        position, rotation, joints = state
        if self.free:
            position = position + step[:, :3]
            rotation = Rotation.from_rotvec(step[:, 3:6]).as_matrix() @ rotation
        return position, rotation, np.clip(joints + step[:, self.free :], self.hand.lower, self.hand.upper)

    def _held(self, gradient: np.ndarray, joints: np.ndarray) -> np.ndarray:
        """(T, n) bool: joints on a limit that the gradient pushes further out."""
        slope = gradient[:, self.free :]
        held = np.zeros_like(gradient, dtype=bool)
        held[:, self.free :] |= (joints <= self.hand.lower) & (slope > 0)
        held[:, self.free :] |= (joints >= self.hand.upper) & (slope < 0)
        return held

    def _expand(self, state: _State, part: slice) -> tuple[float, np.ndarray, np.ndarray]:
        """Half the cost, its gradient (T, n), and the blocks (T, n, n) on the diagonal of the Hessian."""
        position, rotation, joints = state
        frames, free = len(joints), self.free
        local, jacobian = self.hand.forward(joints)
        turned = np.einsum("tij,tkj->tki", rotation, local)
        points = np.zeros((frames, turned.shape[1] + 1, 3))  # the last one is the origin of the world
        points[:, :-1] = turned + position[:, None]
        full = np.zeros((*points.shape, free + joints.shape[1]))
        full[:, :-1, :, free:] = rotation[:, None] @ jacobian
        if free:
            full[:, :-1, :, :3] = np.eye(3)
            full[:, :-1, :, 3:6] = _cross_matrix(-turned)
        error = points[:, self.first] - points[:, self.second] - self.target[part]
        weight = np.repeat(self.weight[part], 3, axis=1)
        rows = (full[:, self.first] - full[:, self.second]).reshape(frames, -1, full.shape[-1])
        weighted = rows * weight[:, :, None]
        error = error.reshape(frames, -1)
        cost = float((weight * error**2).sum())
        gradient = np.einsum("trn,tr->tn", weighted, error)
        hessian = rows.transpose(0, 2, 1) @ weighted

        diagonal = np.einsum("tnn->tn", hessian)  # a view
        away = joints - self.hand.home
        cost += _REST * float((away**2).sum())
        gradient[:, free:] += _REST * away
        diagonal[:, free:] += _REST
        if frames > 2:
            acceleration = np.diff(joints, 2, axis=0)
            if free:
                turn = Rotation.from_matrix(rotation[1:] @ rotation[:-1].transpose(0, 2, 1)).as_rotvec()
                wrist = [np.diff(position, 2, axis=0), np.diff(turn, axis=0)]
                acceleration = np.concatenate([*wrist, acceleration], axis=1)
            force = self.stiffness * acceleration
            cost += float((force * acceleration).sum())
            for offset, coefficient in enumerate(_SECOND_DIFFERENCE):
                gradient[offset : frames - 2 + offset] += coefficient * force
                diagonal[offset : frames - 2 + offset] += coefficient**2 * self.stiffness
        return 0.5 * cost, gradient, hessian

    def _step(self, gradient: np.ndarray, hessian: np.ndarray, held: np.ndarray, damping: float) -> np.ndarray:
        """Solve (H + damping · diag H) step = −gradient over all frames, the held unknowns left in place."""
        frames, n = gradient.shape
        free = ~held
        descent = -gradient * free
        blocks = hessian * (free[:, :, None] & free[:, None, :])
        diagonal = np.einsum("tnn->tn", blocks)  # a view
        diagonal[:] = np.where(free, (1 + damping) * diagonal, 1.0)
        if frames < 3:  # no acceleration, nothing couples the frames
            return np.linalg.solve(blocks, descent[..., None])[..., 0]
        near = np.zeros((frames, n))  # t with t + 1: an acceleration couples its middle to both sides by −2 …
        near[: frames - 2] -= 2
        near[1 : frames - 1] -= 2
        near[:-1] *= self.stiffness * (free[1:] & free[:-1])
        far = np.zeros((frames, n))  # t with t + 2: … and the sides to each other by 1
        far[:-2] = self.stiffness * (free[2:] & free[:-2])
        return _solve_pentadiagonal(blocks, near, far, descent)


def _solve_pentadiagonal(blocks: np.ndarray, near: np.ndarray, far: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solve a symmetric system of T frames with n unknowns by block elimination over pairs of frames.

    Args:
        blocks: (T, n, n) on the diagonal.
        near, far: (T, n) diagonals of the blocks that couple t with t + 1 and t with t + 2.
        right: (T, n).

    LAPACK's banded solver does the same, but its threads stall on a machine whose cores are busy.
    """
    frames, n = right.shape
    if frames % 2:
        blocks = np.concatenate([blocks, np.eye(n)[None]])
        near, far, right = (np.concatenate([part, np.zeros((1, n))]) for part in (near, far, right))
    eye = np.eye(n)
    inside, after = near[0::2, :, None] * eye, near[1::2, :, None] * eye
    main = np.block([[blocks[0::2], inside], [inside, blocks[1::2]]])
    next_pair = np.block([[far[0::2, :, None] * eye, 0 * after], [after, far[1::2, :, None] * eye]])
    values = right.reshape(-1, 2 * n, 1).copy()
    ratio = np.zeros_like(main)
    for p in range(len(main)):
        if p > 0:
            main[p] -= next_pair[p - 1].T @ ratio[p - 1]
            values[p] -= next_pair[p - 1].T @ values[p - 1]
        solved = np.linalg.solve(main[p], np.concatenate([next_pair[p], values[p]], axis=1))
        ratio[p], values[p] = solved[:, :-1], solved[:, -1:]
    for p in reversed(range(len(main) - 1)):
        values[p] -= ratio[p] @ values[p + 1]
    return values.reshape(-1, n)[:frames]


def _cross_matrix(vectors: np.ndarray) -> np.ndarray:
    """(…, 3) → (…, 3, 3) with [v]× u = v × u."""
    matrix = np.zeros((*vectors.shape, 3))
    x, y, z = np.moveaxis(vectors, -1, 0)
    matrix[..., 0, 1], matrix[..., 0, 2] = -z, y
    matrix[..., 1, 0], matrix[..., 1, 2] = z, -x
    matrix[..., 2, 0], matrix[..., 2, 1] = -y, x
    return matrix
