"""A critic distilled onto the simulator's state, while a policy trains: cheap answers where there are no pictures.

The critic sees pictures of some worlds at some steps; a small network learns from its answers there what it would say
of any state, and speaks for it elsewhere (ONI's annotator and distilled reward, Zheng et al. 2024, with progress
instead of labels). Before it learns from an answer it is held against it: it is believed only where it was right
lately.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, mse_loss


class Student:
    """Predicts a critic's potential and its probability of done from state observations.

    Args:
        size: d, numbers in an observation.
        capacity: answers that are remembered, the newest ones.
        hidden: width of the two hidden layers.
        lr: learning rate.
        batch: answers in one gradient step.
        reliable_at: correlation with the critic's potential, on answers not yet learned from, from which on it is
            believed.
        seed: of weights and of the order of learning.

    Attributes:
        correlation: with the critic's potential on the latest answers, before learning from them; NaN at first.
        error: mean absolute error of the potential, likewise.
        seen: answers learned from so far.
    """

    def __init__(
        self,
        size: int,
        *,
        capacity: int = 30_000,
        hidden: int = 128,
        lr: float = 2e-3,
        batch: int = 512,
        reliable_at: float = 0.8,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.batch, self.reliable_at = batch, reliable_at
        self._generator = torch.Generator(device).manual_seed(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self._network = nn.Sequential(
                nn.Linear(size, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 2)
            ).to(device)
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=lr)
        self._obs = torch.zeros(capacity, size, device=device)
        self._labels = torch.zeros(capacity, 2, device=device)
        self._mean = torch.zeros(size, device=device)
        self._std = torch.ones(size, device=device)
        self.correlation = self.error = float("nan")
        self.seen = 0

    @property
    def reliable(self) -> bool:
        """Whether its latest predictions agreed with the critic."""
        return self.correlation >= self.reliable_at

    @torch.no_grad()
    def read(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Potential and probability of done, (B,) each, of observations (B, d)."""
        potential, done = self._network((obs - self._mean) / self._std).unbind(1)
        return potential.clamp(0.0, 1.0), torch.sigmoid(done)

    def learn(self, obs: torch.Tensor, potential: torch.Tensor, done: torch.Tensor, steps: int = 8) -> None:
        """Check itself against new answers (B,) about observations (B, d), then learn from them and from older ones."""
        if len(obs) == 0:
            return
        if self.seen:
            self._check(obs, potential)
        slots = (self.seen + torch.arange(len(obs), device=obs.device)) % len(self._obs)
        self._obs[slots] = obs
        self._labels[slots] = torch.stack([potential, done], dim=1)
        self.seen += len(obs)
        known = min(self.seen, len(self._obs))
        self._mean, self._std = self._obs[:known].mean(0), self._obs[:known].std(0).clamp_min(1e-3)
        with torch.enable_grad():
            for _ in range(steps):
                self._step(known)

    def _step(self, known: int) -> None:
        rows = torch.randint(known, (self.batch,), generator=self._generator, device=self._obs.device)
        potential, done = self._network((self._obs[rows] - self._mean) / self._std).unbind(1)
        labels = self._labels[rows]
        loss = mse_loss(potential, labels[:, 0]) + 0.3 * binary_cross_entropy_with_logits(done, labels[:, 1])
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()

    def _check(self, obs: torch.Tensor, potential: torch.Tensor) -> None:
        """Compare with answers that it has not learned from; of constant ones nothing follows."""
        mine, _ = self.read(obs)
        self.error = float((mine - potential).abs().mean())
        pair = torch.stack([mine, potential])
        if len(obs) >= 8 and bool((pair.std(1) > 1e-4).all()):
            self.correlation = float(torch.corrcoef(pair)[0, 1])

    def state_dict(self) -> dict[str, Any]:
        """What a bit-exact continuation needs."""
        return {
            "network": {name: value.clone() for name, value in self._network.state_dict().items()},
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
            "obs": self._obs.clone(),
            "labels": self._labels.clone(),
            "mean": self._mean.clone(),
            "std": self._std.clone(),
            "figures": [self.correlation, self.error],
            "seen": self.seen,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])
        self._obs.copy_(state["obs"])
        self._labels.copy_(state["labels"])
        self._mean, self._std = state["mean"].clone(), state["std"].clone()
        self.correlation, self.error = state["figures"]
        self.seen = int(state["seen"])
