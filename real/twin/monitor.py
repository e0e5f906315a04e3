"""Holds every command that arrives against the robot's limits, and counts what is beyond them.

Velocities and accelerations are differences of what was commanded. Arrival times jitter by more than a period, which
would make noise of accelerations, so that the command's own timing is used: of a trajectory of several points their
times; of a stream of single points the nominal period, times the ticks of the sender that lie between two commands. A
sender stamps what it sends at a tick, on time or late by less than a period, and leaves out ticks for which it is too
late; a stamp's tick is therefore told by the stamps that came on time (`Ticks`), and a late command before a lost one
is not mistaken for a fast one. Where there are no stamps, arrivals have to do.

Copies of a command, stamp and all, are not judged again. Where commands of a stream are missing, velocities are held
against the limits over the gap, accelerations are not: they are counted as unjudged. The first command of a stream may
be off from where the joints are held by `ALIGNED`, which is what a sender who only measures them can know, or by a
period's travel; the two accelerations that it enters are unjudged.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from real.twin.commands import Command
from real.twin.ticks import Ticks

ALIGNED = 0.01
"""rad or m."""
KINDS = ("position", "velocity", "acceleration")
JUMP_S = 10.0
"""Stamps further apart than that, or going back, of commands that come one after the other: a clock has jumped."""
_ROUNDING = 1e-6
_PUNCTUAL = 0.1
"""Share of a period that a command without a stamp may arrive late and count as sent right after the one before."""


@dataclass(frozen=True, eq=False)
class Bounds:
    """(J,) limits of the joints of one controller, rad or m and seconds."""

    lower: np.ndarray
    upper: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray


@dataclass
class Monitor:
    """What one controller was told.

    Attributes:
        bounds: the limits.
        period_s: nominal time between commands.
        lull_s: silence that ends a stream.
        violations: kind → commands that were beyond a limit of it.
        worst: kind → the largest share of a limit that was commanded; of positions, the furthest beyond one, m or rad.
        commands: how many were judged; unjudged: those of them whose acceleration was not.
    """

    bounds: Bounds
    period_s: float
    lull_s: float = 0.25
    violations: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    worst: dict[str, float] = field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    commands: int = 0
    unjudged: int = 0
    _last: np.ndarray | None = None
    _speed: np.ndarray | None = None
    _stamp: int = 0
    _arrived: float = 0.0
    _ticks: Ticks = field(init=False)

    def __post_init__(self) -> None:
        self._ticks = Ticks(self.period_s)

    def restart(self) -> None:
        """The stream has ended: the next command begins another one."""
        self._last = self._speed = None
        self._stamp = 0

    def judge(self, command: Command, position: np.ndarray, velocity: np.ndarray, arrived: float) -> bool:
        """Whether a command is within every limit.

        Args:
            command: with finite numbers.
            position, velocity: (J,) the set point when it arrives.
            arrived: s of the monotonic clock.
        """
        self.commands += 1
        if self._last is not None and command.stamp_ns and command.stamp_ns == self._stamp:
            if len(command.times) == 1 and np.array_equal(command.positions[-1], self._last):
                return True
        apart = self._apart(command, arrived)
        if apart > JUMP_S and arrived - self._arrived <= self.lull_s and self._stamp and self._last is not None:
            return self._pass(command, arrived)
        if apart > self.lull_s:
            self.restart()
        periods = self._periods(command, arrived)
        beyond = np.maximum(self.bounds.lower - command.positions, command.positions - self.bounds.upper)
        found = [self._over("position", float(beyond.max()), 1e-9)]
        speed, acceleration = self._differences(command, position, velocity, periods)
        found.append(self._over("velocity", float((np.abs(speed) / self.bounds.velocity).max()), 1.0 + _ROUNDING))
        if acceleration is None:
            self.unjudged += 1
        else:
            share = float((np.abs(acceleration) / self.bounds.acceleration).max())
            found.append(self._over("acceleration", share, 1.0 + _ROUNDING))
        self._last, self._stamp, self._arrived = command.positions[-1], command.stamp_ns, arrived
        return not any(found)

    def _pass(self, command: Command, arrived: float) -> bool:
        """Take a command whose distance from the last one nobody knows, as the sender's clock has jumped."""
        self.unjudged += 1
        self._ticks.since(command.stamp_ns, new=True)
        self._last, self._stamp, self._arrived, self._speed = command.positions[-1], command.stamp_ns, arrived, None
        return True

    def _over(self, kind: str, value: float, limit: float) -> bool:
        self.worst[kind] = max(self.worst[kind], value)
        over = value > limit
        self.violations[kind] += over
        return over

    def _differences(
        self, command: Command, position: np.ndarray, velocity: np.ndarray, periods: float
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Velocities (K, J), and accelerations (K, J) where the time between commands allows to tell them."""
        if len(command.times) > 1:
            start, before, spans = position, velocity, np.diff(command.times, prepend=0.0)
            spans[0] = max(spans[0], self.period_s)
            gap = False
        elif self._last is None:
            return self._first(command, position)
        else:
            gap = periods > 1 or self._speed is None
            start, spans = self._last, np.array([periods * self.period_s])
            before = np.zeros_like(start) if self._speed is None else self._speed
        speed = np.diff(command.positions, axis=0, prepend=start[None]) / spans[:, None]
        self._speed = None if gap and spans[0] > 1.5 * self.period_s else speed[-1]
        if gap:
            return speed, None
        return speed, np.diff(speed, axis=0, prepend=before[None]) / spans[:, None]

    def _first(self, command: Command, position: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        change = command.positions - position
        if (np.abs(change) <= np.maximum(ALIGNED, self.bounds.velocity * self.period_s)).all():
            self._speed = None
            return np.zeros_like(change), None
        self._speed = change[-1] / self.period_s
        return change / self.period_s, change / self.period_s**2

    def _apart(self, command: Command, arrived: float) -> float:
        """s since the last command; endless where a clock went back."""
        if not (command.stamp_ns and self._stamp):
            return arrived - self._arrived
        apart = 1e-9 * (command.stamp_ns - self._stamp)
        return apart if apart >= 0 else math.inf

    def _periods(self, command: Command, arrived: float) -> float:
        """Periods of the sender since the last command, at most."""
        if command.stamp_ns:
            return self._ticks.since(command.stamp_ns, new=self._last is None or not self._stamp)
        return max(1, math.ceil((arrived - self._arrived) / self.period_s - _PUNCTUAL))
