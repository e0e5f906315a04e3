"""What a task declares: named terms, each a pure function of channels, and the objects that move a task along."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from robolearn.contract import Channel
from sim.channels import Channels, Derived
from sim.randomizers.draw import Draw
from sim.selection import Selection
from sim.world import World

TermFunction = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class ObservationTerm:
    """``func(channels, **params) -> (N, d)``; terms of a group are concatenated in declaration order."""

    func: TermFunction
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RewardTerm:
    """``weight * func(channels, **params)``, the function returning (N,)."""

    func: TermFunction
    weight: float
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TerminationTerm:
    """``func(channels, **params) -> (N,) bool``: the episode ends in failure or success, nothing is bootstrapped."""

    func: TermFunction
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NoiseTerm:
    """``func(value, noise, **params)`` makes the measured channel that the policy sees from the true one.

    ``noise`` (..., numbers) has a standard normal distribution, unless something is randomised about it; ``numbers``
    is the channel's last axis where it is None.
    """

    func: Callable[..., torch.Tensor]
    params: Mapping[str, Any] = field(default_factory=dict)
    numbers: int | None = None

    def size(self, channel: int) -> int:
        """How many numbers of noise a channel takes whose last axis has ``channel`` numbers."""
        return channel if self.numbers is None else self.numbers


class ActionDecoder(Protocol):
    """Turns a policy's action into a command in physical units; a zero action reproduces the task's baseline.

    Attributes:
        num_actions: A.
        command: the channel it produces, with limits.
        state: channels it feeds back to itself, all zero at the start of an episode.
    """

    num_actions: int
    command: Channel
    state: tuple[Channel, ...]

    def decode(self, c: Channels, action: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Command (N, nu) and next state, from channels (its own state among them) and action (N, A)."""


class GoalProcess(Protocol):
    """Where episodes start, what they aim at over time, and when their time is up."""

    @property
    def channels(self) -> tuple[Channel, ...]:
        """The channels that `read` delivers."""

    def reset(self, select: Selection, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Begin episodes in the selected worlds; return their initial state fields, ``ctrl`` among them, (K, ...)."""

    def advance(self) -> None:
        """One control step has passed in every world."""

    def read(self, ids: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Goal channels, name → (N, ...) new tensors; of the worlds ``ids`` (K,) only, where given."""

    def timed_out(self) -> torch.Tensor:
        """(N,) bool: the episode has reached its planned end."""

    def state_dict(self) -> dict[str, Any]:
        """Clocks and choices, for a bit-exact continuation."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""


class EpisodeMetrics(Protocol):
    """Accumulates what an episode is judged by, on true channels with nothing added for learning."""

    def update(self, c: Channels) -> None:
        """Take in one control step of every world."""

    def finish(self, select: Selection) -> dict[str, torch.Tensor]:
        """Results of the episodes that end now in the selected worlds, name → (K,) float; then start afresh."""

    def state_dict(self) -> dict[str, Any]:
        """Accumulators, for a bit-exact continuation."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""


class Randomizer(Protocol):
    """Draws physical properties of worlds; see `sim.randomizers.base.Randomizer`.

    Attributes:
        name, unit: of what it draws; draw: the range and distribution; discrete: whole numbers alone.
        at: ``start``, once when the environment is made; ``reset``, at every reset; or ``interval``, at every reset and
            at intervals from there on.
        drawn: (N, items, width) what was drawn last, NaN before.
        factor: (N, d) what is in force, for critics; d may be 0.
    """

    name: str
    unit: str
    draw: Draw
    discrete: bool
    drawn: torch.Tensor
    factor: torch.Tensor

    @property
    def at(self) -> str:
        """When it draws."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The `mujoco.MjModel` fields it writes."""

    def prepare(self, world: World) -> None:
        """Look up in the world's models what will be written."""

    def apply(self, world: World, select: Selection, generator: torch.Generator) -> None:
        """Draw for the selected worlds, whose episodes begin."""

    def advance(self, world: World, dt: float, generator: torch.Generator) -> None:
        """A control step of ``dt`` seconds begins; for ``interval`` only."""

    def state_dict(self) -> dict[str, Any]:
        """Draws in force, for a bit-exact continuation."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""


Curriculum = Callable[[Any, Mapping[str, float]], dict[str, float]]


@dataclass
class Task:
    """A task, written once for every world.

    Attributes:
        name, instruction: what it is called, and what a person would ask for.
        robot: name of the robot; robot_mjcf: its MJCF text.
        decimation: physics steps per control step.
        max_episode_steps: an episode's longest length in control steps.
        measured: the channels that the world delivers, and a robot's drivers where there is a robot. Others, such as
            ``randomization``, are known in simulation only: the ``policy`` group may not use them.
        observations: group → name → term; groups ``policy`` and ``critic``.
        action, goal, metrics: see their protocols.
        rewards, terminations, noise: name → term; noise is keyed by channel.
        randomizers: name → randomiser, applied in order.
        command_delay: (least, most) control steps of latency, drawn for each episode, where no randomiser delays.
        command_parts, command_lag: see `sim.ramp.CommandRamp`; with 1 part a command is in force at once.
        derived: name → function, for quantities that several terms share.
        curriculum: name → ``func(env, log)`` called after every step that ended episodes; may change the task's
            parameters, and returns what it wants logged.
        baselines: name → variant → ``func(env) -> actions (N, A)``: what a policy has to beat; of several variants
            the best by ``success`` is reported.
        success: the metric that counts as success.
        report: metrics that an evaluation shows, in order; rates are shares of episodes.
        instructions: gives what each world is asked to do now, N texts; None: all of them ``instruction``.
    """

    name: str
    instruction: str
    robot: str
    robot_mjcf: str
    decimation: int
    max_episode_steps: int
    measured: tuple[Channel, ...]
    observations: Mapping[str, Mapping[str, ObservationTerm]]
    action: ActionDecoder
    goal: GoalProcess
    metrics: EpisodeMetrics
    rewards: dict[str, RewardTerm]
    terminations: dict[str, TerminationTerm]
    noise: Mapping[str, NoiseTerm] = field(default_factory=dict)
    randomizers: Mapping[str, Randomizer] = field(default_factory=dict)
    command_delay: tuple[int, int] = (0, 0)
    command_parts: int = 1
    command_lag: tuple[int, int] = (0, 0)
    derived: Mapping[str, Derived] = field(default_factory=dict)
    curriculum: Mapping[str, Curriculum] = field(default_factory=dict)
    baselines: Mapping[str, Mapping[str, Callable[[Any], torch.Tensor]]] = field(default_factory=dict)
    success: str = "success"
    report: tuple[str, ...] = ("success",)
    instructions: Callable[[], list[str]] | None = None

    def observe(self, group: str, c: Channels) -> torch.Tensor:
        """One observation group, (N, d), from channels.

        What groups share is computed once per channels: single terms, and the policy's group as a whole where another
        group begins with it.
        """
        terms, policy = ([*self.observations[name].values()] for name in (group, "policy"))
        if terms[: len(policy)] != policy:
            return concatenated(c, terms)
        shared = c.once(self.observations["policy"], concatenated, {"terms": policy})
        rest = terms[len(policy) :]
        return torch.cat([shared, concatenated(c, rest)], dim=-1) if rest else shared


def concatenated(c: Channels, terms: Sequence[ObservationTerm]) -> torch.Tensor:
    """Terms side by side, (N, d)."""
    return torch.cat([c.once(term, term.func, term.params) for term in terms], dim=-1)
