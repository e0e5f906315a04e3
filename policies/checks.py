"""Is a rollout made of numbers? On a CPU each step can be asked; a GPU is asked once, at the rollout's end."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from policies.errors import check_finite
from policies.fetch import fetch
from policies.rollout import GROUPS, Rollout


def check_reward(reward: torch.Tensor, terms: Mapping[str, torch.Tensor], where: str) -> None:
    """Raise `NonFiniteError` where a reward (N,) is not finite, and name the term that spoiled it."""
    if not math.isfinite(float(reward.sum())):
        for name, term in terms.items():
            check_finite(f"reward term {name!r}", term, where)
        check_finite("reward", reward, where)


def check_rollout(rollout: Rollout, obs: Mapping[str, torch.Tensor], terms: Mapping[str, torch.Tensor]) -> None:
    """Raise `NonFiniteError` for what is not finite in a whole rollout, as if every step had been checked.

    In the good case the host waits for the device once.

    Args:
        rollout: filled.
        obs: observations after its last step, by group.
        terms: sums of the reward's terms over its steps, (N,) each.
    """
    sums = {group: rollout.raw[group].sum() + obs[group].sum() for group in GROUPS}
    sums |= {"reward": rollout.reward.sum(), "final": rollout.final.sum()}
    if all(math.isfinite(total) for (total,) in fetch(sums).values()):
        return
    for t in range(rollout.steps + 1):
        where = f" (rollout step {t})"
        for group in GROUPS:
            seen = rollout.raw[group][t] if t < rollout.steps else obs[group]
            check_finite(f"observation {group!r}", seen, where)
        if t < rollout.steps:
            check_reward(rollout.reward[t], terms, where)
    check_finite("final observation 'critic'", rollout.final.flatten(0, 1))
