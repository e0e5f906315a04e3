"""Pictures in the size that a critic was made for."""

from __future__ import annotations

import torch
from torch.nn.functional import interpolate

from vlm_rewards.frames import Frames


def resized(frames: Frames, height: int, width: int) -> Frames:
    """The same frames at another size, by bilinear interpolation (anti-aliased); equal sizes are passed through."""
    if frames.size == (height, width):
        return frames
    lead = frames.rgb.shape[:3]
    flat = frames.rgb.flatten(0, 2).permute(0, 3, 1, 2).float()
    small = interpolate(flat, (height, width), mode="bilinear", antialias=True, align_corners=False)
    rgb = small.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).unflatten(0, lead)
    return Frames(rgb.contiguous(), frames.cameras, frames.stamps)
