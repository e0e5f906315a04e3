"""A small real critic for tests of everything around critics: it judges by the brightness of the first camera."""

from __future__ import annotations

import torch

from vlm_rewards.critic import Capability, Critic, Judged, Window
from vlm_rewards.errors import CriticError
from vlm_rewards.frames import Frames
from vlm_rewards.operating_point import OperatingPoint


class Brightness(Critic):
    """Progress is the mean brightness of the newest picture of ``front``; a black picture cannot be judged."""

    name = "brightness"
    revision = "b1"
    capabilities = frozenset(set(Capability) - {Capability.PLAN})
    cameras = ("front", "wrist")
    picture = (8, 12)
    window = Window(frames=2, stride_s=0.2)
    operating_point: OperatingPoint | None = None

    def _score(self, now: Frames, instructions: list[str]) -> Judged:
        if any("refuse" in text for text in instructions):
            raise CriticError("this critic does not judge what it is told to refuse")
        if any("fail" in text for text in instructions):
            raise RuntimeError("out of order")
        bright = now.newest[:, 0].float().mean((1, 2, 3)) / 255.0
        longer = torch.tensor([len(text) for text in instructions]) / 1000.0
        reasons = ["too dark" if dark else "" for dark in (bright == 0).tolist()]
        return Judged((bright + longer) / 3.0, bright, reasons)

    def _value(self, now: Frames, start: Frames, instructions: list[str]) -> Judged:
        found = self._score(now, instructions)
        return Judged(found.values - self._score(start, instructions).values / 7.0, found.confidence, found.reasons)

    def _delta(self, before: Frames, after: Frames, instructions: list[str]) -> Judged:
        return self._value(after, before, instructions)

    def _prefer(self, first: Frames, second: Frames, instructions: list[str]) -> Judged:
        return self._value(second, first, instructions)

    def _done(self, now: Frames, instructions: list[str]) -> Judged:
        return self._score(now, instructions)


def pictures(rows: int, seed: int = 0, cameras: tuple[str, ...] = ("front", "wrist")) -> Frames:
    """Random frames of two times, 8 x 12 pixels; in the last of several rows, all is black."""
    generator = torch.Generator().manual_seed(seed)
    rgb = torch.randint(0, 256, (rows, 2, len(cameras), 8, 12, 3), dtype=torch.uint8, generator=generator)
    if rows > 1:
        rgb[-1] = 0
    return Frames(rgb, cameras, 0.1 * torch.arange(rows, dtype=torch.float64) + seed)
