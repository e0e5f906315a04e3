"""Quaternion arithmetic on (..., 4) tensors, MuJoCo's order wxyz, unit norm; nothing in place, so that it exports."""

from __future__ import annotations

import torch


def quat_conjugate(q: torch.Tensor) -> torch.Tensor:
    """Inverse of unit quaternions (..., 4)."""
    return torch.cat([q[..., :1], -q[..., 1:]], dim=-1)


def quat_multiply(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Hamilton product a ⊗ b, (..., 4): rotate by ``b``, then by ``a``."""
    aw, av = a[..., :1], a[..., 1:]
    bw, bv = b[..., :1], b[..., 1:]
    av, bv = torch.broadcast_tensors(av, bv)
    scalar = aw * bw - (av * bv).sum(-1, keepdim=True)
    return torch.cat([scalar, aw * bv + bw * av + torch.linalg.cross(av, bv)], dim=-1)


def quat_rotate(q: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Rotate vectors (..., 3) by unit quaternions (..., 4): v + 2w(u×v) + 2u×(u×v)."""
    w, u = q[..., :1], q[..., 1:]
    u, v = torch.broadcast_tensors(u, v)
    t = 2.0 * torch.linalg.cross(u, v)
    return v + w * t + torch.linalg.cross(u, t)


def quat_to_rotvec(q: torch.Tensor) -> torch.Tensor:
    """Rotation vector (..., 3), rad, of the shorter of the two rotations that ±q describe."""
    q = torch.where(q[..., :1] < 0, -q, q)
    norm = q[..., 1:].norm(dim=-1, keepdim=True)
    angle = 2.0 * torch.atan2(norm, q[..., :1])
    # angle / norm → 2 as the rotation vanishes
    scale = torch.where(norm > 1e-6, angle / norm.clamp_min(1e-6), torch.full_like(norm, 2.0))
    return scale * q[..., 1:]


def quat_from_rotvec(r: torch.Tensor) -> torch.Tensor:
    """Unit quaternion (..., 4) of rotation vectors (..., 3), rad."""
    angle = r.norm(dim=-1, keepdim=True)
    scale = torch.where(angle > 1e-6, torch.sin(angle / 2) / angle.clamp_min(1e-6), torch.full_like(angle, 0.5))
    return torch.cat([torch.cos(angle / 2), scale * r], dim=-1)


def rotation_error(target: torch.Tensor, actual: torch.Tensor) -> torch.Tensor:
    """Rotation vector (..., 3), rad, world frame, that turns ``actual`` into ``target`` (quaternions (..., 4))."""
    return quat_to_rotvec(quat_multiply(target, quat_conjugate(actual)))


def quat_to_columns(q: torch.Tensor) -> torch.Tensor:
    """First two columns of the rotation matrix, (..., 6): a continuous rotation code (Zhou et al. 2019)."""
    w, x, y, z = q.unbind(-1)
    return torch.stack(
        [
            1 - 2 * (y * y + z * z),
            2 * (x * y + w * z),
            2 * (x * z - w * y),
            2 * (x * y - w * z),
            1 - 2 * (x * x + z * z),
            2 * (y * z + w * x),
        ],
        dim=-1,
    )
