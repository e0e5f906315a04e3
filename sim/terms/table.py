"""Terms of tabletop tasks with two objects, one of them named: exact progress, success, and what policies see.

Channels used here (N worlds): ``tool_pos`` (N, 3), ``joint_pos`` (N, J), ``object_poses`` (N, 2, 7), ``object_vels``
(N, 2, 6), ``pad_pos`` (N, 2, 2) of the goal and of the decoy, ``named`` (N, 2) one-hot, and in simulation
``rest_height``, ``start_distance`` and ``start_reach`` (N, 2). Lengths in m, positions in the world.

Every progress is in [0, 1], a function of the state and of where the episode began, and 1 exactly where it is done: a
potential. The functions that judge take ``which`` (N, 2), the one-hot object that they are about.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.linalg import vector_norm

from sim.channels import Channels, Derived

GOAL_RADIUS = 0.035
"""m between an object's centre and the pad's within which it is on the pad."""
ON_PAD = 0.045
"""m, likewise for pushing: half the pad's side, so that the object's centre is over the pad."""
REACHED = 0.03
"""m between the tool and the point above an object within which the object is reached."""
ABOVE = 0.06
"""m above an object's centre: what `arm_reach` reaches for."""
RESTING_HEIGHT, RESTING_SPEED = 0.008, 0.05
"""m above where it rests, and m/s, below which an object is at rest."""
RELEASED = 0.06
"""m between the tool and an object's centre from which on the object has been let go."""
BEHIND = 0.055
"""m behind an object, seen from the goal: where pushing begins."""
MIDDLE = (0.45, 0.0, 0.1)
"""m, the middle of the workspace."""
UNDONE = 1.0 - 1e-6
"""The most progress of what is not done: rounding shall not make 1 of it."""

Judge = Callable[[Channels, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""``judge(c, which) -> (progress (N,), done (N,) bool)``."""


def chosen(values: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    """Of (N, 2, ...) the entries that ``which`` (N, 2) chooses, (N, ...)."""
    return (values * which.view(*which.shape, *[1] * (values.ndim - 2))).sum(1)


def reached(c: Channels, which: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Progress and success of reaching the point above an object."""
    way = c["tool_pos"] - chosen(c["object_poses"][..., :3], which)
    distance = vector_norm(torch.cat([way[:, :2], way[:, 2:] - ABOVE], dim=1), dim=1)
    whole = (chosen(c["start_reach"], which) - REACHED).clamp_min(0.05)
    return _judged(1.0 - ((distance - REACHED) / whole).clamp(0.0, 1.0), distance <= REACHED)


def pushed(c: Channels, which: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Progress and success of pushing an object onto the goal: a quarter for getting behind it."""
    distance = vector_norm(chosen(c["object_poses"][..., :2], which) - c["pad_pos"][:, 0], dim=1)
    behind = _behind(c, which)
    reach = 1.0 - (vector_norm(c["tool_pos"][:, :2] - behind, dim=1) / 0.3).clamp(0.0, 1.0)
    return _judged(0.25 * reach + 0.75 * _way(c, which, distance, ON_PAD), distance <= ON_PAD)


def placed(c: Channels, which: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Progress and success of picking an object up and putting it down on the goal.

    Off the pad: .30 for the reach, .10 for the lift, .35 for the way while it is held. Above the pad: .75, .10 for
    lowering it, .15 for letting it go and moving away. A lift or a way counts as far as the tool is at the object.
    """
    place = chosen(c["object_poses"][..., :3], which)
    height = (place[:, 2] - chosen(c["rest_height"], which)).clamp_min(0.0)
    distance = vector_norm(place[:, :2] - c["pad_pos"][:, 0], dim=1)
    apart = vector_norm(c["tool_pos"] - place, dim=1)
    held = ((0.09 - apart) / 0.05).clamp(0.0, 1.0)
    lift = (height / 0.05).clamp(0.0, 1.0) * held
    reach = 1.0 - (apart / 0.35).clamp(0.0, 1.0)
    off = 0.30 * reach + lift * (0.10 + 0.35 * _way(c, which, distance))
    speed = vector_norm(chosen(c["object_vels"][..., :3], which), dim=1)
    resting = (height <= RESTING_HEIGHT) & (speed <= RESTING_SPEED)
    away = ((apart - 0.02) / (RELEASED - 0.02)).clamp(0.0, 1.0)
    over = 0.75 + 0.10 * (1.0 - (height / 0.12).clamp(0.0, 1.0)) + 0.149 * away * resting
    done = (distance <= GOAL_RADIUS) & resting & (apart >= RELEASED)
    return _judged(torch.where(distance <= GOAL_RADIUS, over, off), done)


JUDGES: dict[str, Judge] = {"reach": reached, "push": pushed, "pick_place": placed}
"""Task → what judges it."""


def judged(task: str) -> dict[str, Derived]:
    """Derived channels, known in simulation only, each (N,): ``progress`` and ``done`` (0 or 1) of the named object,
    ``progress_other`` and ``done_other`` of the other one."""
    judge = JUDGES[task]

    def named(c: Channels) -> torch.Tensor:
        return torch.stack([part.float() for part in judge(c, c["named"])], dim=1)

    def other(c: Channels) -> torch.Tensor:
        return torch.stack([part.float() for part in judge(c, 1.0 - c["named"])], dim=1)

    return {
        "judged": named,
        "judged_other": other,
        "progress": lambda c: c["judged"][:, 0],
        "done": lambda c: c["judged"][:, 1],
        "progress_other": lambda c: c["judged_other"][:, 0],
        "done_other": lambda c: c["judged_other"][:, 1],
    }


def named_pos(c: Channels) -> torch.Tensor:
    """(N, 3) m: centre of the named object."""
    return chosen(c["object_poses"][..., :3], c["named"])


def other_pos(c: Channels) -> torch.Tensor:
    """(N, 3) m: centre of the object that is not named."""
    return chosen(c["object_poses"][..., :3], 1.0 - c["named"])


# Observations, in units of 10 cm


def named_from_tool(c: Channels) -> torch.Tensor:
    """(N, 3): the named object's centre, seen from the tool."""
    return 10.0 * (named_pos(c) - c["tool_pos"])


def other_from_tool(c: Channels) -> torch.Tensor:
    """(N, 3): the other object's centre, seen from the tool."""
    return 10.0 * (other_pos(c) - c["tool_pos"])


def goal_from_named(c: Channels) -> torch.Tensor:
    """(N, 2): the goal, seen from the named object."""
    return 10.0 * (c["pad_pos"][:, 0] - named_pos(c)[:, :2])


def behind_from_tool(c: Channels) -> torch.Tensor:
    """(N, 2): the place from where the named object can be pushed to the goal, seen from the tool."""
    return 10.0 * (_behind(c, c["named"]) - c["tool_pos"][:, :2])


def tool_in_workspace(c: Channels) -> torch.Tensor:
    """(N, 3): the tool's place, from the middle of the table."""
    return 10.0 * torch.cat([c["tool_pos"][:, i : i + 1] - middle for i, middle in enumerate(MIDDLE)], dim=1)


def target_from_tool(c: Channels) -> torch.Tensor:
    """(N, 3): where the tool is told to be, seen from where it is; zero before an episode's first step."""
    return 10.0 * torch.where(c["begun"] > 0.5, c["tool_target"] - c["tool_pos"], torch.zeros_like(c["tool_pos"]))


def opening(c: Channels) -> torch.Tensor:
    """(N, 1): how far a finger is open, 0 to 1."""
    return c["joint_pos"][:, -1:] / 0.04


def time_spent(c: Channels) -> torch.Tensor:
    """(N, 1): the share of the episode that has passed."""
    return c["time_spent"]


# Rewards and terminations


def remaining(c: Channels) -> torch.Tensor:
    """(N,): progress that is left, with a minus sign: less is lost the sooner it is done."""
    return c["progress"] - 1.0


def finished(c: Channels) -> torch.Tensor:
    """(N,): 1 in the step in which the task is done."""
    return c["done"]


def is_done(c: Channels) -> torch.Tensor:
    """(N,) bool: the task is done."""
    return c["done"] > 0.5


def _behind(c: Channels, which: torch.Tensor) -> torch.Tensor:
    """(N, 2) m: the place on the table from where an object can be pushed to the goal."""
    place = chosen(c["object_poses"][..., :2], which)
    away = place - c["pad_pos"][:, 0]
    return place + BEHIND * away / vector_norm(away, dim=1, keepdim=True).clamp_min(1e-6)


def _judged(progress: torch.Tensor, done: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Progress (N,) and success (N,) bool, the progress 1 just where it is done."""
    return torch.where(done, 1.0, progress.clamp_max(UNDONE)), done


def _way(c: Channels, which: torch.Tensor, distance: torch.Tensor, radius: float = GOAL_RADIUS) -> torch.Tensor:
    """(N,) in [0, 1]: the share of an object's way to within ``radius`` of the goal that is behind it."""
    whole = (chosen(c["start_distance"], which) - radius).clamp_min(0.02)
    return 1.0 - ((distance - radius) / whole).clamp(0.0, 1.0)
