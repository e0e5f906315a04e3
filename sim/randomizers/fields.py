"""Draws that change fields of the model: masses, friction, gains, gravity, lights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import mujoco
import numpy as np
import torch

from sim.randomizers.base import Randomizer, Timing
from sim.randomizers.draw import Draw
from sim.randomizers.errors import RandomizeError
from sim.randomizers.target import Target
from sim.selection import Selection
from sim.varied import Edit, model_value
from sim.world import World


@dataclass(frozen=True)
class Change:
    """How a draw enters one model field; see `sim.varied.Edit`."""

    field: str
    operation: str = "scale"
    power: int = 1
    columns: tuple[int, int] | None = None


class FieldRandomizer(Randomizer):
    """A draw that changes model fields of a target.

    Args:
        changes: of the fields, all by the same numbers.
        target: which rows of them; None for options such as gravity, which have one.
        each: numbers of its own for every row, instead of one draw for all.
        derive: constants that follow from masses, sizes and places are derived again after a draw. That is costly on a
            GPU, where it is done for all worlds: there such a draw is made at the start only.
        privileged: critics see it.
    """

    def __init__(
        self,
        name: str,
        draw: Draw,
        timing: Timing,
        unit: str,
        changes: Sequence[Change],
        target: Target | None = None,
        each: bool = False,
        derive: bool = False,
        privileged: bool = True,
    ) -> None:
        super().__init__(name, draw, timing, unit)
        self.changes, self.target = tuple(changes), target
        self.each, self.derive, self.privileged = each, derive, privileged
        self._rows: list[tuple[np.ndarray, ...]] = []
        self._in_force = False

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(change.field for change in self.changes)

    def _look_up(self, world: World) -> int:
        if self.derive and self.at != "start" and world.dense:
            raise RandomizeError(
                f"{self.name} cannot be drawn at every {self.at} on a GPU, where the constants that follow from it "
                "would be derived again for all worlds; draw it at: start, or take world=cpu"
            )
        self._in_force = False
        self._rows = []
        for change in self.changes:
            rows = [self._rows_in(shard.physics.model, change) for shard in world.shards]
            self._rows.append(tuple(rows))
        self._check_effect(world)
        for field in self.fields:
            world.vary(field)
        items = {len(r) for r in self._rows[0]} if self.each else {1}
        if len(items) > 1:
            raise RandomizeError(f"{self.name}: each needs models with equally many rows, these have {sorted(items)}")
        return items.pop()

    def _make_factor(self, world: World) -> torch.Tensor:
        return self.drawn.flatten(1) if self.privileged else self.drawn.new_zeros(world.num_worlds, 0)

    def _redraw(self, world: World, select: Selection, generator: torch.Generator) -> None:
        self._sample(select, generator)
        if not self._in_force:
            for change, rows in zip(self.changes, self._rows, strict=True):
                edit = Edit(change.operation, rows, self.drawn, change.columns, change.power)
                world.vary(change.field).add(edit)
            self._in_force = True
        for field in self.fields:
            world.refresh(field, select)
        if self.derive:
            for shard, local, _ in world.split(select):
                shard.physics.set_const(local)

    def _check_effect(self, world: World) -> None:
        """Refuse to scale or turn what is zero in a model."""
        for s, shard in enumerate(world.shards):
            for change, rows in zip(self.changes, self._rows, strict=True):
                values = model_value(shard.physics.model, change.field)
                values = values.reshape(1 if self.target is None else len(values), -1)[rows[s]]
                columns = slice(None) if change.columns is None else slice(*change.columns)
                if change.operation not in ("scale", "turn") or values[:, columns].any():
                    break
            else:
                fields = " and ".join(self.fields)
                raise RandomizeError(
                    f"{self.name}: {fields} of these elements is zero in the model of {shard.label!r}, so that a "
                    "factor changes nothing; where it may, take operation: add"
                )

    def _rows_in(self, model: mujoco.MjModel, change: Change) -> np.ndarray:
        """Rows of a changed field, which can be changed there."""
        field = change.field
        try:
            rows = np.zeros(1, dtype=int) if self.target is None else self.target.rows(model, field)
        except RandomizeError as error:
            raise RandomizeError(f"{self.name}: {error}") from error
        if field == "body_ipos" and change.operation != "scale" and model.body_simple[rows].any():
            raise RandomizeError(
                f"{self.name}: the model was compiled for a centre of mass that stays in the origin of its body; "
                "pass the specification through sim.randomize.loosen before it is compiled"
            )
        mode = {"cam_pos": "cam_mode", "cam_quat": "cam_mode", "light_dir": "light_mode"}.get(field)
        if mode and (getattr(model, mode)[rows] != int(mujoco.mjtCamLight.mjCAMLIGHT_FIXED)).any():
            raise RandomizeError(f"{self.name}: of cameras and lights, only those in mode 'fixed' can be moved")
        return rows


def with_operation(changes: Sequence[Change], operation: str) -> tuple[Change, ...]:
    """The same changes by another operation."""
    return tuple(replace(change, operation=operation) for change in changes)
