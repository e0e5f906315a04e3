"""Where episodes of the arm tasks start, and when their time is up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import torch

from robolearn.contract import Channel
from sim.robots import Robot
from sim.selection import Selection
from sim.tasks.arm_scene import FINGERS, PADS
from sim.tasks.arm_things import FIRST, SECOND, SHAPES, Assignment

NAMED = Channel("named", (2,), "1", kind="command/object/named", elements=(FIRST, SECOND))
_CANDIDATES = 32
_POINTS = (FIRST, SECOND, *PADS, "tool")


@dataclass(frozen=True)
class Area:
    """Where things are put, m; the table top is at z = 0.

    Attributes:
        x, y: [low, high] of objects and pads.
        tool_low, tool_high: corners (x, y, z) of the box in which the tool starts.
        apart: distances on the table to aim at, ``(one, other) → m``; of pairs not given, none. Of a few dozen random
            arrangements the one that comes closest is taken, which half of the time keeps all of them.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    tool_low: tuple[float, float, float]
    tool_high: tuple[float, float, float]
    apart: Mapping[tuple[str, str], float]


@dataclass(frozen=True)
class ToolStarts:
    """Solved places of the tool to start from: position (M, 3) m and joints (M, 7) rad."""

    position: torch.Tensor
    joints: torch.Tensor


class TableGoal:
    """`sim.task.GoalProcess` of a table with two objects and two pads, one of the objects named.

    Args:
        robot: the arm; the last of its joints is the gripper's.
        assignment: what is named, and how; drawn before an episode starts.
        area: where things are put.
        starts: places of the tool.
        model: a compiled scene.
        episode_steps: length of an episode, control steps.
        gripper: m, how far a finger is open at the start.
        turn: rad, how far objects are turned at most.

    Attributes:
        step: (N,) control steps since the start.
    """

    channels: tuple[Channel, ...] = (NAMED,)

    def __init__(
        self,
        robot: Robot,
        assignment: Assignment,
        area: Area,
        starts: ToolStarts,
        model: mujoco.MjModel,
        *,
        episode_steps: int,
        gripper: float = 0.04,
        turn: float = 0.25,
    ) -> None:
        device = assignment.named.device
        self.episode_steps = episode_steps
        self._assignment, self._starts, self._gripper, self._turn = assignment, starts, gripper, turn
        self._low = torch.tensor([area.x[0], area.y[0]], device=device)
        self._range = torch.tensor([area.x[1] - area.x[0], area.y[1] - area.y[0]], device=device)
        self._apart = _apart(area).to(device)
        n = len(assignment.shapes)
        self.step = torch.zeros(n, dtype=torch.long, device=device)
        self._start_distance = torch.ones(n, 2, device=device)
        self._start_reach = torch.ones(n, 2, device=device)
        self._rest = torch.tensor(
            [[SHAPES[shape].rest_height for shape in shapes] for shapes in assignment.shapes], device=device
        ).float()
        self._qpos0 = torch.tensor(model.qpos0, device=device).float()
        self._nv = model.nv
        self._arm = torch.tensor(_places(model, robot.joint_names[:-1]), device=device)
        self._fingers = torch.tensor(_places(model, FINGERS), device=device)
        self._pads = _places(model, [f"{pad}_x" for pad in PADS])
        self._things = _places(model, (FIRST, SECOND))

    def reset(self, select: Selection, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Put the things on the table and the tool above it."""
        ids = select.ids
        k, device = len(ids), ids.device
        pick = torch.randint(len(self._starts.position), (k, _CANDIDATES), generator=generator, device=device)
        places = self._arrangements(pick, generator)
        tool, joints = self._starts.position[pick], self._starts.joints[pick]
        best = self._slack(torch.cat([places, tool[..., None, :2]], dim=2)).argmax(1)
        rows = torch.arange(k, device=device)
        xy, tool, joints = places[rows, best], tool[rows, best], joints[rows, best]
        rest = self._rest[ids]
        objects = torch.cat([xy[:, :2], rest.unsqueeze(-1)], dim=-1)
        select.write(self._start_distance, torch.linalg.vector_norm(xy[:, :2] - xy[:, 2:3], dim=-1))
        select.write(self._start_reach, torch.linalg.vector_norm(objects - tool.unsqueeze(1), dim=-1))
        select.fill(self.step, 0)
        turned = self._turn * (2.0 * torch.rand(k, 2, generator=generator, device=device) - 1.0)
        return self._state(joints, xy[:, 2:], objects, turned)

    def advance(self) -> None:
        """One control step has passed in every world."""
        self.step += 1

    def read(self, ids: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """``named`` (N, 2) one-hot; for judges in simulation: ``start_distance``, ``start_reach`` and ``rest_height``
        (N, 2) m of both objects, and ``time_spent`` (N, 1), the share of the episode."""
        rows = slice(None) if ids is None else ids
        named = self._assignment.named[rows]
        return {
            "named": torch.stack([1.0 - named, named.float()], dim=1),
            "start_distance": self._start_distance[rows].clone(),
            "start_reach": self._start_reach[rows].clone(),
            "rest_height": self._rest[rows].clone(),
            "time_spent": (self.step[rows].float() / self.episode_steps).unsqueeze(1),
        }

    def timed_out(self) -> torch.Tensor:
        """(N,) bool: the episode has lasted as long as it should."""
        return self.step >= self.episode_steps

    def instructions(self, other: bool = False) -> list[str]:
        """See `Assignment.instructions`."""
        return self._assignment.instructions(other)

    def state_dict(self) -> dict[str, Any]:
        """Clocks, and where episodes started."""
        names = ("step", "_start_distance", "_start_reach")
        return {name.lstrip("_"): getattr(self, name).clone() for name in names}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.step.copy_(state["step"])
        self._start_distance.copy_(state["start_distance"])
        self._start_reach.copy_(state["start_reach"])

    def _arrangements(self, pick: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """(K, C, 4, 2) candidates for both objects and both pads."""
        u = torch.rand(*pick.shape, 4, 2, generator=generator, device=pick.device)
        return self._low + self._range * u

    def _slack(self, points: torch.Tensor) -> torch.Tensor:
        """(K, C): by how much the tightest pair of points (K, C, 5, 2) is further apart than it must be, at most 0."""
        distance = torch.linalg.vector_norm(points.unsqueeze(2) - points.unsqueeze(3), dim=-1)
        return (distance - self._apart).clamp_max(0.0).flatten(2).amin(-1)

    def _state(
        self, joints: torch.Tensor, pads: torch.Tensor, objects: torch.Tensor, turned: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """State fields of K starts: joints (K, 7), pads (K, 2, 2), objects (K, 2, 3), turned (K, 2) rad about z."""
        k = len(joints)
        qpos = self._qpos0.expand(k, -1).clone()
        qpos.index_copy_(1, self._arm, joints)
        qpos.index_fill_(1, self._fingers, self._gripper)
        for i, start in enumerate(self._pads):
            qpos[:, start : start + 2] = pads[:, i]
        for i, start in enumerate(self._things):
            zero = torch.zeros(k, 2, device=joints.device)
            turn = torch.cat([torch.cos(turned[:, i : i + 1] / 2), zero, torch.sin(turned[:, i : i + 1] / 2)], dim=1)
            qpos[:, start : start + 7] = torch.cat([objects[:, i], turn], dim=1)
        grip = torch.full((k, 1), self._gripper, device=joints.device)
        return {"qpos": qpos, "qvel": qpos.new_zeros(k, self._nv), "ctrl": torch.cat([joints, grip], dim=1)}


def _places(model: mujoco.MjModel, joints: Sequence[str]) -> list[int]:
    """Where the positions of these joints begin in ``qpos``."""
    return [int(model.joint(name).qposadr[0]) for name in joints]


def _apart(area: Area) -> torch.Tensor:
    """(5, 5) least distances between `_POINTS`."""
    out = torch.zeros(len(_POINTS), len(_POINTS))
    for (one, other), distance in area.apart.items():
        i, j = _POINTS.index(one), _POINTS.index(other)
        out[i, j] = out[j, i] = distance
    return out.fill_diagonal_(-1.0)
