"""What all randomisers share: when they draw, what they drew last, and their state."""

from __future__ import annotations

import weakref
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from sim.randomizers.draw import Draw
from sim.selection import Selection
from sim.world import World

TIMES = ("start", "reset", "interval")
"""Once, when the environment is made; at every reset; or at every reset and at intervals from there on."""


@dataclass(frozen=True)
class Timing:
    """When something is drawn.

    Attributes:
        at: one of `TIMES`.
        interval_s: (least, most) seconds between two draws, for ``interval``; drawn uniformly themselves.
    """

    at: str = "start"
    interval_s: tuple[float, float] = (0.0, 0.0)


class Randomizer(ABC):
    """A named draw for each world; a `sim.task.Randomizer`.

    Attributes:
        name: what a configuration calls it, for messages.
        draw: what is drawn; discrete: whole numbers alone.
        timing: when.
        unit: of the numbers drawn.
        drawn: (N, items, width) what was drawn last, NaN before; kept in place.
        factor: (N, d) what is in force, for critics; d may be 0.
    """

    discrete = False

    def __init__(self, name: str, draw: Draw, timing: Timing, unit: str) -> None:
        self.name, self.draw, self.timing, self.unit = name, draw, timing, unit
        self.drawn = torch.zeros(0, 1, draw.width, dtype=torch.float64)
        self.factor = torch.zeros(0, 0)
        self._world: weakref.ref[World] | None = None  # weak: a task can be copied, worlds cannot
        self._left = torch.zeros(0, dtype=torch.float64)

    @property
    def fields(self) -> tuple[str, ...]:
        """The `mujoco.MjModel` fields that it writes."""
        return ()

    @property
    def at(self) -> str:
        """One of `TIMES`."""
        return self.timing.at

    def prepare(self, world: World) -> None:
        """Look up in the world's models what will be written; only the first call for a world does anything.

        Raises:
            RandomizeError: there is nothing to vary, or a draw would have no effect.
            PhysicsError: the engine cannot vary it between worlds.
        """
        if self._world is not None and self._world() is world:
            return
        n = world.num_worlds
        items = self._look_up(world)
        self.drawn = torch.full((n, items, self.draw.width), torch.nan, dtype=torch.float64, device=world.device)
        self._left = torch.zeros(n, dtype=torch.float64, device=world.device)
        self.factor = self._make_factor(world)
        self._world = weakref.ref(world)

    def apply(self, world: World, select: Selection, generator: torch.Generator) -> None:
        """Draw for the selected worlds, whose episodes begin."""
        self.prepare(world)
        if self.at == "interval":
            self._wait(select, generator)
        self._begin(world, select, generator)

    def advance(self, world: World, dt: float, generator: torch.Generator) -> None:
        """A control step of ``dt`` seconds begins: draw again where it is time; for ``interval`` only."""
        self._left -= dt
        due = self._left < 0.5 * dt
        if world.dense or bool(due.any()):
            select = Selection.of(due, world.dense)
            self._wait(select, generator)
            self._redraw(world, select, generator)
        self._continue(world, dt)

    def state_dict(self) -> dict[str, Any]:
        """What is in force, for a bit-exact continuation; model fields are part of the world's state."""
        return {"drawn": self.drawn.clone(), "left": self._left.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.drawn.copy_(state["drawn"])
        self._left.copy_(state["left"])

    @abstractmethod
    def _look_up(self, world: World) -> int:
        """Find what will be written; return the number of items that are drawn."""

    def _make_factor(self, world: World) -> torch.Tensor:
        """(N, d) a view of what is in force; ``drawn`` unless overridden."""
        return self.drawn.flatten(1)

    def _begin(self, world: World, select: Selection, generator: torch.Generator) -> None:
        """Episodes begin in the selected worlds."""
        self._redraw(world, select, generator)

    @abstractmethod
    def _redraw(self, world: World, select: Selection, generator: torch.Generator) -> None:
        """Draw for the selected worlds and let it take effect."""

    def _continue(self, world: World, dt: float) -> None:
        """A control step begins: keep up what lasts; nothing unless overridden."""
        return None

    def _sample(self, select: Selection, generator: torch.Generator) -> torch.Tensor:
        """(K, items, width) drawn for the selected worlds and noted."""
        values = self.draw.sample(len(select), self.drawn.shape[1], generator)
        select.write(self.drawn, values)
        return values

    def _wait(self, select: Selection, generator: torch.Generator) -> None:
        """Draw how long the selected worlds wait for their next draw."""
        low, high = self.timing.interval_s
        u = torch.rand(len(select), generator=generator, dtype=torch.float64, device=generator.device)
        select.write(self._left, low + (high - low) * u)
