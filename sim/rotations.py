"""Quaternion arithmetic on (..., 4) tensors, MuJoCo's order wxyz, unit norm; nothing in place, so that it exports."""

from __future__ import annotations

from functools import cache

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


def quat_to_rotvec(q: torch.Tensor) -> torch.Tensor:
    """Rotation vector (..., 3), rad, of the shorter of the two rotations that ±q describe."""
    q = torch.where(q[..., :1] < 0, -q, q)
    norm = torch.linalg.vector_norm(q[..., 1:], dim=-1, keepdim=True).clamp_min(
        1e-9
    )  # angle / norm → 2 as the rotation vanishes
    return 2.0 * torch.atan2(norm, q[..., :1]) / norm * q[..., 1:]


def quat_from_rotvec(r: torch.Tensor) -> torch.Tensor:
    """Unit quaternion (..., 4) of rotation vectors (..., 3), rad."""
    angle = torch.linalg.vector_norm(r, dim=-1, keepdim=True)
    scale = torch.where(angle > 1e-6, torch.sin(angle / 2) / angle.clamp_min(1e-6), torch.full_like(angle, 0.5))
    return torch.cat([torch.cos(angle / 2), scale * r], dim=-1)


def rotation_error(target: torch.Tensor, actual: torch.Tensor) -> torch.Tensor:
    """Rotation vectors (..., L, 3), rad, in the world, that turn ``actual`` (..., 4) into ``target`` (..., L, 4)."""
    by_conjugate = (actual @ _constant("by_conjugate", actual.device, actual.dtype)).unflatten(-1, (4, 4))
    return quat_to_rotvec(target @ by_conjugate)


def quat_to_matrix(q: torch.Tensor) -> torch.Tensor:
    """Rotation matrices (..., 3, 3) of unit quaternions (..., 4)."""
    products = (q.unsqueeze(-1) * q.unsqueeze(-2)).flatten(-2)
    return (products @ _constant("to_matrix", q.device, q.dtype)).unflatten(-1, (3, 3))


@cache
def _constant(name: str, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """A matrix that makes a map one product: it is linear in the quaternion or in the products of its elements."""
    make = {"by_conjugate": _by_conjugate, "to_matrix": _to_matrix}[name]
    with torch.inference_mode(False):  # what is kept has to serve training as well
        return make().to(device, dtype)


def _by_conjugate() -> torch.Tensor:
    """(4, 16): turns a into the matrix M with q ⊗ conjugate(a) = q M for row vectors q."""
    basis = torch.eye(4, dtype=torch.float64)
    products = quat_multiply(basis[None, :, :], quat_conjugate(basis)[:, None, :])  # [a, q] = q ⊗ conjugate(a)
    return products.flatten(1)


def _to_matrix() -> torch.Tensor:
    """(16, 9): turns the products q_i q_j into the rotation matrix, row by row."""
    w, x, y, z = range(4)
    out = torch.zeros(4, 4, 3, 3, dtype=torch.float64)
    for i in range(4):
        for k in range(3):
            out[i, i, k, k] = 1.0 if i in (w, k + 1) else -1.0
    for i, j, k, row, column in ((x, y, z, 0, 1), (y, z, x, 1, 2), (z, x, y, 2, 0)):
        out[i, j, row, column] = out[i, j, column, row] = 2.0
        out[w, k, row, column], out[w, k, column, row] = -2.0, 2.0
    return out.reshape(16, 9)
