"""Whether pictures are of the kind that a critic was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch

_SHRINK = 0.02
"""Share of a sphere that is mixed into the covariance, so that directions without spread do not decide alone."""
_STEEP = 8.0


def traits(pictures: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
    """(N, D) of N moments, for each view: means and sizes of colours and features, and how much edges stand out.

    Args:
        pictures: (N, V, 3, H, W) in about [-1, 1].
        near: (N, V, h*w, C), a network's features of them.
    """
    some = pictures[..., ::2, ::2]  # a quarter of the pixels tells enough
    mean, square = some.mean((-2, -1)), some.square().mean((-2, -1))
    across = (pictures[..., ::2, 1::2] - some[..., : pictures.shape[-1] // 2]).abs().mean((-3, -2, -1)).unsqueeze(-1)
    down = (pictures[..., 1::2, ::2] - some[..., : pictures.shape[-2] // 2, :]).abs().mean((-3, -2, -1)).unsqueeze(-1)
    shown, strong = near.mean(2), near.square().mean(2)
    return torch.cat([mean, square.sqrt(), across, down, shown, strong.sqrt()], -1).flatten(1)


@dataclass(frozen=True)
class Domain:
    """A Gaussian of the traits of training pictures.

    The Mahalanobis distance d to it becomes a confidence 1 / (1 + (d / reach)^8): 0.5 at ``reach``, 0.004 at twice
    that (distance of features as in Lee et al. 2018, arXiv 1807.03888).

    Attributes:
        mean: (D,).
        whiten: (D, D); a difference times it has independent entries of variance 1.
        reach: distance that 99% of held-out pictures of the same kind stay within.
    """

    mean: torch.Tensor
    whiten: torch.Tensor
    reach: float

    @classmethod
    def of(cls, training: torch.Tensor, held_out: torch.Tensor) -> Domain:
        """From traits (N, D) of training pictures, and of others of the same kind."""
        mean = training.double().mean(0)
        covariance = (training.double() - mean).T @ (training.double() - mean) / max(len(training) - 1, 1)
        sphere = torch.eye(len(mean), dtype=torch.float64) * covariance.diagonal().mean()
        covariance = (1 - _SHRINK) * covariance + _SHRINK * sphere + 1e-9 * torch.eye(len(mean), dtype=torch.float64)
        whiten = torch.linalg.inv(torch.linalg.cholesky(covariance)).T
        made = cls(mean.float(), whiten.float(), 1.0)
        return cls(made.mean, made.whiten, float(torch.quantile(made.distance(held_out), 0.99)) * 1.05)

    def distance(self, seen: torch.Tensor) -> torch.Tensor:
        """(N,) Mahalanobis distances of traits (N, D)."""
        return torch.linalg.vector_norm((seen - self.mean) @ self.whiten, dim=1)

    def confidence(self, seen: torch.Tensor) -> torch.Tensor:
        """(N,) in [0, 1]."""
        return 1.0 / (1.0 + (self.distance(seen) / self.reach) ** _STEEP)
