"""One controller of the driver: follows what it is told, and stops when nobody tells it anything."""

from __future__ import annotations

import numpy as np

from real.twin.commands import Command

HOLDING, FOLLOWING, STOPPING = "holding", "following", "stopping"
_EXACT_S = 1e-9
_LONGEST_STEP_S = 0.02
"""s that count between two calls: of a machine that stood still for longer, the rest times nothing out."""


class Follower:
    """Set points of J joints over time.

    A command replaces the one before it, from the set point of that moment on: straight lines between points, or cubic
    ones where velocities are given. A single point of a command without times is the set point at once.

    Args:
        position: (J,) where the joints are held at first.
        lower, upper: (J,) between which it slows down.
        stop_acceleration: rad/s^2 or m/s^2 at which it does.
        timeout_s: without a command for so long it slows down and holds; 0 is never.
        from_end: whether that time counts from a trajectory's end, else from the command's arrival.

    Attributes:
        position, velocity: (J,) the set point.
        time: s of the clock at which it is that.
        mode: holding, following or stopping.
        timeouts: how often commands stayed away while one was followed.
    """

    def __init__(
        self,
        position: np.ndarray,
        lower: np.ndarray,
        upper: np.ndarray,
        stop_acceleration: float,
        timeout_s: float,
        from_end: bool,
    ) -> None:
        self._lower, self._upper = lower, upper
        self._stop_acceleration, self._timeout, self._from_end = stop_acceleration, timeout_s, from_end
        self.timeouts = 0
        self.time = -np.inf
        self.hold_at(position)

    def hold_at(self, position: np.ndarray) -> None:
        """Forget the command, and hold the joints at ``position`` (J,)."""
        self.position = np.array(position, dtype=np.float64)
        self.velocity = np.zeros_like(self.position)
        self.mode = HOLDING
        self._fed = False

    def follow(self, command: Command, now: float) -> None:
        """Take a command that takes effect at ``now`` s, up to which the set point has been advanced."""
        self._start, self._until = now, now + command.times[-1] if self._from_end else now
        self._times = np.concatenate([[0.0], command.times])
        self._points = np.concatenate([self.position[None], command.positions])
        self._slopes = None
        if command.velocities is not None:
            self._slopes = np.concatenate([self.velocity[None], command.velocities])
        self.mode, self._fed = FOLLOWING, True

    def target(self, within_s: float) -> np.ndarray:
        """(J,) where a command leads that takes at most ``within_s``; else the set point."""
        if self.mode == FOLLOWING and self._times[-1] <= within_s:
            return np.asarray(self._points[-1])
        return self.position

    def stop(self) -> None:
        """Slow down and hold."""
        self._fed = False
        if self.mode == FOLLOWING:
            self.mode = STOPPING

    def advance(self, now: float) -> np.ndarray:
        """The set point (J,) at ``now`` s; of a moment that is over, the one that it is."""
        passed = max(0.0, now - self.time) if self.time > -np.inf else 0.0
        dt = min(passed, _LONGEST_STEP_S)
        if self._fed:
            self._until += passed - dt
        self.time = max(now, self.time)
        if self._fed and self._timeout and self.time > self._until + self._timeout:
            self.timeouts += 1
            self.stop()
        if self.mode == FOLLOWING:
            self._interpolate(self.time - self._start)
        elif self.mode == STOPPING:
            self._slow_down(dt)
        return self.position

    def _interpolate(self, t: float) -> None:
        end = self._times[-1]
        if t > end + _EXACT_S or end == 0.0:
            self.position, self.velocity = self._points[-1].copy(), np.zeros_like(self.position)
            return
        i = min(int(np.searchsorted(self._times, t, side="right")), len(self._times) - 1)
        t = min(t, end)  # at its very end a command still moves: the next one goes on from there
        span = self._times[i] - self._times[i - 1]
        before, after = self._points[i - 1], self._points[i]
        s = (t - self._times[i - 1]) / span
        mean = (after - before) / span
        if self._slopes is None:
            self.position, self.velocity = before + s * (after - before), mean
            return
        out, into = self._slopes[i - 1], self._slopes[i]
        # cubic Hermite polynomial in s, and its derivative
        bend = s * (1.0 - s) * span
        self.position = before + s * s * (3.0 - 2.0 * s) * (after - before) + bend * ((1.0 - s) * out - s * into)
        self.velocity = 6.0 * s * (1.0 - s) * mean + (1.0 - s) * (1.0 - 3.0 * s) * out + s * (3.0 * s - 2.0) * into

    def _slow_down(self, dt: float) -> None:
        slower = np.maximum(np.abs(self.velocity) - self._stop_acceleration * dt, 0.0)
        self.velocity = np.copysign(slower, self.velocity)
        self.position = np.clip(self.position + dt * self.velocity, self._lower, self._upper)
        if not slower.any():
            self.mode = HOLDING
