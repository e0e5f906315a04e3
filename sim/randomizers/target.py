"""What a name such as ``object`` or ``hand`` means in a task's models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import mujoco
import numpy as np

from sim.randomizers.errors import RandomizeError


@dataclass(frozen=True)
class Target:
    """Elements of a model, by name; ``*`` and ``?`` stand for other characters, as in names of files.

    Attributes:
        bodies: their geoms are meant too, unless ``geoms`` are given.
        geoms, joints, actuators, cameras, lights: likewise; a joint stands for its degrees of freedom.
        but: names that are left out of all of them.
        free: ``bodies`` is one body on a free joint: it can be kicked.
        whole: ``bodies`` is one body with nothing attached to it: it can be scaled.
        without: kinds that a task does not offer for it, because they would make nonsense of it, such as ``color``.
    """

    bodies: tuple[str, ...] = ()
    geoms: tuple[str, ...] = ()
    joints: tuple[str, ...] = ()
    actuators: tuple[str, ...] = ()
    cameras: tuple[str, ...] = ()
    lights: tuple[str, ...] = ()
    but: tuple[str, ...] = ()
    free: bool = False
    whole: bool = False
    without: tuple[str, ...] = ()

    def offers(self, kind: str) -> bool:
        """Whether it has what a randomiser needs: a plural from above, ``body`` (a single one), ``free``, ``whole``."""
        if kind == "body":
            return len(self.bodies) == 1 and not set("*?[") & set(self.bodies[0])
        if kind == "geoms":
            return bool(self.geoms or self.bodies)
        return bool(getattr(self, kind))

    def has_body(self, name: str) -> bool:
        """Whether a body of that name belongs to it."""
        return _matches(name, self.bodies) and not _matches(name, self.but)

    def rows(self, model: mujoco.MjModel, field: str) -> np.ndarray:
        """Rows of a model field that belong to it; the prefix of the field's name says of what kind they are.

        Raises:
            RandomizeError: the model has no such element.
        """
        prefix = field.partition("_")[0]
        if prefix == "geom" and not self.geoms:
            return np.flatnonzero(np.isin(model.geom_bodyid, self.rows(model, "body_mass")))
        if prefix == "dof":
            return np.flatnonzero(np.isin(model.dof_jntid, self.rows(model, "jnt_type")))
        kind, count, named = _ELEMENTS[prefix]
        names = [named(model, i).name for i in range(getattr(model, count))]
        patterns = getattr(self, kind)
        found = [i for i, name in enumerate(names) if _matches(name, patterns) and not _matches(name, self.but)]
        if not found:
            wanted, there = ", ".join(patterns), ", ".join(filter(None, names)) or "none with a name"
            raise RandomizeError(f"no {kind} named {wanted} in the model; {kind}: {there}")
        return np.array(found)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


_Named = Callable[[mujoco.MjModel, int], Any]
_ELEMENTS: dict[str, tuple[str, str, _Named]] = {
    "body": ("bodies", "nbody", lambda model, i: model.body(i)),
    "geom": ("geoms", "ngeom", lambda model, i: model.geom(i)),
    "jnt": ("joints", "njnt", lambda model, i: model.joint(i)),
    "actuator": ("actuators", "nu", lambda model, i: model.actuator(i)),
    "cam": ("cameras", "ncam", lambda model, i: model.cam(i)),
    "light": ("lights", "nlight", lambda model, i: model.light(i)),
}
"""Prefix of a field → attribute of `Target`, the model's count, and how an element is found."""

COMMON = {
    "actuator": Target(actuators=("*",)),
    "camera": Target(cameras=("*",)),
    "light": Target(lights=("*",)),
}
"""Targets that mean the same in every task."""
