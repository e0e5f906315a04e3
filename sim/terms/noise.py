"""Sensor noise: from true channels to what a policy sees."""

from __future__ import annotations

import torch

from sim.rotations import quat_from_rotvec, quat_multiply


def gaussian(value: torch.Tensor, generator: torch.Generator, std: float) -> torch.Tensor:
    """Independent Gaussian noise of standard deviation ``std``, in the channel's unit."""
    return value + std * torch.randn(value.shape, generator=generator, device=value.device)


def pose(value: torch.Tensor, generator: torch.Generator, position: float, rotation: float) -> torch.Tensor:
    """Noise on poses (N, 7): ``position`` m on each axis, ``rotation`` rad on each component of a rotation vector."""
    noise = torch.randn(*value.shape[:-1], 6, generator=generator, device=value.device)
    turned = quat_multiply(quat_from_rotvec(rotation * noise[..., 3:]), value[..., 3:])
    return torch.cat([value[..., :3] + position * noise[..., :3], turned], dim=-1)


def rotation(value: torch.Tensor, generator: torch.Generator, std: float) -> torch.Tensor:
    """Noise on orientations (N, 4): ``std`` rad on each component of a rotation vector in the body's frame."""
    turn = std * torch.randn(*value.shape[:-1], 3, generator=generator, device=value.device)
    return quat_multiply(value, quat_from_rotvec(turn))
