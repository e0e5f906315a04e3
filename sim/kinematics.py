"""Forward kinematics of a robot in torch: differentiable, batched, exportable.

Landmarks that follow from joint positions (fingertips, palm) are computed where they are needed, in training and inside
an exported graph alike: no robot driver has to deliver them, and no engine has to bring its sites up to date.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
import torch

from robolearn.errors import RobolearnError


class KinematicsError(RobolearnError):
    """A model whose joints this kinematics does not cover."""


@dataclass(frozen=True)
class _Level:
    """B links at one depth of the tree: a fixed transform (pos, F) from the parent, slides, then at most one hinge.

    ``parent`` (B,) indexes the links of the level before, None where each follows its like; ``slides`` (k,) indexes
    the joint positions, which shift the links by ``slide_axes`` (3B, k); ``hinges`` is the level's share of the local
    rotations; ``pos`` is (3, B, 1).
    """

    parent: torch.Tensor | None
    pos: torch.Tensor
    slides: torch.Tensor
    slide_axes: torch.Tensor
    hinges: slice


class Kinematics:
    """Poses of sites as functions of joint positions.

    Args:
        model: a compiled robot, hinges and slides only, its joints' anchors at their bodies' origins.
        joints: names, in the order of the joint positions that `__call__` takes.
        sites: names.

    Raises:
        KinematicsError: another kind of joint on the way to a site, or a joint that is not in ``joints``.
    """

    def __init__(self, model: mujoco.MjModel, joints: Sequence[str], sites: Sequence[str]) -> None:
        chains = [_chain(model, list(joints), site) for site in sites]
        self._levels: list[_Level] = []
        links: list[_Link] = []
        index: list[int] = [0] * len(sites)
        for depth in range(max(len(chain.links) for chain in chains)):
            here = [chain.links[depth] if depth < len(chain.links) else None for chain in chains]
            keys = [_key(link, at) for link, at in zip(here, index, strict=True)]
            unique = list(dict.fromkeys(keys))
            leaders = [keys.index(key) for key in unique]
            chosen = [here[k] or _WAITING for k in leaders]
            self._levels.append(_level(chosen, [index[k] for k in leaders], len(set(index)), len(links)))
            links += chosen
            index = [unique.index(key) for key in keys]
        fixed = np.array([link.rot for link in links])
        skew = np.array([_skew(link.hinge[1]) if link.hinge else np.zeros((3, 3)) for link in links])
        self._hinge = torch.tensor([link.hinge[0] if link.hinge else 0 for link in links])
        self._fixed, self._sine, self._versine = (_rows(m) for m in (fixed, fixed @ skew, fixed @ skew @ skew))
        self._index = torch.tensor(index)
        self._site_pos = _rows(np.array([chain.pos for chain in chains]))
        self._site_rot = _rows(np.array([chain.rot for chain in chains]))

    def __call__(self, joint_pos: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Positions (N, S, 3) m and rotation matrices (N, S, 3, 3) of the sites for joint positions (N, J)."""
        q = joint_pos.T.contiguous()
        angle = q[self._hinge]
        # Rodrigues: a turn by q about a unit axis is I + sin(q) K + (1 - cos(q)) K²
        local = torch.addcmul(self._fixed, torch.sin(angle), self._sine)
        local = torch.addcmul(local, 1.0 - torch.cos(angle), self._versine)
        position = q.new_zeros(3, 1, 1)
        rotation = torch.eye(3, dtype=q.dtype)[:, :, None, None]
        for level in self._levels:
            if level.parent is not None:
                position, rotation = position[:, level.parent], rotation[:, :, level.parent]
            offset = level.pos
            if len(level.slides):
                offset = offset + (level.slide_axes @ q[level.slides]).unflatten(0, (3, -1))
            position = _moved(position, rotation, offset)
            rotation = _compose(rotation, local[:, :, level.hinges])
        position, rotation = position[:, self._index], rotation[:, :, self._index]
        position = _moved(position, rotation, self._site_pos)
        return position.permute(2, 1, 0).contiguous(), _compose(rotation, self._site_rot).permute(3, 2, 0, 1)


# Components come first and worlds last, (3, B, N) and (3, 3, B, N): written out over whole rows, the products below are
# several times faster than batches of 3x3 matrix products.


def _moved(position: torch.Tensor, rotation: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """Position (3, B, N) plus rotation (3, 3, B, N) times vector (3, B, N)."""
    for k in range(3):
        position = torch.addcmul(position, rotation[:, k], vector[k])
    return position


def _compose(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(3, 3, B, N) times (3, 3, B, N)."""
    out = a[:, 0, None] * b[0]
    for k in (1, 2):
        out = torch.addcmul(out, a[:, k, None], b[k])
    return out


@dataclass(frozen=True)
class _Link:
    """``slides`` are (joint, axis in the parent's frame); ``hinge`` is (joint, axis) or None."""

    key: tuple[str, int]
    pos: np.ndarray
    rot: np.ndarray
    slides: list[tuple[int, np.ndarray]]
    hinge: tuple[int, np.ndarray] | None


_WAITING = _Link(("stay", 0), np.zeros(3), np.eye(3), [], None)
"""Stands in a chain that has ended, while longer ones go on."""


@dataclass(frozen=True)
class _Chain:
    """Links from the world to a site; ``pos`` and ``rot`` place the site in the last one."""

    links: list[_Link]
    pos: np.ndarray
    rot: np.ndarray


def _key(link: _Link | None, index: int) -> tuple[str, int]:
    return link.key if link is not None else ("stay", index)


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
            links.append(_Link(("joint", j), pos, rot, slides, (index, model.jnt_axis[j].copy())))
            pos, rot, slides = np.zeros(3), np.eye(3), []
    if slides:
        links.append(_Link(("body", bodies[0]), pos, rot, slides, None))
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


def _level(links: Sequence[_Link], parents: Sequence[int], before: int, start: int) -> _Level:
    """Stack links; ``before`` is the number of links in the level above, ``start`` their place among all links."""
    slides = sorted({joint for link in links for joint, _ in link.slides})
    axes = np.zeros((3, len(links), len(slides)))
    for b, link in enumerate(links):
        for joint, axis in link.slides:
            axes[:, b, slides.index(joint)] = axis
    straight = list(parents) == list(range(before))
    return _Level(
        parent=None if straight else torch.tensor(list(parents)),
        pos=_rows(np.array([link.pos for link in links])),
        slides=torch.tensor(slides, dtype=torch.long),
        slide_axes=torch.tensor(axes.reshape(3 * len(links), len(slides))).float(),
        hinges=slice(start, start + len(links)),
    )


def _rows(values: np.ndarray) -> torch.Tensor:
    """(B, ...) as float32 (..., B, 1)."""
    return torch.tensor(np.moveaxis(values, 0, -1)[..., None]).float()


def _matrix(quat: np.ndarray) -> np.ndarray:
    out = np.zeros(9)
    mujoco.mju_quat2Mat(out, quat)
    return out.reshape(3, 3)


def _skew(axis: np.ndarray) -> np.ndarray:
    x, y, z = axis / np.linalg.norm(axis)
    return np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
