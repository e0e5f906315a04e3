"""The loss of proximal policy optimisation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from policies.distributed import sum_over_ranks_, world_size
from policies.ppo_config import PPOConfig

STATISTICS = tuple(f"loss/{name}" for name in ("surrogate", "value", "entropy", "imitation"))
STATISTICS += ("policy/kl", "policy/clip_fraction")
"""What `ppo_loss` reports beside the loss, in this order."""

LOSS_COLUMNS = ("action", "mean", "log_prob", "advantage", "target", "value")
"""What `ppo_loss` reads of a minibatch."""


@dataclass
class Minibatch:
    """What an imitation hook sees; B samples.

    Attributes:
        index: (B,) position of each sample in the rollout: step · N + world.
        obs: raw observations by group, (B, d).
        action: actions taken, (B, A).
        mean: the policy's mean actions now, (B, A), with gradient.
        std: the policy's standard deviation now, (A,), with gradient.
        advantage: (B,).
    """

    index: torch.Tensor
    obs: dict[str, torch.Tensor]
    action: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor
    advantage: torch.Tensor


def ppo_loss(
    config: PPOConfig,
    batch: Mapping[str, torch.Tensor],
    mean: torch.Tensor,
    value: torch.Tensor,
    log_std: torch.Tensor,
    old_log_std: torch.Tensor,
    imitation: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Clipped surrogate (Schulman et al. 2017, eq. 7) + value loss - entropy bonus + ``imitation``.

    Args:
        config: clip ranges and weights.
        batch: `LOSS_COLUMNS` of the rollout: ``action``, ``mean`` (B, A), ``log_prob`` (without the Gaussian's
            constant), ``advantage``, ``target``, ``value`` (B,).
        mean: means of the policy now (B, A).
        value: values now (B,).
        log_std: log standard deviation now (A,).
        old_log_std: log standard deviation in the rollout (A,).
        imitation: an already weighted loss to add.

    Returns:
        The loss, and its `STATISTICS` (6,).
    """
    std, total_log_std = log_std.exp(), log_std.sum()
    log_prob = ((batch["action"] - mean) / std).square().sum(-1).mul(-0.5) - total_log_std
    ratio = (log_prob - batch["log_prob"]).exp()
    advantage, clip = batch["advantage"], config.clip
    surrogate = -torch.min(ratio * advantage, ratio.clamp(1.0 - clip, 1.0 + clip) * advantage).mean()
    error = (value - batch["target"]).square()
    if config.value_clip is not None:
        near = batch["value"] + (value - batch["value"]).clamp(-config.value_clip, config.value_clip)
        error = torch.max(error, (near - batch["target"]).square())
    value_loss = error.mean()
    entropy = total_log_std + 0.5 * len(log_std) * (1.0 + math.log(2.0 * math.pi))
    loss = surrogate + config.value_coef * value_loss - config.entropy_coef * entropy
    if imitation is None:
        imitation = torch.zeros_like(surrogate)
    else:
        loss = loss + imitation
    with torch.no_grad():
        kl = gaussian_kl(batch["mean"], old_log_std, mean, log_std)
        clipped = ((ratio - 1.0).abs_() > clip).float().mean()
        return loss, torch.stack((surrogate, value_loss, entropy, imitation, kl, clipped))


def gaussian_kl(
    mean: torch.Tensor, log_std: torch.Tensor, new_mean: torch.Tensor, new_log_std: torch.Tensor
) -> torch.Tensor:
    """KL(old ‖ new) of diagonal Gaussians, averaged over the batch.

    Σ log(σ'/σ) + (σ² + (μ - μ')²) / (2 σ'²) - 1/2; means (B, A), log standard deviations (A,).
    """
    moved = (new_mean - mean).square().mean(0)
    spread = ((2.0 * log_std).exp() + moved) * (-2.0 * new_log_std).exp()
    return (new_log_std - log_std + 0.5 * spread - 0.5).sum()


def standardize_(x: torch.Tensor) -> torch.Tensor:
    """Bring ``x`` to mean 0 and standard deviation 1 over all its elements and all ranks, in place."""
    if world_size() == 1:
        std, mean = torch.std_mean(x)
    else:
        n, first, second = sum_over_ranks_(torch.stack((x.new_full((), x.numel()), x.sum(), x.square().sum())))
        mean = first / n
        std = (second / n - mean * mean).clamp(min=0.0).mul(n / (n - 1)).sqrt()
    return x.sub_(mean).div_(std + 1e-8)
