"""An environment on one device for a learner on another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from policies.rollout import EnvLike, StepLike


@dataclass(frozen=True)
class MovedStep:
    """A step of N worlds with all its tensors on another device; see `policies.rollout.StepLike`."""

    obs: Mapping[str, torch.Tensor]
    rewards: Mapping[str, torch.Tensor]
    reward: torch.Tensor
    terminated: torch.Tensor
    truncated: torch.Tensor
    final_ids: torch.Tensor
    final_obs: Mapping[str, torch.Tensor]
    episodes: Mapping[str, torch.Tensor]
    log: Mapping[str, float | torch.Tensor]


class Moved:
    """Carries actions to an environment's device and its steps to the learner's, which takes time in every step.

    Args:
        env: the environment.
        device: of the learner.
    """

    def __init__(self, env: EnvLike, device: torch.device) -> None:
        self._env = env
        self.device = device
        self.num_envs, self.num_actions = env.num_envs, env.num_actions
        self.observation_dims = env.observation_dims

    def reset(self) -> Mapping[str, torch.Tensor]:
        """See `EnvLike`."""
        return self._all(self._env.reset())

    def step(self, action: torch.Tensor) -> MovedStep:
        """See `EnvLike`."""
        step: StepLike = self._env.step(action.to(self._env.device))
        return MovedStep(
            self._all(step.obs),
            self._all(step.rewards),
            step.reward.to(self.device),
            step.terminated.to(self.device),
            step.truncated.to(self.device),
            step.final_ids.to(self.device),
            self._all(step.final_obs),
            self._all(step.episodes),
            self._all(step.log),
        )

    def check(self) -> None:
        """See `EnvLike`."""
        self._env.check()

    def _all(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {n: v.to(self.device) if isinstance(v, torch.Tensor) else v for n, v in values.items()}
