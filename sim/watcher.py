"""Somebody who looks at an environment step by step, such as a critic with cameras."""

from __future__ import annotations

from typing import Protocol

import torch

from sim.selection import Selection


class Watcher(Protocol):
    """Looks at every step before ended episodes are gone, and may end more of them; set as `sim.env.Env.watcher`."""

    def judge(self) -> torch.Tensor | None:
        """After a control step, with channels up to date: (N,) bool, the episodes to end here; None for none."""

    def begun(self, worlds: Selection, reset: bool) -> None:
        """New episodes have begun in some worlds, and stand as they will be seen first.

        With ``reset`` that is because all worlds were reset, else because their last step ended an episode.
        On a GPU, where the host does not ask whether any have, it is told after every step: a mask may be empty.
        """
