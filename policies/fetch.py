"""The one place where a learner reads numbers from its device."""

from __future__ import annotations

from collections.abc import Mapping

import torch


def fetch(tensors: Mapping[str, torch.Tensor]) -> dict[str, list[float]]:
    """The numbers of several tensors (of one device and any shape), each as a flat list.

    To read from a GPU, the host has to wait until all work before is done: here it waits once for all of them.
    """
    if not tensors:
        return {}
    numbers = iter(torch.cat([value.detach().reshape(-1).double() for value in tensors.values()]).tolist())
    return {name: [next(numbers) for _ in range(value.numel())] for name, value in tensors.items()}
