"""From 21 human hand keypoints to the joints of a robot hand.

A clip is one least-squares problem over the palm pose and the finger joints of every frame:

    Σ_t Σ_i w_ti ‖(x_a − x_b)(t) − target_ti‖² + Σ_t ‖acceleration(t) / σ‖²,   lower ≤ joints ≤ upper

where x are the robot's keypoints by forward kinematics. Three kinds of rows: fingertips in place, bones in
the direction of the human's (with the robot's lengths, so that hands of other proportions agree), and
thumb-to-finger vectors that keep a pinch a pinch (the idea of DexPilot, arXiv 1910.03135).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial.transform import Rotation

from robolearn.errors import RobolearnError, unknown
from sim.references.check import missing_frames
from sim.references.fit import KNUCKLES, THUMB_TIP, TIPS, WRIST, HandFit, RetargetConfig
from sim.references.format import KEYPOINT_NAMES, Reference
from sim.references.kinematics import HandKinematics
from sim.references.repair import continuous
from sim.robots import Robot


class RetargetError(RobolearnError):
    """A clip or a robot that cannot be retargeted."""


@dataclass(frozen=True)
class Residual:
    """How well a clip was retargeted; ``str()`` is one line."""

    mean_mm: float
    """mean distance of the fingertips from their targets"""
    max_mm: float
    """largest distance of a fingertip from its target"""
    worst_frame: int
    """frame of the largest distance"""
    finger_mm: dict[str, float]
    """mean distance by fingertip"""
    pinch_mm: float
    """mean difference of human and robot thumb-to-finger distance while closed; 0: never closed"""
    scale: float
    """size of the robot hand by size of the human hand"""
    at_limit: float
    """share of finger joint values on a limit"""
    iterations: int
    """Gauss-Newton steps over the whole clip"""
    seconds: float
    """time taken"""

    def __str__(self) -> str:
        return (
            f"fingertips {self.mean_mm:.1f} mm mean, {self.max_mm:.1f} mm max (frame {self.worst_frame}); "
            f"pinch {self.pinch_mm:.1f} mm; scale {self.scale:.2f}; "
            f"{100 * self.at_limit:.0f}% of joint values at a limit; {self.seconds:.1f} s"
        )


def retarget(reference: Reference, robot: Robot, config: RetargetConfig | None = None) -> tuple[Reference, Residual]:
    """Return the clip with finger joints and palm pose of ``robot``, and how well they fit.

    The keypoints stay in the result beside the joints. Keypoints that the robot does not mark (the little
    finger of a hand with four) are not used.

    Raises:
        RetargetError: the clip has no keypoints or missing frames (repair it first) or is of the other side,
            or the robot marks too few keypoints.
    """
    config = config or RetargetConfig()
    human = _need(reference, robot, config)
    start = time.perf_counter()
    palm = None
    if config.wrist == "given":
        rotation = Rotation.from_quat(reference.wrist_pose[:, 3:], scalar_first=True).as_matrix()
        palm = (reference.wrist_pose[:, :3], rotation)
    fit = HandFit(HandKinematics(robot), human, palm, reference.rate_hz, config)
    steps = fit.solve()
    residual = _residual(fit, steps, time.perf_counter() - start)
    quaternion = continuous(Rotation.from_matrix(fit.rotation).as_quat(scalar_first=True))
    moved = replace(
        reference,
        robot=robot.name,
        wrist_pose=np.concatenate([fit.position, quaternion], axis=1),
        joint_names=robot.finger_joints,
        joint_pos=fit.joints,
    )
    return moved, residual


def _residual(fit: HandFit, steps: int, seconds: float) -> Residual:
    points = fit.points()
    error = 1000 * fit.tip_errors(points)
    pinch = [np.zeros(0)]
    for tip, close in fit.close.items():
        robot = np.linalg.norm(points[:, fit.column[tip]] - points[:, fit.column[THUMB_TIP]], axis=1)
        human = np.linalg.norm(fit.human[:, tip] - fit.human[:, THUMB_TIP], axis=1)
        pinch.append(1000 * np.abs(robot - human)[close > 0.99])
    together = np.concatenate(pinch)
    limit = (fit.joints <= fit.hand.lower) | (fit.joints >= fit.hand.upper)
    return Residual(
        mean_mm=float(error.mean()),
        max_mm=float(error.max()),
        worst_frame=int(error.max(axis=1).argmax()),
        finger_mm={KEYPOINT_NAMES[tip]: float(error[:, i].mean()) for i, tip in enumerate(fit.tips)},
        pinch_mm=float(together.mean()) if len(together) else 0.0,
        scale=fit.scale,
        at_limit=float(limit.mean()),
        iterations=steps,
        seconds=seconds,
    )


def _need(reference: Reference, robot: Robot, config: RetargetConfig) -> np.ndarray:
    """The keypoints, if everything that retargeting needs is there."""
    name = f"reference {reference.name!r}"
    if reference.keypoints is None:
        raise RetargetError(f"{name} has no keypoints (T, 21, 3) to retarget")
    if missing_frames(reference).any():
        raise RetargetError(f"{name} has missing frames; repair it first")
    if reference.side != robot.side:
        raise RetargetError(f"{name} is of a {reference.side} hand; robot {robot.name!r} is a {robot.side} hand")
    if config.wrist not in ("fit", "given"):
        raise RetargetError(unknown("wrist mode", config.wrist, ("fit", "given")))
    if config.scale is not None and not config.scale > 0:
        raise RetargetError(f"scale must be positive, got {config.scale:g}")
    marked = set(robot.keypoint_sites.values())
    if not {WRIST, THUMB_TIP} <= marked or len(marked & set(KNUCKLES)) < 2 or not marked & set(TIPS[:-1]):
        raise RetargetError(
            f"robot {robot.name!r} marks the keypoints {sorted(marked)}; retargeting needs the wrist (0), "
            "the thumb tip (4), two knuckles (of 5, 9, 13, 17) and a fingertip (of 8, 12, 16, 20)"
        )
    return reference.keypoints
