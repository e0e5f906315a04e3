"""What can go wrong when a robot is asked for."""

from __future__ import annotations

from robolearn.errors import RobolearnError


class UnknownRobot(RobolearnError):
    """A robot, side or base that this platform does not have."""


class AssetNotAvailable(RobolearnError):
    """A robot model that is not shipped with the platform and was not found on this machine."""


class RobotModelError(RobolearnError):
    """A robot model that was found but does not have the parts a task needs."""
