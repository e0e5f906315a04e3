"""Commands as they come, checked as a driver checks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from real.errors import RealError
from real.twin.settings import TRAJECTORY, Controller

LARGEST = 1e6
"""rad, m, rad/s or m/s: beyond it a number is a mistake, whatever the robot."""


class Rejected(RealError):
    """A command that the driver does not take; the text is the reason's short name, by which it is counted."""


@dataclass(frozen=True, eq=False)
class Command:
    """Where the J joints of one controller shall be, and when.

    Attributes:
        positions: (K, J) rad or m, in the controller's order of joints.
        velocities: (K, J), or None where none were given.
        times: (K,) s since the command takes effect, rising.
        stamp_ns: of its header; 0 where there is none.
    """

    positions: np.ndarray
    velocities: np.ndarray | None
    times: np.ndarray
    stamp_ns: int = 0


def read(controller: Controller, message: Any) -> Command:
    """A message of the controller's type as a `Command`.

    Raises:
        Rejected: 'names' (other joints than the controller's), 'empty', 'size', 'not finite', 'range' (beyond
            `LARGEST`), or 'times' (negative or not rising).
    """
    if controller.type == TRAJECTORY:
        return _trajectory(controller.joints, message)
    data = np.array(message.data, dtype=np.float64)
    if not data.size:
        raise Rejected("empty")
    if data.shape != (len(controller.joints),):
        raise Rejected("size")
    return _checked(Command(data[None], None, np.zeros(1)))


def _trajectory(joints: Sequence[str], message: Any) -> Command:
    names = list(message.joint_names)
    if sorted(names) != sorted(joints):
        raise Rejected("names")
    if not len(message.points):
        raise Rejected("empty")
    order = [names.index(joint) for joint in joints]
    positions = [np.array(point.positions, dtype=np.float64) for point in message.points]
    velocities = [np.array(point.velocities, dtype=np.float64) for point in message.points]
    if any(len(row) != len(joints) for row in positions) or any(len(row) not in (0, len(joints)) for row in velocities):
        raise Rejected("size")
    times = [point.time_from_start.sec + 1e-9 * point.time_from_start.nanosec for point in message.points]
    moving = all(len(row) for row in velocities)
    stamp = message.header.stamp
    return _checked(
        Command(
            np.stack(positions)[:, order],
            np.stack(velocities)[:, order] if moving else None,
            np.array(times),
            stamp.sec * 1_000_000_000 + stamp.nanosec,
        )
    )


def _checked(command: Command) -> Command:
    for values in (command.positions, command.velocities):
        if values is not None and not np.isfinite(values).all():
            raise Rejected("not finite")
        if values is not None and np.abs(values).max() > LARGEST:
            raise Rejected("range")
    if command.times[0] < 0 or (np.diff(command.times) <= 0).any():
        raise Rejected("times")
    return command
