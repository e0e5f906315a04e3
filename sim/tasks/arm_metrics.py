"""How the arm tasks are judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sim.channels import Channels
from sim.selection import Selection


class ArmMetrics:
    """`sim.task.EpisodeMetrics` of a task that is done or not.

    - ``success``: done in the episode's last step.
    - ``ever_done``: done in some step.
    - ``progress``: exact progress in the last step; ``best_progress``: the most.
    - ``seconds``: length of the episode.
    - ``loitering_s``: seconds at a progress of 0.6 or more without being done.
    """

    NEAR = 0.6

    def __init__(self, num_worlds: int, step_dt: float, device: torch.device) -> None:
        self._step_dt = step_dt
        self._steps = torch.zeros(num_worlds, device=device)
        self._near = torch.zeros(num_worlds, device=device)
        self._done = torch.zeros(num_worlds, device=device)
        self._ever = torch.zeros(num_worlds, device=device)
        self._progress = torch.zeros(num_worlds, device=device)
        self._best = torch.zeros(num_worlds, device=device)

    def update(self, c: Channels) -> None:
        """Take in one control step of every world."""
        progress, done = c["progress"], c["done"]
        self._steps += 1
        self._near += (progress >= self.NEAR) & (done < 0.5)
        self._done.copy_(done)
        self._ever.copy_(torch.maximum(self._ever, done))
        self._progress.copy_(progress)
        self._best.copy_(torch.maximum(self._best, progress))

    def finish(self, select: Selection) -> dict[str, torch.Tensor]:
        """Results of the episodes that end now; then start afresh."""
        ids = select.ids
        results = {
            "success": self._done[ids],
            "ever_done": self._ever[ids],
            "progress": self._progress[ids],
            "best_progress": self._best[ids],
            "seconds": self._step_dt * self._steps[ids],
            "loitering_s": self._step_dt * self._near[ids],
        }
        for value in self._accumulators().values():
            select.fill(value, 0.0)
        return results

    def state_dict(self) -> dict[str, Any]:
        """Accumulators."""
        return {name: value.clone() for name, value in self._accumulators().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name, value in self._accumulators().items():
            value.copy_(state[name])

    def _accumulators(self) -> dict[str, torch.Tensor]:
        names = ("steps", "near", "done", "ever", "progress", "best")
        return {name: getattr(self, f"_{name}") for name in names}
