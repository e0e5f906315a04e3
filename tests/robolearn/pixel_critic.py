"""A small real critic for `arm_push`: it finds the white pad and the named object in the pictures of one camera."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from sim.tasks.arm_things import COLORS
from vlm_rewards.critic import Capability, Critic, Judged
from vlm_rewards.frames import Frames
from vlm_rewards.registry import write_description

KIND = "pixels"
NEAR = 4.0
"""Pixels between pad and object below which it is done."""


class PixelCritic(Critic):
    """Progress is the share of the way that the object has come; nothing is known where either cannot be seen."""

    name = KIND
    revision = "1"
    capabilities = frozenset({Capability.VALUE, Capability.DONE})
    cameras = ("front",)
    picture = (64, 64)

    def __init__(self) -> None:
        self.asked: list[int] = []

    def _value(self, now: Frames, start: Frames, instructions: list[str]) -> Judged:
        self.asked.append(len(now))
        pad = _places(_white(start.newest[:, 0]))
        whole, left = (
            (_places(_coloured(frames.newest[:, 0], instructions)) - pad).norm(dim=1) for frames in (start, now)
        )
        return _judged(1.0 - (left / whole).clamp(0.0, 1.0))

    def _done(self, now: Frames, instructions: list[str]) -> Judged:
        rgb = now.newest[:, 0]
        left = (_places(_coloured(rgb, instructions)) - _places(_white(rgb))).norm(dim=1)
        return _judged(torch.sigmoid(2.0 * (NEAR - left)))


def load(folder: str | Path) -> PixelCritic:
    """See `vlm_rewards.registry.KINDS`."""
    return PixelCritic()


def save(folder: Path) -> Path:
    """A folder that `load` reads."""
    folder.mkdir(parents=True)
    write_description(folder, KIND)
    return folder


def _judged(values: torch.Tensor) -> Judged:
    return Judged(values.nan_to_num(0.0), reasons=["not in sight" if math.isnan(v) else "" for v in values.tolist()])


def _white(rgb: torch.Tensor) -> torch.Tensor:
    """(B, H, W) bool: the pad's pixels; the arm is not quite as white."""
    return (rgb == 255).all(-1)


def _coloured(rgb: torch.Tensor, instructions: list[str]) -> torch.Tensor:
    """(B, H, W) bool: pixels of the colour that each instruction names."""
    names = [next(name for name in COLORS if f" {name} " in text) for text in instructions]
    colors = torch.tensor([COLORS[name] for name in names])
    unit = rgb.float() / rgb.float().norm(dim=-1, keepdim=True).clamp_min(1.0)
    alike = (unit * (colors / colors.norm(dim=1, keepdim=True))[:, None, None]).sum(-1)
    return (alike > 0.97) & (rgb.amax(-1) > 60)


def _places(mask: torch.Tensor) -> torch.Tensor:
    """(B, 2) mean pixel of each mask (B, H, W); NaN where it has fewer than 5."""
    rows, columns = torch.meshgrid(*(torch.arange(float(n)) for n in mask.shape[1:]), indexing="ij")
    count = mask.sum((1, 2)).float()
    place = torch.stack([(mask * axis).sum((1, 2)) for axis in (rows, columns)], dim=1) / count[:, None]
    return place.masked_fill(count[:, None] < 5, math.nan)
