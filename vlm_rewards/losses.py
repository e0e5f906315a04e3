"""What the small critic is trained to get right; truth that is NaN counts nowhere."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from vlm_rewards.batches import Batch
from vlm_rewards.network import Judgement


@dataclass(frozen=True)
class Weights:
    """Of the losses, and of what is said about an absent object in the first two.

    Attributes:
        value, done: cross-entropy with the exact progress, and with whether the instruction is carried out.
        order: of two moments of an episode, which shows more progress (Bradley-Terry).
        hop: the share of what was left, or of what had been reached, between two moments (arXiv 2512.23703).
        place: where the named object and the goal are.
        absent: share of the weight of other sentences.
    """

    value: float = 1.0
    done: float = 1.0
    order: float = 0.1
    hop: float = 0.2
    place: float = 0.3
    absent: float = 0.5


def losses(said: Judgement, batch: Batch, cells: tuple[int, int], weights: Weights) -> dict[str, torch.Tensor]:
    """Each loss, weighted; their sum is what is minimised."""
    trust = torch.tensor([1.0, 1.0, weights.absent])
    seen = batch.value[..., :2], said.value[..., :2]
    return {
        "value": weights.value * _cross_entropy(said.value, batch.value, trust),
        "done": weights.done * _cross_entropy(said.done, batch.done, trust),
        "order": weights.order * _order(*seen),
        "hop": weights.hop * _hop(*seen),
        "place": weights.place * _place(said.log_map, batch, cells),
    }


def hop(before: torch.Tensor, after: torch.Tensor, least: float = 1e-3) -> torch.Tensor:
    """Progress between potentials in [0, 1]: the share gained of what was left, or lost of what had been reached.

    Robo-Dopamine (arXiv 2512.23703), with the end of the episode at 1 and its start at 0. Below ``least`` nothing is
    left, or nothing had been reached, and shares are taken of ``least``.
    """
    change = after - before
    whole = torch.where(change >= 0, 1.0 - before, before).clamp(min=least)
    return (change / whole).clamp(-1.0, 1.0)


def _cross_entropy(logits: torch.Tensor, truth: torch.Tensor, trust: torch.Tensor) -> torch.Tensor:
    known = torch.isfinite(truth)
    weight = known * trust
    each = F.binary_cross_entropy_with_logits(logits, truth.nan_to_num(0.0), reduction="none")
    return (each * weight).sum() / weight.sum().clamp(min=1.0)


def _pairs(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(E, M, S) → every ordered pair of an episode's moments, both ways round."""
    moments = x.shape[1]
    first, second = torch.nonzero(~torch.eye(moments, dtype=torch.bool)).unbind(1)
    return x[:, first], x[:, second]


def _order(truth: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    (one, two), (said_one, said_two) = _pairs(truth), _pairs(logits)
    weight = ((two - one).abs() > 0.02).float()
    each = F.binary_cross_entropy_with_logits(said_two - said_one, (two > one).float(), reduction="none")
    return (each * weight).sum() / weight.sum().clamp(min=1.0)


def _hop(truth: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """Moments without change count as well: a robot that stands still makes no progress."""
    wanted = hop(*_pairs(truth), least=0.1)
    known = torch.isfinite(wanted)
    said = hop(*_pairs(logits.sigmoid()), least=0.1)
    each = F.smooth_l1_loss(said, wanted.nan_to_num(0.0), reduction="none", beta=0.2)
    return (each * known).sum() / known.sum().clamp(min=1.0)


def _place(log_map: torch.Tensor, batch: Batch, cells: tuple[int, int]) -> torch.Tensor:
    """Cross-entropy with a place spread over the four cells around it, or with "nowhere"."""
    rows, columns = cells
    inside = torch.isfinite(batch.pixels).all(-1)
    place = batch.pixels.nan_to_num(0.5) * torch.tensor([columns, rows]) - 0.5
    low = place.floor()
    share = place - low
    found = torch.zeros(inside.shape)
    for right in (0, 1):
        for down in (0, 1):
            x = (low[..., 0] + right).clamp(0, columns - 1)
            y = (low[..., 1] + down).clamp(0, rows - 1)
            weight = (share[..., 0] if right else 1 - share[..., 0]) * (share[..., 1] if down else 1 - share[..., 1])
            index = (y * columns + x).long().unsqueeze(-1)
            found = found + weight * log_map.gather(-1, index).squeeze(-1)
    each = -torch.where(inside, found, log_map[..., -1])
    located = batch.located[:, None, None].expand_as(each)
    return (each * located).sum() / located.sum().clamp(min=1)
