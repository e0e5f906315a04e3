"""What a critic looks at: the latest pictures of B moments, from the same cameras."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vlm_rewards.errors import CriticError


@dataclass(frozen=True)
class Frames:
    """Pictures of B moments.

    Attributes:
        rgb: (B, W, V, H, W', 3) uint8: for each moment a window of W times, oldest first, seen by V cameras.
        cameras: names of the V cameras, each once.
        stamps: (B,) float64, s: when the newest picture of each window was taken; kept on the pictures' device.

    Raises:
        CriticError: another shape or type, or cameras and stamps that do not fit it.
    """

    rgb: torch.Tensor
    cameras: tuple[str, ...]
    stamps: torch.Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.rgb.shape)
        if self.rgb.dtype != torch.uint8 or len(shape) != 6 or shape[-1] != 3:
            given = f"{shape} {str(self.rgb.dtype).removeprefix('torch.')}"
            raise CriticError(f"frames are (moments, window, cameras, height, width, 3) uint8, got {given}")
        if 0 in shape[1:]:
            raise CriticError(f"frames must not be empty, got shape {shape}")
        if shape[2] != len(self.cameras):
            raise CriticError(f"frames of {shape[2]} cameras came with {len(self.cameras)} names: {self.cameras}")
        if len(set(self.cameras)) != len(self.cameras):
            raise CriticError(f"frames name a camera twice: {', '.join(self.cameras)}")
        if tuple(self.stamps.shape) != (shape[0],):
            raise CriticError(f"{shape[0]} moments need as many stamps, got shape {tuple(self.stamps.shape)}")
        object.__setattr__(self, "stamps", self.stamps.to(self.rgb.device, torch.float64))

    @classmethod
    def now(cls, rgb: torch.Tensor, cameras: Sequence[str], stamps: torch.Tensor | None = None) -> Frames:
        """Single pictures (B, V, H, W, 3) uint8 of B moments; stamps (B,) s, 0 where not given."""
        stamps = torch.zeros(rgb.shape[0], dtype=torch.float64) if stamps is None else stamps
        return cls(rgb.unsqueeze(1), tuple(cameras), stamps)

    @classmethod
    def cat(cls, parts: Sequence[Frames]) -> Frames:
        """The moments of all ``parts``, one after another, seen by the first part's cameras in its order.

        Raises:
            CriticError: none, parts of other sizes or windows, or one that lacks a camera.
        """
        if not parts:
            raise CriticError("there are no frames to put together")
        shape = parts[0].rgb.shape[1:]
        parts = [part.of(parts[0].cameras) for part in parts]
        for part in parts:
            if part.rgb.shape[1:] != shape:
                raise CriticError(f"frames of {tuple(part.rgb.shape[1:])} do not go with those of {tuple(shape)}")
        rgb = torch.cat([part.rgb for part in parts])
        return cls(rgb, parts[0].cameras, torch.cat([part.stamps for part in parts]))

    def __len__(self) -> int:
        """B."""
        return int(self.rgb.shape[0])

    @property
    def newest(self) -> torch.Tensor:
        """(B, V, H, W, 3), the last picture of each window."""
        return self.rgb[:, -1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, pixels."""
        return int(self.rgb.shape[3]), int(self.rgb.shape[4])

    def rows(self, index: torch.Tensor) -> Frames:
        """The moments ``index`` (K,) int64, or (B,) bool."""
        return Frames(self.rgb[index], self.cameras, self.stamps[index])

    def latest(self, frames: int) -> Frames:
        """The same moments with the newest ``frames`` pictures of each window, or all where there are fewer."""
        return self if self.rgb.shape[1] <= frames else Frames(self.rgb[:, -frames:], self.cameras, self.stamps)

    def of(self, cameras: Sequence[str]) -> Frames:
        """The same moments seen by ``cameras`` alone, in that order.

        Raises:
            CriticError: a camera that is not there.
        """
        missing = [name for name in cameras if name not in self.cameras]
        if missing:
            raise CriticError(
                f"these frames lack camera {', '.join(missing)}; they come from {', '.join(self.cameras)}"
            )
        if tuple(cameras) == self.cameras:
            return self
        order = [self.cameras.index(name) for name in cameras]
        return Frames(self.rgb[:, :, order], tuple(cameras), self.stamps)
