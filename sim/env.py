"""The batched environment: one task in N worlds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from sim.channels import Channels
from sim.disturbances import Disturbances
from sim.ending import Ending
from sim.errors import EnvError
from sim.graphs import Replayed
from sim.health import Health
from sim.ramp import CommandRamp
from sim.selection import Selection
from sim.senses import Rows, Senses
from sim.step import Step
from sim.task import Task
from sim.watcher import Watcher
from sim.world import World

__all__ = ["Env", "EnvError", "Step", "Watcher"]


class Env:
    """N worlds of one task, with same-step reset.

    Args:
        task: the declaration.
        world: the worlds, with the task's channels.
        seed: of every random draw; each consumer has a generator of its own.

    Attributes:
        num_envs, num_actions: N and A.
        observation_dims: group → d.
        step_dt: seconds per control step.
        max_episode_length: control steps.
        contract: channels, command, rate of a policy for this task.
    """

    def __init__(self, task: Task, world: World, seed: int = 0) -> None:
        self.task = task
        self.world = world
        self.num_envs = world.num_worlds
        self.num_actions = task.action.num_actions
        self.device = world.device
        self.step_dt = world.timestep * task.decimation
        self.max_episode_length = task.max_episode_steps
        self.episode_steps = torch.zeros(self.num_envs, dtype=torch.long, device=self.device)
        names = ("reset", "noise", "randomize", "delay")
        self._generators = {name: torch.Generator(self.device) for name in names}
        self._seed(seed)
        self._all = Selection.all(self.num_envs, self.device)
        self._sick: torch.Tensor | None = None
        self._health = Health(world)
        self._bad_actions = torch.zeros((), dtype=torch.long, device=self.device)
        self._decoder_state = {
            channel.name: torch.zeros(self.num_envs, *channel.shape, device=self.device)
            for channel in task.action.state
        }
        self._ramp = CommandRamp(
            world, task.decimation, task.command_parts, task.command_lag, self._generators["delay"]
        )
        self._disturbances = Disturbances(task, world, self._generators)
        self._disturbances.start(self._all)
        self._reset(self._all)
        self._senses = Senses(task, world, self._extra_channels, self._generators["noise"])
        self._action = torch.zeros(self.num_envs, self.num_actions, device=self.device)
        drawing = self._generators.values()
        self._before = Replayed(self._act, self.device, drawing)
        self._stopped = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        self._look = Replayed(self._sense, self.device, drawing)
        self._begin = Replayed(self._start, self.device)
        self._show = Replayed(self._observe, self.device, drawing)
        self._ending: Ending | None = None
        self.watcher = None
        if world.dense:
            world.step(task.decimation)  # compiles and captures, before anybody measures a step
        self._obs = self.reset()
        self.observation_dims = {group: int(value.shape[1]) for group, value in self._obs.items()}
        self.contract = self._senses.contract(self.step_dt, self._disturbances.delay + self._ramp.delay)

    def reset(self, seed: int | None = None) -> dict[str, torch.Tensor]:
        """Start a new episode in every world; return the observations, group → (N, d).

        With ``seed`` every random draw from here on repeats (what was drawn at creation stays).
        """
        if seed is not None:
            self._seed(seed)
        self._reset(self._all)
        self._senses.read()
        self.task.metrics.finish(self._all)
        self._obs = self._senses.observe()
        if self.watcher is not None:
            self.watcher.begun(self._all, reset=True)
        return self._obs

    def step(self, action: torch.Tensor) -> Step:
        """Apply actions (N, A) for one control step; on a GPU the next step reuses the tensors that it returns.

        Raises:
            EnvError: actions of another shape, or not finite (on a GPU, `check` says so); nothing has moved.
        """
        self._take(action)
        self._forget()
        self._before()
        self._ramp.step()
        self._sick = self._look()
        if self.watcher is not None:
            self._forget()
            self._heed(self.watcher.judge())
            self._forget()
        self._ending = ending = self._after()
        if len(ending.worlds):
            self.world.reset(ending.worlds)
            self._begin()
            self.world.forward(ending.worlds)
        step = self._show()
        self._forget()
        self._obs = step.obs
        if self.watcher is not None and len(ending.worlds):
            self.watcher.begun(ending.worlds, reset=False)
        if self.task.curriculum and len(ending.worlds):
            summary = step.summary()
            for curriculum in self.task.curriculum.values():
                step.log |= curriculum(self, summary)
        return step

    def check(self) -> None:
        """At the end of a rollout: what a GPU could not say while it ran.

        Raises:
            PhysicsError: the engine had to leave out contacts or constraints; the setting to raise is named.
            EnvError: actions were not finite.
        """
        self.world.check()
        if bad := int(self._bad_actions):
            self._bad_actions.zero_()
            raise EnvError(f"{bad} actions since the last check were not finite")
        self._health.report()

    @property
    def diverged(self) -> int:
        """Worlds reset because their physics became unusable, since creation."""
        return self._health.count

    def state_dict(self) -> dict[str, Any]:
        """Everything that a bit-exact continuation needs."""
        return {
            "world": self.world.state_dict(),
            "goal": self.task.goal.state_dict(),
            "metrics": self.task.metrics.state_dict(),
            "generators": {name: g.get_state() for name, g in self._generators.items()},
            "decoder": {name: value.clone() for name, value in self._decoder_state.items()},
            "seen": {name: self._senses.seen[name].clone() for name in self._senses.raw},
            "obs": {name: value.clone() for name, value in self._obs.items()},
            "episode_steps": self.episode_steps.clone(),
            "randomizers": self._disturbances.state_dict(),
            "ramp": self._ramp.state_dict(),
            "diverged": self._health.state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, from an environment of the same task and size."""
        self.world.load_state_dict(state["world"])
        self.task.goal.load_state_dict(state["goal"])
        self.task.metrics.load_state_dict(state["metrics"])
        for name, value in state["decoder"].items():
            self._decoder_state[name].copy_(value)
        self._disturbances.load_state_dict(state["randomizers"])
        self._ramp.load_state_dict(state["ramp"])
        self.episode_steps.copy_(state["episode_steps"])
        self._health.restore(state["diverged"])
        self._senses.read()
        for name, value in state["generators"].items():  # after reading, which draws noise
            self._generators[name].set_state(value)
        self._senses.restore(state["seen"])
        self._obs = {name: value.clone() for name, value in state["obs"].items()}

    @property
    def watcher(self) -> Watcher | None:
        """Who is asked after every step and told of every start, if anybody; what it ends counts as terminated."""
        return self._watcher

    @watcher.setter
    def watcher(self, watcher: Watcher | None) -> None:
        self._watcher = watcher
        # A graph that was captured without a watcher would go on without it.
        self._after = Replayed(self._judge, self.device, self._generators.values())

    @property
    def failed(self) -> torch.Tensor | None:
        """(N,) bool, the worlds whose physics became unusable in the last step; None if the host knows of none."""
        return self._sick

    @property
    def channels(self) -> Channels:
        """True channels after the last step."""
        return self._senses.true

    def instructions(self) -> list[str]:
        """What each world is asked to do, N texts."""
        return self.task.instructions() if self.task.instructions else [self.task.instruction] * self.num_envs

    def _seed(self, seed: int) -> None:
        for k, generator in enumerate(self._generators.values()):
            generator.manual_seed(seed * 1000003 + k)

    def _take(self, action: torch.Tensor) -> None:
        """Keep the action, once it has been checked."""
        if tuple(action.shape) != (self.num_envs, self.num_actions):
            raise EnvError(f"actions must have shape ({self.num_envs}, {self.num_actions}), got {tuple(action.shape)}")
        self._action.copy_(action)
        if self.world.dense:
            self._bad_actions += (~torch.isfinite(self._action)).any(1).sum()
        elif not math.isfinite(float(action.sum())):  # one number is quicker to look at than all
            bad = torch.nonzero(~torch.isfinite(action).all(dim=1)).squeeze(1)
            if len(bad):
                raise EnvError(f"actions of {len(bad)} worlds are not finite, first of world {int(bad[0])}")

    def _heed(self, stop: torch.Tensor | None) -> None:
        """Note which episodes the watcher ends, (N,) bool."""
        if stop is not None and (stop.dtype != torch.bool or stop.shape != self._stopped.shape):
            raise EnvError(
                f"a watcher's answer is None or ({self.num_envs},) bool, got {tuple(stop.shape)} {stop.dtype}"
            )
        self._stopped.fill_(False) if stop is None else self._stopped.copy_(stop)

    def _forget(self) -> None:
        """On a GPU: a graph must neither be captured with, nor leave behind, what was derived outside of it."""
        if self.world.dense:
            self._senses.forget()

    def _extra_channels(self) -> dict[str, torch.Tensor]:
        return {**self._decoder_state, "randomization": self._disturbances.factors}

    def _act(self) -> None:
        """Before physics: decode the action and command the actuators; disturb what is due."""
        self._disturbances.advance(self.step_dt)
        command, state = self.task.action.decode(self._senses.seen, self._action)
        for name, value in state.items():
            self._decoder_state[name].copy_(value)
        self._ramp.aim(self._disturbances.delayed(command))

    def _sense(self) -> torch.Tensor | None:
        """After physics: what has become of the worlds; (N,) bool those that failed, None if none did."""
        self.task.goal.advance()
        self.episode_steps += 1
        sick = self._health.failed()
        self._senses.read(keep=sick)
        return sick

    def _judge(self) -> Ending:
        """Rewards, what ended and how, and where the next episodes start."""
        task, senses, sick = self.task, self._senses, self._sick
        rewards = self._rewards(sick)
        terminated, causes = self._terminated(sick)
        if self.watcher is not None:
            causes["watcher"] = self._stopped
            terminated = terminated | self._stopped
        truncated = (task.goal.timed_out() | (self.episode_steps >= self.max_episode_length)) & ~terminated
        task.metrics.update(senses.true)
        worlds = Selection.of(terminated | truncated, self.world.dense)
        step = Step({}, rewards, terminated, truncated, worlds.ids)
        step.log["world/diverged"] = 0.0 if sick is None else sick.sum()
        if not len(worlds):
            return Ending(step, worlds, Rows({}, {}), {})
        step.episodes = self._results(worlds, causes, sick)
        return Ending(step, worlds, senses.rows(worlds), self._draw(worlds))

    def _start(self) -> None:
        """After the physics of ended worlds was reset: write where they start."""
        assert self._ending is not None
        self.world.write(self._ending.worlds, self._ending.state)

    def _observe(self) -> Step:
        """The step, with observations of what goes on and of what ended."""
        assert self._ending is not None
        step, worlds, last = self._ending.step, self._ending.worlds, self._ending.last
        if len(worlds):
            self._senses.read_again(worlds)
            step.obs, step.final_obs = self._senses.observe_with(last)
        else:
            step.obs = self._senses.observe()
        return step

    def _rewards(self, sick: torch.Tensor | None) -> dict[str, torch.Tensor]:
        rewards = {
            name: term.weight * term.func(self._senses.true, **term.params) for name, term in self.task.rewards.items()
        }
        if sick is not None:  # the state that would have earned it was lost
            rewards = {name: value.masked_fill(sick, 0.0) for name, value in rewards.items()}
        return rewards

    def _terminated(self, sick: torch.Tensor | None) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        causes = {name: term.func(self._senses.true, **term.params) for name, term in self.task.terminations.items()}
        terminated = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device) if sick is None else sick
        for cause in causes.values():
            terminated = terminated | cause
        return terminated, causes

    def _results(
        self, worlds: Selection, causes: Mapping[str, torch.Tensor], sick: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        """Results of the episodes that ended, name → (K,)."""
        ids = worlds.ids
        lengths = self.episode_steps[ids].float()
        diverged = torch.zeros_like(lengths) if sick is None else sick[ids].float()
        results = {"length": lengths, **self.task.metrics.finish(worlds), "diverged": diverged}
        return results | {f"termination/{name}": cause[ids].float() for name, cause in causes.items()}

    def _reset(self, select: Selection) -> None:
        """Start new episodes in the selected worlds."""
        state = self._draw(select)
        self.world.reset(select)
        self.world.write(select, state)
        self.world.forward(select)

    def _draw(self, select: Selection) -> dict[str, torch.Tensor]:
        """Draw new episodes for the selected worlds; return the state fields that they start from, (K, ...)."""
        task = self.task
        self._disturbances.begin(select)
        state = task.goal.reset(select, self._generators["reset"])
        for value in self._decoder_state.values():
            select.fill(value, 0.0)
        select.fill(self.episode_steps, 0)
        self._disturbances.hold(select, state["ctrl"])
        self._ramp.hold(select, state["ctrl"])
        return state
