"""Forward kinematics of a robot in torch: differentiable, batched, exportable.

Landmarks that follow from joint positions (fingertips, palm) are computed where they are needed, in training and inside
an exported graph alike: no robot driver has to deliver them, and no engine has to bring its sites up to date.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import mujoco
import numpy as np
import torch

from robolearn.errors import RobolearnError


class KinematicsError(RobolearnError):
    """A model whose joints this kinematics does not cover."""


@dataclass(frozen=True)
class _Level:
    """One step from links to their parents, for V vectors at once.

    A vector v in a link's frame is F (I + sin(q) K + (1 - cos(q)) K²) v + pos + slides in its parent's (Rodrigues).

    Attributes:
        enter: (E, 3, 1) vectors whose chain begins here; they follow those that come from the level before.
        turn: (V, 9, 3), F over F K over F K².
        hinges: the level's share of all hinges.
        shift: (V, 3, 1), pos for points and zero for directions.
        slides, slide_axes: joints (k,) that shift points, by (3V, k).
    """

    enter: torch.Tensor
    turn: torch.Tensor
    hinges: slice
    shift: torch.Tensor
    slides: torch.Tensor
    slide_axes: torch.Tensor

    def to(self, device: torch.device | str) -> _Level:
        tensors = ("enter", "turn", "shift", "slides", "slide_axes")
        return replace(self, **{name: getattr(self, name).to(device) for name in tensors})


class Kinematics:
    """Poses of sites as functions of joint positions.

    Vectors are carried from the sites towards the world, all chains together, which takes far fewer operations on far
    smaller tensors than carrying rotation matrices outwards.

    Args:
        model: a compiled robot, hinges and slides only, its joints' anchors at their bodies' origins.
        joints: names, in the order of the joint positions that `__call__` takes.
        sites: names of the sites whose positions are wanted.
        frames: names of the sites whose rotations are wanted.
        device: where the joint positions will be.

    Raises:
        KinematicsError: another kind of joint on the way to a site, or a joint that is not in ``joints``.
    """

    def __init__(
        self,
        model: mujoco.MjModel,
        joints: Sequence[str],
        sites: Sequence[str],
        frames: Sequence[str] = (),
        device: torch.device | str = "cpu",
    ) -> None:
        vectors = [_Vector(chain, chain.pos, True) for chain in (_chain(model, list(joints), site) for site in sites)]
        for chain in (_chain(model, list(joints), site) for site in frames):
            vectors += [_Vector(chain, chain.rot[:, k], False) for k in range(3)]
        self._levels: list[_Level] = []
        hinges: list[int] = []
        carried: list[int] = []
        for depth in range(max(len(v.chain.links) for v in vectors), 0, -1):
            entering = [k for k, v in enumerate(vectors) if len(v.chain.links) == depth]
            carried += entering
            links = [vectors[k].chain.links[depth - 1] for k in carried]
            hinges += [link.hinge[0] if link.hinge else 0 for link in links]
            share = slice(len(hinges) - len(links), len(hinges))
            level = _level([vectors[k] for k in carried], [vectors[k] for k in entering], links, share)
            self._levels.append(level.to(device))
        fixed = [k for k, v in enumerate(vectors) if not v.chain.links]
        self._fixed = _columns([vectors[k].value for k in fixed]).to(device)
        carried += fixed
        self._order = torch.tensor([carried.index(k) for k in range(len(vectors))], device=device)
        self._hinges = torch.tensor(hinges, dtype=torch.long, device=device)
        self._num_sites = len(sites)

    def __call__(self, joint_pos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions (N, S, 3) m and rotation matrices (N, F, 3, 3) for joint positions (N, J), in the world."""
        q = joint_pos.T.contiguous()
        n = q.shape[1]
        sine = torch.sin(q)[self._hinges].unsqueeze(1)
        versine = (1.0 - torch.cos(q))[self._hinges].unsqueeze(1)
        vectors = q.new_zeros(0, 3, n)
        for level in self._levels:
            if len(level.enter):
                vectors = torch.cat([vectors, level.enter.expand(-1, -1, n)])
            parts = level.turn @ vectors
            out = torch.addcmul(parts[:, :3], sine[level.hinges], parts[:, 3:6])
            vectors = torch.addcmul(out, versine[level.hinges], parts[:, 6:]) + level.shift
            if len(level.slides):
                vectors = vectors + (level.slide_axes @ q[level.slides]).unflatten(0, (-1, 3))
        if len(self._fixed):
            vectors = torch.cat([vectors, self._fixed.expand(-1, -1, n)])
        rows = vectors[self._order].permute(2, 0, 1).contiguous()
        return rows[:, : self._num_sites], rows[:, self._num_sites :].unflatten(1, (-1, 3)).transpose(2, 3)


@dataclass(frozen=True)
class _Link:
    """``slides`` are (joint, axis in the parent's frame); ``hinge`` is (joint, axis) or None."""

    pos: np.ndarray
    rot: np.ndarray
    slides: list[tuple[int, np.ndarray]]
    hinge: tuple[int, np.ndarray] | None


@dataclass(frozen=True)
class _Chain:
    """Links from the world to a site; ``pos`` and ``rot`` place the site in the last one."""

    links: list[_Link]
    pos: np.ndarray
    rot: np.ndarray


@dataclass(frozen=True)
class _Vector:
    """A point of a chain's last link, or a direction in it."""

    chain: _Chain
    value: np.ndarray
    point: bool


def _chain(model: mujoco.MjModel, joints: list[str], site: str) -> _Chain:
    """Walk from the world to a site; bodies without joints are folded into what follows them."""
    try:
        number = model.site(site).id
    except KeyError as error:
        raise KinematicsError(f"the robot has no site {site!r}: {error}") from error
    bodies = []
    body = int(model.site_bodyid[number])
    while body:
        bodies.append(body)
        body = int(model.body_parentid[body])
    links: list[_Link] = []
    pos, rot = np.zeros(3), np.eye(3)
    slides: list[tuple[int, np.ndarray]] = []
    for body in reversed(bodies):
        pos, rot = pos + rot @ model.body_pos[body], rot @ _matrix(model.body_quat[body])
        start = int(model.body_jntadr[body])
        for j in range(start, start + int(model.body_jntnum[body])):
            index = _joint(model, j, joints)
            if model.jnt_type[j] == mujoco.mjtJoint.mjJNT_SLIDE:
                slides.append((index, rot @ model.jnt_axis[j]))
                continue
            links.append(_Link(pos, rot, slides, (index, model.jnt_axis[j].copy())))
            pos, rot, slides = np.zeros(3), np.eye(3), []
    if slides:
        links.append(_Link(pos, rot, slides, None))
        pos, rot = np.zeros(3), np.eye(3)
    return _Chain(links, pos + rot @ model.site_pos[number], rot @ _matrix(model.site_quat[number]))


def _joint(model: mujoco.MjModel, j: int, joints: list[str]) -> int:
    """Place of a joint among the joint positions."""
    name = model.joint(j).name
    kind = mujoco.mjtJoint(int(model.jnt_type[j]))
    if kind not in (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE) or np.any(model.jnt_pos[j]):
        raise KinematicsError(f"joint {name!r}: only hinges and slides anchored at their body's origin are covered")
    if model.qpos0[model.jnt_qposadr[j]] != 0.0:
        raise KinematicsError(f"joint {name!r} has a reference position other than 0")
    if name not in joints:
        raise KinematicsError(f"joint {name!r} moves a site but is not among the joints: {', '.join(joints)}")
    return joints.index(name)


def _level(vectors: Sequence[_Vector], entering: Sequence[_Vector], links: Sequence[_Link], hinges: slice) -> _Level:
    """The step of ``vectors`` through their ``links``."""
    turns = []
    for link in links:
        skew = _skew(link.hinge[1]) if link.hinge else np.zeros((3, 3))
        turns.append(np.concatenate([link.rot, link.rot @ skew, link.rot @ skew @ skew]))
    slides = sorted({joint for link in links for joint, _ in link.slides})
    axes = np.zeros((len(links), 3, len(slides)))
    for k, (link, vector) in enumerate(zip(links, vectors, strict=True)):
        for joint, axis in link.slides if vector.point else ():
            axes[k, :, slides.index(joint)] = axis
    return _Level(
        enter=_columns([vector.value for vector in entering]),
        turn=torch.tensor(np.array(turns)).float(),
        hinges=hinges,
        shift=_columns([link.pos * vector.point for link, vector in zip(links, vectors, strict=True)]),
        slides=torch.tensor(slides, dtype=torch.long),
        slide_axes=torch.tensor(axes.reshape(3 * len(links), len(slides))).float(),
    )


def _columns(vectors: Sequence[np.ndarray]) -> torch.Tensor:
    """K vectors (3,) as (K, 3, 1)."""
    return torch.tensor(np.array(vectors).reshape(len(vectors), 3, 1)).float()


def _matrix(quat: np.ndarray) -> np.ndarray:
    out = np.zeros(9)
    mujoco.mju_quat2Mat(out, quat)
    return out.reshape(3, 3)


def _skew(axis: np.ndarray) -> np.ndarray:
    x, y, z = axis / np.linalg.norm(axis)
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
