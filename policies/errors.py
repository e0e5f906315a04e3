"""Mistakes that a learner reports, and the check that finds numbers which are not finite."""

from __future__ import annotations

import math

import torch

from robolearn.errors import RobolearnError


class PolicyConfigError(RobolearnError):
    """A learner setting that cannot work: its name, the value given, and what is allowed."""


class PolicyStateError(RobolearnError):
    """A saved learner state that does not fit this learner, or an environment that does not fit it."""


class NonFiniteError(RobolearnError):
    """NaN or infinity in an observation, reward, loss or gradient: what, how many, and where."""


def check_finite(name: str, value: torch.Tensor, where: str = "") -> None:
    """Raise `NonFiniteError` if ``value`` (any shape; first axis: worlds) holds NaN or infinity.

    A finite sum means finite elements, so the good case costs one pass; the exact count is taken only when
    the sum is not finite.
    """
    if math.isfinite(float(value.sum())):
        return
    bad = ~torch.isfinite(value)
    count = int(bad.sum())
    if count:
        rows = bad.reshape(bad.shape[0], -1).any(dim=1).nonzero().flatten() if value.dim() else bad.reshape(1)
        worlds = f"; worlds {rows[:8].tolist()}{' …' if len(rows) > 8 else ''}" if value.dim() else ""
        raise NonFiniteError(f"{name}: {count} of {value.numel()} values are NaN or infinite{worlds}{where}")
