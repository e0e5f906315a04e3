"""A potential from a plan: how far a tracked point has come along the waypoints that a critic named once (KAGI)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from vlm_rewards.answer import Answer
from vlm_rewards.critic import Capability, Critic
from vlm_rewards.errors import CriticError
from vlm_rewards.frames import Frames
from vlm_rewards.worlds import Memory

_NEAR = 1e-3


def along_waypoints(
    points: torch.Tensor, path: torch.Tensor, passed: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Φ of points on their way along waypoints.

    With n legs from w_0 (where the point started) to w_n, and i the nearest waypoint, which never goes back:
    Φ = (i + 1 - ‖p - w_{i+1}‖ / ‖w_i - w_{i+1}‖) / n, clipped to [0, 1]; 1 at w_n, continuous along a straight path of
    equal legs. At i = n the last leg counts. Source: our reading of KAGI (arXiv 2407.10341), of which no code exists.

    Waypoints are passed in their order, each as soon as the point is no farther from the next one: a path that crosses
    itself, or ends where it began, cannot be cut short.

    Args:
        points: (K, d), any unit.
        path: (K, n + 1, d) in that unit; shorter paths end in NaN.
        passed: (K,) int64, i before.

    Returns:
        Φ (K,) and i (K,) now; where the point or the path is NaN, so is Φ, and i is as before.
    """
    distance = (path - points.unsqueeze(1)).norm(dim=-1)
    last = (~path.isnan().any(-1)).sum(-1) - 1
    rows = torch.arange(len(points), device=points.device)
    for _ in range(path.shape[1] - 1):
        following = torch.minimum(passed + 1, last)
        passed = torch.where(distance[rows, following] <= distance[rows, passed], following, passed)
    target = torch.minimum(passed + 1, last)
    legs = path.diff(dim=1).norm(dim=-1)
    leg, usual = legs[rows, target - 1], legs.nanmean(1)
    # A waypoint named twice makes no leg; distance to it is measured by the usual one.
    leg = torch.where(leg > _NEAR * usual, leg, usual).clamp(min=torch.finfo(leg.dtype).tiny)
    phi = (target - distance[rows, target] / leg) / last
    return phi.clamp(0.0, 1.0), passed


class FromPlan:
    """Potential of a critic with PLAN: the plan is asked for once, at the start of an episode.

    Args:
        critic: asked.
        points: where the planned keypoint is now: worlds (K,), frames → (K, d), NaN where it is not seen. A tracker in
            the pictures gives pixels of the plan's camera (x to the right, y down).
        lift: the plan's pixels (K, n, 2) of the worlds (K,) in the unit and frame of ``points``, (K, n, d), such as m;
            not needed for pixels.
        most: waypoints that there is room for.

    Raises:
        MissingCapability: the critic cannot plan.
    """

    def __init__(
        self,
        critic: Critic,
        points: Callable[[torch.Tensor, Frames], torch.Tensor],
        lift: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        most: int = 16,
    ) -> None:
        critic.require(Capability.PLAN)
        self.critic = critic
        self.points = points
        self.lift = lift
        self.most = most
        self._memory = Memory()

    @property
    def revision(self) -> str:
        """Of the critic."""
        return self.critic.revision

    def begin(self, worlds: torch.Tensor, frames: Frames, instructions: Sequence[str]) -> Answer:
        """Ask for plans and start along them; Φ is 0 by definition.

        Where the critic gives no plan, or the point is not seen, all readings of the episode are invalid.
        """
        plan = self.critic.plan(frames, instructions)
        waypoints = plan.waypoints if self.lift is None else self.lift(worlds, plan.waypoints)
        if waypoints.shape[1] > self.most:
            raise CriticError(f"a plan of {waypoints.shape[1]} waypoints; FromPlan(most={self.most}) keeps that many")
        points = self.points(worlds, frames).to(waypoints)
        if points.shape != waypoints[:, 0].shape:
            raise CriticError(
                f"tracked points {tuple(points.shape)} do not go with waypoints {tuple(waypoints.shape)}; "
                "FromPlan(lift=...) turns pixels into their unit"
            )
        path = points.new_full((len(worlds), self.most + 1, points.shape[-1]), torch.nan)
        path[:, 0] = points
        path[:, 1 : waypoints.shape[1] + 1] = waypoints
        answer = plan.answer.invalid(points.isnan().any(-1), "the planned point is not seen at the start")
        answer = answer.invalid(path[:, 1].isnan().any(-1), "the plan has no waypoints")
        path = path.masked_fill(~answer.valid.view(-1, 1, 1), torch.nan)
        self._memory.write("path", worlds, path)
        self._memory.write("passed", worlds, torch.zeros_like(worlds))
        self._memory.write("confidence", worlds, answer.confidence)
        zero = torch.zeros_like(answer.values)
        return Answer.of(zero, frames.stamps, self.revision, answer.latency_s, answer.confidence, answer.reasons)

    def read(self, worlds: torch.Tensor, frames: Frames, instructions: Sequence[str]) -> Answer:
        """Φ (K,) of ``worlds`` now."""
        path, passed = self._memory.read("path", worlds), self._memory.read("passed", worlds)
        points = self.points(worlds, frames).to(path)
        planned, seen = ~path[:, 1].isnan().any(-1), ~points.isnan().any(-1)
        phi, now = along_waypoints(points, path, passed)
        self._memory.write("passed", worlds, now)
        reasons = [
            "" if p and s else "the planned point is not seen" if p else "the episode has no plan"
            for p, s in zip(planned.tolist(), seen.tolist(), strict=True)
        ]
        confidence = self._memory.read("confidence", worlds)
        return Answer.of(phi, frames.stamps, self.revision, 0.0, confidence, reasons)

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors."""
        return self._memory.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        self._memory.load_state_dict(state)
