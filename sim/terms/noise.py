"""Sensor noise: from true channels, and numbers of a standard normal distribution, to what a policy sees."""

from __future__ import annotations

import torch

from sim.rotations import quat_from_rotvec, quat_multiply


def gaussian(value: torch.Tensor, noise: torch.Tensor, std: float) -> torch.Tensor:
    """Independent noise (..., d) on a channel (..., d), of standard deviation ``std`` in the channel's unit."""
    return value + std * noise


def pose(value: torch.Tensor, noise: torch.Tensor, position: float, rotation: float) -> torch.Tensor:
    """Noise (..., 6) on poses (..., 7): ``position`` m on each axis, ``rotation`` rad on each component of a rotation
    vector."""
    turned = quat_multiply(quat_from_rotvec(rotation * noise[..., 3:]), value[..., 3:])
    return torch.cat([value[..., :3] + position * noise[..., :3], turned], dim=-1)


def rotation(value: torch.Tensor, noise: torch.Tensor, std: float) -> torch.Tensor:
    """Noise (..., 3) on orientations (..., 4): ``std`` rad on each component of a rotation vector in the body's
    frame."""
    return quat_multiply(value, quat_from_rotvec(std * noise))
