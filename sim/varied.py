"""Model fields that differ between worlds: what the model says, changed by everyone who has a say in it.

The value of a field follows from the model and from the changes in force, never from its last value: changes do not
accumulate, and several may concern one field.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mujoco
import numpy as np
import torch

from sim.rotations import quat_from_rotvec, quat_multiply, quat_to_matrix
from sim.selection import Selection

if TYPE_CHECKING:
    from sim.world import Shard

OPERATIONS = ("set", "turn", "scale", "add")
"""In the order in which they take effect, whatever order they were registered in."""


@dataclass(frozen=True)
class Edit:
    """How one author changes a field.

    Attributes:
        operation: ``set`` to the value, ``turn`` vectors or quaternions by a rotation vector (rad, in the frame that
            they are given in), ``scale`` by the value, or ``add`` it.
        rows: for each shard, (R,) which rows of the field.
        values: (N, 1 or R, 1 or the columns' number) what is in force; read whenever the field is made anew.
        columns: first and last (exclusive) column of a field with vectors in its rows; None for all.
        power: ``scale`` by this power of the value.
    """

    operation: str
    rows: tuple[torch.Tensor, ...]
    values: torch.Tensor
    columns: tuple[int, int] | None = None
    power: int = 1

    def apply(self, part: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Change rows (K, R, C), given the values of their worlds."""
        if self.columns is None:
            return self._changed(part, values)
        part, columns = part.clone(), slice(*self.columns)
        part[..., columns] = self._changed(part[..., columns], values)
        return part

    def _changed(self, old: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        if self.operation == "scale":
            return old * values**self.power
        if self.operation == "add":
            return old + values
        if self.operation == "set":
            return values.expand_as(old)
        turn = quat_from_rotvec(values).expand(*old.shape[:-1], 4)
        if old.shape[-1] == 4:
            return quat_multiply(turn, old)
        return (quat_to_matrix(turn) @ old.unsqueeze(-1)).squeeze(-1)


class VariedField:
    """One model field of every shard, with one value for each world.

    Args:
        shards: of a world.
        name: the `mujoco.MjModel` field, or ``opt.<name>``.

    Raises:
        PhysicsError: the engine cannot vary it between worlds.
    """

    def __init__(self, shards: Sequence[Shard], name: str) -> None:
        self.name = name
        self._shards = tuple(shards)
        self._live = [_rows_and_columns(shard.physics.expand(name), name) for shard in shards]
        self._base = [
            _rows_and_columns(torch.tensor(model_value(shard.physics.model, name)[None]), name)[0]
            .double()
            .to(shard.physics.device)
            for shard in shards
        ]
        self._edits: list[Edit] = []

    def add(self, edit: Edit) -> None:
        """Register a change; `refresh` makes it felt."""
        self._edits.append(edit)
        self._edits.sort(key=lambda e: OPERATIONS.index(e.operation))

    def refresh(self, parts: Iterable[tuple[int, Selection]]) -> None:
        """Make the field of some worlds anew.

        Args:
            parts: number of a shard, and which of its worlds.
        """
        for s, local in parts:
            worlds = self._shards[s].rows
            new = self._base[s].expand(len(local), *self._base[s].shape).clone()
            for edit in self._edits:
                rows = edit.rows[s]
                changed = edit.apply(new.index_select(1, rows), edit.values[worlds].index_select(0, local.ids))
                new.index_copy_(1, rows, changed)
            local.write(self._live[s], new)

    def write_to(self, model: mujoco.MjModel, world: int) -> None:
        """Write what one world has into a copy of its shard's model."""
        shard = next(s for s in self._shards if s.start <= world < s.stop)
        own = shard.physics.expand(self.name)[world - shard.start].cpu().numpy()
        value = model_value(model, self.name)
        value[...] = own.reshape(value.shape)


def model_value(model: mujoco.MjModel, name: str) -> np.ndarray:
    """The field ``name`` of a model, or of its options where it is called ``opt.<name>``."""
    option = name.removeprefix("opt.")
    return np.asarray(getattr(model, name) if option == name else getattr(model.opt, option))


def _rows_and_columns(values: torch.Tensor, name: str) -> torch.Tensor:
    """A view (n, rows, columns): one row for options, one column for fields without vectors."""
    if name.startswith("opt."):
        return values.unsqueeze(1) if values.ndim == 2 else values.view(-1, 1, 1)
    return values.unsqueeze(2) if values.ndim == 2 else values
