"""Robot models by name: `get_robot("allegro", side="left", base="fixed")`."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from robolearn.errors import unknown
from sim.robots import allegro
from sim.robots.errors import AssetNotAvailable, RobotModelError, UnknownRobot
from sim.robots.robot import Robot

__all__ = ["AssetNotAvailable", "Robot", "RobotModelError", "UnknownRobot", "get_robot", "list_robots"]

_MAKERS = {"allegro": allegro.make}
_SIDES = ("right", "left")
_BASES = ("floating", "fixed")


def list_robots() -> list[str]:
    """Names of all robots, including those whose model has to be installed first."""
    return sorted(_MAKERS)


@lru_cache(maxsize=None)
def get_robot(name: str, side: str = "right", base: str = "floating") -> Robot:
    """Return a robot by name.

    Raises:
        UnknownRobot: no robot, side or base of that name.
        AssetNotAvailable: the model is not shipped and was not found on this machine.
    """
    for kind, value, choices in (("robot", name, list(_MAKERS)), ("side", side, _SIDES), ("base", base, _BASES)):
        if value not in choices:
            raise UnknownRobot(unknown(kind, value, choices))
    return _MAKERS[name](side, base)
