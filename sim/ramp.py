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
        lag: (least, most) parts by which the whole line comes late, drawn for each episode; at most ``parts``.
        generator: of these draws.

    Raises:
        EnvError: the control step cannot be cut so, or the lag is longer than a step.
    """

    def __init__(
        self, world: World, decimation: int, parts: int, lag: tuple[int, int], generator: torch.Generator
    ) -> None:
        if parts < 1 or decimation % parts:
            raise EnvError(f"a control step of {decimation} physics steps cannot be cut into {parts!r} equal parts")
        low, high = lag
        if not 0 <= low <= high <= (parts if parts > 1 else 0):
            raise EnvError(f"the lag of commands is [least, most] parts of a step cut into {parts}, not {list(lag)}")
        self._world, self._parts, self._steps, self._lag = world, parts, decimation // parts, lag
        self._generator = generator
        shape = world.num_worlds, world.shards[0].physics.model.nu
        self._before, self._last, self._aim = (torch.zeros(shape, device=world.device) for _ in range(3))
        self._late = torch.zeros(shape[0], 1, device=world.device)

    @property
    def delay(self) -> float:
        """Control steps by which commands are late, on average, beside the line's own."""
        return 0.5 * sum(self._lag) / self._parts

    def hold(self, select: Selection, command: torch.Tensor) -> None:
        """Episodes begin: ``command`` (K, nu) is where the selected worlds' lines start."""
        select.write(self._last, command)
        select.write(self._before, command)
        if self._lag[1]:
            low, high = self._lag
            shape, device = (len(command), 1), self._late.device
            drawn = torch.randint(low, high + 1, shape, generator=self._generator, device=device)
            select.write(self._late, drawn.float())

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
            share = (part - self._late) / self._parts  # below 0 it is still on the line before
            before = torch.lerp(self._before, self._last, (1.0 + share).clamp(0.0, 1.0))
            self._world.command(torch.where(share > 0, torch.lerp(self._last, self._aim, share.clamp_min(0.0)), before))
            self._world.step(self._steps)
        self._before.copy_(self._last)
        self._last.copy_(self._aim)

    def state_dict(self) -> dict[str, Any]:
        """The line under way."""
        return {"before": self._before.clone(), "last": self._last.clone(), "late": self._late.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name, value in state.items():
            getattr(self, f"_{name}").copy_(value)
