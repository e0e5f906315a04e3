"""MuJoCo on the CPU: `mujoco.batch`, a native thread pool over the worlds of one model."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
import torch
from mujoco.batch import Batch, SimulationError

from sim.physics import PhysicsError, quiet_mujoco
from sim.selection import Selection

_KINEMATICS = int(mujoco.mjtStage.mjSTAGE_POS)
_NOTHING = int(mujoco.mjtStage.mjSTAGE_NONE)
_WATCHED = {
    int(mujoco.mjtWarning.mjWARN_BADQPOS): "non-finite or huge position",
    int(mujoco.mjtWarning.mjWARN_BADQVEL): "non-finite or huge velocity",
    int(mujoco.mjtWarning.mjWARN_BADQACC): "non-finite or huge acceleration",
    int(mujoco.mjtWarning.mjWARN_BADCTRL): "non-finite or huge control",
    int(mujoco.mjtWarning.mjWARN_CONTACTFULL): "contact buffer overflow",
    int(mujoco.mjtWarning.mjWARN_CNSTRFULL): "constraint buffer overflow",
}


class MujocoCpu:
    """`sim.physics.Physics` over `mujoco.batch`.

    Args:
        model: the compiled model; it is copied, and the copy has MuJoCo's silent auto-reset switched off, so that a
            world that diverges is seen by `health` instead of starting over unnoticed.
        nworld: number of worlds, at least 1.
        nthread: threads to step on; 0 means every core.
        max_speed: generalised speed (rad/s or m/s) above which a world counts as unstable.

    Raises:
        PhysicsError: for fewer than one world, or fewer than no threads.
    """

    def __init__(self, model: mujoco.MjModel, nworld: int, nthread: int = 0, max_speed: float = 500.0) -> None:
        if nworld < 1:
            raise PhysicsError(f"number of worlds must be at least 1, got {nworld}")
        if nthread < 0:
            raise PhysicsError(f"number of threads must be at least 0 (every core), got {nthread}")
        quiet_mujoco()
        model = copy.copy(model)
        model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
        self.model = model
        self.nworld, self.nthread = nworld, nthread
        self.device = torch.device("cpu")
        self.max_speed = max_speed
        self._batch = Batch(model, nworld, nthread)
        self._bound: dict[str, torch.Tensor] = {}
        self._expanded: dict[str, torch.Tensor] = {}
        self._failed: dict[int, str] = {}
        self._warning_counts = self._batch.warning[:, :, 1]  # (n, mjNWARNING), of [last info, count]
        self._qvel = self._batch.bind("qvel")
        self._none = torch.zeros(nworld, dtype=torch.bool)
        self._batch.reset(stage=_NOTHING)
        self._default = self._batch.state[0].copy()

    def bind(self, name: str) -> torch.Tensor:
        if name not in self._bound:
            try:
                self._bound[name] = _live(self._batch.bind(name))
            except ValueError as error:
                raise PhysicsError(f"cannot bind {name!r}: {error}") from error
        return self._bound[name]

    def expand(self, name: str) -> torch.Tensor:
        if name not in self._expanded:
            try:
                self._expanded[name] = _live(self._batch.expand(name))
            except ValueError as error:
                raise PhysicsError(f"cannot expand {name!r}: {error}") from error
        return self._expanded[name]

    def set_const(self, select: Selection | None = None) -> None:
        self._batch.set_const(None if select is None else select.chosen().numpy())

    def step(self, nstep: int, refresh: bool = True) -> None:
        try:
            self._batch.step(nstep=nstep, stage=_KINEMATICS if refresh else _NOTHING)
        except SimulationError as error:
            self._note_failures(error)

    def forward(self, select: Selection | None = None) -> None:
        try:
            self._batch.forward(None if select is None else select.chosen().numpy(), stage=_KINEMATICS)
        except SimulationError as error:
            self._note_failures(error)

    def reset(self, select: Selection | None = None) -> None:
        rows: Any = slice(None) if select is None else select.chosen().numpy()
        self._batch.state[rows] = self._default
        self._batch.warning[rows] = 0
        if self._failed:
            for i in range(self.nworld) if select is None else select.chosen().tolist():
                self._failed.pop(i, None)

    def unusable(self) -> torch.Tensor:
        # one sum bounds every speed; comparisons are written so that a NaN counts as too fast
        slow = np.einsum("ij,ij->", self._qvel, self._qvel) < self.max_speed**2
        if slow and not self._failed and not np.count_nonzero(self._warning_counts):
            return self._none
        bad = ~(self._speed() < self.max_speed) | self._warning_counts[:, list(_WATCHED)].any(axis=1)
        bad[list(self._failed)] = True
        return torch.from_numpy(bad)

    def reasons(self, ids: np.ndarray) -> tuple[str, ...]:
        speed = self._speed()
        return tuple(self._reason(int(i), float(speed[i])) for i in ids)

    def check(self) -> None:
        """Nothing to do: buffers grow on the CPU, and a world that outgrows its memory is unusable."""

    def materialize(self, world: int, model: mujoco.MjModel, data: mujoco.MjData) -> None:
        """Write one world into a copy of the model and data of it: its state, and the model fields of its own.

        Derived fields are left to the caller. May be called from several threads, each with a copy of its own.
        """
        if self._expanded:
            self._batch.get_model(world, model)
        self._batch.get_data(world, data)

    def state_dict(self) -> dict[str, Any]:
        return {
            "state": torch.from_numpy(self._batch.state.copy()),
            "warning": torch.from_numpy(np.array(self._batch.warning)),
            "expanded": {name: values.clone() for name, values in self._expanded.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if tuple(state["state"].shape) != self._batch.state.shape:
            raise PhysicsError(
                f"saved physics state has shape {tuple(state['state'].shape)}, "
                f"this model and number of worlds need {self._batch.state.shape}"
            )
        for name in state["expanded"]:
            self.expand(name)
        for name, live in self._expanded.items():  # what the saved engine had not expanded is the model's again
            live[...] = state["expanded"].get(name, torch.as_tensor(_model_field(self.model, name)))
        if self._expanded:
            self.set_const()
        for name, values in state["expanded"].items():  # set_const re-derives some of them
            self.expand(name)[...] = values
        self._batch.state[...] = state["state"].numpy()
        self.forward()
        self._batch.state[...] = state["state"].numpy()
        self._batch.warning[...] = state["warning"].numpy()
        self._failed.clear()

    def _note_failures(self, error: SimulationError) -> None:
        for i in error.ids:
            self._failed[int(i)] = self._batch.error(int(i))

    def _speed(self) -> np.ndarray:
        """(n,) largest generalised speed of each world; NaN where one is."""
        return np.abs(self._qvel).max(axis=1, initial=0.0)

    def _reason(self, i: int, speed: float) -> str:
        if i in self._failed:
            return self._failed[i]
        for column, text in _WATCHED.items():
            if self._warning_counts[i, column]:
                return text
        return f"speed {speed:.3g} above {self.max_speed:g}"


def _model_field(model: mujoco.MjModel, name: str) -> np.ndarray:
    option = name.removeprefix("opt.")
    return np.asarray(getattr(model, name) if option == name else getattr(model.opt, option))


def _live(array: np.ndarray) -> torch.Tensor:
    """A tensor over the array's memory; derived fields are read-only by convention."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable.*")
        return torch.from_numpy(array)
