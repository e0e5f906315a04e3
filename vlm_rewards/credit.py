"""Credit in min-form: an episode is worth its worst step, not the sum of its steps (PURE).

Cheng et al. 2025 (arXiv 2504.15275). A sum of process rewards pays for many good-looking steps; a minimum does not,
since a further step never raises it. The authors add the true outcome for a tenth of the episodes: without any, a
process reward can still be misled by steps that it rates well and that lead nowhere.
"""

from __future__ import annotations

import torch

from vlm_rewards.errors import CriticError
from vlm_rewards.ordered import episodes


def min_form(
    process: torch.Tensor,
    ended: torch.Tensor | None = None,
    temperature: float = 0.1,
    valid: torch.Tensor | None = None,
    gamma: float = 1.0,
) -> torch.Tensor:
    """Rewards whose sum over an episode is close to its least process reward: softmax(-r / T)ₜ rₜ.

    The whole weight falls on the worst steps; the others, fillers included, get nearly nothing. The sum lies
    between the least and the mean of the process rewards.

    Args:
        process: (T, N) process rewards, in order.
        ended: (T, N) bool, the step was the last of its episode; None: each column is one. Rows after the last end are
            an episode that is not over; its least reward is that so far.
        temperature: T; the authors use 0.1.
        valid: (T, N) bool; other rows take no part and get 0.
        gamma: the discount under which the sum shall be close to the least reward; the authors use 1. Below 1, rewards
            are divided by γ^(step of the episode), and grow with it.

    Raises:
        CriticError: not (T, N), or a temperature that is not positive.
    """
    ended = _checked(process, ended)
    if not temperature > 0.0:
        raise CriticError(f"the temperature of min-form credit must be greater than 0, got {temperature:g}")
    used = torch.ones_like(ended) if valid is None else valid
    number, step = episodes(ended)
    index = number.flatten()
    logits = (-process / temperature).masked_fill(~used, -torch.inf).flatten()
    lowest = torch.finfo(logits.dtype).min
    peak = torch.full_like(logits, lowest).scatter_reduce(0, index, logits, "amax")
    weight = (logits - peak[index]).exp()
    total = torch.zeros_like(weight).index_add(0, index, weight)[index]
    share = (weight / total.clamp(min=torch.finfo(weight.dtype).tiny)).view_as(process)
    return (share * process.masked_fill(~used, 0.0)) / gamma ** step.to(process.dtype)


def min_to_go(process: torch.Tensor, ended: torch.Tensor | None = None) -> torch.Tensor:
    """The value of each step in min-form: the least process reward from it to the episode's end.

    V_t = min(r_t, V_{t+1}): [.9, .1, .9] has the values [.1, .1, .9].

    Args:
        process, ended: as in `min_form`.
    """
    ended = _checked(process, ended)
    value = torch.empty_like(process)
    ahead = torch.full_like(process[0], torch.inf)
    for t in range(len(process) - 1, -1, -1):
        ahead = value[t] = torch.minimum(process[t], ahead.masked_fill(ended[t], torch.inf))
    return value


def _checked(process: torch.Tensor, ended: torch.Tensor | None) -> torch.Tensor:
    """``ended``, or a last row of ends; raises unless both are (T, N)."""
    if process.dim() != 2 or (ended is not None and ended.shape != process.shape):
        given = tuple(process.shape) if ended is None else f"{tuple(process.shape)} with ends {tuple(ended.shape)}"
        raise CriticError(f"min-form credit needs process rewards of whole episodes, (steps, worlds); got {given}")
    if ended is not None:
        return ended
    ended = torch.zeros_like(process, dtype=torch.bool)
    ended[-1] = True
    return ended
