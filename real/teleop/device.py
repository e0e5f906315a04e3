"""What every device of a teleoperator gives: a state, and requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

SAFETY, EPISODE = "safety/request", "episode/request"


@dataclass(frozen=True)
class TeleopState:
    """What a person asks for at one moment.

    Attributes:
        twist: the tool's x, y, z and its turns about the world's x, y, z, each in [-1, 1] of the allowed speed.
        deadman: whether the person drives. Where it is false the twist is zero.
        close, open: the gripper.
        estop: pressed now.
        gone: the device is not there any more.
    """

    twist: tuple[float, ...] = (0.0,) * 6
    deadman: bool = False
    close: bool = False
    open: bool = False
    estop: bool = False
    gone: bool = False


class Device(Protocol):
    """A device that is asked at the node's rate and never waits."""

    help: str

    def poll(self, now: float) -> TeleopState:
        """What is asked for at ``now``, s on the monotonic clock."""

    def requests(self) -> list[tuple[str, str]]:
        """Topic and text of what was asked for since the last call, in order."""

    def close(self) -> None:
        """Give the device back as it was."""
