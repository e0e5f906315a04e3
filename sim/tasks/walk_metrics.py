"""How walking is judged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sim.channels import Channels
from sim.selection import Selection
from sim.tasks.walk_commands import VelocityCommands

VELOCITY_BOUND = 0.3
"""m/s: largest mean velocity error of a success."""
TURN_BOUND = 0.4
"""rad/s: largest mean error of the turn rate of a success."""


class WalkMetrics:
    """`sim.task.EpisodeMetrics` of walking at commanded velocities, over whole episodes.

    - ``velocity_error`` m/s, ``turn_error`` rad/s: means over the steps until the end or the fall, at every instant, so
      that the sway of a gait and the time it takes to follow a new command count.
    - ``upright_s``: seconds without a fall.
    - ``fell``: 1 for an episode that did not last to its end.
    - ``success``: did not fall ∧ velocity error < 0.3 m/s ∧ turn error < 0.4 rad/s.
    """

    def __init__(self, goal: VelocityCommands, num_worlds: int, step_dt: float) -> None:
        self._goal = goal
        self._step_dt = step_dt
        self._sums = torch.zeros(num_worlds, 2, device=goal.step.device)
        self._steps = torch.zeros(num_worlds, device=goal.step.device)

    def update(self, c: Channels) -> None:
        """Take in one control step of every world."""
        self._sums += torch.stack([c["velocity_error"], c["turn_error"]], dim=1)
        self._steps += 1

    def finish(self, select: Selection) -> dict[str, torch.Tensor]:
        """Results of the episodes that end now; then start afresh."""
        ids = select.ids
        steps = self._steps[ids]
        velocity, turn = (self._sums[ids] / steps.clamp_min(1).unsqueeze(1)).unbind(1)
        whole = self._goal.timed_out()[ids]
        for value in (self._sums, self._steps):
            select.fill(value, 0.0)
        return {
            "success": (whole & (velocity < VELOCITY_BOUND) & (turn < TURN_BOUND)).float(),
            "fell": (~whole).float(),
            "upright_s": self._step_dt * steps,
            "velocity_error": velocity,
            "turn_error": turn,
        }

    def state_dict(self) -> dict[str, Any]:
        """Accumulators."""
        return {"sums": self._sums.clone(), "steps": self._steps.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._sums.copy_(state["sums"])
        self._steps.copy_(state["steps"])
