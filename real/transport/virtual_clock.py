"""Time that passes only when a simulation says so."""

from __future__ import annotations

import math

from real.errors import TransportError

EPOCH_NS = 1_800_000_000_000_000_000
START_NS = 1_000_000_000_000


def nanoseconds(seconds: float, what: str = "a duration") -> int:
    """Whole nanoseconds of a duration in s. Raises TransportError where it is no finite number >= 0."""
    if not math.isfinite(seconds) or seconds < 0:
        raise TransportError(f"{what} is a finite number of seconds >= 0, not {seconds!r}")
    return round(seconds * 1e9)


class VirtualClock:
    """A `Clock` in integer nanoseconds, so that periodic events never drift.

    Attributes:
        ns: nanoseconds of the monotonic time. It starts at 1000 s, as on a machine that has been up for a while:
            code that takes 0.0 for "never" is then simulated as it runs.
    """

    def __init__(self) -> None:
        self.ns = START_NS
        self._wall_ns = EPOCH_NS

    def monotonic(self) -> float:
        """Seconds since some moment; only `advance` moves it."""
        return self.ns * 1e-9

    def now(self) -> int:
        """Nanoseconds since 1970; `advance` and `jump` move it."""
        return self.wall(self.ns)

    def wall(self, ns: int) -> int:
        """What `now` is at the monotonic time ``ns``, both in nanoseconds."""
        return self._wall_ns + ns - START_NS

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward (or back where negative) by ``seconds``; the monotonic time stays."""
        if not math.isfinite(seconds):
            raise TransportError(f"a clock jumps by a finite number of seconds, not {seconds!r}")
        self._wall_ns += round(seconds * 1e9)

    def advance(self, to_ns: int) -> None:
        """Let time pass until the monotonic time is ``to_ns``; never backwards."""
        self.ns = max(self.ns, to_ns)
