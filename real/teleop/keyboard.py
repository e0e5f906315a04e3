"""The keyboard of a terminal, local or over SSH. No global key hooks: only what is typed into this terminal counts.

A terminal tells that a key was pressed or repeats, never that it was let go. So a key moves the tool only as long as
its repeats come, and a takeover ends by itself when no key comes at all. Taking over and giving back are two keys, not
one that toggles: whoever presses in doubt gets what the key says.
"""

from __future__ import annotations

import os
import select
import sys
import termios
from collections.abc import Iterator

from real.errors import RealError
from real.teleop.device import EPISODE, SAFETY, TeleopState

MOVES = {
    "w": (0, 1.0),
    "s": (0, -1.0),
    "a": (1, 1.0),
    "d": (1, -1.0),
    "q": (2, 1.0),
    "e": (2, -1.0),
    "u": (3, 1.0),
    "o": (3, -1.0),
    "i": (4, 1.0),
    "k": (4, -1.0),
    "j": (5, 1.0),
    "l": (5, -1.0),
    "up": (0, 1.0),
    "down": (0, -1.0),
    "left": (1, 1.0),
    "right": (1, -1.0),
}
"""Key -> axis of the twist and direction."""
REQUESTS = {
    "p": (SAFETY, "arm"),
    "h": (SAFETY, "hold"),
    "r": (SAFETY, "reset"),
    "!": (SAFETY, "clear"),
    "n": (EPISODE, "start"),
    "1": (EPISODE, "success"),
    "2": (EPISODE, "failure"),
    "3": (EPISODE, "abort"),
}
TAKE_OVER, ESTOP, HELP = " ", "x", "?"
_CLOSE, _OPEN = "c", "v"
_ARROWS = {"A": "up", "B": "down", "C": "right", "D": "left"}
_ESCAPE_S = 0.05
"""After an escape byte, the rest of an arrow key's bytes come within this time."""


class Keys:
    """Bytes of a terminal into keys; arrow keys are several bytes, which may come apart."""

    def __init__(self) -> None:
        self._pending = ""
        self._since = 0.0

    def feed(self, data: bytes, now: float) -> Iterator[str]:
        """Names of the keys that ``data`` completes, letters in lower case."""
        if self._pending and not data and now - self._since > _ESCAPE_S:
            self._pending = ""
            yield "escape"
        for char in data.decode("ascii", "replace"):
            if self._pending == "\x1b[" or self._pending == "\x1bO":
                self._pending = ""
                yield _ARROWS.get(char, "unknown")
            elif self._pending == "\x1b" and char in "[O":
                self._pending += char
            elif char == "\x1b":
                self._pending, self._since = char, now
            else:
                self._pending = ""
                yield char.lower()


class KeyboardLogic:
    """Keys with their times into a state; no terminal, no clock.

    Args:
        key_hold_s: a movement key counts for so long after it came.
        deadman_s: a takeover ends when no key came for so long.
    """

    def __init__(self, key_hold_s: float = 0.25, deadman_s: float = 1.0) -> None:
        self._hold = key_hold_s
        self._deadman_s = deadman_s
        self._held: dict[str, float] = {}
        self._last = -float("inf")
        self._driving = False
        self._requests: list[tuple[str, str]] = []
        self.help_wanted = False

    def key(self, key: str, now: float) -> None:
        """A key came. One that means nothing gives the robot back: somebody who types it is not driving."""
        self._expire(now)
        if key == TAKE_OVER:
            self._driving, self._last = True, now
        elif key in MOVES:
            self._press(key, MOVES[key][0], now)
        elif key in (_CLOSE, _OPEN):
            self._held.pop(_OPEN if key == _CLOSE else _CLOSE, None)
            self._held[key] = self._last = now
        elif key == HELP:
            self.help_wanted = True
        else:
            self.release()
            if key == ESTOP:
                self._held[ESTOP] = now
            elif key in REQUESTS:
                self._requests.append(REQUESTS[key])

    def release(self) -> None:
        """Give the robot back now."""
        self._driving = False
        self._held = {key: since for key, since in self._held.items() if key == ESTOP}

    def state(self, now: float) -> TeleopState:
        """What is asked for now."""
        self._expire(now)
        twist = [0.0] * 6
        for key in self._held:
            if key in MOVES and self._driving:
                axis, direction = MOVES[key]
                twist[axis] = direction
        return TeleopState(
            twist=tuple(twist),
            deadman=self._driving,
            close=self._driving and _CLOSE in self._held,
            open=self._driving and _OPEN in self._held,
            estop=ESTOP in self._held,
        )

    def requests(self) -> list[tuple[str, str]]:
        """Requests since the last call."""
        done, self._requests = self._requests, []
        return done

    def _press(self, key: str, axis: int, now: float) -> None:
        """On one axis only the newest key counts, so that turning back is immediate."""
        self._held = {other: t for other, t in self._held.items() if MOVES.get(other, (-1, 0))[0] != axis}
        self._held[key] = self._last = now

    def _expire(self, now: float) -> None:
        self._held = {key: since for key, since in self._held.items() if now - since < self._hold}
        if self._driving and now - self._last >= self._deadman_s:
            self._driving = False


class Keyboard:
    """This process's terminal as a `Device`.

    Args:
        key_hold_s, deadman_s: as of `KeyboardLogic`.
        fd: the terminal; by default standard input.

    Raises:
        RealError: it is no terminal.
    """

    help = (
        "SPACE takes over (hold it or repeat it; 1 s without any key gives back), ENTER gives back; "
        "wasd or arrows and qe move, uo ik jl turn, c/v close and open; x E-STOP, h hold, p arm the policy, "
        "r reset, ! clear a fault; episode: n start, 1 success, 2 failure, 3 abort; ? this help"
    )

    def __init__(self, key_hold_s: float = 0.25, deadman_s: float = 1.0, fd: int | None = None) -> None:
        self._fd = sys.stdin.fileno() if fd is None else fd
        if not os.isatty(self._fd):
            raise RealError("device keyboard needs a terminal on standard input; use device=gamepad or device=joy")
        self._logic = KeyboardLogic(key_hold_s, deadman_s)
        self._keys = Keys()
        self._patience = key_hold_s
        self._polled: float | None = None
        self._gone = False
        self._before = termios.tcgetattr(self._fd)
        mode = termios.tcgetattr(self._fd)
        mode[3] &= ~(termios.ICANON | termios.ECHO)
        # Ctrl-C still ends the program; Ctrl-Z would leave a robot with nobody at the keys.
        mode[6][termios.VSUSP] = b"\x00"
        mode[6][termios.VMIN], mode[6][termios.VTIME] = 0, 0
        termios.tcsetattr(self._fd, termios.TCSADRAIN, mode)

    def poll(self, now: float) -> TeleopState:
        """Read what was typed; a terminal that is gone lets everything go."""
        data = self._read()
        late = self._polled is not None and now - self._polled > self._patience
        self._polled = now
        if late:
            self._logic.release()
        for key in self._keys.feed(data, now):
            # What was typed while this process stood still is no wish of now, but for the e-stop.
            if not late or key == ESTOP:
                self._logic.key(key, now)
        if self._logic.help_wanted:
            self._logic.help_wanted = False
            print(f"\r\n{self.help}\r", file=sys.stderr, flush=True)
        return TeleopState(gone=True) if self._gone else self._logic.state(now)

    def requests(self) -> list[tuple[str, str]]:
        """As of `Device`."""
        return self._logic.requests()

    def close(self) -> None:
        """Give the terminal back as it was."""
        if not self._gone:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)

    def _read(self) -> bytes:
        try:
            ready = not self._gone and bool(select.select([self._fd], [], [], 0)[0])
            data = os.read(self._fd, 4096) if ready else b""
        except OSError:
            ready, data = True, b""
        if ready and not data:
            self._gone = True
        return data
