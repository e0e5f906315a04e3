"""Some of N worlds: a short list of ids where the host may look, a mask over all of them where it must not."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Selection:
    """The worlds that something applies to.

    On a CPU it is sparse: work is done for the chosen worlds alone. On a GPU, to ask which worlds are chosen would stop
    the device until the host has heard the answer, so there it is dense: work is done for all worlds, and a mask
    decides what is kept. Code written as ``rows = f(selection.ids)``, ``selection.write(target, rows)`` serves both.

    Attributes:
        ids: (K,) int64, sorted: the chosen worlds, or all N of them where there is a mask.
        mask: None, or (N,) bool.
    """

    ids: torch.Tensor
    mask: torch.Tensor | None = None

    @classmethod
    def of(cls, mask: torch.Tensor, dense: bool) -> Selection:
        """The worlds where ``mask`` (N,) bool is true."""
        if dense:
            return cls(torch.arange(len(mask), device=mask.device), mask)
        return cls(torch.nonzero(mask).squeeze(1))

    @classmethod
    def all(cls, num_worlds: int, device: torch.device | str = "cpu") -> Selection:
        """Every world."""
        return cls(torch.arange(num_worlds, device=device))

    def __len__(self) -> int:
        """K, the number of rows."""
        return len(self.ids)

    def chosen(self) -> torch.Tensor:
        """Ids of the chosen worlds alone; the host waits for a mask."""
        return self.ids if self.mask is None else self.ids[self.mask]

    def take(self, values: torch.Tensor) -> torch.Tensor:
        """A copy of the chosen rows: (N, ...) → (K, ...)."""
        return values.clone() if self.mask is not None else values[self.ids]

    def write(self, target: torch.Tensor, rows: torch.Tensor) -> None:
        """Replace the chosen worlds' rows of ``target`` (N, ...) by ``rows`` (K, ...), in place."""
        if self.mask is None:
            target.index_copy_(0, self.ids, rows.to(target.dtype))
        else:
            target.copy_(torch.where(_over(self.mask, target), rows.to(target.dtype), target))

    def fill(self, target: torch.Tensor, value: float | bool) -> None:
        """Set the chosen worlds' rows of ``target`` (N, ...) to one value, in place."""
        if self.mask is None:
            target.index_fill_(0, self.ids, value)
        else:
            target.masked_fill_(_over(self.mask, target), value)

    def parts(self, bounds: Sequence[int]) -> Iterator[tuple[int, Selection, slice]]:
        """Split by consecutive ranges of worlds.

        Args:
            bounds: (S + 1,) range s covers the worlds ``bounds[s]`` to ``bounds[s + 1]`` (exclusive), all N together.

        Yields:
            For each range with chosen worlds: s, the selection counted from its first world, its rows among the K.
        """
        if self.mask is None:
            cuts = np.searchsorted(self.ids.cpu().numpy(), bounds)
        for s, (start, stop) in enumerate(itertools.pairwise(bounds)):
            if self.mask is not None:
                yield s, Selection(self.ids[: stop - start], self.mask[start:stop]), slice(start, stop)
            elif cuts[s + 1] > cuts[s]:
                rows = slice(int(cuts[s]), int(cuts[s + 1]))
                yield s, Selection(self.ids[rows] - start), rows


def _over(mask: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The mask (N,) shaped to broadcast over (N, ...)."""
    return mask.view(-1, *[1] * (target.ndim - 1))
