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
        rows: for each shard, (I,) ids of the rows that are changed.
        values: (N, 1 or I, 1 or the columns' number) what is in force; read whenever the field is made anew.
        columns: first and last (exclusive) column of a field with vectors in its rows; None for all.
        power: ``scale`` by this power of the value.
    """

    operation: str
    rows: tuple[np.ndarray, ...]
    values: torch.Tensor
    columns: tuple[int, int] | None = None
    power: int = 1

    def changed(self, old: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        """Rows (K, R, columns), changed by the values (K, 1 or R, ...) of their worlds."""
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


@dataclass(frozen=True)
class _Place:
    """Where an edit applies in one shard, in a form that a GPU can use without the host looking at it.

    Attributes:
        mask: (R, 1) bool, the rows that are changed.
        items: (R,) which of an edit's items each row takes; any for rows that are not changed.
    """

    mask: torch.Tensor
    items: torch.Tensor

    @classmethod
    def of(cls, rows: np.ndarray, count: int, device: torch.device) -> _Place:
        mask, items = np.zeros((count, 1), dtype=bool), np.zeros(count, dtype=np.int64)
        mask[rows] = True
        items[rows] = np.arange(len(rows))
        return cls(torch.from_numpy(mask).to(device), torch.from_numpy(items).to(device))


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
        self._edits: list[tuple[Edit, list[_Place]]] = []

    def add(self, edit: Edit) -> None:
        """Register a change; `refresh` makes it felt."""
        bases = zip(edit.rows, self._base, strict=True)
        self._edits.append((edit, [_Place.of(rows, len(base), base.device) for rows, base in bases]))
        self._edits.sort(key=lambda entry: OPERATIONS.index(entry[0].operation))

    def refresh(self, parts: Iterable[tuple[int, Selection]]) -> None:
        """Make the field of some worlds anew.

        Args:
            parts: number of a shard, and which of its worlds.
        """
        for s, local in parts:
            worlds = self._shards[s].rows
            new = self._base[s].expand(len(local), *self._base[s].shape).clone()
            for edit, places in self._edits:
                values = edit.values[worlds].index_select(0, local.ids)
                if values.shape[1] > 1:
                    values = values.index_select(1, places[s].items)
                part = new if edit.columns is None else new[..., slice(*edit.columns)]
                part.copy_(torch.where(places[s].mask, edit.changed(part, values), part))
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
