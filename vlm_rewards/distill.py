"""A critic distilled onto the simulator's state, while a policy trains: cheap answers where there are no pictures.

The critic sees pictures of some worlds at some steps; a small network learns from its answers there what it would say
of any state, and speaks for it (ONI's annotator and distilled reward, Zheng et al. 2024, with progress instead of
labels). Before it learns from an answer it is held against it (`vlm_rewards.agreement`): its potential is believed only
as long as it was right lately. Its done is never believed, it only says where to ask: success is the critic's word.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from vlm_rewards.agreement import Agreement

CAPACITY = 30_000
"""Answers that are remembered, the newest ones."""
LESSON, PAUSE = 64, 4
"""Least number of new answers, and of calls since the last one, that make a lesson: so learning costs little beside
stepping the worlds, be they few or many."""
STEPS, BATCH, RATE = 8, 128, 5e-3
"""Gradient steps of a lesson, answers in each, and learning rate."""
HIDDEN = (96, 96, 96)
_NOISE = 0.05
"""Standard deviation of what is added to scaled observations in learning: few episodes are seen, many are guessed."""
SUSPICION = 0.5
"""Probability of done from which on it is worth asking the critic."""
_DONE_WEIGHT = 0.3
"""Of the loss of done beside that of the potential."""
_LEAST_SPREAD = 0.5
"""Observations that vary less are not scaled up: what hardly varied so far may vary tomorrow."""
_LEAST_RANGE = 0.01
"""The same for potentials."""
_FURTHEST = 5.0
"""Bound of scaled observations."""


class Student:
    """Predicts a critic's potential and its probability of done from state observations.

    Args:
        size: d, numbers in an observation.
        threshold: probability from which on the critic's done counts.
        seed: of weights, and of the order and the noise of learning.
        device: where observations are.

    Attributes:
        agreement: how well it agreed with the critic lately, on answers that it had not learned from.
        seen: answers learned from so far.
    """

    def __init__(self, size: int, threshold: float = 0.5, seed: int = 0, device: torch.device | str = "cpu") -> None:
        self._generator = torch.Generator(device).manual_seed(seed)
        self._network = _network((size, *HIDDEN, 2), seed).to(device)
        self._optimizer = torch.optim.Adam(self._network.parameters(), lr=RATE, fused=True)
        self._obs = torch.zeros(CAPACITY, size, device=device)
        self._labels = torch.zeros(CAPACITY, 2, device=device)
        self._scales = {
            "mean": torch.zeros(size, device=device),
            "std": torch.ones(size, device=device),
            "middle": torch.full((), 0.5, device=device),
            "range": torch.full((), 0.5, device=device),
        }
        self._waiting: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.agreement = Agreement(threshold)
        self.seen = 0

    def see(self, obs: torch.Tensor, potential: torch.Tensor, done: torch.Tensor) -> None:
        """Take in what the critic says of N states; now and then, learn.

        Args:
            obs: (N, d).
            potential, done: (N,), NaN where the critic was not asked or did not know.
        """
        labels = torch.stack([potential, done], dim=1)
        known = torch.isfinite(labels).any(1)
        self._waiting.append((obs[known], labels[known]))
        if len(self._waiting) >= PAUSE and sum(len(rows) for rows, _ in self._waiting) >= LESSON:
            new, labels = (torch.cat(parts) for parts in zip(*self._waiting, strict=True))
            self._waiting = []
            self._learn(new, labels)

    @torch.no_grad()
    def read(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Potential and probability of done, (B,) each, of observations (B, d)."""
        potential, done = self._network(self._scaled(obs)).unbind(1)
        return (self._scales["middle"] + self._scales["range"] * potential).clamp(0.0, 1.0), torch.sigmoid(done)

    def speak(self, obs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Potentials (B,) of observations (B, d), NaN as long as it is not believed; and (B,) bool, where to ask."""
        if not self.seen:
            return torch.full_like(obs[:, 0], torch.nan), torch.zeros_like(obs[:, 0], dtype=torch.bool)
        potential, done = self.read(obs)
        if not self.agreement.on_potential:
            potential = torch.full_like(potential, torch.nan)
        return potential, done >= SUSPICION

    def study(self, steps: int) -> None:
        """Learn from what is remembered, without anything new."""
        known = min(self.seen, CAPACITY)
        with torch.enable_grad():
            for _ in range(steps if known else 0):
                self._step(known)

    def _learn(self, obs: torch.Tensor, labels: torch.Tensor) -> None:
        """Be held against new answers (B, 2) about observations (B, d), then learn from them and from older ones."""
        if self.seen:
            self.agreement.add(torch.stack(self.read(obs), dim=1), labels)
        obs, labels = obs[-CAPACITY:], labels[-CAPACITY:]
        slots = (self.seen + torch.arange(len(obs), device=obs.device)) % CAPACITY
        self._obs[slots], self._labels[slots] = obs, labels
        self.seen += len(obs)
        known = min(self.seen, CAPACITY)
        self._rescale(known)
        self.study(STEPS)

    def _rescale(self, known: int) -> None:
        """Scales by the ``known`` answers that are remembered."""
        obs, potential = self._obs[:known], self._labels[:known, 0]
        self._scales["mean"] = obs.mean(0)
        self._scales["std"] = obs.std(0, correction=0).clamp_min(_LEAST_SPREAD)
        potential = potential[torch.isfinite(potential)]
        if len(potential):
            self._scales["middle"] = potential.mean()
            self._scales["range"] = potential.std(correction=0).clamp_min(_LEAST_RANGE)

    def _scaled(self, obs: torch.Tensor) -> torch.Tensor:
        return ((obs - self._scales["mean"]) / self._scales["std"]).clamp(-_FURTHEST, _FURTHEST)

    def _step(self, known: int) -> None:
        """One gradient step on a random batch of the ``known`` answers that are remembered."""
        rows = torch.randint(known, (BATCH,), generator=self._generator, device=self._obs.device)
        obs, labels = self._scaled(self._obs[rows]), self._labels[rows]
        noise = torch.randn(obs.shape, generator=self._generator, device=obs.device)
        guess = self._network(obs + _NOISE * noise)
        answered = torch.isfinite(labels)
        labels = labels.nan_to_num(0.0)
        potential = (guess[:, 0] - (labels[:, 0] - self._scales["middle"]) / self._scales["range"]).square()
        done = binary_cross_entropy_with_logits(guess[:, 1], labels[:, 1], reduction="none")
        loss = (torch.stack([potential, _DONE_WEIGHT * done], dim=1) * answered).sum() / BATCH
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """What a bit-exact continuation needs."""
        return {
            "network": {name: value.clone() for name, value in self._network.state_dict().items()},
            "optimizer": copy.deepcopy(self._optimizer.state_dict()),
            "generator": self._generator.get_state(),
            "obs": self._obs[: self.seen].clone(),
            "labels": self._labels[: self.seen].clone(),
            "scales": {name: value.clone() for name, value in self._scales.items()},
            "waiting": [[obs.clone(), labels.clone()] for obs, labels in self._waiting],
            "agreement": self.agreement.state_dict(),
            "seen": self.seen,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, wherever its tensors are."""
        device = self._obs.device
        self._network.load_state_dict(state["network"])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
        self._generator.set_state(state["generator"].cpu())
        self._obs[: len(state["obs"])] = state["obs"].to(device)
        self._labels[: len(state["labels"])] = state["labels"].to(device)
        self._scales = {name: value.to(device).clone() for name, value in state["scales"].items()}
        self._waiting = [(obs.to(device), labels.to(device)) for obs, labels in state["waiting"]]
        self.agreement.load_state_dict(state["agreement"])
        self.seen = int(state["seen"])


def _network(sizes: tuple[int, ...], seed: int) -> nn.Sequential:
    """An untrained network of such layers, whatever the global random numbers are."""
    generator = torch.Generator().manual_seed(seed)
    layers: list[nn.Module] = []
    for size, following in zip(sizes, sizes[1:], strict=False):
        linear = nn.utils.skip_init(nn.Linear, size, following)
        for weight in linear.parameters():
            nn.init.uniform_(weight, -1.0 / math.sqrt(size), 1.0 / math.sqrt(size), generator=generator)
        layers += [linear, nn.SiLU()]
    return nn.Sequential(*layers[:-1])
