"""What a learner needs of an environment, and the storage of one rollout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch

GROUPS = ("policy", "critic")


class StepLike(Protocol):
    """One step of N worlds; worlds that ended are reset already.

    ``final_obs`` and ``episodes`` have K rows, of the worlds ``final_ids``. All that ended are among them; rows of
    others (a GPU may give all N) mean nothing.
    """

    obs: Mapping[str, torch.Tensor]
    rewards: Mapping[str, torch.Tensor]
    reward: torch.Tensor
    terminated: torch.Tensor
    truncated: torch.Tensor
    final_ids: torch.Tensor
    final_obs: Mapping[str, torch.Tensor]
    episodes: Mapping[str, torch.Tensor]
    log: Mapping[str, float | torch.Tensor]


class EnvLike(Protocol):
    """N worlds stepped together; observations ``{"policy": (N, d), "critic": (N, d)}``."""

    num_envs: int
    num_actions: int

    @property
    def device(self) -> torch.device:
        """Where its tensors are."""

    @property
    def observation_dims(self) -> Mapping[str, int]:
        """Observation sizes ``{"policy": d, "critic": d}``."""

    def reset(self) -> Mapping[str, torch.Tensor]:
        """Start an episode in every world."""

    def step(self, action: torch.Tensor) -> Any:
        """Apply ``action`` (N, A) and return a `StepLike`."""

    def check(self) -> None:
        """At the end of a rollout: raise if it cannot be trusted."""


class Rollout:
    """T steps of N worlds, allocated once and reused.

    Attributes:
        raw: observations as the environment gave them, by group (T, N, d).
        obs: the same, normalised, with the observation after the last step: (T + 1, N, d).
        action, mean: (T, N, A).
        reward, done, value, advantage, target, log_prob: (T, N); `done` is 1 where the step ended an episode.
        start_hidden: hidden states before the first step, by group (N, H); empty without memory.
        timeout: (T, N) bool, where the clock alone ended an episode.
        final: critic observations before the reset (T, N, d), as given; they say something at time-outs.
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
        self.timeout = torch.zeros(T, N, dtype=torch.bool, device=device)
        self.final = torch.zeros(T, N, dims["critic"], device=device)
        self.start_hidden: dict[str, torch.Tensor] = {}
        self._shuffled: dict[str, torch.Tensor] = {}

    def store(self, t: int, step: StepLike, reward: torch.Tensor) -> None:
        """Keep what step ``t`` gave beside observations and actions."""
        self.reward[t] = reward
        torch.logical_or(step.terminated, step.truncated, out=self.done[t])
        torch.logical_and(step.truncated, ~step.terminated, out=self.timeout[t])
        if len(step.final_ids) == self.num_envs:  # ids are sorted: these are all worlds
            self.final[t] = step.final_obs["critic"]
        elif len(step.final_ids):
            self.final[t].index_copy_(0, step.final_ids, step.final_obs["critic"])

    def clear_final(self) -> None:
        """Zero the rows of `final` that say nothing; on a GPU there may be anything in them, NaN too."""
        self.final.masked_fill_(~self.timeout.unsqueeze(-1), 0.0)

    def flat(self, value: torch.Tensor) -> torch.Tensor:
        """View the first T steps of ``value`` (T [+ 1], N, …) as (T·N, …)."""
        return value[: self.steps].flatten(0, 1)

    def keep(self) -> torch.Tensor:
        """(T, N): 0 where a step starts an episode; row 0 is 1, `start_hidden` being empty already there."""
        keep = torch.ones_like(self.done)
        torch.sub(1.0, self.done[:-1], out=keep[1:])
        return keep

    def shuffle(self, minibatches: int, by_world: bool, generator: torch.Generator) -> list[dict[str, torch.Tensor]]:
        """Deal the samples into minibatches at random, once for all epochs: each is then a contiguous slice.

        Args:
            minibatches: how many.
            by_world: keep worlds whole, B = T · worlds in the order of steps, and add ``keep`` (B,) and
                ``hidden/policy``, ``hidden/critic`` (worlds, H).
            generator: source of the order.

        Returns:
            Per minibatch: normalised observations ``policy``, ``critic`` (B, d); ``action``, ``mean`` (B, A);
            ``log_prob``, ``advantage``, ``target``, ``value`` (B,); ``index`` (B,) = step · N + world.
        """
        T, N, device = self.steps, self.num_envs, self.done.device
        order = torch.randperm(N if by_world else T * N, generator=generator, device=device)
        worlds = list(order.tensor_split(minibatches))
        steps = torch.arange(T, device=device).unsqueeze(-1) * N
        parts = [(steps + w).flatten() for w in worlds] if by_world else worlds
        columns = {name: getattr(self, name) for name in ("action", "mean", "log_prob", "advantage")}
        columns |= {"target": self.target, "value": self.value, **self.obs}
        if by_world:
            columns["keep"] = self.keep()
        index = torch.cat(parts)
        for name, column in columns.items():
            flat = self.flat(column)
            out = self._shuffled.setdefault(name, torch.empty_like(flat))
            torch.index_select(flat, 0, index, out=out)
        batches = []
        start = 0
        for part, w in zip(parts, worlds, strict=True):
            rows = slice(start, start + len(part))
            batch = {name: column[rows] for name, column in self._shuffled.items()}
            if by_world:
                batch |= {f"hidden/{group}": hidden[w] for group, hidden in self.start_hidden.items()}
            batches.append(batch | {"index": part})
            start = rows.stop
        return batches


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
