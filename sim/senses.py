"""What the worlds show: true channels, what a policy sees of them, and the observations made of both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from robolearn.contract import Contract, robot_hash
from sim.channels import Channels
from sim.errors import EnvError
from sim.randomizers.signals import SensorBias, SensorNoise
from sim.selection import Selection
from sim.task import Task
from sim.world import World

Extra = Callable[[], Mapping[str, torch.Tensor]]


class Rows(NamedTuple):
    """Raw channels of some worlds, name → (K, ...): true ones, and those that the policy saw."""

    true: Mapping[str, torch.Tensor]
    seen: Mapping[str, torch.Tensor]


class Senses:
    """Reads every raw channel of N worlds, adds sensor noise, and makes observations.

    Args:
        task: its goal process, noise, derived channels and observation groups.
        world: the worlds.
        extra: raw channels that neither the world nor the goal delivers, name → (N, ...).
        generator: of the noise.

    Attributes:
        raw: names of the raw channels.
        true: true channels; seen: what the policy sees, the same object where nothing is noisy.
    """

    def __init__(self, task: Task, world: World, extra: Extra, generator: torch.Generator) -> None:
        self._task, self._world, self._extra, self._generator = task, world, extra, generator
        levels = [r for r in task.randomizers.values() if isinstance(r, SensorNoise)]
        biases = [r for r in task.randomizers.values() if isinstance(r, SensorBias)]
        self._disturbing: list[SensorNoise | SensorBias] = [*levels, *biases]  # a bias is no noisier where noise is
        gathered = self._gather(None)
        if world.dense:  # kept in place, so that a captured graph finds them again
            gathered = {name: value.clone() for name, value in gathered.items()}
        self.raw = tuple(gathered)
        self.true = Channels(gathered, task.derived)
        self.seen = Channels(gathered | self._noisy(gathered), task.derived) if task.noise else self.true

    def read(self, keep: torch.Tensor | None = None) -> None:
        """Bring every channel up to date; worlds of the mask ``keep`` (N,) show what they showed before."""
        self._update(self.true, self._gather(keep))
        if self._task.noise:
            self._update(self.seen, {**self._raw_of(self.true), **self._noisy(self.true)})

    def read_again(self, select: Selection) -> None:
        """Bring the selected worlds up to date after a reset, leaving the noise that others have already seen."""
        self._update(self.true, {**self._raw_of(self.true), **self._world.read_written(), **self._extra()})
        for name, rows in self._task.goal.read(select.ids).items():
            select.write(self.true[name], rows)
        if self._task.noise:
            noisy = self._noisy({name: self.true[name][select.ids] for name in self._task.noise}, select.ids)
            for name, rows in noisy.items():
                select.write(self.seen[name], rows)
            exact = {name: self.true[name] for name in self.raw if name not in self._task.noise}
            self._update(self.seen, exact)

    def rows(self, select: Selection) -> Rows:
        """Copies of the selected worlds' raw channels."""
        true = {name: select.take(self.true[name]) for name in self.raw}
        if not self._task.noise:
            return Rows(true, true)
        return Rows(true, {**true, **{name: select.take(self.seen[name]) for name in self._task.noise}})

    def observe(self) -> dict[str, torch.Tensor]:
        """Observation groups of all worlds, group → (N, d); without noise the groups share their terms."""
        return self._groups(self.seen, self.true)

    def observe_with(self, last: Rows) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """Observations of all worlds, group → (N, d), and of ``last`` (K, d), in one pass over N + K rows."""
        true = self._joined(self.true, last.true)
        seen = true if self.seen is self.true else self._joined(self.seen, last.seen)
        obs = self._groups(seen, true)
        n = self._world.num_worlds
        return {g: rows[:n] for g, rows in obs.items()}, {g: rows[n:] for g, rows in obs.items()}

    def forget(self) -> None:
        """Drop what was derived from channels: a replayed graph changes them unseen."""
        for channels in (self.true, self.seen):
            channels.update_raw({})

    def restore(self, seen: Mapping[str, torch.Tensor]) -> None:
        """Set what the policy saw, raw name → (N, ...)."""
        self._update(self.seen, {name: value.clone() for name, value in seen.items()})

    def contract(self, step_dt: float, delay: float) -> Contract:
        """The channels that the policy's observations and the decoder read, as a contract.

        Args:
            step_dt: seconds per control step.
            delay: control steps by which commands are late.

        Raises:
            EnvError: they read what is known in simulation only.
        """
        task = self._task
        probe = Channels(self._raw_of(self.seen), task.derived)
        task.observe("policy", probe)
        action = torch.zeros(self._world.num_worlds, task.action.num_actions, device=self._world.device)
        task.action.decode(probe, action)
        offered = [*task.measured, *task.goal.channels]
        known = {channel.name for channel in (*offered, *task.action.state)} | set(task.derived)
        if privileged := sorted(probe.accessed - known):
            raise EnvError(f"task {task.name!r}: its policy reads {', '.join(privileged)}, known in simulation only")
        return Contract(
            robot=task.robot,
            robot_hash=robot_hash(task.robot_mjcf),
            inputs=tuple(channel for channel in offered if channel.name in probe.accessed),
            commands=(task.action.command,),
            state=task.action.state,
            rate_hz=1.0 / step_dt,
            delay_s=step_dt * delay,
            task=task.name,
            instruction=task.instruction,
        )

    def _gather(self, keep: torch.Tensor | None) -> dict[str, torch.Tensor]:
        return {**self._world.read(keep), **self._task.goal.read(), **self._extra()}

    def _update(self, channels: Channels, raw: Mapping[str, torch.Tensor]) -> None:
        if self._world.dense:
            for name, value in raw.items():
                if value is not channels[name]:
                    channels[name].copy_(value)
            channels.update_raw({})
        else:
            channels.update_raw(raw)

    def _raw_of(self, channels: Channels) -> dict[str, torch.Tensor]:
        return {name: channels[name] for name in self.raw}

    def _noisy(self, raw: Mapping[str, torch.Tensor], ids: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """The noisy channels, name → (K, ...), of the worlds ``ids`` (K,); None for all."""
        return {name: self._disturbed(name, raw[name], ids) for name in self._task.noise}

    def _disturbed(self, name: str, value: torch.Tensor, ids: torch.Tensor | None) -> torch.Tensor:
        term = self._task.noise[name]
        noise = torch.randn(
            *value.shape[:-1], term.size(value.shape[-1]), generator=self._generator, device=value.device
        )
        for randomizer in self._disturbing:
            noise = randomizer.perturb(name, noise, ids)
        return term.func(value, noise, **term.params)

    def _groups(self, seen: Channels, true: Channels) -> dict[str, torch.Tensor]:
        task = self._task
        return {group: task.observe(group, seen if group == "policy" else true) for group in task.observations}

    def _joined(self, now: Channels, last: Mapping[str, torch.Tensor]) -> Channels:
        return Channels({name: torch.cat((now[name], last[name])) for name in self.raw}, self._task.derived)
