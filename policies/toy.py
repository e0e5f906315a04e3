"""Two small batched environments in torch: to test a learner, and to time one without physics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class ToyStep:
    """One step of N worlds; see `policies.rollout.StepLike`."""

    obs: dict[str, torch.Tensor]
    rewards: dict[str, torch.Tensor]
    reward: torch.Tensor
    terminated: torch.Tensor
    truncated: torch.Tensor
    final_ids: torch.Tensor
    final_obs: dict[str, torch.Tensor]
    episodes: dict[str, torch.Tensor] = field(default_factory=dict)
    log: dict[str, float | torch.Tensor] = field(default_factory=dict)


class ToyEnv(ABC):
    """Base: clocks, automatic reset with final observations, exact state.

    Subclasses keep their tensors (N, …) in `state` and give `_begin` (fresh rows for the worlds in ``ids``),
    `_observe` and `_advance` (reward terms and which worlds failed).

    Args:
        num_envs: worlds N.
        num_actions: action size A.
        dims: observation sizes.
        horizon: steps after which an episode times out.
        seed: seed of everything random.
        device: where the worlds are.
        dense: draw new episodes for all worlds in every step, and use those of worlds that ended, so that the host
            need not know which; default: on a GPU.
    """

    def __init__(
        self,
        num_envs: int,
        num_actions: int,
        dims: dict[str, int],
        horizon: int,
        seed: int,
        device: torch.device | str = "cpu",
        dense: bool | None = None,
    ) -> None:
        self.num_envs, self.num_actions, self.observation_dims = num_envs, num_actions, dims
        self.max_episode_length = horizon
        self.device = torch.empty(0, device=device).device
        self.dense = self.device.type != "cpu" if dense is None else dense
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.clock = torch.zeros(num_envs, dtype=torch.long, device=self.device)
        self.state: dict[str, torch.Tensor] = {}
        self._all = torch.arange(num_envs, device=self.device)

    def reset(self) -> dict[str, torch.Tensor]:
        """Start every world, at a random age so that they do not end together."""
        age = (0, self.max_episode_length, (self.num_envs,))
        self.clock = torch.randint(*age, generator=self.generator, device=self.device)
        self.state = self._begin(self._all)
        return self._observe()

    def step(self, action: torch.Tensor) -> ToyStep:
        """Advance by ``action`` (N, A) and reset the worlds that ended."""
        rewards, terminated = self._advance(action)
        self.clock += 1
        truncated = self.clock >= self.max_episode_length
        ended = terminated | truncated
        ids = self._all if self.dense else ended.nonzero().flatten()
        final_obs = {group: value[ids] for group, value in self._observe().items()}
        if len(ids):
            self.clock.masked_fill_(ended, 0)
            for name, rows in self._begin(ids).items():
                old = self.state[name]
                if self.dense:
                    self.state[name] = torch.where(ended.view(-1, *[1] * (old.ndim - 1)), rows, old)
                else:
                    old[ids] = rows
        reward = torch.stack(list(rewards.values())).sum(0)
        return ToyStep(self._observe(), rewards, reward, terminated, truncated, ids, final_obs)

    def check(self) -> None:
        """Nothing to say: nothing here can go wrong unnoticed."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on exactly."""
        state = {name: value.clone() for name, value in self.state.items()}
        return {"state": state, "clock": self.clock.clone(), "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.state = {name: value.to(self.device).clone() for name, value in state["state"].items()}
        self.clock = state["clock"].to(self.device).clone()
        self.generator.set_state(state["generator"].cpu())

    @abstractmethod
    def _begin(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        """State of new episodes in the worlds ``ids``, name → (K, ...)."""

    @abstractmethod
    def _observe(self) -> dict[str, torch.Tensor]:
        """Observations of all worlds."""

    @abstractmethod
    def _advance(self, action: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Move all worlds on; named rewards and what terminated."""


class PointMass(ToyEnv):
    """A unit mass (kg) on each of A axes is pushed to its target (m); leaving |x| < 3 m ends the episode.

    The policy sees position, velocity and target; the critic also a constant push.

    Args:
        num_envs: worlds N.
        axes: number of axes, the action size A; forces are 5 N per unit of action.
        horizon: steps of .05 s until the time-out.
        seed: seed of targets, starts and pushes.
        place: ``device`` and ``dense`` of `ToyEnv`.
    """

    def __init__(self, num_envs: int = 256, axes: int = 2, horizon: int = 60, seed: int = 0, **place: Any) -> None:
        super().__init__(num_envs, axes, {"policy": 3 * axes, "critic": 4 * axes}, horizon, seed, **place)

    def _begin(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        shape = (3, len(ids), self.num_actions)
        draw = torch.rand(shape, generator=self.generator, device=self.device) * 2.0 - 1.0
        return {"x": draw[0], "v": torch.zeros_like(draw[0]), "target": draw[1], "push": 0.5 * draw[2]}

    def _observe(self) -> dict[str, torch.Tensor]:
        s = self.state
        seen = torch.cat((s["x"], s["v"], s["target"]), -1)
        return {"policy": seen, "critic": torch.cat((seen, s["push"]), -1)}

    def _advance(self, action: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        s = self.state
        s["v"] = s["v"] + 0.05 * (5.0 * action + s["push"] - s["v"])
        s["x"] = s["x"] + 0.05 * s["v"]
        distance = (s["x"] - s["target"]).square().mean(-1)
        rewards = {"near": torch.exp(-4.0 * distance), "effort": -0.01 * action.square().mean(-1)}
        return rewards, (s["x"].abs() > 3.0).any(-1)


class Recall(ToyEnv):
    """A sign is shown in the first step alone; the action must follow it in every later step.

    Without memory the expected reward is at most 0; with memory it approaches 1 in all steps but the first.
    """

    def __init__(self, num_envs: int = 256, horizon: int = 8, seed: int = 0, **place: Any) -> None:
        super().__init__(num_envs, 1, {"policy": 2, "critic": 2}, horizon, seed, **place)

    def _begin(self, ids: torch.Tensor) -> dict[str, torch.Tensor]:
        sign = torch.randint(0, 2, (len(ids), 1), generator=self.generator, device=self.device) * 2.0 - 1.0
        return {"sign": sign, "first": torch.ones_like(sign)}

    def _observe(self) -> dict[str, torch.Tensor]:
        seen = torch.cat((self.state["sign"] * self.state["first"], self.state["first"]), -1)
        return {"policy": seen, "critic": seen}

    def _advance(self, action: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        s = self.state
        match = (action.clamp(-1.0, 1.0) * s["sign"] * (1.0 - s["first"])).squeeze(-1)
        s["first"] = torch.zeros_like(s["first"])
        return {"match": match}, torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
