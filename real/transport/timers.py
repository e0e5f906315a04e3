"""Timers of one thread on a monotonic clock."""

from __future__ import annotations

import math
from collections.abc import Callable

from real.errors import TransportError


class Tick:
    """When a periodic callback is due, and how late it was.

    Attributes:
        due: next tick, s of the monotonic clock.
        missed: ticks left out because a callback or the machine was late.
        worst_lateness_s: the latest that a tick was, s.
    """

    def __init__(self, period_s: float, callback: Callable[[], None], now: float) -> None:
        if not (math.isfinite(period_s) and period_s > 0):
            raise TransportError(f"a timer's period is {period_s} s; it must be positive and finite")
        self.period_s = period_s
        self.callback = callback
        self.due = now + period_s
        self.missed = 0
        self.worst_lateness_s = 0.0
        self.cancelled = False

    def cancel(self) -> None:
        """Call no more."""
        self.cancelled = True

    def run(self, now: float) -> None:
        """Call back once; ticks that are over by then are left out, and the rest keep their phase."""
        lateness = now - self.due
        self.worst_lateness_s = max(self.worst_lateness_s, lateness)
        over = int(lateness // self.period_s)
        self.missed += over
        self.due += (over + 1) * self.period_s
        self.callback()


class TimerQueue:
    """The timers of one node; a handful, so that a list is the fastest."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._timers: list[Tick] = []

    def add(self, period_s: float, callback: Callable[[], None]) -> Tick:
        """A timer that first ticks after one period. Raises TransportError for an impossible period."""
        timer = Tick(period_s, callback, self._clock())
        self._timers.append(timer)
        return timer

    def wait_s(self, longest: float) -> float:
        """Seconds until the next tick, ``longest`` at most, 0 where one is due."""
        due = min((t.due for t in self._timers if not t.cancelled), default=math.inf)
        return max(0.0, min(longest, due - self._clock()))

    def run(self) -> bool:
        """Run what is due, the earliest first, each once; tell whether anything was."""
        now = self._clock()
        ready = sorted((t for t in self._timers if not t.cancelled and t.due <= now), key=lambda t: t.due)
        for timer in ready:
            if not timer.cancelled:
                timer.run(self._clock())
        if any(t.cancelled for t in self._timers):
            self._timers = [t for t in self._timers if not t.cancelled]
        return bool(ready)

    def clear(self) -> None:
        """Cancel all."""
        for timer in self._timers:
            timer.cancel()
        self._timers = []
