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
    away = s.thing[:, :2] - s.goal
    distance = vector_norm(away, dim=1, keepdim=True)
    s.marked |= s.mode["run_on"] & (distance.squeeze(1) < 0.02)
    # on from the goal, as if it were further along
    direction = torch.where(s.marked.unsqueeze(1), _direction(s.luck[:, 2]), away / distance.clamp_min(1e-6))
    distance = torch.where(s.marked.unsqueeze(1), torch.full_like(distance, 0.1), distance)
    side = torch.stack([-direction[:, 1], direction[:, 0]], dim=1)
    aside = 0.075 * torch.where(s.luck[:, 1:2] < 0.5, -1.0, 1.0) * s.mode["miss"].unsqueeze(1)
    thing = s.thing[:, :2] + aside * side
    rel = s.tool[:, :2] - thing
    ahead, lateral = (rel * direction).sum(1, keepdim=True), (rel * side).sum(1, keepdim=True)
    angle = torch.atan2(lateral, ahead)
    aligned = (lateral.abs() < 0.02) & (ahead > 0.0) & (ahead < 0.09) & ~s.mode["hover"].unsqueeze(1)
    reach = 0.03 - (distance - 0.006).clamp(0.0, 0.045)
    pushing = thing + direction * reach - 0.8 * lateral * side
    pushing = torch.where(distance < 0.022, s.tool[:, :2], pushing)
    target = torch.where(aligned, pushing, _orbit(thing, direction, side, angle, s.luck[:, 3:4], s.mode["hover"]))
    close = aligned | (vector_norm(rel, dim=1, keepdim=True) < 0.11)  # where the object itself is what is in the way
    target = torch.where(close, target, _avoid(s.tool[:, :2], target, s.other[:, :2]))
    return torch.cat([target, s.tool[:, 2:]], dim=1), torch.full_like(s.clock, CLOSED), torch.zeros_like(s.marked)


def pick_place(s: Scene) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Take the object, carry it to the goal, put it down, rise; see the modes for how each phase can go wrong.

    ``drop``: lets go on the way. ``hover``: stays above the object, or holds it above the goal. ``run_on``: takes the
    object off the goal again.
    """
    phase = torch.arange(len(s.phase), device=s.phase.device), s.phase
    target = _waypoints(s)[phase]
    error = target - s.tool
    flat = vector_norm(error[:, :2], dim=1)
    over = _arrived(s, flat, error[:, 2].abs())[phase]
    idle = s.mode["hover"] & (s.luck[:, 6] < 0.25) & (s.phase == 0)  # above the object, never down
    over = over & ~idle & ~(s.mode["hover"] & (s.phase == _CARRYING))
    carried = s.phase == _CARRYING
    s.marked |= s.mode["drop"] & carried & (flat < 0.12 + 0.1 * s.luck[:, 3])
    slow = torch.where(s.marked.unsqueeze(1), s.tool + 0.1 * error, target)  # it falls here, not on the pad
    target = torch.where(carried.unsqueeze(1), slow, target)
    grip = torch.where(s.marked, OPEN, s.tool.new_tensor(_GRIPPER)[s.phase])
    return target, grip, over


_CARRYING = 4
"""The phase in which the object is brought over the goal."""
_GRIPPER = (OPEN, OPEN, *[CLOSED] * 4, *[OPEN] * 5, *[CLOSED] * 3, OPEN)
"""The gripper in each phase of `pick_place`."""


def _waypoints(s: Scene) -> torch.Tensor:
    """(N, 15, 3): where the tool is to be in each phase of `pick_place`; the last ones undo what has been done."""
    grasp, above, here = _grasp(s), torch.full_like(s.tool[:, 2:], CARRY), s.tool[:, :2]
    level = torch.where(s.mode["hover"].unsqueeze(1), 0.075 + 0.08 * s.luck[:, 4:5], above)
    down = grasp[:, 2:] + 0.004
    away = s.goal + _direction(s.luck[:, 5]) * 0.14
    take = [torch.cat([grasp[:, :2], above], 1), grasp, grasp, torch.cat([here, above], 1)]
    put = [torch.cat([s.goal, height], 1) for height in (level, down, down)]
    rise = torch.cat([here, above + 0.02], 1)
    return torch.stack([*take, *put, rise, rise, *take, torch.cat([away, above], 1), torch.cat([here, above], 1)], 1)


def _arrived(s: Scene, flat: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """(N, 15) bool: what ends each phase of `pick_place`, by how far the tool is from its waypoint, (N,) each."""
    height = s.tool[:, 2]
    take = [(flat < NEAR) & (high < 0.03), (high < NEAR) & (flat < NEAR), s.clock >= 3, height > CARRY - 0.03]
    put = [flat < NEAR, high < NEAR, s.clock >= 2]
    rise = [height > CARRY - 0.01, s.mode["run_on"] & (s.clock >= 2)]
    return torch.stack([*take, *put, *rise, *take, flat < NEAR, torch.zeros_like(s.marked)], 1)


def _grasp(s: Scene) -> torch.Tensor:
    """Where the tool takes the object, (N, 3); beside it in mode ``miss``."""
    point = torch.cat([s.thing[:, :2], s.thing[:, 2:].clamp(0.02, 0.06)], dim=1)
    beside = torch.cat([_direction(s.luck[:, 1]) * (0.06 + 0.03 * s.luck[:, 2:3]), torch.zeros_like(point[:, 2:])], 1)
    missing = s.mode["miss"] & (s.phase < 3)
    return torch.where(missing.unsqueeze(1), point + beside, point)


def _direction(luck: torch.Tensor) -> torch.Tensor:
    """(N, 2) unit vectors from (N,) in [0, 1)."""
    return torch.stack([torch.cos(2 * math.pi * luck), torch.sin(2 * math.pi * luck)], dim=1)


def _orbit(
    thing: torch.Tensor,
    direction: torch.Tensor,
    side: torch.Tensor,
    angle: torch.Tensor,
    luck: torch.Tensor,
    hover: torch.Tensor,
) -> torch.Tensor:
    """The next point (N, 2) of a way around ``thing`` to the place behind it, which lies in ``direction``."""
    left = angle - angle.clamp(-0.6, 0.6)
    radius = 0.065 + 0.03 * (angle.abs() / 0.8).clamp_max(1.0) + 0.025 * luck * hover.unsqueeze(1)
    return thing + radius * (torch.cos(left) * direction + torch.sin(left) * side)


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
