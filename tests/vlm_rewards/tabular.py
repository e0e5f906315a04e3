"""Tabular decision processes, solved exactly, whose rewards come from the reward stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from vlm_rewards.stage import RewardConfig, RewardStage, Transitions


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass
class Tabular:
    """M decision processes of S states and A actions.

    Attributes:
        chance: (M, S, A, S) of the next state.
        terminal: (M, S) bool.
        gamma: discount.
    """

    chance: torch.Tensor
    terminal: torch.Tensor
    gamma: float

    @classmethod
    def random(cls, count: int, states: int, actions: int, gamma: float, terminals: int) -> Tabular:
        chance = torch.rand(count, states, actions, states, generator=generator(), dtype=torch.float64) ** 4
        terminal = torch.zeros(count, states, dtype=torch.bool)
        terminal[:, states - terminals :] = terminals > 0
        return cls(chance / chance.sum(-1, keepdim=True), terminal, gamma)

    def reward(self, phi: torch.Tensor, goal: torch.Tensor, named: Any = None, **settings: Any) -> torch.Tensor:
        """(M, S, A, S): the reward stage asked about every transition there is, as if it lay in a replay.

        Args:
            phi: (M, S) potentials.
            goal: (M, S) bool, arriving there is success.
            named: name → (M, S, A, S), the task's terms.
            settings: of the stage.
        """
        shape = self.chance.shape
        ends = self.terminal[:, None, None, :].expand(shape).flatten()
        result = RewardStage(RewardConfig(**settings), self.gamma)(
            Transitions(
                ends,
                torch.zeros_like(ends),
                phi[:, :, None, None].expand(shape).flatten(),
                phi[:, None, None, :].expand(shape).flatten(),
                success=goal[:, None, None, :].expand(shape).flatten(),
                terms={name: term.expand(shape).flatten() for name, term in (named or {}).items()},
            )
        )
        return result.reward.view(shape)

    def best(self, reward: torch.Tensor) -> torch.Tensor:
        """(M, S, A) bool: the actions that are optimal; ties within 1e-7."""
        q = self._q(reward)
        return q >= q.amax(-1, keepdim=True) - 1e-7

    def values(self, reward: torch.Tensor) -> torch.Tensor:
        """(M, S) what an optimal policy gets from each state, 0 from terminal ones."""
        return self._q(reward).amax(-1).masked_fill(self.terminal, 0.0)

    def _q(self, reward: torch.Tensor) -> torch.Tensor:
        gain = (self.chance * reward).sum(-1)
        q = gain
        for _ in range(round(25 / (1 - self.gamma))):
            value = q.amax(-1).masked_fill(self.terminal, 0.0)
            q = gain + self.gamma * torch.einsum("msat,mt->msa", self.chance, value)
        return q

    def kept(self, reward: torch.Tensor, reference: torch.Tensor, judge: Tabular | None = None) -> float:
        """Share of the M whose optimal actions are the same, in every state that is not terminal.

        The reference is that of ``judge``, which may discount otherwise; this one where it is None.
        """
        same = (self.best(reward) == (judge or self).best(reference)).all(-1) | self.terminal
        return float(same.all(-1).double().mean())

    def reaches(self, reward: torch.Tensor, goal: torch.Tensor, start: int = 0, steps: int = 200) -> torch.Tensor:
        """(M,) probability that an optimal policy (ties drawn evenly) is in ``goal`` within ``steps``."""
        policy = self.best(reward).double()
        step = torch.einsum("msa,msat->mst", policy / policy.sum(-1, keepdim=True), self.chance)
        step = torch.where(self.terminal.unsqueeze(-1), torch.eye(step.shape[-1], dtype=torch.float64), step)
        where = torch.zeros(self.terminal.shape, dtype=torch.float64)
        where[:, start] = 1.0
        for _ in range(steps):
            where = torch.einsum("ms,mst->mt", where, step)
        return (where * goal).sum(-1)


def chain(length: int, gamma: float, success: float) -> tuple[Tabular, torch.Tensor]:
    """States in a row; actions back, stay, forward. Forward from the last one succeeds by chance, or fails for good.

    Returns:
        One process of ``length`` + 2 states, the last two of them success and failure; and (1, S) bool, success.
    """
    states = length + 2
    chance = torch.zeros(1, states, 3, states, dtype=torch.float64)
    for s in range(length):
        for action, target in enumerate((max(s - 1, 0), s, s + 1)):
            chance[0, s, action, target] = 1.0
    chance[0, length - 1, 2] = 0.0
    chance[0, length - 1, 2, length] = success
    chance[0, length - 1, 2, length + 1] = 1.0 - success
    chance[0, length:, :, 0] = 1.0
    terminal = torch.zeros(1, states, dtype=torch.bool)
    terminal[0, length:] = True
    goal = torch.zeros_like(terminal)
    goal[0, length] = True
    return Tabular(chance, terminal, gamma), goal
