"""Random numbers of a stated range, distribution and form."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

DISTRIBUTIONS = ("uniform", "log_uniform", "gaussian")
"""``gaussian`` has its mean in the middle of the range, a quarter of the width as its standard deviation, and is cut
off at the range's ends, which are two standard deviations away."""

FORMS = {"one": 1, "xyz": 3, "sphere": 3, "horizontal": 3}
"""Form → numbers: one; three independent ones; a vector whose length is drawn, in any direction of space or of the x-y
plane."""

_CUT = 2.0
_TAIL = 0.5 * math.erfc(_CUT / math.sqrt(2.0))


@dataclass(frozen=True)
class Draw:
    """What is drawn.

    Attributes:
        low, high: the range, both ends included.
        distribution: one of `DISTRIBUTIONS`.
        form: one of `FORMS`; of vectors the length has the distribution.
    """

    low: float
    high: float
    distribution: str = "uniform"
    form: str = "one"

    @property
    def width(self) -> int:
        """How many numbers one draw has."""
        return FORMS[self.form]

    def sample(self, rows: int, items: int, generator: torch.Generator) -> torch.Tensor:
        """(rows, items, width) float64 on the generator's device; the host does not wait for it."""
        if self.form == "one":
            return self._numbers((rows, items, 1), generator)
        if self.form == "xyz":
            return self._numbers((rows, items, 3), generator)
        return self._numbers((rows, items, 1), generator) * self._directions(rows, items, generator)

    def sizes(self, drawn: torch.Tensor) -> torch.Tensor:
        """What has the distribution: the numbers themselves, or the lengths of vectors (..., 3) → (..., 1)."""
        return drawn if self.form in ("one", "xyz") else torch.linalg.vector_norm(drawn, dim=-1, keepdim=True)

    def density(self, x: np.ndarray) -> np.ndarray:
        """Probability density of what has the distribution, at ``x`` within the range, which is no single number."""
        width = self.high - self.low
        if self.distribution == "log_uniform":
            return 1.0 / (x * math.log(self.high / self.low))
        if self.distribution == "gaussian":
            std = width / (2 * _CUT)
            z = (x - 0.5 * (self.low + self.high)) / std
            return np.exp(-0.5 * z**2) / (math.sqrt(math.tau) * std * (1.0 - 2.0 * _TAIL))
        return np.full_like(x, 1.0 / width)

    def _numbers(self, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
        u = torch.rand(shape, generator=generator, dtype=torch.float64, device=generator.device)
        low, high = self.low, self.high
        if self.distribution == "log_uniform":
            drawn = low * torch.exp(math.log(high / low) * u)
        elif self.distribution == "gaussian":
            normal = math.sqrt(2.0) * torch.erfinv(2.0 * (_TAIL + (1.0 - 2.0 * _TAIL) * u) - 1.0)
            drawn = 0.5 * (low + high) + (high - low) / (2 * _CUT) * normal
        else:
            return low + (high - low) * u
        return drawn.clamp(low, high)  # rounding

    def _directions(self, rows: int, items: int, generator: torch.Generator) -> torch.Tensor:
        """(rows, items, 3) unit vectors."""
        if self.form == "horizontal":
            u = torch.rand((rows, items), generator=generator, dtype=torch.float64, device=generator.device)
            return torch.stack([torch.cos(math.tau * u), torch.sin(math.tau * u), torch.zeros_like(u)], dim=-1)
        shape = (rows, items, 3)
        vector = torch.randn(shape, generator=generator, dtype=torch.float64, device=generator.device)
        return vector / torch.linalg.vector_norm(vector, dim=-1, keepdim=True).clamp_min(1e-12)
