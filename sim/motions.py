"""A library of reference motions as tensors, and the process that walks worlds through them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from robolearn.contract import Channel
from robolearn.errors import RobolearnError
from sim.references.format import Reference
from sim.robots import Robot
from sim.rotations import quat_conjugate, quat_multiply, quat_to_rotvec
from sim.selection import Selection

POSE = ("x", "y", "z", "qw", "qx", "qy", "qz")
"""Elements of a pose channel."""


class MotionError(RobolearnError):
    """Reference motions that do not fit the task: another robot, another rate, none for an object."""


@dataclass
class MotionLibrary:
    """C clips padded to the longest, at the control rate.

    Attributes:
        joint_pos: (C, T, J) m or rad, in the robot's joint order (wrist joints first on a floating base).
        joint_vel: (C, T, J) central differences.
        object_pose: (C, T, 7) m and wxyz, world.
        object_vel: (C, T, 6): linear m/s in the world frame, angular rad/s in the object's frame, as in a free joint's
            qvel.
        length: (C,) frames in each clip.
        object_names: the object of each clip.
        names: the name of each clip.
    """

    joint_pos: torch.Tensor
    joint_vel: torch.Tensor
    object_pose: torch.Tensor
    object_vel: torch.Tensor
    length: torch.Tensor
    object_names: tuple[str, ...]
    names: tuple[str, ...]

    @classmethod
    def from_references(cls, references: Sequence[Reference], robot: Robot, rate_hz: float) -> MotionLibrary:
        """Stack clips of ``robot``, which must be sampled at ``rate_hz`` (resample them first).

        Raises:
            MotionError: for no clips, a clip of another robot, another rate, without joint positions, or with missing
                frames; ReferenceError for one that lacks a joint.
        """
        if not references:
            raise MotionError("no reference motions were given")
        joints = [_robot_joints(reference, robot, rate_hz) for reference in references]
        length = torch.tensor([len(j) for j in joints])
        longest = int(length.max())
        joint_pos = torch.stack([_pad(j, longest) for j in joints])
        object_pose = torch.stack([_pad(reference.object_pose, longest) for reference in references])
        object_pose[..., 3:] = _continuous(object_pose[..., 3:])
        return cls(
            joint_pos.float(),
            _differences(joint_pos, rate_hz).float(),
            object_pose.float(),
            _twist(object_pose, rate_hz).float(),
            length,
            tuple(reference.object for reference in references),
            tuple(reference.name for reference in references),
        )

    def to(self, device: torch.device | str) -> MotionLibrary:
        """The same clips with their tensors on ``device``."""
        tensors = ("joint_pos", "joint_vel", "object_pose", "object_vel", "length")
        return replace(self, **{name: getattr(self, name).to(device) for name in tensors})

    @property
    def num_clips(self) -> int:
        return len(self.names)

    @property
    def objects(self) -> tuple[str, ...]:
        """Distinct objects, in order of first appearance."""
        return tuple(dict.fromkeys(self.object_names))


def _robot_joints(reference: Reference, robot: Robot, rate_hz: float) -> np.ndarray:
    """(T, J) joint positions of one clip in the robot's order, wrist joints unwrapped over time."""
    if reference.robot != robot.name or reference.side != robot.side:
        raise MotionError(
            f"clip {reference.name!r} is for {reference.side} {reference.robot!r}, "
            f"the task's robot is {robot.side} {robot.name!r}; retarget it first"
        )
    if abs(reference.rate_hz - rate_hz) > 1e-6:
        raise MotionError(f"clip {reference.name!r} is at {reference.rate_hz:g} Hz, the task runs at {rate_hz:g} Hz")
    if reference.joint_pos is None:
        raise MotionError(f"clip {reference.name!r} has keypoints but no joint positions; retarget it first")
    if reference.num_frames < 2:
        raise MotionError(f"clip {reference.name!r} has a single frame; a motion needs at least 2")
    fingers = reference.joints(robot.finger_joints)
    missing = np.zeros(len(fingers), bool) if reference.valid is None else ~reference.valid
    for values in (fingers, reference.wrist_pose, reference.object_pose):
        missing |= ~np.isfinite(values).all(axis=1)
    if missing.any():
        frame = int(missing.argmax())
        raise MotionError(f"clip {reference.name!r}: frame {frame} is missing or not finite; repair it first")
    if not robot.wrist_joints:
        return fingers
    wrist = np.array(robot.wrist_pose_to_joints(np.asarray(reference.wrist_pose)))
    wrist[:, 3:] = np.unwrap(wrist[:, 3:], axis=0)
    return np.concatenate([wrist, fingers], axis=1)


def _pad(values: np.ndarray, length: int) -> torch.Tensor:
    tensor = torch.as_tensor(np.asarray(values), dtype=torch.float64)
    return torch.cat([tensor, tensor[-1:].expand(length - len(tensor), *tensor.shape[1:])])


def _continuous(quat: torch.Tensor) -> torch.Tensor:
    """Flip signs along time (dim 1) so that consecutive quaternions lie in one hemisphere."""
    dots = (quat[:, 1:] * quat[:, :-1]).sum(-1)
    signs = torch.cumprod(torch.where(dots < 0, -1.0, 1.0), dim=1)
    return torch.cat([quat[:, :1], quat[:, 1:] * signs[..., None]], dim=1)


def _differences(values: torch.Tensor, rate_hz: float) -> torch.Tensor:
    return torch.gradient(values, dim=1)[0] * rate_hz


def _twist(pose: torch.Tensor, rate_hz: float) -> torch.Tensor:
    linear = _differences(pose[..., :3], rate_hz)
    turn = quat_to_rotvec(quat_multiply(quat_conjugate(pose[:, :-1, 3:]), pose[:, 1:, 3:])) * rate_hz
    angular = torch.cat([turn, turn[:, -1:]], dim=1)
    return torch.cat([linear, angular], dim=-1)


class ReferenceGoal:
    """`sim.task.GoalProcess` that follows one clip per world by the clock.

    Args:
        motions: the clips.
        candidates: (N,) tuple of clip ids each world may draw from (the clips of its object).
        lookahead: frames ahead that the policy sees, in control steps; 1 is the command's baseline.
        start_fraction: share of episodes that start at the clip's first frame; the others start at a uniformly drawn
            frame (reference-state initialisation, Peng et al. 2018).
        joint_noise: standard deviation, rad or m, added to the initial joint positions.
        joint_order: names, for the channel's elements.
        shape_codes: (C, F) shape code of each clip's object.
        end_steps: an episode stops being drawn this close to the clip's end, in frames.
        device: where the worlds are.
    """

    def __init__(
        self,
        motions: MotionLibrary,
        candidates: Sequence[torch.Tensor],
        *,
        lookahead: Sequence[int],
        shape_codes: torch.Tensor,
        joint_order: tuple[str, ...],
        start_fraction: float = 0.25,
        joint_noise: float = 0.0,
        end_steps: int = 10,
        device: torch.device | str = "cpu",
    ) -> None:
        self.motions = motions = motions.to(device)
        self.start_fraction = start_fraction
        self.joint_noise = joint_noise
        self.end_steps = end_steps
        n = len(candidates)
        most = max(len(c) for c in candidates)
        self._candidates = torch.stack([c[torch.arange(most) % len(c)] for c in candidates]).to(device)
        self._num_candidates = torch.tensor([len(c) for c in candidates], device=device)
        self._offsets = torch.tensor([0, *lookahead], device=device)
        self._shape_codes = shape_codes.to(device)
        self._last = motions.length - 1
        self._stride = motions.joint_pos.shape[1]
        self._joint_pos, self._object_pose = motions.joint_pos.flatten(0, 1), motions.object_pose.flatten(0, 1)
        self.clip = self._candidates[:, 0].clone()
        self.frame = torch.zeros(n, dtype=torch.long, device=device)
        self.first_frame = torch.zeros(n, dtype=torch.long, device=device)
        frames = len(self._offsets)
        joints = motions.joint_pos.shape[2]
        self.channels: tuple[Channel, ...] = (
            Channel(
                "reference_joint_pos",
                (frames, joints),
                "rad or m",
                kind="command/joint/position",
                elements=joint_order,
            ),
            Channel("reference_object_pose", (frames, 7), "m+wxyz", "world", kind="command/body/pose", elements=POSE),
            Channel("object_shape", (shape_codes.shape[1],), "1"),
        )

    def reset(self, select: Selection, generator: torch.Generator) -> dict[str, torch.Tensor]:
        ids = select.ids
        draws = torch.rand(3, len(select), generator=generator, device=ids.device)
        pick = (draws[0] * self._num_candidates[ids]).long()
        clip = self._candidates[ids, pick]
        span = (self.motions.length[clip] - self.end_steps).clamp_min(1)
        frame = torch.where(draws[1] < self.start_fraction, torch.zeros_like(clip), (draws[2] * span).long())
        for value, rows in ((self.clip, clip), (self.frame, frame), (self.first_frame, frame)):
            select.write(value, rows)
        joints = self.motions.joint_pos[clip, frame]
        placed = joints
        if self.joint_noise:
            placed = joints + self.joint_noise * torch.randn(joints.shape, generator=generator, device=joints.device)
        moving = (frame > 0).float().unsqueeze(1)
        return {
            "qpos": torch.cat([placed, self.motions.object_pose[clip, frame]], dim=1),
            "qvel": moving * torch.cat([self.motions.joint_vel[clip, frame], self.motions.object_vel[clip, frame]], 1),
            "ctrl": joints,
        }

    def advance(self) -> None:
        self.frame += 1

    def read(self, ids: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        clip, frame = (self.clip, self.frame) if ids is None else (self.clip[ids], self.frame[ids])
        frames = torch.minimum(frame.unsqueeze(1) + self._offsets, self._last[clip].unsqueeze(1))
        rows = (frames + (clip * self._stride).unsqueeze(1)).flatten()
        shape = frames.shape
        return {
            "reference_joint_pos": self._joint_pos.index_select(0, rows).unflatten(0, shape),
            "reference_object_pose": self._object_pose.index_select(0, rows).unflatten(0, shape),
            "object_shape": self._shape_codes.index_select(0, clip),
        }

    def timed_out(self) -> torch.Tensor:
        return self.frame >= self.motions.length[self.clip] - 1

    def state_dict(self) -> dict[str, Any]:
        return {"clip": self.clip.clone(), "frame": self.frame.clone(), "first_frame": self.first_frame.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name in ("clip", "frame", "first_frame"):
            getattr(self, name).copy_(state[name])
