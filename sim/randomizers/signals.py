"""What disturbs signals: commands that arrive late, sensors that are noisier than thought, or biased."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sim.randomizers.base import Randomizer, Timing
from sim.randomizers.draw import Draw
from sim.selection import Selection
from sim.world import World


class Latency(Randomizer):
    """Whole control steps by which commands arrive late, each number of steps equally likely.

    Args:
        draw: its range is the least and the most steps.
        privileged: critics see it.
    """

    discrete = True

    def __init__(self, name: str, draw: Draw, timing: Timing, unit: str, privileged: bool = True) -> None:
        super().__init__(name, draw, timing, unit)
        self.bounds = int(draw.low), int(draw.high)
        self.privileged = privileged
        self._steps = torch.zeros(0, dtype=torch.long)
        self._commands = torch.zeros(0)
        self._ids = torch.zeros(0, dtype=torch.long)

    @classmethod
    def within(cls, least: int, most: int) -> Latency:
        """The latency of a task's own setting, drawn for each episode and hidden from critics."""
        return cls("latency", Draw(least, most), Timing("reset"), "control steps", privileged=False)

    @property
    def mean(self) -> float:
        """Steps of delay on average."""
        return 0.5 * sum(self.bounds)

    def hold(self, select: Selection, command: torch.Tensor) -> None:
        """Episodes begin: until the first command arrives, ``command`` (K, A) is in force."""
        if not len(self._commands):
            shape = (self.bounds[1] + 1, len(self._steps), *command.shape[1:])
            self._commands = torch.zeros(shape, device=self._steps.device)
        for sent in self._commands:
            select.write(sent, command)

    def delayed(self, command: torch.Tensor) -> torch.Tensor:
        """Take the command (N, A) that is sent now; return the one that arrives."""
        self._commands.copy_(torch.roll(self._commands, 1, dims=0))  # in place: outlives an inference mode
        self._commands[0] = command
        return self._commands[self._steps, self._ids]

    def state_dict(self) -> dict[str, Any]:
        state = {"steps": self._steps.clone(), "commands": self._commands.clone()}
        return {**super().state_dict(), **state}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._steps.copy_(state["steps"])
        self._commands.copy_(state["commands"])

    def _look_up(self, world: World) -> int:
        self._steps = torch.zeros(world.num_worlds, dtype=torch.long, device=world.device)
        self._ids = torch.arange(world.num_worlds, device=world.device)
        return 1

    def _make_factor(self, world: World) -> torch.Tensor:
        return super()._make_factor(world) if self.privileged else self.drawn.new_zeros(world.num_worlds, 0)

    def _redraw(self, world: World, select: Selection, generator: torch.Generator) -> None:
        low, high = self.bounds
        steps = torch.randint(low, high + 1, (len(select),), generator=generator, device=self._steps.device)
        select.write(self._steps, steps)
        select.write(self.drawn, steps.view(-1, 1, 1))


class SensorNoise(Randomizer):
    """How strong a world's sensor noise is, as a multiple of what the task declares for each channel."""

    def perturb(self, channel: str, noise: torch.Tensor, ids: torch.Tensor | None) -> torch.Tensor:
        """Standard normal ``noise`` (K, ..., d) of a channel → the noise of the worlds ``ids`` (K,), None for all."""
        level = self.drawn[:, 0] if ids is None else self.drawn[ids, 0]
        return noise * level.to(noise.dtype).view(-1, *[1] * (noise.ndim - 1))

    def _look_up(self, world: World) -> int:
        return 1

    def _redraw(self, world: World, select: Selection, generator: torch.Generator) -> None:
        self._sample(select, generator)


class SensorBias(Randomizer):
    """What is added to every reading of an episode, as a multiple of the noise that the task declares for the channel.

    Args:
        sizes: numbers of noise of each channel, by name.
    """

    def __init__(self, name: str, draw: Draw, timing: Timing, unit: str, sizes: Mapping[str, int]) -> None:
        super().__init__(name, draw, timing, unit)
        self._total = sum(sizes.values())
        ends = torch.tensor([0, *sizes.values()]).cumsum(0).tolist()
        self._places = {channel: slice(a, b) for channel, a, b in zip(sizes, ends, ends[1:], strict=False)}

    def perturb(self, channel: str, noise: torch.Tensor, ids: torch.Tensor | None) -> torch.Tensor:
        """Noise (K, ..., d) of a channel, in units of the declared noise, with the worlds' biases added."""
        bias = self.drawn[:, self._places[channel], 0]
        return noise + (bias if ids is None else bias[ids]).to(noise.dtype).view(noise.shape)

    def _look_up(self, world: World) -> int:
        return self._total

    def _make_factor(self, world: World) -> torch.Tensor:
        return self.drawn.new_zeros(world.num_worlds, 0)  # critics see the true channels

    def _redraw(self, world: World, select: Selection, generator: torch.Generator) -> None:
        self._sample(select, generator)
