"""The batched environment: one task in N worlds."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from robolearn.contract import Contract, robot_hash
from robolearn.errors import RobolearnError
from sim.channels import Channels
from sim.task import Task
from sim.world import World

log = logging.getLogger(__name__)


class EnvError(RobolearnError):
    """An action that cannot be applied, or a task that gives its policy what no robot measures."""


@dataclass
class Step:
    """What one control step of N worlds returns.

    Attributes:
        obs: group → (N, d), the first observation of the next episode where one just ended.
        rewards: named terms, already weighted, (N,) each.
        terminated: (N,) bool, ended by the task: no value lies beyond.
        truncated: (N,) bool, ended by the clock: bootstrap from ``final_obs``.
        final_ids: (K,) sorted ids of worlds whose episode just ended.
        final_obs: group → (K, d), their last observation before the reset.
        log: scalars worth recording, such as the results of episodes that just ended.
        episodes: metric → (K,), results of those episodes, world by world.
    """

    obs: dict[str, torch.Tensor]
    rewards: dict[str, torch.Tensor]
    terminated: torch.Tensor
    truncated: torch.Tensor
    final_ids: torch.Tensor
    final_obs: dict[str, torch.Tensor]
    log: dict[str, float] = field(default_factory=dict)
    episodes: dict[str, torch.Tensor] = field(default_factory=dict)

    @property
    def reward(self) -> torch.Tensor:
        """Sum of the named terms, (N,)."""
        return torch.stack(tuple(self.rewards.values())).sum(0)


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
        diverged: worlds reset because their physics became unusable, since creation.
    """

    def __init__(self, task: Task, world: World, seed: int = 0) -> None:
        self.task = task
        self.world = world
        self.num_envs = world.num_worlds
        self.num_actions = task.action.num_actions
        self.device = world.device
        self.step_dt = world.timestep * task.decimation
        self.max_episode_length = task.max_episode_steps
        self.diverged = 0
        self.episode_steps = torch.zeros(self.num_envs, dtype=torch.long, device=self.device)
        self._generators = {name: torch.Generator() for name in ("reset", "noise", "randomize", "delay")}
        self._seed(seed)
        self._all = torch.arange(self.num_envs, device=self.device)
        self._decoder_state = {
            channel.name: torch.zeros(self.num_envs, *channel.shape, device=self.device)
            for channel in task.action.state
        }
        self._delay = torch.zeros(self.num_envs, dtype=torch.long, device=self.device)
        self._commands = torch.zeros(
            task.command_delay[1] + 1, self.num_envs, *task.action.command.shape, device=self.device
        )
        self._raw: tuple[str, ...] = ()
        self._true: Channels = Channels({})
        self._seen: Channels = self._true
        for randomizer in task.randomizers.values():
            if not randomizer.at_reset:
                randomizer.apply(world, self._all, self._generators["randomize"])
        self._obs = self.reset()
        self.observation_dims = {group: int(value.shape[1]) for group, value in self._obs.items()}
        self.contract = self._make_contract()

    def reset(self, seed: int | None = None) -> dict[str, torch.Tensor]:
        """Start a new episode in every world; return the observations, group → (N, d).

        With ``seed`` every random draw from here on repeats (what was drawn at creation stays).
        """
        if seed is not None:
            self._seed(seed)
        self._reset(self._all)
        self._read()
        self.task.metrics.finish(self._all)
        self._obs = self._observe()
        return self._obs

    def step(self, action: torch.Tensor) -> Step:
        """Apply actions (N, A) for one control step.

        Raises:
            EnvError: actions of another shape, or not finite; nothing has moved.
        """
        self._check_action(action)
        task = self.task
        command, state = task.action.decode(self._seen, action)
        for name, value in state.items():
            self._decoder_state[name].copy_(value)
        self.world.command(self._delayed(command))
        self.world.step(task.decimation)
        task.goal.advance()
        self.episode_steps += 1
        sick = self._replace_unhealthy()
        self._read()
        rewards = self._rewards(sick)
        terminated, causes = self._terminated(sick)
        truncated = (task.goal.timed_out() | (self.episode_steps >= self.max_episode_length)) & ~terminated
        task.metrics.update(self._true)
        obs = self._observe()
        ids = torch.nonzero(terminated | truncated).squeeze(1)
        result = Step(obs, rewards, terminated, truncated, ids, {})
        result.log = {"world/diverged": float(len(sick))}
        if len(ids):
            self._finish_episodes(result, causes, sick)
        self._obs = result.obs
        return result

    def state_dict(self) -> dict[str, Any]:
        """Everything that a bit-exact continuation needs."""
        return {
            "world": self.world.state_dict(),
            "goal": self.task.goal.state_dict(),
            "metrics": self.task.metrics.state_dict(),
            "generators": {name: g.get_state() for name, g in self._generators.items()},
            "decoder": {name: value.clone() for name, value in self._decoder_state.items()},
            "seen": {name: self._seen[name].clone() for name in self._raw},
            "obs": {name: value.clone() for name, value in self._obs.items()},
            "episode_steps": self.episode_steps.clone(),
            "delay": self._delay.clone(),
            "commands": self._commands.clone(),
            "randomizers": {name: r.state_dict() for name, r in self.task.randomizers.items()},
            "diverged": self.diverged,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, from an environment of the same task and size."""
        self.world.load_state_dict(state["world"])
        self.task.goal.load_state_dict(state["goal"])
        self.task.metrics.load_state_dict(state["metrics"])
        for name, value in state["decoder"].items():
            self._decoder_state[name].copy_(value)
        for name, value in state["randomizers"].items():
            self.task.randomizers[name].load_state_dict(value)
        self.episode_steps.copy_(state["episode_steps"])
        self._delay.copy_(state["delay"])
        self._commands.copy_(state["commands"])
        self.diverged = int(state["diverged"])
        self._read()
        for name, value in state["generators"].items():  # after reading, which draws noise
            self._generators[name].set_state(value)
        self._seen.update_raw(state["seen"])
        self._obs = {name: value.clone() for name, value in state["obs"].items()}

    @property
    def channels(self) -> Channels:
        """True channels after the last step."""
        return self._true

    def _seed(self, seed: int) -> None:
        for k, generator in enumerate(self._generators.values()):
            generator.manual_seed(seed * 1000003 + k)

    def _check_action(self, action: torch.Tensor) -> None:
        if tuple(action.shape) != (self.num_envs, self.num_actions):
            raise EnvError(f"actions must have shape ({self.num_envs}, {self.num_actions}), got {tuple(action.shape)}")
        if not math.isfinite(float(action.sum())):  # one number is quicker to look at than all
            bad = torch.nonzero(~torch.isfinite(action).all(dim=1)).squeeze(1)
            if len(bad):
                raise EnvError(f"actions of {len(bad)} worlds are not finite, first of world {int(bad[0])}")

    def _make_contract(self) -> Contract:
        """The channels that the policy's observations and the decoder read, as a contract."""
        task = self.task
        probe = Channels({name: self._seen[name] for name in self._raw}, task.derived)
        task.observe("policy", probe)
        task.action.decode(probe, torch.zeros(self.num_envs, self.num_actions))
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
            rate_hz=1.0 / self.step_dt,
            delay_s=self.step_dt * sum(task.command_delay) / 2,
            task=task.name,
            instruction=task.instruction,
        )

    def _read(self) -> None:
        raw = self._gather()
        if not self._raw:
            self._raw = tuple(raw)
            self._true = Channels(raw, self.task.derived)
            self._seen = Channels(raw, self.task.derived) if self.task.noise else self._true
        self._true.update_raw(raw)
        if self.task.noise:
            self._seen.update_raw({**raw, **self._noisy(raw)})

    def _gather(self) -> dict[str, torch.Tensor]:
        """Every raw channel."""
        known = {"randomization": self._randomization()}
        return {**self.world.read(), **self.task.goal.read(), **self._decoder_state, **known}

    def _randomization(self) -> torch.Tensor:
        """(N, R): the factors in force."""
        factors = [randomizer.factor for randomizer in self.task.randomizers.values()]
        return torch.stack(factors, dim=1).float() if factors else torch.zeros(self.num_envs, 0)

    def _noisy(self, raw: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        generator = self._generators["noise"]
        return {name: term.func(raw[name], generator, **term.params) for name, term in self.task.noise.items()}

    def _observe(self, ids: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Observation groups of all worlds, or of the worlds ``ids``; without noise the groups share their terms."""
        seen, true = self._seen, self._true
        if ids is not None:
            true = self._true.rows(ids, self._raw)
            seen = true if self._seen is self._true else self._seen.rows(ids, self._raw)
        return {
            group: self.task.observe(group, seen if group == "policy" else true) for group in self.task.observations
        }

    def _rewards(self, sick: torch.Tensor) -> dict[str, torch.Tensor]:
        rewards = {name: term.weight * term.func(self._true, **term.params) for name, term in self.task.rewards.items()}
        if len(sick):
            for value in rewards.values():
                value[sick] = 0.0  # the state that earned it no longer exists
        return rewards

    def _terminated(self, sick: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        causes = {name: term.func(self._true, **term.params) for name, term in self.task.terminations.items()}
        terminated = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        for cause in causes.values():
            terminated = terminated | cause
        terminated[sick] = True
        return terminated, causes

    def _delayed(self, command: torch.Tensor) -> torch.Tensor:
        if self.task.command_delay[1] == 0:
            return command
        self._commands.copy_(torch.roll(self._commands, 1, dims=0))  # in place: outlives an inference mode
        self._commands[0] = command
        return self._commands[self._delay, self._all]

    def _replace_unhealthy(self) -> torch.Tensor:
        """Reset worlds whose physics failed, so that nothing non-finite is read; return their ids."""
        health = self.world.health()
        if not health:
            return self._all[:0]
        ids = torch.from_numpy(health.ids).to(self.device)
        self.diverged += len(ids)
        for i, reason in zip(health.ids[:5], health.reasons, strict=False):
            log.warning("world %d diverged and was reset: %s", i, reason)
        self.world.reset(ids, self.task.goal.reset(ids, self._generators["reset"]))
        return ids

    def _finish_episodes(self, result: Step, causes: Mapping[str, torch.Tensor], sick: torch.Tensor) -> None:
        ids = result.final_ids
        result.final_obs = {group: value[ids] for group, value in result.obs.items()}
        lengths = self.episode_steps[ids].float()
        result.episodes = {"length": lengths, **self.task.metrics.finish(ids)}
        result.episodes["diverged"] = torch.isin(ids, sick).float()
        means = torch.stack(tuple(result.episodes.values())).nanmean(dim=1).tolist()
        for name, mean in zip(result.episodes, means, strict=True):
            if math.isfinite(mean):
                result.log[f"episode/{name}"] = mean
        for name, cause in causes.items():
            result.log[f"termination/{name}"] = float(cause[ids].float().mean())
        self._reset(ids)
        self._read_rows(ids)
        for group, rows in self._observe(ids).items():
            result.obs[group].index_copy_(0, ids, rows)
        for curriculum in self.task.curriculum.values():
            result.log.update(curriculum(self, result.log))

    def _read_rows(self, ids: torch.Tensor) -> None:
        """Bring the channels of ``ids`` up to date, leaving the noise that other worlds have already seen."""
        seen = None if self._seen is self._true else {name: self._seen[name].clone() for name in self.task.noise}
        self.world.read()  # refreshes the tensors that the channels hold
        raw = {name: self._true[name] for name in self._raw} | {"randomization": self._randomization()}
        for name, rows in self.task.goal.read(ids).items():
            raw[name].index_copy_(0, ids, rows)
        self._true.update_raw(raw)
        if seen is not None:
            for name, value in self._noisy({name: raw[name][ids] for name in self.task.noise}).items():
                seen[name][ids] = value
            self._seen.update_raw({**raw, **seen})

    def _reset(self, ids: torch.Tensor) -> None:
        task = self.task
        for randomizer in task.randomizers.values():
            if randomizer.at_reset:
                randomizer.apply(self.world, ids, self._generators["randomize"])
        state = task.goal.reset(ids, self._generators["reset"])
        self.world.reset(ids, state)
        for value in self._decoder_state.values():
            value[ids] = 0.0
        self.episode_steps[ids] = 0
        low, high = task.command_delay
        if high:
            drawn = torch.randint(low, high + 1, (len(ids),), generator=self._generators["delay"])
            self._delay[ids] = drawn.to(self.device)
            self._commands[:, ids] = state["ctrl"].to(self._commands.dtype)
