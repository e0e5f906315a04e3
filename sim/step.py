"""What one control step of N worlds returns."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch


@dataclass
class Step:
    """One control step of N worlds; worlds whose episode ended are reset already.

    On a CPU the K rows about episodes are those of the worlds that ended. On a GPU the host does not ask which ended:
    there the rows are all N worlds', and say something where ``terminated | truncated``; `ended` leaves only those.

    Attributes:
        obs: group → (N, d), the first observation of the next episode where one just ended.
        rewards: named terms, already weighted, (N,) each.
        terminated: (N,) bool, ended by the task: no value lies beyond.
        truncated: (N,) bool, ended by the clock: bootstrap from ``final_obs``.
        final_ids: (K,) sorted ids of the worlds that the rows below belong to.
        final_obs: group → (K, d), the last observation before the reset.
        episodes: metric → (K,) float, results of the episodes; ``termination/<cause>`` is 1 where that cause held.
        log: scalars of this step worth recording.
    """

    obs: dict[str, torch.Tensor]
    rewards: dict[str, torch.Tensor]
    terminated: torch.Tensor
    truncated: torch.Tensor
    final_ids: torch.Tensor
    final_obs: dict[str, torch.Tensor] = field(default_factory=dict)
    episodes: dict[str, torch.Tensor] = field(default_factory=dict)
    log: dict[str, float | torch.Tensor] = field(default_factory=dict)

    @property
    def reward(self) -> torch.Tensor:
        """Sum of the named terms, (N,)."""
        return torch.stack(tuple(self.rewards.values())).sum(0)

    def ended(self) -> Step:
        """The same step with rows of the worlds that ended alone; on a GPU the host waits for it."""
        ended = (self.terminated | self.truncated)[self.final_ids]
        if bool(ended.all()):
            return self
        return replace(
            self,
            final_ids=self.final_ids[ended],
            final_obs={group: rows[ended] for group, rows in self.final_obs.items()},
            episodes={name: rows[ended] for name, rows in self.episodes.items()},
        )

    def summary(self) -> dict[str, float]:
        """The log, and ``episode/<metric>`` and ``termination/<cause>``, means over the episodes that just ended."""
        out = {name: float(value) for name, value in self.log.items()}
        episodes = self.ended().episodes
        if episodes and len(next(iter(episodes.values()))):
            means = torch.stack(tuple(episodes.values())).nanmean(dim=1).tolist()
            for name, mean in zip(episodes, means, strict=True):
                if math.isfinite(mean):
                    out[name if "/" in name else f"episode/{name}"] = mean
        return out
