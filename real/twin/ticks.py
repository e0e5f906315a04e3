"""Which ticks of a sender its stamps are of."""

from __future__ import annotations

import math

_EARLY = 0.03
"""Share of a period by which a stamp may be ahead of its tick as it was known."""
_LEARNT = 0.01
"""Share of it by which a stamp corrects the phase at once."""
_DRIFT = 2e-4
"""Share of a period by which the known phase follows later stamps, a tick: clocks drift."""
_FAST = 3.0
"""Periods that stamps may be ahead of the nominal rate before they are taken at their word."""
_FORGOTTEN = 0.01
"""Of these, a tick."""


class Ticks:
    """Counts the ticks between stamps of a sender with a fixed period.

    Stamps come at ticks or up to a period late, so that the earliest of them tell the ticks' phase: one that comes
    before the phase as it was known corrects it. A sender that is faster than its period is found out by corrections
    that add up to periods: then the time between stamps counts itself.

    Args:
        period_s: nominal time between ticks.
    """

    def __init__(self, period_s: float) -> None:
        self._period = 1e9 * period_s
        self._tick = 0.0
        self._ahead = 0.0
        self._stamp = 0
        self._doubt = False

    def since(self, stamp_ns: int, new: bool) -> float:
        """Periods since the stamp before, at most: a whole number from 1, or less than 1 of a sender too fast.

        Args:
            stamp_ns: ns, not before the last one.
            new: this is the first one of a stream; then the answer is 1.
        """
        apart, self._stamp = (stamp_ns - self._stamp) / self._period, stamp_ns
        if new:
            self._tick = self._ahead = 0.0
            self._doubt = False
            return 1
        # from here on in periods since the last stamp; _tick is where its tick was, 0 or less
        late = apart - self._tick
        ticks = math.floor(late + _EARLY)
        self._ahead = max(0.0, self._ahead - _FORGOTTEN * max(ticks, 1))
        if ticks < 1:
            self._ahead += 1 - late
            self._tick = 0.0
            return 1 if self._ahead <= _FAST else max(apart, _EARLY)
        behind = late - ticks
        # Just before a tick: late by nearly a period, unless the next one says that the phase is earlier.
        self._doubt = behind < -_LEARNT and not self._doubt
        self._tick = -(behind + 1) if self._doubt else min(0.0, _DRIFT * ticks - behind)
        return ticks
