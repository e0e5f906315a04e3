"""Robot models by name: `get_robot("allegro", side="left", base="fixed")`."""

from __future__ import annotations

import os
from functools import cache

from robolearn.errors import unknown
from sim.robots import allegro, g1, panda, shadow
from sim.robots.errors import AssetNotAvailable, RobotModelError, UnknownRobot
from sim.robots.robot import Robot

__all__ = [
    "AssetNotAvailable",
    "Robot",
    "RobotModelError",
    "UnknownRobot",
    "get_hand",
    "get_robot",
    "list_arms",
    "list_hands",
    "list_robots",
]

_SHIPPED = {"allegro": allegro.make}
_ASSETS = {"shadow": shadow.make}
_WHOLE = {"g1": g1.make}
_ARMS = {"panda": panda.make}
_SIDES = ("right", "left")
_BASES = ("floating", "fixed")


def list_robots() -> list[str]:
    """Names of all robots, including those whose model has to be installed first."""
    return sorted([*list_hands(), *list_arms(), *_WHOLE])


def list_arms() -> list[str]:
    """Names of the robots that are an arm with a gripper."""
    return sorted(_ARMS)


def list_hands() -> list[str]:
    """Names of the robots that are a single hand."""
    return sorted([*_SHIPPED, *_ASSETS])


def get_hand(name: str, side: str = "right", base: str = "floating") -> Robot:
    """`get_robot` for a task or a tool that needs a hand.

    Raises:
        UnknownRobot: also for a robot that is no hand.
    """
    if name not in list_hands():
        raise UnknownRobot(unknown("hand", name, list_hands()))
    return get_robot(name, side, base)


@cache
def get_robot(
    name: str, side: str = "right", base: str | None = None, path: str | os.PathLike[str] | None = None
) -> Robot:
    """Return a robot by name; the same arguments give the same object.

    Args:
        name: one of `list_robots`.
        side: "right" or "left", of a hand.
        base: "floating" (six wrist joints place a hand's palm, a free joint a whole robot's pelvis) or "fixed" (palm
            or pelvis frame is the world frame); None: floating, but fixed for an arm, which has no other.
        path: folder of the model, for a robot that is not shipped with the platform.

    Raises:
        UnknownRobot: no robot, side or base of that name.
        AssetNotAvailable: the model is not shipped and was not found on this machine.
    """
    if base is None:
        base = "fixed" if name in _ARMS else "floating"
    for kind, value, choices in (
        ("robot", name, list_robots()),
        ("side", side, _SIDES),
        ("base", base, ("fixed",) if name in _ARMS else _BASES),
    ):
        if value not in choices:
            raise UnknownRobot(unknown(kind, value, choices))
    if name in _ASSETS:
        return _ASSETS[name](side, base, path)
    if path is not None:
        raise UnknownRobot(f"robot {name!r} is shipped with the platform and takes no path")
    if name in _SHIPPED:
        return _SHIPPED[name](side, base)
    if side != "right":
        raise UnknownRobot(f"robot {name!r} is {'an arm' if name in _ARMS else 'a whole robot'} and takes no side")
    return _ARMS[name]() if name in _ARMS else _WHOLE[name](base)
