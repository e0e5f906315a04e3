"""Scripted arms: an expert for each arm task, and every way to fail that a critic must not be fooled by.

Modes:

- ``expert``: carries the instruction out.
- ``miss``: goes beside the object, and does everything else with nothing in the gripper or before it.
- ``drop``: lets the object fall on the way.
- ``stall``: stops at some time, for good.
- ``hover``: stays near the object, or holds it above the goal, and never finishes.
- ``run_on``: carries the instruction out, and then undoes it.
- ``wrong_goal``: brings the object to the dark pad.
- ``wrong_object``: brings the other object to the goal.
- ``random``: moves at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, proxy

import torch

from robolearn.errors import RobolearnError, unknown
from sim.experts.arm_plans import PLANS, Scene
from sim.terms.table import chosen

if TYPE_CHECKING:
    from sim.env import Env

MODES = {
    "arm_reach": ("expert", "stall", "hover", "random", "wrong_object"),
    "arm_push": ("expert", "miss", "stall", "hover", "run_on", "wrong_goal", "random", "wrong_object"),
    "arm_pick_place": (
        *("expert", "miss", "drop", "stall", "hover", "run_on"),
        *("wrong_goal", "random", "wrong_object"),
    ),
}
"""Task → its modes."""

_STALL = {"arm_reach": (1.0, 3.0), "arm_push": (2.0, 14.0), "arm_pick_place": (2.0, 26.0)}
"""Control steps, from and to, after which a stalling arm stops."""
_INERTIA = 0.7
"""Share of a random motion that is kept from step to step."""


class ExpertError(RobolearnError):
    """A task without a script, or an unknown mode."""


class ScriptedArm:
    """Acts in every world of an arm task, in a mode of its own.

    Args:
        env: the worlds.
        modes: one for each world, or one for all.
        seed: of what a mode leaves open.
        noise: in half of the episodes actions are disturbed, by white noise of a standard deviation between 0 and
            this, in units of action: the clumsy ways of a policy that learns.

    Raises:
        ExpertError: a task without a script, or an unknown mode.
    """

    def __init__(self, env: Env, modes: Sequence[str] | str = "expert", seed: int = 0, noise: float = 0.0) -> None:
        name = env.task.name
        if name not in MODES:
            raise ExpertError(unknown("task with a script", name, MODES))
        self.modes = [modes] * env.num_envs if isinstance(modes, str) else list(modes)
        for mode in self.modes:
            if mode not in MODES[name]:
                raise ExpertError(unknown(f"mode of {name}", mode, MODES[name]))
        if len(self.modes) != env.num_envs:
            raise ExpertError(f"{env.num_envs} worlds need as many modes, got {len(self.modes)}")
        self._env, self._device = env, env.device
        self._generator = torch.Generator(self._device).manual_seed(seed)
        self._plan, self._noise = PLANS[name], noise
        self._is = {m: torch.tensor([mode == m for mode in self.modes], device=self._device) for m in MODES[name]}
        self._is |= {m: torch.zeros(env.num_envs, dtype=torch.bool, device=self._device) for m in _absent(name)}
        n = env.num_envs
        self._phase = torch.zeros(n, dtype=torch.long, device=self._device)
        self._clock = torch.zeros(n, device=self._device)
        self._luck = torch.zeros(n, 8, device=self._device)
        self._last = torch.zeros(n, env.num_actions, device=self._device)
        self._marked = torch.zeros(n, dtype=torch.bool, device=self._device)

    def act(self) -> torch.Tensor:
        """Actions (N, A) for the state as it is; a world whose episode has just begun starts afresh."""
        self._begin(self._env.episode_steps == 0)
        scene = self._scene()
        target, grip, forward = self._plan(scene)
        self._marked = self._marked | scene.marked
        action = self._towards(target, grip)
        action = torch.where(self._is["random"].unsqueeze(1), self._wander(), action)
        if self._noise:
            action = self._disturbed(action)
        first, last = _STALL[self._env.task.name]
        stalled = self._is["stall"] & (self._env.episode_steps >= first + (last - first) * self._luck[:, 0])
        hold = self._last.clone()
        hold[:, : len(self._axes())] = 0.0  # the gripper stays as it was told
        action = torch.where(stalled.unsqueeze(1), hold, action)
        self._phase = torch.where(forward, self._phase + 1, self._phase)
        self._clock = torch.where(forward, 0.0, self._clock + 1.0)
        self._last = action
        return action

    def _begin(self, fresh: torch.Tensor) -> None:
        """Forget the last episode in the worlds ``fresh`` (N,) bool, and draw what a mode leaves open."""
        self._phase = self._phase.masked_fill(fresh, 0)  # not in place: it may have been made in inference mode
        self._clock = self._clock.masked_fill(fresh, 0.0)
        self._marked = self._marked.masked_fill(fresh, False)
        luck = torch.rand(self._luck.shape, generator=self._generator, device=self._device)
        self._luck = torch.where(fresh.unsqueeze(1), luck, self._luck)
        self._last = self._last.masked_fill(fresh.unsqueeze(1), 0.0)

    def _scene(self) -> Scene:
        c = self._env.channels
        which = torch.where(self._is["wrong_object"].unsqueeze(1), 1.0 - c["named"], c["named"])
        pads = c["pad_pos"]
        goal = torch.where(self._is["wrong_goal"].unsqueeze(1), pads[:, 1], pads[:, 0])
        return Scene(
            tool=c["tool_pos"],
            thing=chosen(c["object_poses"][..., :3], which),
            other=chosen(c["object_poses"][..., :3], 1.0 - which),
            goal=goal,
            phase=self._phase,
            clock=self._clock,
            luck=self._luck,
            mode=self._is,
            marked=self._marked.clone(),
        )

    def _axes(self) -> tuple[str, ...]:
        return tuple(self._env.task.action.axes)  # type: ignore[attr-defined]

    def _towards(self, target: torch.Tensor, grip: torch.Tensor) -> torch.Tensor:
        """Actions that move the tool's target to ``target`` (N, 3) and the gripper to ``grip`` (N,)."""
        action: Any = self._env.task.action
        offset = (target - action.target(self._env.channels)) / action.scale
        columns = [offset[:, "xyz".index(axis)].clamp(-1.0, 1.0) for axis in self._axes()]
        return torch.stack([*columns, *([grip] if action.gripper else [])], dim=1)

    def _disturbed(self, action: torch.Tensor) -> torch.Tensor:
        """Actions (N, A), those of the axes disturbed."""
        moves = action[:, : len(self._axes())]
        noise = torch.randn(moves.shape, generator=self._generator, device=self._device)
        spread = self._noise * (2.0 * self._luck[:, 7:] - 1.0).clamp_min(0.0)
        return torch.cat([(moves + spread * noise).clamp(-1.0, 1.0), action[:, moves.shape[1] :]], dim=1)

    def _wander(self) -> torch.Tensor:
        """A random motion that has some inertia; the gripper opens and closes now and then."""
        noise = torch.randn(self._last.shape, generator=self._generator, device=self._device)
        return (_INERTIA * self._last + 0.6 * noise).clamp(-1.0, 1.0)


_experts: WeakKeyDictionary[Env, ScriptedArm] = WeakKeyDictionary()


def scripted(env: Env) -> torch.Tensor:
    """A baseline: the expert's actions (N, A) in an evaluation environment."""
    expert = _experts.get(env)
    if expert is None:
        expert = _experts[env] = ScriptedArm(proxy(env))  # which would keep the environment alive otherwise
    return expert.act()


def _absent(task: str) -> list[str]:
    """Modes that other tasks have."""
    return sorted({mode for modes in MODES.values() for mode in modes} - set(MODES[task]))
