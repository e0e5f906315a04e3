"""Where episodes on a table in front of an arm start, measured from what its sensors say, and when their time is up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from real.arm import ArmWorld, Layout
from robolearn.contract import Channel
from sim.channels import Channels, Derived
from sim.selection import Selection
from sim.tasks.arm_goal import NAMED

_SEEDS = 2**31 - 1


class MeasuredTable:
    """`sim.task.GoalProcess` of an `ArmWorld`: `sim.tasks.arm_goal.TableGoal` with nothing known but what is measured.

    Args:
        world: the arm; starting an episode has it laid out.
        episode_steps: length of an episode, control steps.
        instruction: where nobody gives another one.
        tool_pos: of the task: the tool's place (1, 3) m from measured channels.

    Attributes:
        layout: of the episode under way.
        step: (1,) control steps since the start.
    """

    channels: tuple[Channel, ...] = (NAMED,)

    def __init__(self, world: ArmWorld, episode_steps: int, instruction: str, tool_pos: Callable[..., Any]) -> None:
        self.episode_steps = episode_steps
        self._world, self._instruction, self._tool_pos = world, instruction, tool_pos
        self.layout = Layout(0, instruction)
        self.step = torch.zeros(1, dtype=torch.long)
        self._start: dict[str, torch.Tensor] = {}

    def reset(self, select: Selection, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Have the table laid out and the arm driven to the start; return its command there, ``ctrl`` (1, J)."""
        seed = int(torch.randint(_SEEDS, (1,), generator=generator))
        self.layout = self._world.lay_out(seed)
        self.step.zero_()
        measured = self._world.read()
        objects, goal = measured["object_poses"][..., :3], measured["pad_pos"][:, :1]
        tool = self._tool_pos(measured)
        self._start = {
            "start_distance": torch.linalg.vector_norm(objects[..., :2] - goal, dim=-1),
            "start_reach": torch.linalg.vector_norm(objects - tool.unsqueeze(1), dim=-1),
            "rest_height": objects[..., 2].clone(),
        }
        return {"ctrl": measured["joint_pos"].clone()}

    def advance(self) -> None:
        """One control step has passed."""
        self.step += 1

    def read(self, ids: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """As of a `TableGoal`."""
        named = torch.tensor([[1.0 - self.layout.named, float(self.layout.named)]])
        spent = (self.step.float() / self.episode_steps).unsqueeze(1)
        values = {"named": named, **self._start, "time_spent": spent}
        return {name: value.clone() if ids is None else value[ids] for name, value in values.items()}

    def timed_out(self) -> torch.Tensor:
        """(1,) bool: the episode has lasted as long as it should."""
        return self.step >= self.episode_steps

    def instructions(self) -> list[str]:
        """What the arm is asked to do, one text."""
        return [self.layout.instruction or self._instruction]

    def state_dict(self) -> dict[str, Any]:
        """The clock; an episode on a robot cannot be taken up again."""
        return {"step": self.step.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.step.copy_(state["step"])


def tool_pos(derived: dict[str, Derived]) -> Callable[[dict[str, torch.Tensor]], torch.Tensor]:
    """The function that a task derives the tool's place with, of measured channels alone."""
    return lambda measured: Channels(measured, derived)["tool_pos"]
