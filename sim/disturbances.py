"""A task's randomisers at work in its worlds, the latency of its commands among them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sim.randomizers.signals import Latency
from sim.selection import Selection
from sim.task import Randomizer, Task
from sim.world import World

COMMAND_DELAY = "command_delay"
"""What a task's own latency is called among the randomisers."""


class Disturbances:
    """Lets every randomiser of a task draw when it is due, and knows what is in force.

    Args:
        task: its randomisers and its ``command_delay``.
        world: where they take effect.
        generators: ``randomize``, and ``delay`` for the task's own latency.

    Attributes:
        factors: (N, R) what is in force, for critics; kept in place.
    """

    def __init__(self, task: Task, world: World, generators: Mapping[str, torch.Generator]) -> None:
        self._world, self._generators = world, generators
        self._each = _randomizers(task)
        self._timed = [r for r in self._each.values() if r.at == "interval"]
        self._latency = next((r for r in self._each.values() if isinstance(r, Latency)), None)
        for randomizer in self._each.values():
            randomizer.prepare(world)
        width = sum(randomizer.factor.shape[1] for randomizer in self._each.values())
        self.factors = torch.zeros(world.num_worlds, width, device=world.device)

    @property
    def delay(self) -> float:
        """Control steps by which commands are late, on average."""
        return 0.0 if self._latency is None else self._latency.mean

    def start(self, select: Selection) -> None:
        """Draw what is drawn once, when the environment is made."""
        self._draw(select, "start")

    def begin(self, select: Selection) -> None:
        """Draw for the selected worlds, whose episodes begin."""
        if any(randomizer.at != "start" for randomizer in self._each.values()):
            self._draw(select, "reset", "interval")

    def hold(self, select: Selection, command: torch.Tensor) -> None:
        """Where commands are late, ``command`` (K, nu) is in force in the selected worlds until the first arrives."""
        if self._latency is not None:
            self._latency.hold(select, command)

    def advance(self, dt: float) -> None:
        """A control step of ``dt`` seconds begins: draw what is drawn at intervals, where it is time."""
        for randomizer in self._timed:
            randomizer.advance(self._world, dt, self._generators["randomize"])
        if self._timed:
            self._update()

    def delayed(self, command: torch.Tensor) -> torch.Tensor:
        """The command (N, nu) that arrives when ``command`` is sent."""
        return command if self._latency is None else self._latency.delayed(command)

    def state_dict(self) -> dict[str, Any]:
        """What is in force, for a bit-exact continuation."""
        return {name: randomizer.state_dict() for name, randomizer in self._each.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name, value in state.items():
            self._each[name].load_state_dict(value)
        self._update()

    def _draw(self, select: Selection, *times: str) -> None:
        for name, randomizer in self._each.items():
            if randomizer.at in times:
                generator = self._generators["delay" if name == COMMAND_DELAY else "randomize"]
                randomizer.apply(self._world, select, generator)
        self._update()

    def _update(self) -> None:
        column = 0
        for randomizer in self._each.values():
            width = randomizer.factor.shape[1]
            self.factors[:, column : column + width] = randomizer.factor
            column += width


def _randomizers(task: Task) -> dict[str, Randomizer]:
    """A task's randomisers, and one for its ``command_delay``."""
    low, high = task.command_delay
    return {**task.randomizers, **({COMMAND_DELAY: Latency.within(low, high)} if high else {})}
