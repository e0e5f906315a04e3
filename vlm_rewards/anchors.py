"""One recorded success as a yardstick: its goal, and frames on the way there whose progress is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from vlm_rewards.clips import Clip
from vlm_rewards.critic import Window
from vlm_rewards.errors import CriticError
from vlm_rewards.frames import Frames


def moments(clip: Clip, window: Window, index: torch.Tensor | None = None) -> Frames:
    """Frames of a clip, each with the pictures that came before it as a critic wants them.

    Args:
        clip: of T frames.
        window: how many pictures, and how far apart; before the clip's start its first picture is repeated.
        index: (B,) int64 which frames; all where not given.
    """
    index = torch.arange(len(clip)) if index is None else index
    ages = torch.arange(window.frames - 1, -1, -1, dtype=torch.float64) * window.stride_s
    wanted = clip.times.double()[index].unsqueeze(-1) - ages
    # The newest picture that is at least as old as wanted, up to a small part of the stride.
    rows = torch.searchsorted(clip.times.double(), wanted + 1e-3 * window.stride_s, right=True) - 1
    rows[:, -1] = index
    return Frames(clip.rgb[rows.clamp(min=0)], clip.cameras, clip.times.double()[index])


@dataclass(frozen=True)
class Reference:
    """Moments of one success.

    Attributes:
        frames: A moments, the goal last.
        progress: (A,) float32, rising, the goal's is 1.
        instruction: what was carried out.
    """

    frames: Frames
    progress: torch.Tensor
    instruction: str

    @classmethod
    def of(cls, clip: Clip, window: Window | None = None, anchors: Sequence[float] = ()) -> Reference:
        """The reference that a recorded success gives.

        The goal is the first frame in which the instruction is carried out: what a robot does afterwards says nothing.
        Progress on the way there is the clip's own, or the share of time where that is not known.

        Args:
            clip: a success.
            window: pictures of each moment, as the critic wants them.
            anchors: progress, between 0 and 1, near which more moments are taken.

        Raises:
            CriticError: the clip is no success, or an anchor lies outside 0 to 1.
        """
        reached = torch.nonzero(clip.done).flatten()
        if not len(reached):
            raise CriticError(f"a reference is a success; this clip of {clip.instruction!r} ({clip.mode}) is none")
        if any(not 0 < anchor < 1 for anchor in anchors):
            raise CriticError(f"anchors lie between 0 and 1 (the goal is one always), got {list(anchors)}")
        goal = int(reached[0])
        progress = clip.progress[: goal + 1].float().clone()
        if not bool(torch.isfinite(progress).all()):
            times = clip.times[: goal + 1] - clip.times[0]
            progress = (times / times[-1].clamp(min=1e-9)).float()
        progress[goal] = 1.0
        near = {int((progress - anchor).abs().argmin()) for anchor in anchors}
        index = torch.tensor(sorted((near | {goal}) - {0} or {goal}))
        index = index[progress[index].argsort(stable=True)]
        return cls(moments(clip, window or Window(), index), progress[index], clip.instruction)

    def __len__(self) -> int:
        """A, the number of moments."""
        return len(self.progress)

    @property
    def goal(self) -> Frames:
        """The moment of success, B = 1."""
        return self.frames.rows(torch.tensor([len(self) - 1]))
