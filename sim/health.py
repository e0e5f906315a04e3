"""Worlds whose physics failed: found, said and counted."""

from __future__ import annotations

import logging

import torch

from sim.selection import Selection
from sim.world import World

log = logging.getLogger(__name__)
_NAMED = 5
"""Worlds whose failure is explained, at most, where many fail at once."""


class Health:
    """Counts the worlds that have to be reset because their numbers cannot be trusted.

    Args:
        world: the worlds.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._count = torch.zeros((), dtype=torch.long, device=world.device)
        self._reported = 0

    @property
    def count(self) -> int:
        """Failures since creation; the host waits for a GPU."""
        return int(self._count)

    def failed(self) -> torch.Tensor | None:
        """(N,) bool: worlds whose physics failed; None where the host can see that there are none."""
        sick = self._world.unusable()
        if not self._world.dense:
            if not bool(sick.any()):
                return None
            select = Selection.of(sick, dense=False)
            for i, reason in zip(select.ids[:_NAMED].tolist(), self._world.reasons(select), strict=False):
                log.warning("world %d diverged and was reset: %s", i, reason)
        self._count += sick.sum()
        return sick

    def report(self) -> None:
        """Say how many failed since the last report, where that could not be said at once."""
        if self._world.dense and (new := self.count - self._reported):
            log.warning("%d worlds diverged and were reset", new)
            self._reported += new

    def state(self) -> torch.Tensor:
        """The count, for `restore`."""
        return self._count.clone()

    def restore(self, count: torch.Tensor | int) -> None:
        """Go on from a count that `state` returned; it has been reported."""
        self._count.copy_(torch.as_tensor(count))
        self._reported = self.count
