"""Running mean and variance of a stream of vectors."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from policies.distributed import sum_over_ranks_


class RunningNorm(nn.Module):
    """Normalise vectors by running mean and standard deviation: ``clip((x - mean) / (std + eps), ±clip)``.

    Starts with mean 0, variance 1, count 0, so the first rollout is seen as it is. The statistics move only
    in `update`, and only in training mode: ``eval()`` freezes them.

    Args:
        size: length d of the vectors.
        eps: added to the standard deviation; keeps features that hardly vary from being blown up.
        clip: bound of the normalised values, or ``None`` for no bound.
    """

    mean: torch.Tensor
    var: torch.Tensor
    count: torch.Tensor
    scale: torch.Tensor

    def __init__(self, size: int, eps: float = 1e-2, clip: float | None = 10.0) -> None:
        super().__init__()
        self.eps = eps
        self.clip = clip
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("var", torch.ones(size))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("scale", torch.full((size,), 1.0 / (1.0 + eps)))
        self._begun = False
        """Known to have seen data; `count` says so too, but on a GPU the host would have to wait for it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise ``x`` (…, d)."""
        z = (x - self.mean) * self.scale
        return z if self.clip is None else z.clamp(-self.clip, self.clip)

    def into(self, x: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """Normalise ``x`` (…, d) into ``out`` without allocating; the same numbers as calling the module."""
        torch.sub(x, self.mean, out=out).mul_(self.scale)
        return out if self.clip is None else out.clamp_(-self.clip, self.clip)

    def undo(self, z: torch.Tensor) -> torch.Tensor:
        """Values (…, d) whose normalised form is ``z``, as far as nothing was clipped."""
        return z / self.scale + self.mean

    @torch.no_grad()
    def update(self, x: torch.Tensor) -> None:
        """Merge the moments of ``x`` (…, d), over all ranks, into the statistics (Chan et al. 1983, eq. 2.1).

        Sums are taken about the current mean, so that a large offset costs no precision.
        """
        if not self.training:
            return
        self._begun = self._begun or bool(self.count > 0)
        # The first batch has no mean to be taken about yet: double precision instead.
        d = ((x if self._begun else x.double()) - self.mean).reshape(-1, x.shape[-1])
        self._begun = True
        total = d.new_full((1,), float(d.shape[0]))
        sums = sum_over_ranks_(torch.cat((total, d.sum(0), d.mul_(d).sum(0))).double())
        n, first, second = sums[0], sums[1 : 1 + d.shape[1]], sums[1 + d.shape[1] :]
        shift = first / n
        batch_var = (second / n - shift * shift).clamp_(min=0.0)
        old, new = self.count, self.count + n
        rate = n / new
        var = self.var.double()
        self.var.copy_(var + rate * (batch_var - var) + rate * (old / new) * shift * shift)
        self.mean.add_((rate * shift).to(self.mean.dtype))
        self.count.copy_(new)
        self.scale.copy_(1.0 / (self.var.sqrt() + self.eps))

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._begun = False
