"""What a learner needs of an environment, and the storage of one rollout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch

GROUPS = ("policy", "critic")


class StepLike(Protocol):
    """One step of N worlds; worlds that ended are reset already. K is the number that ended."""

    obs: Mapping[str, torch.Tensor]
    rewards: Mapping[str, torch.Tensor]
    reward: torch.Tensor
    terminated: torch.Tensor
    truncated: torch.Tensor
    final_ids: torch.Tensor
    final_obs: Mapping[str, torch.Tensor]
    log: Mapping[str, float]


class EnvLike(Protocol):
    """N worlds stepped together; observations ``{"policy": (N, d), "critic": (N, d)}``."""

    num_envs: int
    num_actions: int
    observation_dims: Mapping[str, int]

    def reset(self) -> Mapping[str, torch.Tensor]:
        """Start an episode in every world."""

    def step(self, action: torch.Tensor) -> Any:
        """Apply ``action`` (N, A) and return a `StepLike`."""


class Rollout:
    """T steps of N worlds, allocated once and reused.

    Attributes:
        raw: observations as the environment gave them, by group (T, N, d).
        obs: the same, normalised, with the observation after the last step: (T + 1, N, d).
        action, mean: (T, N, A).
        reward, done, value, advantage, target, log_prob: (T, N); `done` is 1 where the step ended an episode.
        truncated: for each time-out, its step, world and normalised final critic observation.
    """

    def __init__(
        self, steps: int, num_envs: int, dims: Mapping[str, int], num_actions: int, device: torch.device | str
    ) -> None:
        T, N = steps, num_envs
        self.steps, self.num_envs = T, N
        self.raw = {g: torch.zeros(T, N, dims[g], device=device) for g in GROUPS}
        self.obs = {g: torch.zeros(T + 1, N, dims[g], device=device) for g in GROUPS}
        self.action = torch.zeros(T, N, num_actions, device=device)
        self.mean = torch.zeros(T, N, num_actions, device=device)
        self.noise = torch.zeros(T, N, num_actions, device=device)
        self.reward = torch.zeros(T, N, device=device)
        self.done = torch.zeros(T, N, device=device)
        self.value = torch.zeros(T + 1, N, device=device)
        self.advantage = torch.zeros(T, N, device=device)
        self.target = torch.zeros(T, N, device=device)
        self.log_prob = torch.zeros(T, N, device=device)
        self.truncated: list[tuple[int, torch.Tensor, torch.Tensor]] = []

    def flat(self, value: torch.Tensor) -> torch.Tensor:
        """View the first T steps of ``value`` (T [+ 1], N, …) as (T·N, …)."""
        return value[: self.steps].flatten(0, 1)


def gae(
    reward: torch.Tensor,
    value: torch.Tensor,
    done: torch.Tensor,
    gamma: float,
    lam: float,
    out: torch.Tensor | None = None,
) -> torch.Tensor:
    """Generalised advantage estimation (Schulman et al. 2016, eq. 16).

    δₜ = rₜ + γ (1 - dₜ) Vₜ₊₁ - Vₜ,   Aₜ = δₜ + γ λ (1 - dₜ) Aₜ₊₁.

    Time-outs must be bootstrapped in ``reward`` beforehand: rₜ += γ V(final observation).

    Args:
        reward: (T, N).
        value: (T + 1, N); the last row is the value after the last step.
        done: (T, N), 1 where the step ended an episode, for whatever reason.
        gamma: discount γ.
        lam: trace decay λ.
        out: where to write the advantages.

    Returns:
        Advantages (T, N).
    """
    live = (1.0 - done).mul_(gamma)
    advantage = torch.addcmul(reward, live, value[1:], out=out).sub_(value[:-1])
    for t in range(reward.shape[0] - 2, -1, -1):
        advantage[t].addcmul_(live[t], advantage[t + 1], value=lam)
    return advantage
