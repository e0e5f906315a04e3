"""Rows in the order of time: what was known last, without a loop over steps."""

from __future__ import annotations

import torch


def latest(known: torch.Tensor) -> torch.Tensor:
    """Index of the latest row up to each that is known, along the first axis; 0 where none is yet.

    Args:
        known: (R, ...) bool.

    Returns:
        (R, ...) int64, for ``values.gather(0, index)``.
    """
    rows = torch.arange(len(known), device=known.device).view(-1, *[1] * (known.dim() - 1))
    return torch.where(known, rows, 0).cummax(0).values


def shift(values: torch.Tensor, first: torch.Tensor | bool | float) -> torch.Tensor:
    """Each row's predecessor along the first axis, ``first`` (...) for the first row."""
    head = first.to(values) if isinstance(first, torch.Tensor) else torch.full_like(values[0], first)
    return torch.cat((head.unsqueeze(0), values[:-1]))


def episodes(ended: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Which episode each row of (T, N) belongs to, and how many of its steps came before.

    Args:
        ended: (T, N) bool, the step was the last of its episode.

    Returns:
        A number in [0, T · N) that rows of one episode share, and the step since the episode's first row; (T, N) int64.
    """
    starts = shift(ended, True)
    world = torch.arange(ended.shape[1], device=ended.device)
    rows = torch.arange(len(ended), device=ended.device).unsqueeze(-1)
    return (starts.long().cumsum(0) - 1) * ended.shape[1] + world, rows - latest(starts)
