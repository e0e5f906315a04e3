"""From logits to probabilities that can be taken at their word."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from vlm_rewards.errors import CriticError


@dataclass(frozen=True)
class Platt:
    """A probability from a logit z: sigmoid(scale z + shift) (Platt 1999; without the shift, temperature scaling)."""

    scale: float = 1.0
    shift: float = 0.0

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """Probabilities, of the same shape."""
        return torch.sigmoid(self.scale * logits + self.shift)


def fit_platt(logits: torch.Tensor, truths: torch.Tensor, shifted: bool = True) -> Platt:
    """The scale, and the shift if ``shifted``, that make held-out truths likeliest.

    Args:
        logits: (F,).
        truths: (F,) bool. As in Platt (1999) they count as (N+ + 1) / (N+ + 2) and 1 / (N- + 2), so that logits which
            separate the truths perfectly do not become certainties.

    Raises:
        CriticError: there are none of one kind, a logit is not finite, or higher logits are not likelier true.
    """
    truths = truths.bool()
    positive, negative = int(truths.sum()), int((~truths).sum())
    if not positive or not negative:
        raise CriticError(f"calibration needs frames of both kinds, got {positive} that are done and {negative} not")
    if not bool(torch.isfinite(logits).all()):
        raise CriticError("calibration needs finite logits")
    x = logits.double()
    wanted = torch.where(truths, (positive + 1) / (positive + 2), 1 / (negative + 2)).double()
    free = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([free], max_iter=100, tolerance_change=1e-10, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = binary_cross_entropy_with_logits(free[0] * x + free[1] * float(shifted), wanted)
        value.backward()
        return value

    optimiser.step(loss)
    scale, shift = free.detach().tolist()
    if not math.isfinite(scale) or scale <= 0:
        raise CriticError("calibration failed: the critic's higher logits are not likelier true")
    return Platt(scale, shift if shifted else 0.0)
