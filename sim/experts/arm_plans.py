"""What a scripted arm does next: for each task, a target of the tool, the gripper, and whether a phase is over."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch.linalg import vector_norm

OPEN, CLOSED = 1.0, -1.0
CARRY = 0.15
"""m above the table: the height at which things are carried."""
NEAR = 0.012
"""m: an error of the tool that is small enough to go on."""


@dataclass
class Scene:
    """What a plan looks at, in N worlds; lengths in m, in the world.

    Attributes:
        tool, thing, other: (N, 3): the tool, the object that is to be moved, the other one.
        goal: (N, 2), where it is to be moved to.
        phase: (N,) int64; clock: (N,) control steps since the phase began.
        luck: (N, 8) in [0, 1), drawn for each episode.
        mode: name → (N,) bool.
        marked: (N,) bool, what a plan wants to remember: once set it stays so for the episode.
    """

    tool: torch.Tensor
    thing: torch.Tensor
    other: torch.Tensor
    goal: torch.Tensor
    phase: torch.Tensor
    clock: torch.Tensor
    luck: torch.Tensor
    mode: Mapping[str, torch.Tensor]
    marked: torch.Tensor


Plan = Callable[[Scene], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
"""``plan(scene) -> (target (N, 3), gripper (N,) in [-1, 1], forward (N,) bool)``."""


def reach(s: Scene) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Go to the point above the object and stay; ``hover``: to a point further off."""
    aside = _direction(s.luck[:, 1]) * (0.06 + 0.05 * s.luck[:, 2:3])
    aside = torch.cat([aside, 0.03 + 0.05 * s.luck[:, 3:4]], dim=1)
    point = s.thing + s.thing.new_tensor([0.0, 0.0, 0.06])
    point = torch.where(s.mode["hover"].unsqueeze(1), point + aside, point)
    return point, torch.full_like(s.clock, CLOSED), torch.zeros_like(s.marked)


def push(s: Scene) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Go behind the object, around it where it is in the way, and push it to the goal.

    ``miss``: the same beside it. ``hover``: stays behind it. ``run_on``: pushes on, beyond the goal.
    """
    goal = s.goal
    away = s.thing[:, :2] - goal
    distance = vector_norm(away, dim=1, keepdim=True)
    direction = away / distance.clamp_min(1e-6)
    beyond = s.mode["run_on"] & (s.marked | (distance.squeeze(1) < 0.02))
    s.marked |= beyond
    on = _direction(s.luck[:, 2])
    direction = torch.where(beyond.unsqueeze(1), on, direction)  # from where the pad is left again
    side = torch.stack([-direction[:, 1], direction[:, 0]], dim=1)
    sign = torch.where(s.luck[:, 1:2] < 0.5, -1.0, 1.0)
    offset = torch.where(s.mode["miss"].unsqueeze(1), 0.075 * sign * side, torch.zeros_like(side))
    tool, thing = s.tool[:, :2], s.thing[:, :2] + offset
    behind = thing + direction * (0.065 + 0.02 * s.luck[:, 3:4] * s.mode["hover"].unsqueeze(1))
    rel = tool - thing
    lateral = (rel * side).sum(1, keepdim=True)
    ahead = (rel * direction).sum(1, keepdim=True)
    aligned = (lateral.abs() < 0.012) & (ahead > 0.02)
    left = torch.where(beyond.unsqueeze(1), torch.full_like(distance, 0.1), (distance - 0.008).clamp_min(0.0))
    pushing = thing + direction * 0.03 - direction * left.clamp_max(0.045) - side * 0.5 * lateral
    arrived = (distance < 0.015) & ~beyond.unsqueeze(1)
    pushing = torch.where(arrived, tool, pushing)
    around = _around(tool, behind, s.thing[:, :2], side, lateral, direction, ahead)
    around = _avoid(tool, around, s.other[:, :2])
    go = aligned & ~s.mode["hover"].unsqueeze(1)
    target = torch.where(go, pushing, around)
    height = s.tool[:, 2:]
    return torch.cat([target, height], dim=1), torch.full_like(s.clock, CLOSED), torch.zeros_like(s.marked)


def pick_place(s: Scene) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Above, down, close, lift, over the goal, down, open, up; see the modes for how each phase can go wrong."""
    grasp, above = _grasp(s), torch.full_like(s.tool[:, 2:], CARRY)
    level = torch.where(s.mode["hover"].unsqueeze(1), 0.075 + 0.08 * s.luck[:, 4:5], above)
    away = s.goal + _direction(s.luck[:, 5]) * 0.14
    down = grasp[:, 2:] + 0.004
    here, place, off = s.tool[:, :2], s.goal, away
    targets = torch.stack(
        [
            torch.cat([grasp[:, :2], above], 1),
            grasp,
            grasp,
            torch.cat([here, above], 1),
            torch.cat([place, level], 1),
            torch.cat([place, down], 1),
            torch.cat([place, down], 1),
            torch.cat([here, above + 0.02], 1),
            torch.cat([here, above + 0.02], 1),
            torch.cat([grasp[:, :2], above], 1),
            grasp,
            grasp,
            torch.cat([here, above], 1),
            torch.cat([off, above], 1),
            torch.cat([here, above], 1),
        ],
        dim=1,
    )
    row = torch.arange(len(s.phase), device=s.phase.device)
    target = targets[row, s.phase]
    error = target - s.tool
    flat, high = vector_norm(error[:, :2], dim=1), error[:, 2].abs()
    closed = s.tool.new_tensor([OPEN, OPEN, *[CLOSED] * 4, *[OPEN] * 5, *[CLOSED] * 3, OPEN])[s.phase]
    over = torch.stack(
        [
            (flat < NEAR) & (high < 0.03),
            (high < NEAR) & (flat < NEAR),
            s.clock >= 3,
            s.tool[:, 2] > CARRY - 0.03,
            flat < NEAR,
            high < NEAR,
            s.clock >= 2,
            s.tool[:, 2] > CARRY - 0.01,
            s.mode["run_on"] & (s.clock >= 2),
            (flat < NEAR) & (high < 0.03),
            (high < NEAR) & (flat < NEAR),
            s.clock >= 3,
            s.tool[:, 2] > CARRY - 0.03,
            flat < NEAR,
            torch.zeros_like(s.marked),
        ],
        dim=1,
    )[row, s.phase]
    idle = s.mode["hover"] & (s.luck[:, 6] < 0.25) & (s.phase == 0)  # above the object, never down
    over = over & ~idle & ~(s.mode["hover"] & (s.phase == 4))
    # a drop is late enough to be carried some way, and far enough from the goal
    dropping = s.mode["drop"] & (s.phase == 4) & (flat > 0.075) & (flat < 0.085 + 0.12 * s.luck[:, 3])
    s.marked |= dropping
    grip = torch.where(s.marked, OPEN, closed)
    return target, grip, over


def _grasp(s: Scene) -> torch.Tensor:
    """Where the tool takes the object, (N, 3); beside it in mode ``miss``."""
    point = torch.cat([s.thing[:, :2], s.thing[:, 2:].clamp(0.02, 0.06)], dim=1)
    beside = torch.cat([_direction(s.luck[:, 1]) * (0.06 + 0.03 * s.luck[:, 2:3]), torch.zeros_like(point[:, 2:])], 1)
    missing = s.mode["miss"] & (s.phase < 3)
    return torch.where(missing.unsqueeze(1), point + beside, point)


def _direction(luck: torch.Tensor) -> torch.Tensor:
    """(N, 2) unit vectors from (N,) in [0, 1)."""
    return torch.stack([torch.cos(2 * math.pi * luck), torch.sin(2 * math.pi * luck)], dim=1)


def _around(
    tool: torch.Tensor,
    behind: torch.Tensor,
    thing: torch.Tensor,
    side: torch.Tensor,
    lateral: torch.Tensor,
    direction: torch.Tensor,
    ahead: torch.Tensor,
) -> torch.Tensor:
    """Straight to ``behind``, or first past the object's side where it stands between, (N, 2)."""
    sign = torch.where(lateral >= 0, 1.0, -1.0)
    passing = thing + side * sign * 0.085 + direction * 0.03
    blocked = (ahead < 0.03) & (lateral.abs() < 0.075)
    return torch.where(blocked & (ahead > -0.2), torch.where(lateral.abs() < 0.06, thing + side * sign * 0.085 + direction * ahead, passing), behind)


def _avoid(tool: torch.Tensor, target: torch.Tensor, obstacle: torch.Tensor) -> torch.Tensor:
    """Bend the way (N, 2) around an obstacle that is close to the tool and ahead."""
    way = target - tool
    unit = way / vector_norm(way, dim=1, keepdim=True).clamp_min(1e-6)
    to = obstacle - tool
    along = (to * unit).sum(1, keepdim=True)
    normal = torch.stack([-unit[:, 1], unit[:, 0]], dim=1)
    off = (to * normal).sum(1, keepdim=True)
    near = (along > 0) & (along < 0.10) & (off.abs() < 0.065) & (vector_norm(way, dim=1, keepdim=True) > along - 0.03)
    return torch.where(near, tool - normal * torch.where(off >= 0, 1.0, -1.0) * 0.06 + unit * 0.02, target)


PLANS: dict[str, Plan] = {"arm_reach": reach, "arm_push": push, "arm_pick_place": pick_place}
