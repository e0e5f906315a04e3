"""How well a student agrees with its critic: on the newest answers most, and only on those it has not learned from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

HALF_LIFE = 1000.0
"""Answers after which an older one counts half."""
LEAST = 50.0
"""Answers, by their weights, below which nothing is known of the potential."""
LEAST_DONE = 10.0
"""Moments that the student calls done, by their weights, below which nothing is known of its done."""
_FLAT = 1e-8
"""Variance of potentials below which they are one and the same."""


class Agreement:
    """Figures of predictions against answers, older ones forgotten bit by bit (prequential, Gama et al. 2013).

    Args:
        threshold: probability from which on a moment counts as done.
        correlation_at: correlation from which on the potential is believed.
    """

    def __init__(self, threshold: float, correlation_at: float = 0.8) -> None:
        self.threshold, self.correlation_at = threshold, correlation_at
        self._sums = torch.zeros(10, dtype=torch.float64)

    def add(self, predicted: torch.Tensor, answered: torch.Tensor) -> None:
        """Compare B pairs of potential and done, (B, 2) each, of one time; answers that are NaN say nothing."""
        known = torch.isfinite(answered).cpu()
        (x, said), (y, true) = (values.detach().double().cpu().unbind(1) for values in (predicted, answered))
        x, y = x[known[:, 0]], y[known[:, 0]]
        said, true = said[known[:, 1]] >= self.threshold, true[known[:, 1]] >= self.threshold
        rows = (torch.ones_like(x), x, y, x * x, y * y, x * y, (x - y).abs(), said, true, said & true)
        self._sums = self._sums * 0.5 ** (len(known) / HALF_LIFE) + torch.stack([row.double().sum() for row in rows])

    @property
    def correlation(self) -> float:
        """Of the potentials; NaN as long as too little is known, or where they do not vary."""
        n, x, y, xx, yy, xy = self._sums[:6].tolist()
        if n < LEAST:
            return math.nan
        spread_x, spread_y = xx / n - (x / n) ** 2, yy / n - (y / n) ** 2
        if min(spread_x, spread_y) < _FLAT:
            return math.nan
        return (xy / n - x * y / n**2) / math.sqrt(spread_x * spread_y)

    @property
    def error(self) -> float:
        """Mean absolute difference of the potentials; NaN as long as nothing is known."""
        return _ratio(self._sums[6], self._sums[0], LEAST)

    @property
    def precision(self) -> float:
        """Share of the moments that the student calls done which the critic calls done too; NaN if there are few."""
        return _ratio(self._sums[9], self._sums[7], LEAST_DONE)

    @property
    def recall(self) -> float:
        """Share of the moments that the critic calls done which the student calls done too; NaN if there are few."""
        return _ratio(self._sums[9], self._sums[8], LEAST_DONE)

    @property
    def on_potential(self) -> bool:
        """Whether the student's potential is believed."""
        return self.correlation >= self.correlation_at

    def figures(self) -> dict[str, float]:
        """What is known, by name."""
        named = {name: getattr(self, name) for name in ("correlation", "error", "precision", "recall")}
        return {name: value for name, value in named.items() if not math.isnan(value)}

    def state_dict(self) -> dict[str, Any]:
        """What a bit-exact continuation needs."""
        return {"sums": self._sums.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._sums.copy_(state["sums"])


def _ratio(part: torch.Tensor, whole: torch.Tensor, least: float) -> float:
    return float(part / whole) if float(whole) >= least else math.nan
