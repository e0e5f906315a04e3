"""What a critic did in a rollout, as metrics."""

from __future__ import annotations

from collections.abc import Mapping

import torch


class Record:
    """Sums over a rollout that stay on the device until `report` fetches them, once."""

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._sums: torch.Tensor | None = None

    def add(self, counts: Mapping[str, torch.Tensor]) -> None:
        """One step's numbers, the same names every time: (N,) bool or float each, or a sum already."""
        self._names = tuple(counts)
        row = torch.stack([value.sum() for value in counts.values()]).double()
        self._sums = row if self._sums is None else self._sums + row

    def take(self) -> dict[str, float]:
        """The sums since the last time."""
        if self._sums is None:
            return {}
        found = dict(zip(self._names, self._sums.tolist(), strict=True))
        self._sums = None
        return found
