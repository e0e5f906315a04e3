"""The front of every physics engine: one compiled model, many worlds, live tensors.

An engine steps ``nworld`` copies of one `mujoco.MjModel`. Fields carry MuJoCo's own names on every engine, so that an
observation or a randomiser is written once. Worlds that differ in their compiled model (objects of other kinds, other
robots) are other engines side by side: the shards of a `sim.world.World`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import mujoco
import numpy as np
import torch

from robolearn.errors import RobolearnError
from sim.selection import Selection


class PhysicsError(RobolearnError):
    """A model that does not compile, an unknown field, or an impossible number of worlds."""


STATE_FIELDS = frozenset({"time", "qpos", "qvel", "act", "ctrl", "mocap_pos", "mocap_quat", "xfrc_applied"})
"""Fields that are the simulation's state and inputs; every other field is derived from them."""


def quiet_mujoco() -> None:
    """Keep MuJoCo from printing, and from leaving MUJOCO_LOG.TXT in the working folder, for the rest of this process.

    What it warns of, it also counts, and `Physics.health` reports that; its errors are exceptions.
    """
    config = mujoco.MjLogConfig.get()
    if config.logto_console or config.logto_file:
        config.logto_console = config.logto_file = False
        config.set()


class Physics(Protocol):
    """What an engine offers (shapes: ``n`` is ``nworld``).

    Attributes:
        model: the compiled model, on the host.
        nworld: number of worlds.
        device: where its tensors live.

    Selections are of this engine's worlds, 0 to n - 1. ``bind`` and ``expand`` give tensors that stay valid and follow
    the simulation. Writes to state fields (``qpos``, ``qvel``, ``ctrl``, ``xfrc_applied`` ...) take effect at the next
    call. Derived ones (``xpos``, ``sensordata`` ...) are read-only and describe the state after the last ``step`` or
    ``forward``.
    """

    model: mujoco.MjModel
    nworld: int
    device: torch.device

    def bind(self, name: str) -> torch.Tensor:
        """Live (n, ...) tensor of an `mujoco.MjData` field."""

    def expand(self, name: str) -> torch.Tensor:
        """Live (n, ...) tensor that gives an `mujoco.MjModel` field one value per world."""

    def set_const(self, select: Selection | None = None) -> None:
        """Re-derive the constants that follow from expanded masses, inertias or sizes."""

    def step(self, nstep: int, refresh: bool = True) -> None:
        """Advance every world by ``nstep`` time steps; with ``refresh`` bring kinematics and sensors up to date.

        Without it, derived fields describe the state before the last time step; about a fifth of the time is saved.
        """

    def forward(self, select: Selection | None = None) -> None:
        """Bring kinematics and position sensors of the selected worlds up to date after writes to their state."""

    def reset(self, select: Selection | None = None) -> None:
        """Return the selected worlds to the model's default state, velocities, controls and warm starts included."""

    def unusable(self) -> torch.Tensor:
        """(n,) bool: worlds whose numbers cannot be trusted since their last reset; the host does not wait for it."""

    def reasons(self, ids: np.ndarray) -> tuple[str, ...]:
        """Why the worlds ``ids`` (K,) are unusable, a short text each."""

    def check(self) -> None:
        """At the end of a rollout: see whether the engine had to leave out contacts or constraints.

        Raises:
            PhysicsError: it had to, with the setting to raise.
        """

    def state_dict(self) -> dict[str, Any]:
        """Everything that a bit-exact continuation needs: state rows and expanded model fields."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
