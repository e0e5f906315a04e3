"""Several rewards into one, and several critics into one judgement."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from robolearn.errors import unknown
from vlm_rewards.choices import ENSEMBLES, MIXINGS
from vlm_rewards.errors import CriticError

_SAME = 1e-6
"""Deviations below this share of the largest value are rounding errors."""


def mix(
    mixing: str,
    rewards: torch.Tensor,
    weights: torch.Tensor | Sequence[float] | None = None,
    valid: torch.Tensor | None = None,
) -> torch.Tensor:
    """K rewards (K, ...) into one (...) by one of `MIXINGS`; ``gdpo`` takes all rows as one group.

    Raises:
        CriticError: another name.
    """
    if mixing == "sum":
        return weighted_sum(rewards, weights, valid)
    if mixing == "soft_and":
        return soft_and(rewards, weights, valid)
    if mixing == "gdpo":
        flat = rewards.flatten(1)
        mixed = gdpo(flat, weights, None if valid is None else valid.flatten(1))
        return mixed.view(rewards.shape[1:])
    raise CriticError(unknown("mixing", mixing, MIXINGS))


def weighted_sum(
    rewards: torch.Tensor,
    weights: torch.Tensor | Sequence[float] | None = None,
    valid: torch.Tensor | None = None,
) -> torch.Tensor:
    """Σ wᵢ rᵢ over the valid members; NaN where none is.

    Args:
        rewards: (K, ...).
        weights: (K,); all 1 where not given.
        valid: (K, ...) bool; all where not given.
    """
    return _over_valid(_weights(weights, rewards) * rewards, valid)


def soft_and(
    rewards: torch.Tensor,
    weights: torch.Tensor | Sequence[float] | None = None,
    valid: torch.Tensor | None = None,
) -> torch.Tensor:
    """Σ log σ(rᵢ): log-probability that all Bradley-Terry rewards call it good; Wang et al. 2024 (arXiv 2402.00742).

    The worst objective decides, and one that is good already adds next to nothing. The authors centre each reward by
    that of a reference first, so that 0 means as good as the reference.

    Args:
        rewards: (K, ...) Bradley-Terry rewards (log-odds of being preferred).
        weights: (K,) factors of the logarithms; all 1, a conjunction, where not given.
        valid: (K, ...) bool; members that are not are left out of the conjunction. NaN where none is.
    """
    return _over_valid(_weights(weights, rewards) * F.logsigmoid(rewards), valid)


def gdpo(
    rewards: torch.Tensor,
    weights: torch.Tensor | Sequence[float] | None = None,
    valid: torch.Tensor | None = None,
    batch_normalize: bool = True,
) -> torch.Tensor:
    """Normalise each reward within its group, weight, sum, then normalise over the batch; GDPO (arXiv 2601.05242).

    Aᵢ = Σₖ wₖ (rₖ - mean_group rₖ) / std_group rₖ;  A = (Aᵢ - mean_batch A) / std_batch A. Normalising the sum instead
    would make different combinations of rewards alike. Deviations are those of the population; a reward that does
    not differ within its group adds 0. What comes out are advantages of whole attempts: as rewards of single steps
    they shift what an episode's length is worth, so use them where episodes are equally long.

    Args:
        rewards: (K, ..., G), G attempts in each group.
        weights: (K,); all 1 where not given.
        valid: (K, ..., G) bool; others add 0 and take no part in means and deviations.
        batch_normalize: whether to take the last step.

    Returns:
        (..., G).

    Raises:
        CriticError: groups of less than two.
    """
    if rewards.shape[-1] < 2:
        raise CriticError(f"GDPO compares attempts of a group: it needs 2 or more, got {rewards.shape[-1]}")
    used = torch.ones_like(rewards, dtype=torch.bool) if valid is None else valid
    summed = (_weights(weights, rewards) * _standardized(rewards, used, (-1,))).sum(0)
    if not batch_normalize:
        return summed
    return _standardized(summed, used.any(0), tuple(range(summed.dim())))


def ensemble(
    members: torch.Tensor,
    valid: torch.Tensor | None = None,
    method: str = "mean",
    k: float = 1.0,
    abstain_std: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One judgement of M critics, and where it may be used.

    ``mean``; ``min``, the worst case (Coste et al. 2024, arXiv 2310.02743); ``lower``: mean - k · std.

    Args:
        members: (M, ...).
        valid: (M, ...) bool; others, and values that are not finite, take no part.
        method: one of `ENSEMBLES`.
        k: of ``lower``.
        abstain_std: the ensemble abstains where its members' standard deviation (of the population) exceeds this, and
            where fewer than two are left to disagree; None: it never does.

    Returns:
        Values (...), NaN where invalid, and validity (...) bool.

    Raises:
        CriticError: another method.
    """
    if method not in ENSEMBLES:
        raise CriticError(unknown("ensemble", method, ENSEMBLES))
    used = torch.isfinite(members) if valid is None else valid & torch.isfinite(members)
    count = used.sum(0)
    mean = members.masked_fill(~used, 0.0).sum(0) / count.clamp(min=1)
    std = ((members - mean).masked_fill(~used, 0.0).square().sum(0) / count.clamp(min=1)).sqrt()
    if method == "min":
        value = members.masked_fill(~used, torch.inf).amin(0)
    else:
        value = mean - k * std if method == "lower" else mean
    usable = count > 0
    if abstain_std is not None:
        usable = (count > 1) & (std <= abstain_std)
    return value.masked_fill(~usable, torch.nan), usable


def _weights(weights: torch.Tensor | Sequence[float] | None, rewards: torch.Tensor) -> torch.Tensor:
    """(K, 1, ...); raises unless there is one for each reward."""
    if weights is None:
        return rewards.new_ones(len(rewards), *[1] * (rewards.dim() - 1))
    given = torch.as_tensor(weights, dtype=rewards.dtype, device=rewards.device)
    if tuple(given.shape) != (len(rewards),):
        raise CriticError(f"{len(rewards)} rewards need as many weights, got shape {tuple(given.shape)}")
    return given.view(-1, *[1] * (rewards.dim() - 1))


def _over_valid(parts: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
    """Sum over the first axis of what is valid; NaN where nothing is."""
    if valid is None:
        return parts.sum(0)
    return parts.masked_fill(~valid, 0.0).sum(0).masked_fill(~valid.any(0), torch.nan)


def _standardized(values: torch.Tensor, used: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    """(x - mean) / std over ``dims``, of the used entries; 0 for the others and where nothing differs."""
    count = used.sum(dims, keepdim=True).clamp(min=1)
    centred = values.masked_fill(~used, 0.0)
    centred = (centred - centred.sum(dims, keepdim=True) / count).masked_fill(~used, 0.0)
    std = (centred.square().sum(dims, keepdim=True) / count).sqrt()
    same = std <= _SAME * values.masked_fill(~used, 0.0).abs().amax(dims, keepdim=True)
    return (centred / std).masked_fill(same, 0.0)
