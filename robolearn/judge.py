"""Judging a policy: whole episodes, one per world, and what they add up to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from robolearn.statistics import wilson
from robolearn.threads import one_thread
from sim.env import Env

Controller = Callable[[Env, Mapping[str, torch.Tensor]], torch.Tensor]
"""``controller(env, obs) -> actions (N, A)``."""

RATES = ("tight", "turned", "strict", "loose", "completed", "diverged", "success", "ever_done", "fell")
_RESAMPLES = 2000


@dataclass(frozen=True)
class Verdict:
    """Results of E episodes.

    Attributes:
        episodes: metric → (E,) values; NaN where an episode says nothing about it.
    """

    episodes: Mapping[str, np.ndarray]

    def mean(self, metric: str) -> float:
        """Mean over the episodes that say something; NaN where none does."""
        values = self._known(metric)
        return float(values.mean()) if len(values) else math.nan

    def median(self, metric: str) -> float:
        """Median over the same episodes: one diverged world does not move it."""
        values = self._known(metric)
        return float(np.median(values)) if len(values) else math.nan

    def interval(self, metric: str) -> tuple[float, float]:
        """95% confidence interval of the mean: Wilson's for rates, percentile bootstrap otherwise."""
        values = self.episodes[metric]
        values = values[np.isfinite(values)]
        if not len(values):
            return math.nan, math.nan
        if metric in RATES:
            return wilson(float(values.mean()), len(values))
        draws = np.random.default_rng(0).integers(0, len(values), (_RESAMPLES, len(values)))
        low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
        return float(low), float(high)

    def count(self, metric: str) -> int:
        """Sum over the episodes, such as the number that diverged."""
        return int(np.nansum(self.episodes[metric]))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers for JSON: for each metric mean, median and the interval; and the number of episodes."""
        out: dict[str, Any] = {"episodes": len(next(iter(self.episodes.values()), ()))}
        for name, values in self.episodes.items():
            if np.isfinite(values).any():
                low, high = self.interval(name)
                out[name] = {"mean": self.mean(name), "median": self.median(name), "low": low, "high": high}
        return out

    def _known(self, metric: str) -> np.ndarray:
        values = self.episodes[metric]
        return values[~np.isnan(values)]


@one_thread()
@torch.inference_mode()
def judge(env: Env, controller: Controller) -> Verdict:
    """Run one episode in every world of an evaluation environment, and collect the results."""
    obs = env.reset()
    waiting = torch.ones(env.num_envs, dtype=torch.bool, device=env.device)
    results: dict[str, torch.Tensor] = {}
    for _ in range(env.max_episode_length + 1):
        step = env.step(controller(env, obs)).ended()
        obs = step.obs
        fresh = waiting[step.final_ids]
        ids = step.final_ids[fresh]
        for name, values in step.episodes.items():
            if name.startswith("termination/"):
                continue
            results.setdefault(name, torch.full_like(waiting, math.nan, dtype=torch.float))[ids] = values[fresh]
        waiting[ids] = False
        if not waiting.any():
            break
    return Verdict({name: values.double().cpu().numpy() for name, values in results.items()})


def zero_action(env: Env, obs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The task's baseline: a decoder given zero reproduces it."""
    return torch.zeros(env.num_envs, env.num_actions, device=env.device)
