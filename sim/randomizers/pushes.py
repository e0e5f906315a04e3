"""Pushes and kicks: what disturbs a body now and then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mujoco
import torch

from sim.randomizers.base import Randomizer, Timing
from sim.randomizers.draw import Draw
from sim.randomizers.errors import RandomizeError
from sim.randomizers.target import Target
from sim.selection import Selection
from sim.world import World


class Push(Randomizer):
    """Forces on a body's centre of mass, in the world's axes, at intervals.

    Critics see the force that acts, zero between pushes. It owns the body's force in ``xfrc_applied``.

    Args:
        draw: of the force, N; a form with three numbers.
        target: one body.
        duration_s: how long a push lasts, rounded to control steps, at least one.
    """

    def __init__(self, name: str, draw: Draw, timing: Timing, unit: str, target: Target, duration_s: float) -> None:
        super().__init__(name, draw, timing, unit)
        self.target, self.duration_s = target, duration_s
        self._lasting = torch.zeros(0, dtype=torch.float64)
        self._force = torch.zeros(0, 3, dtype=torch.float64)
        self._live: list[torch.Tensor] = []

    def _look_up(self, world: World) -> int:
        self._live = [
            shard.physics.bind("xfrc_applied")[:, _one_body(self, shard.physics.model), :3] for shard in world.shards
        ]
        self._lasting = torch.zeros(world.num_worlds, dtype=torch.float64, device=world.device)
        self._force = torch.zeros(world.num_worlds, 3, dtype=torch.float64, device=world.device)
        return 1

    def _make_factor(self, world: World) -> torch.Tensor:
        return self._force

    def _begin(self, world: World, select: Selection, generator: torch.Generator) -> None:
        select.fill(self._lasting, 0.0)
        select.fill(self._force, 0.0)  # the reset of physics clears what acts

    def _redraw(self, world: World, select: Selection, generator: torch.Generator) -> None:
        self._sample(select, generator)
        select.fill(self._lasting, self.duration_s)

    def _continue(self, world: World, dt: float) -> None:
        acts = (self._lasting > 0).unsqueeze(1)
        self._force.copy_(torch.where(acts, self.drawn[:, 0], 0.0))
        for shard, live in zip(world.shards, self._live, strict=True):
            live.copy_(self._force[shard.rows])
        self._lasting -= dt
        self._lasting.masked_fill_(self._lasting < 0.5 * dt, 0.0)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "lasting": self._lasting.clone(), "force": self._force.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self._lasting.copy_(state["lasting"])
        self._force.copy_(state["force"])


class Kick(Randomizer):
    """Sudden changes of the velocity of a free body, in the world's axes, at intervals; critics see their effect.

    Args:
        draw: of the velocity that is added, m/s; a form with three numbers.
        target: one body on a free joint.
    """

    def __init__(self, name: str, draw: Draw, timing: Timing, unit: str, target: Target) -> None:
        super().__init__(name, draw, timing, unit)
        self.target = target
        self._live: list[torch.Tensor] = []

    def _look_up(self, world: World) -> int:
        self._live = []
        for shard in world.shards:
            model = shard.physics.model
            joint = int(model.body_jntadr[_one_body(self, model)])
            if joint < 0 or model.jnt_type[joint] != mujoco.mjtJoint.mjJNT_FREE:
                raise RandomizeError(f"{self.name}: body {self.target.bodies[0]!r} has no free joint")
            dof = int(model.jnt_dofadr[joint])
            self._live.append(shard.physics.bind("qvel")[:, dof : dof + 3])
        return 1

    def _make_factor(self, world: World) -> torch.Tensor:
        return self.drawn.new_zeros(world.num_worlds, 0)

    def _begin(self, world: World, select: Selection, generator: torch.Generator) -> None:
        return None  # an episode begins without a kick

    def _redraw(self, world: World, select: Selection, generator: torch.Generator) -> None:
        added = torch.zeros_like(self.drawn[:, 0])
        select.write(added, self._sample(select, generator)[:, 0])
        for shard, live in zip(world.shards, self._live, strict=True):
            live += added[shard.rows]


def _one_body(randomizer: Push | Kick, model: mujoco.MjModel) -> int:
    try:
        return int(randomizer.target.rows(model, "body_mass")[0])
    except RandomizeError as error:
        raise RandomizeError(f"{randomizer.name}: {error}") from error
