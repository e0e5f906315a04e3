"""A critic that judges exactly, by the brightness of small pictures; a covered lens it cannot judge."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from vlm_rewards.answer import Answer
from vlm_rewards.clips import Clip
from vlm_rewards.critic import Capability, Critic, Judged, Plan, Window
from vlm_rewards.frames import Frames
from vlm_rewards.fusion import hop

WHITE = 200
COVERED = 255
TASK = "make it bright"
WORDS = "a critic's own words about a lens"


def pictures(progress: Sequence[float] | torch.Tensor, cameras: Sequence[str] = ("front",), side: int = 4) -> Frames:
    """Moments of this progress (B,), or (B, V) by camera, at times 0, 1, ... s; NaN is a covered lens."""
    shown = torch.as_tensor(progress, dtype=torch.float64)
    shown = shown if shown.ndim == 2 else shown.unsqueeze(1).expand(-1, len(cameras))
    level = torch.where(shown.isnan(), COVERED, (shown * WHITE).round()).to(torch.uint8)
    rgb = level.view(*level.shape, 1, 1, 1).expand(-1, -1, side, side, 3).contiguous()
    return Frames.now(rgb, cameras, torch.arange(len(rgb)).double())


def recording(progress: Sequence[float], mode: str = "expert", cameras: Sequence[str] = ("front",)) -> Clip:
    """A clip of this progress, done where that is 1."""
    frames, exact = pictures(progress, cameras), torch.tensor(progress)
    return Clip(frames.newest, tuple(cameras), frames.stamps, TASK, exact, exact >= 1.0, mode)


def tasks(count: int) -> list[str]:
    return [TASK] * count


class Brightness(Critic):
    """Exact, of whatever capabilities; counts the moments that it was asked about.

    Args:
        capabilities: some of them.
        bias: added to the hops of one camera's pictures, as by a view that sees wrongly.
    """

    name = "brightness"
    revision = "1"

    def __init__(
        self,
        capabilities: Sequence[Capability] = tuple(Capability),
        cameras: tuple[str, ...] = (),
        window: Window | None = None,
        bias: float = 0.0,
    ) -> None:
        self.capabilities = frozenset(capabilities)
        self.cameras = cameras
        self.window = window or Window()
        self.bias = bias
        self.asked: list[int] = []

    def progress(self, frames: Frames) -> torch.Tensor:
        """(B,) seen by all cameras together; NaN where a lens is covered."""
        seen = frames.newest[:, :, 0, 0, 0].float()
        return (seen.masked_fill(seen == COVERED, torch.nan) / WHITE).mean(1)

    def judged(self, values: torch.Tensor) -> Judged:
        """These values, invalid where they are NaN."""
        self.asked.append(len(values))
        return Judged(values, torch.full_like(values, 0.75), [WORDS if v else "" for v in values.isnan().tolist()])

    def _score(self, now: Frames, instructions: list[str]) -> Judged:
        return self.judged(10.0 + 4.0 * self.progress(now))

    def _delta(self, before: Frames, after: Frames, instructions: list[str]) -> Judged:
        return self.judged((hop(self.progress(before), self.progress(after)) + self.bias).clamp(-1.0, 1.0))

    def _prefer(self, first: Frames, second: Frames, instructions: list[str]) -> Judged:
        return self.judged((6.0 * (self.progress(second) - self.progress(first))).sigmoid())

    def _done(self, now: Frames, instructions: list[str]) -> Judged:
        seen = self.progress(now)
        return self.judged(torch.where(seen.isnan(), seen, (seen >= 0.95).float()))

    def _value(self, now: Frames, start: Frames, instructions: list[str]) -> Judged:
        return self.judged((self.progress(now) - self.progress(start)).clamp(0.0, 1.0))

    def _plan(self, now: Frames, instructions: list[str]) -> Plan:
        """A path of two waypoints, of no use where the lens is covered."""
        seen = self.progress(now)
        path = torch.tensor([[1.0, 0.0], [2.0, 0.0]]).expand(len(now), 2, 2).clone()
        path[seen.isnan()] = torch.nan
        answer = Answer.of(
            torch.full_like(seen, 2.0), now.stamps, self.revision, 0.0, None, [WORDS if v else "" for v in seen.isnan()]
        )
        return Plan(torch.zeros(len(now), 2), path, now.cameras[0], answer)
