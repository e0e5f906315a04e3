"""Velocity commands that change now and then, and where episodes of walking start."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.linalg import vector_norm

from robolearn.contract import Channel
from sim.selection import Selection
from sim.terms.locomotion import STILL

CHANNEL = Channel(
    "velocity_command",
    (3,),
    "m/s or rad/s",
    "heading",
    kind="command/body/velocity",
    elements=("ahead", "left", "turn"),
)


@dataclass(frozen=True)
class CommandRanges:
    """What commands are drawn from.

    Attributes:
        ahead, left: [low, high] m/s.
        turn: [low, high] rad/s.
        hold_steps: [least, most] control steps for which a command stays.
        standing: share of commands that are to stand still.
    """

    ahead: Sequence[float]
    left: Sequence[float]
    turn: Sequence[float]
    hold_steps: Sequence[int]
    standing: float


@dataclass(frozen=True)
class StartNoise:
    """How far starts are from the standing pose.

    Attributes:
        joints: rad, standard deviation of joint positions.
        velocity: m/s, standard deviation of the base's horizontal velocity: a push.
        turned: whether the robot looks anywhere, instead of along x.
    """

    joints: float = 0.0
    velocity: float = 0.0
    turned: bool = False


_Plan = tuple[torch.Tensor, torch.Tensor]
"""Commands (K, S, 3) of S spans, and the control steps (K, S) at which each ends."""


class VelocityCommands:
    """`sim.task.GoalProcess` of commands drawn at the start of an episode, with the times at which they change.

    Args:
        standing: (nq,) positions of the standing robot; the first seven are its base's.
        ranges: what commands are drawn from.
        episode_steps: length of an episode, control steps.
        num_worlds: N.
        start: how far starts are from standing.
        fixed_seed: every world repeats one plan, drawn from this seed, in all its episodes; None: a new one each time.
        device: where the worlds are.
    """

    channels: tuple[Channel, ...] = (CHANNEL,)

    def __init__(
        self,
        standing: torch.Tensor,
        ranges: CommandRanges,
        *,
        episode_steps: int,
        num_worlds: int,
        start: StartNoise,
        fixed_seed: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._standing = standing.to(device)
        self._start = start
        self._ranges = ranges
        self._low, self._high = (
            torch.tensor([r[i] for r in (ranges.ahead, ranges.left, ranges.turn)], device=device) for i in (0, 1)
        )
        self.episode_steps = episode_steps
        self._spans = math.ceil(episode_steps / ranges.hold_steps[0])
        self.step = torch.zeros(num_worlds, dtype=torch.long, device=device)
        self._commands = torch.zeros(num_worlds, self._spans, 3, device=device)
        self._ends = torch.zeros(num_worlds, self._spans, dtype=torch.long, device=device)
        self._fixed: _Plan | None = None
        if fixed_seed is not None:
            generator = torch.Generator(device).manual_seed(fixed_seed)
            self._fixed = self._draw(num_worlds, generator, torch.device(device))

    def reset(self, select: Selection, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Draw commands (or repeat the fixed ones) and a start near the standing pose."""
        ids = select.ids
        if self._fixed is None:
            commands, ends = self._draw(len(ids), generator, ids.device)
        else:
            commands, ends = (rows[ids] for rows in self._fixed)
        select.write(self._commands, commands)
        select.write(self._ends, ends)
        select.fill(self.step, 0)
        return self._starts(len(ids), generator, ids.device)

    def advance(self) -> None:
        """One control step has passed in every world."""
        self.step += 1

    def read(self, ids: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """``velocity_command`` (N, 3)."""
        step, ends, commands = self.step, self._ends, self._commands
        if ids is not None:
            step, ends, commands = step[ids], ends[ids], commands[ids]
        span = (step.unsqueeze(1) >= ends).sum(1).clamp_max(self._spans - 1)
        return {CHANNEL.name: commands.gather(1, span.view(-1, 1, 1).expand(-1, 1, 3)).squeeze(1)}

    def timed_out(self) -> torch.Tensor:
        """(N,) bool: the episode has lasted as long as it should."""
        return self.step >= self.episode_steps

    def state_dict(self) -> dict[str, Any]:
        """Clocks and plans."""
        return {"step": self.step.clone(), "commands": self._commands.clone(), "ends": self._ends.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.step.copy_(state["step"])
        self._commands.copy_(state["commands"])
        self._ends.copy_(state["ends"])

    def _draw(self, k: int, generator: torch.Generator, device: torch.device) -> _Plan:
        draws = torch.rand(k, self._spans, 5, generator=generator, device=device)
        commands = self._low + (self._high - self._low) * draws[..., :3]
        stand = (draws[..., 3] < self._ranges.standing) | (vector_norm(commands, dim=-1) < STILL)
        least, most = self._ranges.hold_steps
        holds = least + ((most - least + 1) * draws[..., 4]).long()
        return commands.masked_fill(stand.unsqueeze(-1), 0.0), holds.cumsum(1)

    def _starts(self, k: int, generator: torch.Generator, device: torch.device) -> dict[str, torch.Tensor]:
        """State fields of k starts: qpos (k, nq), qvel (k, nq - 1), ctrl (k, nq - 7)."""
        draws = torch.randn(k, len(self._standing), generator=generator, device=device)
        heading = 2.0 * math.pi * torch.rand(k, generator=generator, device=device) * self._start.turned
        zero = torch.zeros_like(heading)
        turned = torch.stack([torch.cos(heading / 2), zero, zero, torch.sin(heading / 2)], dim=1)
        place, joints = self._standing[:3].expand(k, 3), self._standing[7:].expand(k, -1)
        qvel = torch.zeros(k, len(self._standing) - 1, device=device)
        qvel[:, :2] = self._start.velocity * draws[:, :2]
        return {
            "qpos": torch.cat([place, turned, joints + self._start.joints * draws[:, 7:]], dim=1),
            "qvel": qvel,
            "ctrl": joints,
        }
