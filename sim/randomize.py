"""Domain randomisation: named draws of per-world model fields, one implementation for every engine.

A randomiser draws one factor per world and multiplies the `mujoco.MjModel` fields that it declares by a power of it,
relative to the previous factor: draws never accumulate, and several randomisers may touch one field.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np
import torch

from robolearn.errors import RobolearnError
from sim.selection import Selection
from sim.world import World

Elements = Callable[[mujoco.MjModel, str], np.ndarray]


class RandomizeError(RobolearnError):
    """An impossible range."""


@dataclass
class ScaleFields:
    """Multiply model fields by a factor drawn uniformly per world.

    Attributes:
        bounds: smallest and largest factor.
        powers: field → exponent of the factor (mass grows with the cube of a size).
        elements: ``(model, field) -> ids``, the rows of that field which are scaled.
        column: scale only this column of two-dimensional fields, or all when None.
        at_reset: draw at every reset; otherwise once, when the environment is made.
        derive: constants that follow from masses and sizes are derived again after a draw.
        factor: (N,) the factors in force; a privileged observation.
    """

    bounds: tuple[float, float]
    powers: Mapping[str, int]
    elements: Elements
    column: int | None = None
    at_reset: bool = False
    derive: bool = False
    factor: torch.Tensor = field(init=False, default_factory=lambda: torch.zeros(0))

    def __post_init__(self) -> None:
        low, high = self.bounds
        if not 0 < low <= high < math.inf:
            raise RandomizeError(f"a range of factors must satisfy 0 < low <= high < inf, got ({low}, {high})")

    @property
    def fields(self) -> tuple[str, ...]:
        """The model fields it writes."""
        return tuple(self.powers)

    def apply(self, world: World, select: Selection, generator: torch.Generator) -> None:
        """Draw new factors for the selected worlds."""
        if not len(self.factor):
            self.factor = torch.ones(world.num_worlds, dtype=torch.float64)
        ids = select.ids
        low, high = self.bounds
        drawn = low + (high - low) * torch.rand(len(ids), generator=generator, dtype=torch.float64)
        ratio = drawn / self.factor[ids]
        self.factor[ids] = drawn
        for shard, local, chosen in world.split(select):
            rows = local.ids.unsqueeze(1)
            for name, power in self.powers.items():
                live = shard.physics.expand(name)
                columns = torch.from_numpy(self.elements(shard.physics.model, name))
                index = (rows, columns) if self.column is None else (rows, columns, self.column)
                values = live[index]
                scale = (ratio[chosen] ** power).reshape(-1, *[1] * (values.ndim - 1))
                live[index] = (values * scale).to(live.dtype)
            if self.derive:
                shard.physics.set_const(local)

    def state_dict(self) -> dict[str, Any]:
        """The factors in force."""
        return {"factor": self.factor.clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned; the scaled fields themselves belong to the world's state."""
        self.factor = state["factor"].clone()


def _body_and_geoms(body: str) -> Elements:
    """Rows of a body, its geoms, or its joints' degrees of freedom, by the prefix of the field's name."""

    def rows(model: mujoco.MjModel, name: str) -> np.ndarray:
        number = model.body(body).id
        if name.startswith("geom_"):
            return np.flatnonzero(model.geom_bodyid == number)
        return np.array([number])

    return rows


def _all_actuators(model: mujoco.MjModel, name: str) -> np.ndarray:
    return np.arange(model.nu)


def object_mass(bounds: tuple[float, float], body: str = "object", at_reset: bool = False) -> ScaleFields:
    """Mass and inertia of one body; the shape stays."""
    powers = {"body_mass": 1, "body_inertia": 1}
    return ScaleFields(bounds, powers, _body_and_geoms(body), at_reset=at_reset, derive=True)


def object_friction(bounds: tuple[float, float], body: str = "object", at_reset: bool = False) -> ScaleFields:
    """Sliding friction of one body's geoms, which decides contacts where they have the higher priority."""
    return ScaleFields(bounds, {"geom_friction": 1}, _body_and_geoms(body), column=0, at_reset=at_reset)


def object_size(bounds: tuple[float, float], body: str = "object", at_reset: bool = False) -> ScaleFields:
    """Uniform size of one body at constant density: geometry ∝ s, mass ∝ s³, inertia ∝ s⁵."""
    powers = {
        "geom_size": 1,
        "geom_pos": 1,
        "geom_rbound": 1,
        "geom_aabb": 1,
        "body_ipos": 1,
        "body_mass": 3,
        "body_inertia": 5,
    }
    return ScaleFields(bounds, powers, _body_and_geoms(body), at_reset=at_reset, derive=True)


def actuator_gains(bounds: tuple[float, float], at_reset: bool = False) -> ScaleFields:
    """Stiffness and damping of every position actuator, in proportion."""
    powers = {"actuator_gainprm": 1, "actuator_biasprm": 1}
    return ScaleFields(bounds, powers, _all_actuators, at_reset=at_reset)


def base_mass(bounds: tuple[float, float], body: str = "torso_link", at_reset: bool = False) -> ScaleFields:
    """Mass and inertia of the body that carries a whole robot's load."""
    return object_mass(bounds, body, at_reset)


def foot_friction(bounds: tuple[float, float], at_reset: bool = False) -> ScaleFields:
    """Sliding friction of the soles, which decides their contacts."""
    return ScaleFields(bounds, {"geom_friction": 1}, _soles, column=0, at_reset=at_reset)


def _soles(model: mujoco.MjModel, name: str) -> np.ndarray:
    return np.array([g for g in range(model.ngeom) if "_sole_" in model.geom(g).name])


RANDOMIZERS: dict[str, Callable[..., ScaleFields]] = {
    "object_mass": object_mass,
    "object_friction": object_friction,
    "object_size": object_size,
    "actuator_gains": actuator_gains,
    "base_mass": base_mass,
    "foot_friction": foot_friction,
}
"""Randomisers by name, as a configuration names them."""
