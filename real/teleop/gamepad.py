"""Gamepads: Linux's joystick interface (/dev/input/js0), and sensor_msgs/Joy as another node publishes it.

The right shoulder button is the deadman, a true one: let go, it is reported at once. Sticks: left moves the tool in
the plane, right up and down and turns it; with the left shoulder button held the left stick rolls and pitches.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Sequence

from real.errors import RealError
from real.teleop.device import SAFETY, TeleopState

EVENT = struct.Struct("=IhBB")
"""js_event of linux/joystick.h: time ms, value, type, number."""
_BUTTON, _AXIS, _FIRST = 0x01, 0x02, 0x80
A, B, X, Y, LB, RB, BACK, START = range(8)
"""Buttons in the order of Linux's xpad driver."""
LEFT_X, LEFT_Y, _, RIGHT_X, RIGHT_Y = range(5)
_REQUESTS = {START: (SAFETY, "arm"), BACK: (SAFETY, "hold"), X: (SAFETY, "reset")}
_DEADZONE = 0.1
_REOPEN_S = 1.0
HELP = "hold RB to drive; left stick moves, right stick up/down and turn, LB tilts; A close, Y open, B E-STOP"
HELP += ", START arm policy, BACK hold, X reset"


class Pad:
    """Buttons and axes (left and up positive, [-1, 1]) into a state; requests count when a button goes down."""

    def __init__(self) -> None:
        self._down: set[int] = set()
        self._requests: list[tuple[str, str]] = []

    def state(self, axes: Sequence[float], buttons: Sequence[int]) -> TeleopState:
        """What is asked for; axes and buttons that the device does not have count as at rest."""
        down = {number for number, value in enumerate(buttons) if value}
        self._requests += [_REQUESTS[number] for number in sorted(down - self._down) if number in _REQUESTS]
        self._down = down
        x, y = _axis(axes, LEFT_Y), _axis(axes, LEFT_X)
        z, yaw = _axis(axes, RIGHT_Y), _axis(axes, RIGHT_X)
        twist = (0.0, 0.0, z, -y, x, yaw) if LB in down else (x, y, z, 0.0, 0.0, yaw)
        driving = RB in down and B not in down
        return TeleopState(
            twist=twist if driving else (0.0,) * 6,
            deadman=driving,
            close=driving and A in down,
            open=driving and Y in down,
            estop=B in down,
        )

    def requests(self) -> list[tuple[str, str]]:
        """Requests since the last call."""
        done, self._requests = self._requests, []
        return done


class Gamepad:
    """A joystick device of Linux as a `Device`; unplugged, it lets everything go and is looked for again.

    Raises:
        RealError: there is none at ``path``, or it may not be read.
    """

    help = HELP

    def __init__(self, path: str = "/dev/input/js0") -> None:
        self._path = path
        self._pad = Pad()
        self._fd = -1
        self._tried = -float("inf")
        self._rest()
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError as error:
            raise RealError(f"no gamepad at {path} ({error.strerror}); plug one in, or use device=keyboard") from error

    def poll(self, now: float) -> TeleopState:
        """Read what happened since the last call."""
        if self._fd < 0 and not self._reopen(now):
            return TeleopState(gone=True)
        try:
            data = os.read(self._fd, 64 * EVENT.size)
        except BlockingIOError:
            data = None
        except OSError:
            data = b""
        if data == b"":
            self.close()
            self._rest()
            self._tried = now
            return self._pad_state(gone=True)
        for i in range(0, len(data or b"") - EVENT.size + 1, EVENT.size):
            self._event(*EVENT.unpack_from(data or b"", i))
        return self._pad_state()

    def requests(self) -> list[tuple[str, str]]:
        """As of `Device`."""
        return self._pad.requests()

    def close(self) -> None:
        """Close the device."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _pad_state(self, gone: bool = False) -> TeleopState:
        state = self._pad.state(self._axes, self._buttons)
        return TeleopState(gone=True) if gone else state

    def _event(self, _time_ms: int, value: int, kind: int, number: int) -> None:
        if kind & ~_FIRST == _BUTTON and number < len(self._buttons):
            self._buttons[number] = value
        elif kind & ~_FIRST == _AXIS and number < len(self._axes):
            self._axes[number] = -value / 32767.0  # Linux counts right and down as positive

    def _rest(self) -> None:
        self._axes, self._buttons = [0.0] * 8, [0] * 16

    def _reopen(self, now: float) -> bool:
        if now - self._tried < _REOPEN_S:
            return False
        self._tried = now
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return False
        return True


class JoyTopic:
    """Joy messages of another node as a `Device`; without a message for ``max_age_s`` everything is let go.

    Such a node must repeat what it last saw (``autorepeat_rate`` of ROS 2's joy node), 10 times a second at least.

    Attributes:
        refused: messages with an axis that is no finite number; they let go.
    """

    help = HELP

    def __init__(self, max_age_s: float = 0.25) -> None:
        self._max_age = max_age_s
        self._pad = Pad()
        self._state = TeleopState(gone=True)
        self._seen = -float("inf")
        self.refused = 0

    def feed(self, axes: Sequence[float], buttons: Sequence[int], now: float) -> None:
        """A message came."""
        if not all(math.isfinite(value) for value in axes):
            self.refused += 1
            self._state = TeleopState(gone=True)
            return
        self._seen = now
        self._state = self._pad.state([float(value) for value in axes], [int(value) for value in buttons])

    def poll(self, now: float) -> TeleopState:
        """As of `Device`."""
        return self._state if now - self._seen < self._max_age else TeleopState(gone=True)

    def requests(self) -> list[tuple[str, str]]:
        """As of `Device`."""
        return self._pad.requests()

    def close(self) -> None:
        """Nothing to give back."""


def _axis(axes: Sequence[float], number: int) -> float:
    """One axis without its deadzone, in [-1, 1]."""
    value = axes[number] if number < len(axes) else 0.0
    beyond = (min(abs(value), 1.0) - _DEADZONE) / (1 - _DEADZONE)
    return math.copysign(beyond, value) if beyond > 0 else 0.0
