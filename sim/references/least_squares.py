"""Levenberg-Marquardt for many small bounded problems at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Residual = Callable[[FloatArray], tuple[FloatArray, FloatArray]]


def least_squares(
    residual: Residual, start: FloatArray, lower: FloatArray, upper: FloatArray, iterations: int
) -> tuple[FloatArray, FloatArray]:
    """Minimise |r(x)|^2 for each of B problems over lower <= x <= upper.

    Each problem has its own damping: divided by 3 after a step that helps, times 4 after one that does not
    (which is undone). Steps are projected on the bounds (Nocedal and Wright, Numerical Optimization, 10.3
    and 16.7); variables at a bound that the gradient pushes outwards do not take part in the step.

    Args:
        residual: x (B, N) -> r (B, M) and its Jacobian (B, M, N).
        start: (B, N); lower, upper: (N,) or (B, N).
        iterations: number of steps tried.

    Returns:
        The best x (B, N) and |r|^2 (B,).
    """
    x = np.clip(start, lower, upper)
    r, jac = residual(x)
    cost = np.einsum("bm,bm->b", r, r)
    damping = np.full(len(x), 1.0)
    eye = np.eye(x.shape[1])
    for _ in range(iterations):
        gradient = np.matmul(r[:, None, :], jac)[:, 0]
        held = ((x <= lower) & (gradient > 0)) | ((x >= upper) & (gradient < 0))
        free = np.where(held, 0.0, 1.0)
        part = jac * free[:, None, :]
        normal = np.matmul(part.transpose(0, 2, 1), part)
        normal += eye * (damping[:, None] + held)[:, :, None]
        step = np.linalg.solve(normal, -(gradient * free)[..., None])[..., 0]
        trial = np.clip(x + step, lower, upper)
        trial_r, trial_jac = residual(trial)
        trial_cost = np.einsum("bm,bm->b", trial_r, trial_r)
        better = trial_cost < cost
        x = np.where(better[:, None], trial, x)
        r = np.where(better[:, None], trial_r, r)
        jac = np.where(better[:, None, None], trial_jac, jac)
        cost = np.where(better, trial_cost, cost)
        damping = np.clip(np.where(better, damping / 3, damping * 4), 1e-6, 1e8)
    return x, cost
