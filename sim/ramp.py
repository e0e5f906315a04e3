"""Commands that lead in a straight line from the last one to the new one, as a robot's driver interpolates them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sim.errors import EnvError
from sim.selection import Selection
from sim.world import World


class CommandRamp:
    """Commands N worlds over one control step.

    Args:
        world: the worlds.
        decimation: physics steps of a control step.
        parts: into how many equal parts that is cut, each with a command further along the line; with 1 the new command
            is in force at once.

    Raises:
        EnvError: the control step cannot be cut so.
    """

    def __init__(self, world: World, decimation: int, parts: int) -> None:
        if parts < 1 or decimation % parts:
            raise EnvError(f"a control step of {decimation} physics steps cannot be cut into {parts!r} equal parts")
        self._world, self._parts, self._steps = world, parts, decimation // parts
        size = world.shards[0].physics.model.nu
        self._last = torch.zeros(world.num_worlds, size, device=world.device)
        self._aim = torch.zeros_like(self._last)

    def hold(self, select: Selection, command: torch.Tensor) -> None:
        """Episodes begin: ``command`` (K, nu) is where the selected worlds' lines start."""
        select.write(self._last, command)

    def aim(self, command: torch.Tensor) -> None:
        """Where the commands (N, nu) of the next control step lead."""
        if self._parts == 1:
            self._world.command(command)
        else:
            self._aim.copy_(command)

    def step(self) -> None:
        """One control step of physics."""
        if self._parts == 1:
            self._world.step(self._steps)
            return
        for part in range(1, self._parts + 1):
            self._world.command(torch.lerp(self._last, self._aim, part / self._parts))
            self._world.step(self._steps)
        self._last.copy_(self._aim)

    def state_dict(self) -> dict[str, Any]:
        """Where lines start."""
        return {"last": self._last.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._last.copy_(state["last"])
