"""A world of N parallel scenes: shards that each step one compiled model, read as channels and driven by commands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import torch

from sim.graphs import SideBySide
from sim.physics import STATE_FIELDS, Physics, PhysicsError
from sim.selection import Selection
from sim.varied import VariedField


@dataclass(frozen=True)
class Shard:
    """Worlds ``start`` to ``stop`` (exclusive), which share one compiled model.

    Attributes:
        physics: the engine that steps them.
        start, stop: their place among all worlds.
        label: what sets this shard apart, such as the name of its object.
    """

    physics: Physics
    start: int
    stop: int
    label: str

    @property
    def rows(self) -> slice:
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class Source:
    """Where a channel comes from in every shard's model.

    Attributes:
        field: the `mujoco.MjData` field, such as ``qpos`` or ``site_xpos``.
        kind: the kind of named element whose rows are taken: ``joint``, ``body``, ``site`` or ``sensor``.
        names: the elements, in channel order.
        shape: shape of the channel without the batch; None keeps the field's own.
        part: of joints and sensors, the entries from the first to the second (exclusive); None takes them all.
    """

    field: str
    kind: str
    names: tuple[str, ...]
    shape: tuple[int, ...] | None = None
    part: tuple[int, int] | None = None


_JOINT_WIDTHS = {
    "qpos": {mujoco.mjtJoint.mjJNT_FREE: 7, mujoco.mjtJoint.mjJNT_BALL: 4},
    "qvel": {mujoco.mjtJoint.mjJNT_FREE: 6, mujoco.mjtJoint.mjJNT_BALL: 3},
}


def _indices(model: mujoco.MjModel, source: Source) -> list[int]:
    """Rows (or flat entries, for joints and sensors) of ``source.field`` that hold the named elements."""
    out: list[int] = []
    for name in source.names:
        try:
            view = getattr(model, source.kind)(name)
        except KeyError as error:
            raise PhysicsError(f"model has no {source.kind} {name!r}: {error}") from error
        if source.kind == "joint":
            adr = int((view.qposadr if source.field == "qpos" else view.dofadr)[0])
            out += range(adr, adr + _JOINT_WIDTHS[source.field].get(mujoco.mjtJoint(int(view.type[0])), 1))
        elif source.kind == "sensor":
            out += range(int(view.adr[0]), int(view.adr[0]) + int(view.dim[0]))
        else:
            out.append(int(view.id))
    return out if source.part is None else out[slice(*source.part)]


class _Reader:
    """Copies one source of every shard into one (N, ...) float32 tensor."""

    def __init__(self, shards: Sequence[Shard], source: Source, num_worlds: int) -> None:
        self._parts: list[tuple[torch.Tensor, torch.Tensor]] = []
        picks = [_indices(shard.physics.model, source) for shard in shards]
        if len({len(p) for p in picks}) > 1:
            raise PhysicsError(f"shards disagree on the size of {source.kind} {source.names}")
        trailing = tuple(shards[0].physics.bind(source.field).shape[2:])
        single = source.kind in ("body", "site") and len(source.names) == 1
        self._field = source.field
        self._columns = _columns(picks) if source.field in STATE_FIELDS and not single else None
        size = () if single else (len(picks[0]),)
        self.value = torch.zeros(num_worlds, *size, *trailing, device=shards[0].physics.device)
        for shard, pick in zip(shards, picks, strict=True):
            live = shard.physics.bind(source.field)
            rows = self.value[shard.rows]
            if single:
                self._parts.append((rows, live[:, pick[0]]))
            else:
                self._parts += _runs(rows, live, pick)

    def refresh(self, keep: torch.Tensor | None) -> None:
        before = None if keep is None else self.value.clone()
        for rows, live in self._parts:
            rows.copy_(live)
        if before is not None and keep is not None:
            self.value.copy_(torch.where(keep.view(-1, *[1] * (before.ndim - 1)), before, self.value))

    def take(self, select: Selection, state: Mapping[str, torch.Tensor]) -> bool:
        """Show what the selected worlds' state was just set to; False where that does not tell it."""
        if self._columns is None or self._field not in state:
            return False
        select.write(self.value, state[self._field][:, self._columns])
        return True


def _columns(picks: Sequence[Sequence[int]]) -> slice | None:
    """The entries that all shards pick, if they are the same and consecutive."""
    first = picks[0]
    consecutive = list(first) == list(range(first[0], first[0] + len(first)))
    return slice(first[0], first[0] + len(first)) if consecutive and all(p == first for p in picks) else None


def _runs(rows: torch.Tensor, live: torch.Tensor, pick: list[int]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Pairs of views, one a run of consecutive indices: copying views follows the live field, gathering would not."""
    start = 0
    for i in range(1, len(pick) + 1):
        if i == len(pick) or pick[i] != pick[i - 1] + 1:
            yield rows[:, start:i], live[:, pick[start] : pick[i - 1] + 1]
            start = i


def _check_shards(shards: Sequence[Shard]) -> None:
    start = 0
    for shard in shards:
        if shard.start != start or shard.stop != start + shard.physics.nworld:
            raise PhysicsError(
                f"shard {shard.label!r} covers worlds {shard.start} to {shard.stop}, "
                f"its {shard.physics.nworld} worlds start at {start}"
            )
        start = shard.stop
    first = shards[0].physics.model
    for shard in shards[1:]:
        model = shard.physics.model
        for what, expected, given in (
            ("time step", first.opt.timestep, model.opt.timestep),
            ("number of actuators", first.nu, model.nu),
        ):
            if expected != given:
                raise PhysicsError(f"shards disagree: {what} of {shard.label!r} is {given}, of the first {expected}")


class World:
    """N scenes with one layout of channels, stepped shard by shard.

    Args:
        shards: contiguous, covering worlds 0 to N - 1, of one device.
        sources: channel name → where it is read.

    Attributes:
        device: where channels live.
        dense: selections of worlds are masks here, see `sim.selection`.
    """

    def __init__(self, shards: Sequence[Shard], sources: Mapping[str, Source]) -> None:
        if not shards:
            raise PhysicsError("a world needs at least one shard")
        _check_shards(shards)
        self.shards = tuple(shards)
        self.num_worlds = shards[-1].stop
        self.device = shards[0].physics.device
        self.dense = self.device.type != "cpu"
        self._bounds = [shard.start for shard in self.shards] + [self.num_worlds]
        self.timestep = float(shards[0].physics.model.opt.timestep)
        self._readers = {name: _Reader(self.shards, source, self.num_worlds) for name, source in sources.items()}
        self._values = {
            name: reader.value if (shape := sources[name].shape) is None else reader.value.view(self.num_worlds, *shape)
            for name, reader in self._readers.items()
        }
        # a task that reads state alone need not pay for kinematics at the new state
        self._refresh = any(source.field not in STATE_FIELDS for source in sources.values())
        self._side_by_side = SideBySide([shard.physics for shard in self.shards], self.device)
        self._ctrl = [shard.physics.bind("ctrl") for shard in self.shards]
        self._varied: dict[str, VariedField] = {}
        self._split: tuple[Selection | None, list[tuple[Shard, Selection, slice]]] = (None, [])
        self._shown = False  # whether channels are up to date with what was last written

    def read(self, keep: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Channels of every world, name → (N, ...) float32; the tensors are reused by the next call.

        Worlds of the mask ``keep`` (N,) show what they showed before.
        """
        for reader in self._readers.values():
            reader.refresh(keep)
        return dict(self._values)

    def read_written(self) -> dict[str, torch.Tensor]:
        """What `read` gives, right after `write`: quicker where channels follow from what was written."""
        return dict(self._values) if self._shown else self.read()

    def command(self, ctrl: torch.Tensor) -> None:
        """Set the actuators' controls, (N, nu), in the units of the model's actuators."""
        for shard, live in zip(self.shards, self._ctrl, strict=True):
            live.copy_(ctrl[shard.rows])

    def step(self, nstep: int) -> None:
        """Advance every world by ``nstep`` time steps."""
        self._side_by_side(lambda physics: physics.step(nstep, self._refresh))

    def split(self, select: Selection) -> Sequence[tuple[Shard, Selection, slice]]:
        """For each shard that has some of the selected worlds: it, its own selection, and its rows among the K."""
        if self._split[0] is not select:  # a reset asks several times
            parts = [(self.shards[i], local, rows) for i, local, rows in select.parts(self._bounds)]
            self._split = select, parts
        return self._split[1]

    def reset(self, select: Selection) -> None:
        """Return the selected worlds to their models' default state."""
        for shard, local, _ in self.split(select):
            shard.physics.reset(local)

    def write(self, select: Selection, state: Mapping[str, torch.Tensor]) -> None:
        """Write state fields of the selected worlds, such as ``qpos`` or ``ctrl`` → (K, ...) values."""
        for shard, local, rows in self.split(select):
            for name, values in state.items():
                local.write(shard.physics.bind(name), values[rows])
        self._shown = all(reader.take(select, state) for reader in self._readers.values())

    def forward(self, select: Selection) -> None:
        """After writing: bring what the channels derive from the selected worlds' state up to date."""
        if self._refresh:
            for shard, local, _ in self.split(select):
                shard.physics.forward(local)

    def vary(self, name: str) -> VariedField:
        """The `mujoco.MjModel` field ``name``, with one value for each world from now on.

        Raises:
            PhysicsError: the engine cannot vary it.
        """
        if name not in self._varied:
            self._varied[name] = VariedField(self.shards, name)
        return self._varied[name]

    def refresh(self, name: str, select: Selection) -> None:
        """Make the selected worlds' values of a varied field anew, after a change of what they are made of."""
        self._varied[name].refresh((i, local) for i, local, _ in select.parts(self._bounds))

    def write_model(self, world: int, model: mujoco.MjModel) -> None:
        """Write into a copy of its shard's model everything in which a world differs; for pictures and checks."""
        for varied in self._varied.values():
            varied.write_to(model, world)

    def unusable(self) -> torch.Tensor:
        """(N,) bool: worlds whose numbers cannot be trusted since their last reset."""
        return torch.cat([shard.physics.unusable() for shard in self.shards])

    def reasons(self, select: Selection) -> list[str]:
        """Why the selected worlds are unusable, a short text each."""
        out: list[str] = []
        for shard, local, _ in self.split(select):
            out += shard.physics.reasons(local.chosen().cpu().numpy())
        return out

    def check(self) -> None:
        """At the end of a rollout: raise `PhysicsError` where an engine had to leave out contacts or constraints."""
        for shard in self.shards:
            shard.physics.check()

    def state_dict(self) -> dict[str, Any]:
        """State of every shard, for a bit-exact continuation."""
        return {str(i): shard.physics.state_dict() for i, shard in enumerate(self.shards)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        if len(state) != len(self.shards):
            raise PhysicsError(f"saved world has {len(state)} shards, this one has {len(self.shards)}")
        for i, shard in enumerate(self.shards):
            shard.physics.load_state_dict(state[str(i)])
